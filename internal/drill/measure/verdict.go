package measure

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// objectives judges every objective that somebody wrote; the others are not judged.
func objectives(o api.Objectives, svc *Service, st *stream) []Objective {
	var out []Objective
	if o.RTO != nil {
		out = append(out, rto(o.RTO.D(), svc))
	}
	if o.RPO != nil {
		out = append(out, Objective{
			Name: "rpo", Unit: "s", Limit: o.RPO.D().Seconds(), Verdict: Inconclusive, Why: "no data probe took part",
		})
	}
	if o.Success != nil {
		out = append(out, success(*o.Success, svc, st))
	}
	if o.Latency != nil {
		out = append(out, latency(o.Latency.P99.D(), svc, st))
	}
	if a := o.Availability; a != nil && a.Target < 1 && a.Window > 0 {
		out = append(out, budget(*a, svc, st))
	}
	return out
}

// rto: pass if RTA + e <= RTO, fail if RTA - e > RTO, else inconclusive. A service that did not recover has an RTA
// of at least the last bad window's start: it can fail, never pass.
func rto(limit time.Duration, svc *Service) Objective {
	o := Objective{Name: "rto", Unit: "s", Limit: limit.Seconds(), Verdict: Inconclusive}
	if svc.Result == NotMeasured {
		o.Why = svc.Why
		return o
	}
	o.Measured, o.Actual, o.Uncertainty = true, svc.RTA.Seconds(), svc.Epsilon.Seconds()
	switch {
	case svc.RTA-svc.Epsilon > limit:
		o.Verdict = Fail
	case svc.Result == NotRecovered:
		o.Why = "not recovered by the end of the hold, which was too short to tell"
	case svc.RTA+svc.Epsilon <= limit:
		o.Verdict = Pass
	default:
		o.Why = "the objective lies within the uncertainty"
	}
	if svc.Result == NotRecovered && o.Verdict == Fail {
		o.Why = "not recovered by the end of the hold; the actual is a lower bound"
	}
	return o
}

// success is judged over the admitted samples outside [tI, tR). An unknown sample may have been either, so the
// ratio is an interval: pass by its lower bound, fail by its upper one.
func success(limit float64, svc *Service, st *stream) Objective {
	o := Objective{Name: "success", Unit: "ratio", Limit: limit, Verdict: Inconclusive}
	a := svc.Outside
	n := a.Admitted()
	if n == 0 {
		o.Why = "no sample to judge"
		return o
	}
	low := float64(a.Answered()) / float64(n)
	high := float64(a.Answered()+a.Unknown) / float64(n)
	o.Measured, o.Actual, o.Uncertainty = true, low, high-low
	const eps = 1e-12
	switch {
	case high < limit-eps:
		o.Verdict = Fail
	case st.missing > 0:
		o.Why = fmt.Sprintf("%d chunks of samples are missing", st.missing)
	case low >= limit-eps:
		o.Verdict = Pass
	default:
		o.Why = fmt.Sprintf("%d samples are unknown", a.Unknown)
	}
	return o
}

// latency is the exact 99th percentile (nearest rank) of the successes outside [tI, tR).
func latency(limit time.Duration, svc *Service, st *stream) Objective {
	o := Objective{Name: "latency", Unit: "s", Limit: limit.Seconds(), Verdict: Inconclusive}
	var spans []time.Duration
	for _, p := range st.points {
		if !p.at.Before(svc.hurtFrom) && p.at.Before(svc.hurtTo) {
			continue
		}
		if p.class.good() || p.class == slow {
			spans = append(spans, p.latency)
		}
	}
	if len(spans) == 0 {
		o.Why = "no answer to judge"
		return o
	}
	slices.Sort(spans)
	p99 := spans[rank99(len(spans))-1]
	o.Measured, o.Actual, o.Verdict = true, p99.Seconds(), Fail
	switch {
	case p99 > limit:
	case st.missing > 0:
		o.Verdict, o.Why = Inconclusive, fmt.Sprintf("%d chunks of samples are missing", st.missing)
	default:
		o.Verdict = Pass
	}
	return o
}

// budget: bad events / ((1 - target) x expected valid events in the window), where the expected events are what the
// probe would have sent in that window. Unknown samples widen it.
func budget(a api.Availability, svc *Service, st *stream) Objective {
	o := Objective{Name: "error-budget", Unit: "ratio", Limit: 1, Verdict: Inconclusive}
	if len(st.points) == 0 || st.interval <= 0 {
		o.Why = "no sample to judge"
		return o
	}
	expected := a.Window.D().Seconds() / st.interval.Seconds()
	low := float64(svc.Account.Failed()) / ((1 - a.Target) * expected)
	high := float64(svc.Account.Failed()+svc.Account.Unknown) / ((1 - a.Target) * expected)
	o.Measured, o.Actual, o.Uncertainty = true, high, high-low
	spent := high
	svc.Budget = &spent
	switch {
	case low > 1:
		o.Verdict = Fail
	case high <= 1 && st.missing == 0:
		o.Verdict = Pass
	default:
		o.Why = "samples are unknown or missing"
	}
	return o
}

// overall: failed before inconclusive before passed. A run in which nothing was judged is inconclusive, and so is
// one with a service in scope that was not measured.
func overall(services []Service) (verdict, reason string) {
	var failed, open []string
	judged := 0
	for _, s := range services {
		for _, o := range s.Objectives {
			judged++
			what := fmt.Sprintf("%s: %s", s.Name, o.Name)
			switch o.Verdict {
			case Fail:
				failed = append(failed, what+" missed")
			case Inconclusive:
				open = append(open, what+" inconclusive ("+o.Why+")")
			}
		}
		if s.Result == NotMeasured && s.InScope {
			open = append(open, fmt.Sprintf("%s: not measured (%s)", s.Name, s.Why))
		}
		if s.Result == NotRecovered {
			open = append(open, fmt.Sprintf("%s: not recovered by the end of the hold", s.Name))
		}
	}
	switch {
	case len(failed) > 0:
		return Failed, strings.Join(failed, "; ")
	case len(open) > 0:
		return Inconclusive, strings.Join(slices.Compact(open), "; ")
	case judged == 0:
		return Inconclusive, "no objective was written, so nothing was judged"
	}
	return Passed, ""
}
