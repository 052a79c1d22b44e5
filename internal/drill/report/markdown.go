package report

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes the report for a pull request or a wiki.
func Markdown(w io.Writer, r Report) error {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# %s: %s at %s", r.Title(), cell(r.Run.Scenario), r.Run.Site)
	p("")
	p("Run `%s`, started %s, %s. %s. Log entry %d.", r.Run.ID, r.Run.StartedAt, r.mostlyMet(), approvedBy(r), r.Log.Last)
	if r.Run.Reason != "" {
		p("")
		p("Reason: %s", cell(r.Run.Reason))
	}
	p("")
	p("| service | result | RTA | phases |")
	p("|---|---|---|---|")
	for _, s := range r.Services {
		head, word := rtaAgainst(s)
		p("| %s | %s | %s | %s |", s.Service, s.Result, strings.TrimSpace(word+" "+head), strings.ReplaceAll(phaseLine(s), " | ", ", "))
	}
	p("")
	p("| service | objective | actual | verdict |")
	p("|---|---|---|---|")
	for _, s := range r.Services {
		for _, o := range s.Verdicts {
			p("| %s | %s | %s | %s |", s.Service, o.Name, objectiveText(o), cell(strings.TrimSuffix(o.Verdict+": "+o.Why, ": ")))
		}
	}
	p("")
	for _, s := range r.Services {
		p("- %s: %s", s.Service, strings.Join(accountParts(s.Account), " "))
	}
	p("")
	p("## Findings")
	p("")
	for _, f := range r.Findings {
		line := fmt.Sprintf("- **%s** %s %s", f.Severity, f.Code, cell(f.What))
		if f.Change != nil {
			line += fmt.Sprintf(": `%s: %s` (%s), `livefire finding apply %s`", f.Change.Resource, changeText(f.Change), predictedText(f), f.ID)
		}
		p("%s", line)
	}
	if len(r.Findings) == 0 {
		p("None.")
	}
	for _, d := range r.Run.Deviations {
		p("")
		p("Deviation: %s", cell(d))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cell keeps what others wrote from becoming markup or another cell.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "\n", " ", "`", "'").Replace(s)
}
