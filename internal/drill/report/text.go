package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/livefire-mesh/livefire/api"
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
			line, used = indent, false
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
	head := "RTA " + rtaText(s)
	if s.RTA != nil {
		head += " ± " + upTo(s.Epsilon)
	}
	verdict := ""
	if o, ok := s.objective("rto"); ok {
		if limitSeconds, ok := spanOf(o.Objective); ok {
			head += " " + relation(o.Verdict) + " RTO " + limit(limitSeconds)
		}
		if o.Verdict != measure.Pass {
			verdict = o.Verdict
		}
	}
	t.wrap(label("recovery time")+fmt.Sprintf("%-29s", head)+" ", nonEmpty(append([]string{verdict}, recoveryParts(s)...)))
}

// recoveryParts explain an RTA: its phases, the reflex, or why there is none.
func recoveryParts(s Service) []string {
	var out []string
	switch {
	case s.Result == measure.NotMeasured:
		return strings.Fields(s.Why)
	case s.Result == measure.NotRecovered:
		out = append(out, "still bad at the end of the hold")
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
	if s.Hurt.Sent == 0 || s.RTA == nil {
		return ""
	}
	all := s.Account
	ratio := 0.0
	if n := all.Sent - all.Shed; n > 0 {
		ratio = float64(all.OK+all.RetriedOK+all.Slow) / float64(n)
	}
	return fmt.Sprintf("outside +0.00..%s (%s in all)", offset(*s.RTA), percent(ratio))
}

// objectiveText is one objective for people: "100.00 % ≥ 99 %".
func objectiveText(o Objective) string {
	if o.Actual == "" {
		return "not measured"
	}
	actual, want := o.Actual, o.Objective
	less, more := relation(o.Verdict), ""
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
	return strings.TrimSpace(actual + " " + less + " " + want + more)
}

func (t *textWriter) objective(_ Service, o Objective, label, scope string) {
	parts := []string{objectiveText(o)}
	if scope != "" {
		parts = append(parts, strings.Fields(scope)...)
	}
	if o.Verdict != measure.Pass {
		parts = append(parts, "("+strings.TrimSuffix(o.Verdict+": "+o.Why, ": ")+")")
	}
	t.wrap(label, parts)
}

// accountParts is "7,204 sent = 7,064 ok + ... + 0 unknown".
func accountParts(a Account) []string {
	parts := []string{count(a.Sent) + " sent"}
	add := func(sign string, n int, name string) { parts = append(parts, sign+" "+count(n)+" "+name) }
	add("=", a.OK, "ok")
	add("+", a.RetriedOK, "retried-ok")
	add("+", a.Slow, "slow")
	if a.Shed > 0 {
		add("+", a.Shed, "shed")
	}
	add("+", a.Failed.Sum(), "failed")
	add("+", a.Unknown, "unknown")
	return parts
}

// failedParts lists the failed classes that there are.
func failedParts(f Failed) []string {
	var out []string
	for _, x := range []struct {
		n    int
		name string
	}{{f.Refused, "refused"}, {f.Reset, "reset"}, {f.Timeout, "timeout"}, {f.Status, "status"}, {f.WrongAnswer, "wrong answer"}} {
		if x.n > 0 {
			out = append(out, count(x.n)+" "+x.name)
		}
	}
	return out
}

func (t *textWriter) account(s Service) {
	t.wrap(label("requests"), accountParts(s.Account))
	if s.Account.Failed.Sum() > 0 {
		parts := "failed: " + strings.Join(failedParts(s.Account.Failed), ", ")
		switch {
		case s.Outside.Failed.Sum() == 0 && s.RTA != nil:
			parts += fmt.Sprintf(", all at +0.00..%s", offset(*s.RTA))
		case s.Hurt.Sent > 0:
			parts += fmt.Sprintf(", %s of them outside +0.00..%s", count(s.Outside.Failed.Sum()), offset(*s.RTA))
		}
		t.wrap(label(""), strings.Fields(parts))
	}
	if s.Account.Counted > 0 {
		t.wrap(label(""), []string{fmt.Sprintf("%s executed twice", count(s.Account.ExecutedTwice))})
	}
}

func (t *textWriter) safety(r Report) {
	proven := 0
	for _, f := range r.Safety.Faults {
		if f.Proven {
			proven++
		}
	}
	n := len(r.Safety.Faults)
	if n == 0 {
		t.line("Safety    no fault took effect")
		return
	}
	parts := []string{fmt.Sprintf("%d of %s proven gone", proven, plural(n, "fault"))}
	if r.Safety.RevertSeconds != nil {
		parts = append(parts, "(last proof "+span(*r.Safety.RevertSeconds)+" after the stop order)")
	}
	parts = append(parts, fmt.Sprintf("blast radius %d processes, %d predicted, %d allowed", r.Safety.Blast.Actual, r.Safety.Blast.Predicted, r.Safety.Blast.MaxTargets))
	for _, g := range r.Safety.Guardrails {
		parts = append(parts, "guardrail: "+g)
	}
	t.wrap("Safety    ", parts)
}

// changeText is "health.interval 300ms -> 150ms".
func changeText(c *api.Change) string {
	var out []string
	for _, p := range c.Patch {
		path := strings.ReplaceAll(strings.TrimPrefix(p.Path, "/spec/"), "/", ".")
		out = append(out, fmt.Sprintf("%s %v → %v", path, p.Old, p.Value))
	}
	return strings.Join(out, ", ")
}

// predictedText is "predicted RTA 1.71 s".
func predictedText(f Finding) string {
	x, ok := spanOf(strings.TrimPrefix(f.Predicted, "RTA "))
	if !ok {
		return ""
	}
	return "predicted RTA " + span(x)
}

func (t *textWriter) findings(r Report) {
	if len(r.Findings) == 0 {
		t.line("Findings  none")
		return
	}
	t.line("Findings")
	for _, f := range r.Findings {
		first := fmt.Sprintf("  %-6s  %s  ", f.Severity, f.Code)
		t.wrap(first, append(strings.Fields(f.What), " "+f.ID))
		if f.Change != nil {
			t.wrap(strings.Repeat(" ", len(first)), append(strings.Fields("change: "+f.Change.Resource+": "+changeText(f.Change)),
				"("+predictedText(f)+"):", "livefire finding apply "+f.ID))
		}
	}
}

func nonEmpty(in []string) []string {
	out := in[:0]
	for _, s := range in {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}
