package measure

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

// Codes of findings.
const (
	CodeDetect      = "LF2107" // detection is a large part of the recovery
	CodeDecide      = "LF2108" // the decision is
	CodePropagate   = "LF2109" // the propagation is
	CodeByReflex    = "LF2110" // users recovered by reflex though reflex is false
	CodeRTOMissed   = "LF2111"
	CodeSettle      = "LF2112" // settling is a large part of the recovery
	CodeUsersFirst  = "LF2113" // users saw it before the detector
	minInterval     = 100 * time.Millisecond
	dwellPerChecks  = 3   // failover.after stays at least so many health intervals
	worthMentioning = 0.1 // of the RTA
)

// gap is one phase and the change that would shorten it.
type gap struct {
	code, phase string
	share       float64
	saving      time.Duration // predicted; 0 = no change is known
	change      *api.Change
	evidence    []int64
	detail      string
}

// Findings are the gaps of a run, the most severe first; per service, first the change that would shorten its recovery
// most.
func Findings(r Result, p record.Proposal) []api.FindingSpec {
	var out []api.FindingSpec
	for i := range r.Services {
		if s := &r.Services[i]; s.InScope {
			out = append(out, serviceFindings(r, s, p)...)
		}
	}
	rank := map[string]int{"high": 0, "medium": 1, "low": 2, "info": 3}
	slices.SortStableFunc(out, func(a, b api.FindingSpec) int { return cmp.Compare(rank[a.Severity], rank[b.Severity]) })
	return out
}

func serviceFindings(r Result, s *Service, p record.Proposal) []api.FindingSpec {
	base := api.FindingSpec{Run: r.Run, Service: s.Name, Status: api.FindingOpen}
	var out []api.FindingSpec
	add := func(code, severity string, evidence []int64, format string, args ...any) {
		f := base
		f.Code, f.Severity, f.Evidence, f.What = code, severity, evidence, string(s.Name)+": "+fmt.Sprintf(format, args...)
		out = append(out, f)
	}
	missed := slices.ContainsFunc(s.Objectives, func(o Objective) bool { return o.Name == "rto" && o.Verdict == Fail })
	severity := "medium"
	if missed {
		severity = "high"
	}
	for _, g := range gaps(s, p) {
		f := base
		f.Code, f.Severity, f.Evidence, f.Change = g.code, severity, g.evidence, g.change
		f.What = fmt.Sprintf("%s: %s is %.0f %% of the recovery time%s", s.Name, g.phase, 100*g.share, g.detail)
		if g.change == nil {
			f.Severity = "low"
		} else {
			before := s.RTA.Seconds()
			f.Predicted = &api.Predicted{Quantity: "rta", Before: before, After: (s.RTA - g.saving).Seconds()}
		}
		out = append(out, f)
	}
	m := s.Marks
	if missed {
		what := fmt.Sprintf("%.2f s", s.RTA.Seconds())
		if s.Result == NotRecovered {
			what = "more than " + what
		}
		add(CodeRTOMissed, "high", records(m.TI, m.TC), "the recovery took %s, the objective is %s", what, seconds(rtoOf(s)))
	}
	if s.Result == Recovered && !s.Reflex && len(s.Phases) == 0 && m.TR != nil && m.TC != nil {
		add(CodeByReflex, "medium", records(m.TI, m.TE, m.TC), "users recovered by reflex %.2f s before the switch, though reflex is false", s.ReflexLead.Seconds())
	}
	if m.TX != nil && m.TD != nil && m.TX.At.Before(m.TD.At) {
		add(CodeUsersFirst, "info", records(m.TI, m.TD), "users saw it %.2f s before the detector", m.TD.At.Sub(m.TX.At).Seconds())
	}
	return out
}

func rtoOf(s *Service) float64 {
	for _, o := range s.Objectives {
		if o.Name == "rto" {
			return o.Limit
		}
	}
	return 0
}

func seconds(s float64) string { return strconv.FormatFloat(s, 'f', -1, 64) + " s" }

// gaps are the phases of a recovery that are worth a finding: those with a change first, the largest predicted
// saving first; then phases of a tenth of the RTA or more for which no change of configuration is known.
func gaps(s *Service, p record.Proposal) []gap {
	if s.Result != Recovered || s.RTA <= 0 {
		return nil
	}
	var out []gap
	for _, ph := range s.Phases {
		g := gap{phase: ph.Name, share: float64(ph.Took) / float64(s.RTA)}
		switch ph.Name {
		case Detect:
			g.code, g.evidence = CodeDetect, records(s.Marks.TI, s.Marks.TD)
			g.phase = "detection"
			g.change, g.saving = fasterDetection(s, p, ph.Took)
		case Decide:
			g.code, g.evidence = CodeDecide, records(s.Marks.TD, s.Marks.TC)
			g.phase = "the decision"
			g.change, g.saving = fasterDecision(s, p)
			g.saving = min(g.saving, ph.Took)
		case Propagate:
			g.code, g.evidence = CodePropagate, records(s.Marks.TC, s.Marks.TP)
			g.phase = "propagation"
			if s.Propagation != nil && s.Propagation.Slowest != "" {
				g.detail = fmt.Sprintf("; %s acknowledged last", s.Propagation.Slowest)
			}
		case Settle:
			g.code, g.evidence = CodeSettle, records(s.Marks.TP)
			g.phase = "settling"
		}
		out = append(out, g)
	}
	slices.SortStableFunc(out, func(a, b gap) int { return cmp.Compare(b.saving, a.saving) })
	kept := out[:0]
	for i, g := range out {
		worth := float64(g.saving) >= worthMentioning*float64(s.RTA)
		dominant := g.change == nil && g.share >= worthMentioning && (g.code == CodePropagate || g.code == CodeSettle)
		if worth || dominant || i == 0 && g.saving > 0 {
			kept = append(kept, g)
		}
	}
	return kept
}

// fasterDetection halves the interval of the health check: what detection takes shrinks with it.
func fasterDetection(s *Service, p record.Proposal, took time.Duration) (*api.Change, time.Duration) {
	h := specOf(p, s.Name).Health
	old := h.Interval.D()
	next := max((old / 2).Truncate(time.Millisecond), minInterval)
	if old <= 0 || next >= old {
		return nil, 0
	}
	c := &api.Change{Resource: "Service/" + string(s.Name), Patch: []api.PatchOp{replace("/spec/health/interval", next, old)}}
	if h.Timeout.D() > next {
		c.Patch = append(c.Patch, replace("/spec/health/timeout", next, h.Timeout.D()))
	}
	return c, time.Duration(math.Round(float64(took) * (1 - float64(next)/float64(old))))
}

// fasterDecision shortens the dwell of an automatic switch to a few health intervals.
func fasterDecision(s *Service, p record.Proposal) (*api.Change, time.Duration) {
	next := dwellPerChecks * specOf(p, s.Name).Health.Interval.D()
	if next <= 0 {
		return nil, 0
	}
	for _, x := range p.ActivePassive {
		if old := x.Spec.Failover.After.D(); x.Spec.Service == s.Name && x.Spec.Failover.Mode == api.Automatic && old > next {
			return &api.Change{
				Resource: "ActivePassive/" + x.Metadata.Name, Patch: []api.PatchOp{replace("/spec/failover/after", next, old)},
			}, old - next
		}
	}
	for _, x := range p.ActiveActive {
		if old := x.Spec.Evacuate.After.D(); x.Spec.Service == s.Name && x.Spec.Evacuate.Mode == api.Automatic && old > next {
			return &api.Change{
				Resource: "ActiveActive/" + x.Metadata.Name, Patch: []api.PatchOp{replace("/spec/evacuate/after", next, old)},
			}, old - next
		}
	}
	return nil, 0
}

func replace(path string, next, old time.Duration) api.PatchOp {
	return api.PatchOp{Op: "replace", Path: path, Value: api.Duration(next).String(), Old: api.Duration(old).String()}
}

// records are the indexes of the marks that come from records, each once, sorted.
func records(marks ...*Mark) []int64 {
	var out []int64
	for _, m := range marks {
		if m != nil && m.Record >= 0 {
			out = append(out, m.Record)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Outcomes of a retest.
const (
	Helped       = "helped"
	NotHelped    = "not helped"
	NotRetested  = "not measured"
	missedBeyond = 0.3 // of the prediction
)

// Retest compares what a finding predicted with a later run. The prediction is missed when the measured time is
// off by more than 30 % of it; the change helped when the time shrank by more than the uncertainty.
func Retest(f api.FindingSpec, r Result) api.Retest {
	out := api.Retest{Run: r.Run, Missed: true, Outcome: NotRetested}
	if f.Predicted == nil {
		return out
	}
	out.Before = f.Predicted.Before
	for _, s := range r.Services {
		if s.Name != f.Service || s.Result != Recovered && s.Result != Absorbed {
			continue
		}
		out.After, out.Uncertainty, out.Outcome = s.RTA.Seconds(), s.Epsilon.Seconds(), NotHelped
		if out.After+out.Uncertainty < out.Before {
			out.Outcome = Helped
		}
		off := math.Abs(out.After - f.Predicted.After)
		out.Missed = off > missedBeyond*f.Predicted.After
	}
	return out
}
