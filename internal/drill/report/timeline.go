package report

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/measure"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

// event takes one record in: a line of the timeline, an approval, a guardrail, the end of the run.
func (b *builder) event(e evidence.Record) error {
	switch record.Kind(e.Kind) {
	case record.RunProposed, record.RunApproved, record.RunState, record.RunPrecheck, record.RunOutcome, record.RunGuardrail,
		record.RunRestarted, record.RunClosed:
		return b.runEvent(e)
	case record.FaultApplied, record.FaultEnded:
		return use(e, func(r fault.Report) {
			_, to, _ := r.Bracket()
			what := fmt.Sprintf("%s: %s, %s", r.Target, r.Phase, r.Proof)
			if r.EndedBy != "" {
				what = fmt.Sprintf("%s: fault ended by %s, %s", r.Target, r.EndedBy, r.Proof)
			}
			if r.Phase == fault.Refused || r.Phase == fault.Failed {
				what = fmt.Sprintf("%s: %s, %s", r.Target, r.Phase, r.Reason)
			}
			b.line(e, to, what)
		})
	case record.SiteVerdict:
		return use(e, func(v record.Verdict) {
			what := fmt.Sprintf("%s at %s judged %s", v.Service, v.Site, v.State)
			switch {
			case v.Declared != "":
				what += ", declared by " + v.Declared
			case len(v.Observers) > 0:
				what += fmt.Sprintf(": %d of %d observers agree", len(v.Observers), v.Of)
			}
			b.line(e, v.At, what)
		})
	case record.LeverChanged:
		return use(e, func(l record.Lever) {
			state := "released"
			if l.Engaged {
				state = "engaged"
			}
			b.line(e, e.At, fmt.Sprintf("safety lever %s by %s: %s", state, l.By, l.Reason))
		})
	default:
		return b.moveEvent(e)
	}
}

// runEvent is what the run did.
func (b *builder) runEvent(e evidence.Record) error {
	switch record.Kind(e.Kind) {
	case record.RunProposed:
		return use(e, func(p record.Proposed) {
			b.out.Approvals = []Approval{} // those before it are void
			b.out.Run.By, b.out.Run.Expected = p.By, p.Expect
			b.line(e, e.At, "proposed by "+p.By+", approvals needed: "+strings.Join(p.Groups, ", "))
		})
	case record.RunApproved:
		return use(e, func(a record.Approved) {
			b.out.Approvals = append(b.out.Approvals, Approval{Group: a.Group, By: a.By, Key: a.Key, At: stamp(a.At),
				Digest: "sha256:" + a.ProposalSHA256, Decision: a.Decision})
			b.line(e, e.At, fmt.Sprintf("%s by %s for %s", map[string]string{"approve": "approved", "reject": "rejected"}[a.Decision], a.By, a.Group))
		})
	case record.RunState:
		return use(e, func(s record.State) {
			if s.To == "Scheduled" {
				b.started = e.At
			}
			what := s.From + " -> " + s.To
			if s.Reason != "" {
				what += ": " + s.Reason
			}
			b.line(e, e.At, what)
		})
	case record.RunPrecheck:
		return use(e, func(p record.Precheck) {
			b.out.Prechecks = p.Rules
			failing := slices.ContainsFunc(p.Rules, func(r record.Rule) bool { return !r.OK })
			what := map[bool]string{false: "precheck: all of %s hold", true: "precheck: not all of %s hold"}[failing]
			b.line(e, e.At, fmt.Sprintf(what, plural(len(p.Rules), "rule")))
		})
	case record.RunOutcome:
		return use(e, func(o record.Outcome) {
			if !o.OK {
				b.line(e, e.At, "step "+o.Step+" did not succeed: "+o.Message)
			}
		})
	case record.RunGuardrail:
		return use(e, func(g record.Guardrail) {
			what := strings.TrimSpace(string(g.Service) + " " + g.Rule + ": " + g.Message)
			b.out.Safety.Guardrails = append(b.out.Safety.Guardrails, what)
			b.line(e, e.At, "guardrail tripped: "+what)
		})
	case record.RunRestarted:
		return use(e, func(r record.Restarted) {
			what := fmt.Sprintf("a server took over in %s after %s: %s", r.Found, span(r.Gap.Seconds()), r.Decide)
			b.out.Safety.Restarts = append(b.out.Safety.Restarts, what)
			b.line(e, e.At, what)
		})
	default:
		return use(e, func(c record.Closed) {
			b.closed = &c
			b.line(e, c.At, "closed: "+c.Verdict)
		})
	}
}

// moveEvent is what happened to traffic. Records of other kinds are no event.
func (b *builder) moveEvent(e evidence.Record) error {
	switch record.Kind(e.Kind) {
	case record.FailoverOrder:
		return use(e, func(o record.Order) {
			b.line(e, o.At, fmt.Sprintf("%s: switch from %s to %s ordered (%s), by %s", o.Service, o.From, o.To, o.Cause, o.Actor))
		})
	case record.FailoverRefuse:
		return use(e, func(r record.Refusal) {
			b.line(e, e.At, fmt.Sprintf("%s: switch to %s refused by %s: %s", r.Service, r.To, r.Code, r.Message))
		})
	case record.TableCommitted:
		return use(e, func(t record.Table) {
			b.line(e, t.At, fmt.Sprintf("table %d committed: %s", t.Epoch, shares(t.Shares)))
		})
	case record.TableAcked:
		return use(e, func(a record.Acks) {
			at := e.At
			for _, x := range a.Acks {
				if at.Equal(e.At) || x.At.After(at) {
					at = x.At
				}
			}
			what := fmt.Sprintf("table %d acknowledged by %s", a.Epoch, proxies(len(a.Acks)))
			if len(a.Silent) > 0 {
				what += ", silent: " + join(a.Silent)
			}
			b.line(e, at, what)
		})
	case record.ReflexLeft:
		return use(e, func(r record.Reflex) {
			b.line(e, r.At, fmt.Sprintf("%s: proxy %s left %s for %s by reflex", r.Service, r.Node, r.From, r.To))
		})
	case record.FailbackBegun, record.FailbackStep, record.FailbackDone:
		return use(e, func(f record.Failback) {
			word := map[record.Kind]string{
				record.FailbackBegun: "fail-back decided", record.FailbackStep: "fail-back step", record.FailbackDone: "original shares restored",
			}
			b.line(e, f.At, fmt.Sprintf("%s: %s, to %s", f.Service, word[record.Kind(e.Kind)], f.To))
		})
	}
	return nil
}

func use[T any](e evidence.Record, f func(T)) error {
	v, err := record.Decode[T](e)
	if err != nil {
		return err
	}
	f(v)
	return nil
}

func (b *builder) line(e evidence.Record, at time.Time, what string) {
	ev := Event{At: stamp(at), Actor: e.Actor, What: strings.TrimSuffix(what, ", "), Record: e.Index}
	// In the order of what happened, not of what was written down.
	i := len(b.out.Timeline)
	for i > 0 && later(b.out.Timeline[i-1].At, at) {
		i--
	}
	b.out.Timeline = slices.Insert(b.out.Timeline, i, ev)
}

func later(stamped string, at time.Time) bool {
	t, err := time.Parse(time.RFC3339Nano, stamped)
	return err == nil && t.After(at)
}

func proxies(n int) string {
	if n == 1 {
		return "1 proxy"
	}
	return count(n) + " proxies"
}

// shares is "orders -> us-east 100 %; payments -> eu-west 50 %, us-east 50 %".
func shares(in map[api.ServiceID]map[api.SiteID]float64) string {
	var out []string
	for _, s := range slices.Sorted(maps.Keys(in)) {
		var sites []string
		for _, site := range slices.Sorted(maps.Keys(in[s])) {
			if in[s][site] > 0 {
				sites = append(sites, string(site)+" "+share(in[s][site]))
			}
		}
		if len(sites) == 0 {
			sites = []string{"nowhere"}
		}
		out = append(out, string(s)+" -> "+strings.Join(sites, ", "))
	}
	return strings.Join(out, "; ")
}

func join[T ~string](in []T) string {
	out := make([]string, len(in))
	for i, x := range in {
		out[i] = string(x)
	}
	return strings.Join(out, ", ")
}

// passed reports how many objectives were met, of how many that were judged.
func (r Report) passed() (met, judged int) {
	for _, s := range r.Services {
		for _, o := range s.Verdicts {
			judged++
			if o.Verdict == measure.Pass {
				met++
			}
		}
	}
	return met, judged
}
