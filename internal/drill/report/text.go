package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/livefire-mesh/livefire/internal/drill/measure"
)

// TextOptions say what the terminal can show. The zero value is plain ASCII without colour.
type TextOptions struct {
	Colour  bool
	Unicode bool
}

// columns is the width of every text.
const columns = 100

// Colours of the terminal: the verdict only, and always beside a word.
const (
	green  = "32"
	red    = "31"
	yellow = "33"
	dim    = "2"
)

type textWriter struct {
	opts TextOptions
	b    strings.Builder
}

// Text writes the report for a terminal: at most 100 columns, what `livefire drill report` prints.
func Text(w io.Writer, r Report, opts TextOptions) error {
	t := &textWriter{opts: opts}
	t.head(r)
	for _, s := range r.Services {
		t.service(s)
	}
	t.safety(r)
	t.findings(r)
	t.line("Files: -o html|json|junit|markdown         Verify: livefire evidence verify BUNDLE --key FILE")
	_, err := io.WriteString(w, t.symbols(t.b.String()))
	return err
}

// symbols replaces what an ASCII terminal cannot show.
func (t *textWriter) symbols(s string) string {
	if t.opts.Unicode {
		return s
	}
	return strings.NewReplacer("≤", "<=", "≥", ">=", "±", "+-", "→", "->", "√", "ok", "×", "x", "‼", "!").Replace(s)
}

func (t *textWriter) line(format string, args ...any) {
	fmt.Fprintf(&t.b, strings.TrimRight(format, " ")+"\n", args...)
}

func (t *textWriter) colour(code, s string) string {
	if !t.opts.Colour {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// wrap writes parts one after the other, on as many lines as they need; the first line begins with first, the
// others are indented as deep.
func (t *textWriter) wrap(first string, parts []string) {
	indent := strings.Repeat(" ", len([]rune(first)))
	line, used := first, false
	for _, p := range parts {
		if used && len([]rune(line))+1+len([]rune(p)) > columns {
			t.line("%s", strings.TrimRight(line, " "))
			line, used, p = indent, false, strings.TrimLeft(p, " ")
		}
		if used {
			line += " "
		}
		line, used = line+p, true
	}
	t.line("%s", strings.TrimRight(line, " "))
}

func verdictColour(v string) string {
	switch v {
	case measure.Passed, measure.Pass:
		return green
	case measure.Inconclusive:
		return yellow
	}
	return red
}

// Title is the verdict as a heading says it.
func (r Report) Title() string { return strings.ToUpper(r.Run.Verdict) }

// mostlyMet is "5 of 5 objectives met".
func (r Report) mostlyMet() string {
	met, judged := r.passed()
	if judged == 0 {
		return "no objective was judged"
	}
	return fmt.Sprintf("%d of %s met", met, plural(judged, "objective"))
}

// signedBy is "signed dev2, ops2, sec2".
func (r Report) signedBy() string {
	var by []string
	for _, a := range r.Approvals {
		if a.Decision == "approve" {
			by = append(by, a.By)
		}
	}
	if len(by) == 0 {
		return "not approved"
	}
	return "signed " + strings.Join(by, ", ")
}

func (t *textWriter) head(r Report) {
	left := r.Title() + "  " + r.mostlyMet()
	right := fmt.Sprintf("%s   log entry %d", r.signedBy(), r.Log.Last)
	gap := max(2, columns-len(left)-len(right))
	t.line("%s%s%s", t.colour(verdictColour(r.Run.Verdict), r.Title())+"  "+r.mostlyMet(), strings.Repeat(" ", gap), right)
	t.wrap("", strings.Fields(fmt.Sprintf("run %s: scenario %s at %s, %s", r.Run.ID, r.Run.Scenario, r.Run.Site, r.Run.StartedAt)))
	if r.Run.Reason != "" {
		t.wrap("reason: ", strings.Fields(r.Run.Reason))
	}
	for _, d := range r.Run.Deviations {
		t.wrap("deviation: ", strings.Fields(d))
	}
}

const labelWidth = 16 // "  recovery time "

func label(name string) string { return fmt.Sprintf("  %-*s", labelWidth-2, name) }

func (t *textWriter) service(s Service) {
	t.line("%s (reflex: %v)   %s", s.Service, s.Reflex.Allowed, t.colour(resultColour(s.Result), s.Result))
	t.recovery(s)
	for _, o := range s.Verdicts {
		switch o.Name {
		case "rto":
		case "success":
			t.objective(s, o, label("success"), successScope(s))
		case "latency":
			t.objective(s, o, label("latency p99"), "")
		case "rpo":
			t.objective(s, o, label("recovery point"), "")
		case "error-budget":
			t.objective(s, o, label("error budget"), "of the window consumed")
		}
	}
	t.account(s)
	for _, n := range s.Notes {
		t.wrap(label("note"), strings.Fields(n))
	}
}

func resultColour(result string) string {
	switch result {
	case measure.Absorbed, measure.Recovered:
		return green
	case measure.NotMeasured:
		return yellow
	}
	return red
}

func (t *textWriter) recovery(s Service) {
	head, word := rtaAgainst(s)
	t.wrap(label("recovery time")+fmt.Sprintf("%-29s", head)+" ", nonEmpty(append([]string{word}, recoveryParts(s)...)))
}

// rtaAgainst is "RTA 2.31 s ± 0.02 s ≤ RTO 5 s", and a word where the sign says too little.
func rtaAgainst(s Service) (text, word string) {
	text = "RTA " + rtaText(s)
	if s.RTA != nil {
		text += " ± " + upTo(s.Epsilon)
	}
	o, ok := s.objective("rto")
	if !ok {
		return text, ""
	}
	if o.Verdict == measure.Fail {
		word = "missed:"
	} else if o.Verdict != measure.Pass {
		word = o.Verdict + ":"
	}
	bound, _ := spanOf(o.Objective)
	switch {
	case o.Verdict == measure.Pass:
		text += " ≤ RTO " + limit(bound)
	case o.Verdict == measure.Fail && s.Result == measure.Recovered:
		text += " > RTO " + limit(bound)
	default:
		text += ", RTO " + limit(bound)
	}
	return text, word
}

// recoveryParts explain an RTA: its phases, the reflex, or why there is none.
func recoveryParts(s Service) []string {
	var out []string
	switch {
	case s.Result == measure.NotMeasured:
		return strings.Fields(s.Why)
	case s.Result == measure.NotRecovered:
		out = append(out, "still bad at the end of the hold;")
	case s.Result == measure.Absorbed:
		out = append(out, "no bad window;")
	case s.BeforeSwitchSeconds != nil:
		return append(out, fmt.Sprintf("users recovered by reflex at %s,", offset(*s.RTA)), span(*s.BeforeSwitchSeconds)+" before the switch")
	}
	if len(s.Phases) > 0 {
		for i, v := range shown(s.Phases, *s.RTA) {
			out = append(out, s.Phases[i].Name+" "+v)
		}
		if s.LateAckSeconds != nil {
			out = append(out, "last acknowledgement "+span(*s.LateAckSeconds)+" later")
		}
		return out
	}
	if s.SwitchSeconds != nil {
		out = append(out, "switch at "+offset(*s.SwitchSeconds))
		parts := shown(s.Switch, *s.SwitchSeconds)
		for i := range parts {
			parts[i] = s.Switch[i].Name + " " + parts[i]
		}
		out = append(out, "("+strings.Join(parts, "  ")+")")
	} else if s.InScope {
		out = append(out, "no switch")
	}
	return out
}

// rtaText is the RTA for people.
func rtaText(s Service) string {
	switch {
	case s.RTA == nil:
		return "not measured"
	case s.Result == measure.Absorbed:
		return "0"
	case s.Result == measure.NotRecovered:
		return "> " + span(*s.RTA)
	}
	return span(*s.RTA)
}

// relation stands between an actual and its objective.
func relation(verdict string) string {
	switch verdict {
	case measure.Pass:
		return "≤"
	case measure.Fail:
		return ">"
	}
	return "?"
}

func (s Service) objective(name string) (Objective, bool) {
	for _, o := range s.Verdicts {
		if o.Name == name {
			return o, true
		}
	}
	return Objective{}, false
}

// successScope says over which samples success was judged, and the ratio over all of them.
func successScope(s Service) string {
	if s.HurtSeconds == nil {
		return ""
	}
	all := s.Account
	ratio := 0.0
	if n := all.Sent - all.Shed; n > 0 {
		ratio = float64(all.OK+all.RetriedOK+all.Slow) / float64(n)
	}
	return fmt.Sprintf("outside +0.00..%s (%s in all)", offset(*s.HurtSeconds), percent(ratio))
}

// objectiveText is one objective for people: "100.00 % ≥ 99 %".
func objectiveText(o Objective) string {
	if o.Actual == "" {
		return "not measured"
	}
	var actual, want string
	less := relation(o.Verdict)
	switch o.Name {
	case "success", "error-budget":
		var a, w float64
		_, _ = fmt.Sscan(o.Actual, &a) // written by exactRatio
		_, _ = fmt.Sscan(o.Objective, &w)
		actual, want = percent(a), share(w)
		if o.Name == "success" {
			less = map[string]string{measure.Pass: "≥", measure.Fail: "<"}[o.Verdict]
		}
	case "latency":
		a, _ := spanOf(o.Actual)
		w, _ := spanOf(o.Objective)
		actual, want = millis(int64(a*1e6+0.5)), millis(int64(w*1e6+0.5))
	default:
		a, _ := spanOf(o.Actual)
		w, _ := spanOf(o.Objective)
		actual, want = span(a), limit(w)
	}
	if less == "" {
		less = "?"
	}
	return actual + " " + less + " " + want
}

func (t *textWriter) objective(_ Service, o Objective, label, scope string) {
	parts := []string{objectiveText(o)}
	if scope != "" {
		parts = append(parts, strings.Fields(scope)...)
	}
	if o.Verdict != measure.Pass {
		word := o.Verdict
		if word == measure.Fail {
			word = "missed"
		}
		parts = append(parts, "("+strings.TrimSuffix(word+": "+o.Why, ": ")+")")
	}
	t.wrap(label, parts)
}
