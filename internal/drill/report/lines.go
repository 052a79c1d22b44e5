package report

import (
	"fmt"
	"strings"

	"github.com/livefire-mesh/livefire/api"
)

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
		case s.HurtSeconds == nil:
		case s.Outside.Failed.Sum() == 0:
			parts += fmt.Sprintf(", all at +0.00..%s", offset(*s.HurtSeconds))
		default:
			parts += fmt.Sprintf(", %s of them outside +0.00..%s", count(s.Outside.Failed.Sum()), offset(*s.HurtSeconds))
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
