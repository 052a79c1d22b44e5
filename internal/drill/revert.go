package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

// restarted takes over a run whose server went away. With an intent to inject on record, whether it was carried
// out or not, nothing is ever injected again.
func (s *step) restarted() {
	st := &s.State
	r := record.Restarted{Gap: s.ev.Gap, Found: string(st.State), Decide: "continue"}
	switch {
	case len(st.Injected) > 0:
		r.Decide = "revert"
	case st.State.active():
		r.Decide = "again from Prechecked"
	}
	s.record(record.RunRestarted, r, "")
	switch {
	case len(st.Injected) > 0:
		if !st.Aborting {
			st.Aborting, st.Reason = true, ServerLost
		}
		s.revert(ServerLost)
	case st.State == Draft:
		s.act(Action{Kind: ActRerender})
	case st.State == Scheduled:
		s.prepare()
	case st.State == PrecheckOK || st.State == Baseline:
		s.enter(PrecheckOK, ServerLost+": new baseline")
		s.act(Action{Kind: ActPrecheck})
		s.startProbes()
	}
}

// revert withdraws every order. It may be done again.
func (s *step) revert(why string) {
	st := &s.State
	s.enter(Reverting, why)
	st.RevertedAt, st.Stage, st.HealthyAt = s.ev.At, "", time.Time{}
	id := s.stepID(s.last(), "revert")
	s.intent(id, "revert")
	for _, in := range st.Injected {
		if in.Order.Kind.HasUndo() {
			s.act(Action{Kind: ActWithdrawFault, Step: id, ID: in.Order.ID})
		}
	}
}

// giveUp is when a missing proof makes the run dirty: at the deadline, but never before every lease has ended by
// itself and its proof had time to arrive.
func (m Machine) giveUp() time.Time {
	t := m.State.Deadline
	for _, in := range m.State.Injected {
		if end := in.leaseEnd().Add(proofGrace); end.After(t) {
			t = end
		}
	}
	if end := m.State.RevertedAt.Add(proofGrace); end.After(t) {
		t = end
	}
	return t
}

// waitUntil is when the waits after the revert end: at the deadline, or, if that is over or near, two spans of
// verify after they began, so that the last words of the run are still measured.
func (m Machine) waitUntil() time.Time {
	t := m.State.Deadline
	if end := m.State.Since.Add(2 * m.Config.Verify); end.After(t) {
		t = end
	}
	return t
}

// wind takes a run through Reverting, FailingBack and Verifying as far as the facts allow.
func (s *step) wind() {
	if s.State.State == Reverting {
		s.reverting()
	}
	if s.State.State == FailingBack {
		s.failingBack()
	}
	if s.State.State == Verifying {
		s.verifying()
	}
}

func (s *step) reverting() {
	st, id := &s.State, s.stepID(s.last(), "revert")
	live := s.LiveFaults()
	if len(live) == 0 {
		s.outcome(id, true, "every fault proven gone")
		s.enter(FailingBack, "")
		s.beginFailback()
		return
	}
	if s.ev.At.Before(s.giveUp()) {
		return
	}
	names := make([]string, len(live))
	for i, o := range live {
		names[i] = o.ID
	}
	if !st.Aborting {
		st.Aborting, st.Reason = true, DeadlineOver // a proof may still arrive before Done, but too late to pass
	}
	why := "not proven gone: " + strings.Join(names, ", ")
	s.outcome(id, false, why)
	s.enter(Verifying, why)
	s.count()
}

// away are the services in scope that a decision moved and that are not back.
func (m Machine) away() []Service {
	var out []Service
	for _, svc := range m.Config.Services {
		if slices.Contains(m.State.FailedOver, svc.Name) && !slices.Contains(m.State.FailedBack, svc.Name) {
			out = append(out, svc)
		}
	}
	return out
}

// beginFailback says of every service that is away who may bring it back. It may be done again.
func (s *step) beginFailback() {
	away := s.away()
	if len(away) == 0 {
		return
	}
	id := s.stepID(s.last()+1, "failback")
	s.intent(id, "failback")
	for _, svc := range away {
		kind := ActWaitFailback
		if svc.Failback == api.Automatic {
			kind = ActAllowFailback
		}
		s.act(Action{Kind: kind, Step: id, Service: svc.Name})
	}
}

func (s *step) failingBack() {
	away := s.away()
	if len(away) > 0 && s.ev.At.Before(s.waitUntil()) {
		return
	}
	if len(s.State.FailedOver) > 0 {
		s.outcome(s.stepID(s.last()+1, "failback"), len(away) == 0, "")
	}
	for _, svc := range away {
		s.deviate(fmt.Sprintf("%s: original shares not restored by the deadline (fail-back is %s)", svc.Name, svc.Failback))
	}
	s.enter(Verifying, "")
	s.intent(s.stepID(s.last()+2, "verify"), "verify")
	s.State.Stage, s.State.StageAt, s.State.HealthyAt = Observing, s.ev.At, time.Time{}
}

func (s *step) deviate(what string) {
	if !slices.Contains(s.State.Deviations, what) {
		s.State.Deviations = append(s.State.Deviations, what)
	}
}

// placement notes switches. One that comes late, while the run already verifies, takes it back to FailingBack.
func (s *step) placement() {
	st := &s.State
	if len(st.Injected) == 0 {
		return
	}
	before := len(s.away())
	for _, svc := range append(slices.Clone(s.ev.Services), s.ev.Service) {
		switch {
		case svc == "":
		case s.ev.Kind == FailedOver:
			st.FailedBack = slices.DeleteFunc(st.FailedBack, func(x api.ServiceID) bool { return x == svc })
			if !slices.Contains(st.FailedOver, svc) {
				st.FailedOver = append(st.FailedOver, svc)
			}
		case slices.Contains(st.FailedOver, svc) && !slices.Contains(st.FailedBack, svc):
			st.FailedBack = append(st.FailedBack, svc)
		}
	}
	late := st.State == FailingBack || st.State == Verifying && st.Stage == Observing
	if s.ev.Kind == FailedOver && late && len(s.away()) > before && s.ev.At.Before(s.waitUntil()) {
		if st.State == Verifying {
			s.enter(FailingBack, "a switch came late")
		}
		s.beginFailback()
	}
}

func (s *step) health() {
	st := &s.State
	if st.State != Verifying || st.Stage != Observing {
		return
	}
	if s.ev.Kind == Unhealthy {
		st.HealthyAt = time.Time{}
	} else if st.HealthyAt.IsZero() {
		st.HealthyAt = s.ev.At
	}
}

func (s *step) verifying() {
	st, at := &s.State, s.ev.At
	switch st.Stage {
	case Observing:
		if !st.HealthyAt.IsZero() && !at.Before(st.HealthyAt.Add(s.Config.Verify)) {
			s.outcome(s.stepID(s.last()+2, "verify"), true, "")
			s.count()
		} else if !at.Before(s.waitUntil()) {
			s.outcome(s.stepID(s.last()+2, "verify"), false, "not healthy for the whole span")
			s.deviate("services were not healthy for " + s.Config.Verify.String() + " before the deadline")
			s.count()
		}
	case Counting:
		if !at.Before(st.StageAt.Add(countLimit)) {
			s.deviate("executions were not counted within " + countLimit.String())
			s.measure()
		}
	case Measuring:
		if !at.Before(st.StageAt.Add(measLimit)) {
			s.deviate("the measurement did not finish within " + measLimit.String())
			s.finish(Inconclusive)
		}
	}
}

// count stops the probes and collects what was executed.
func (s *step) count() {
	id := s.stepID(s.last()+3, "probe-stop")
	s.intent(id, "probe-stop")
	for _, p := range s.probes() {
		s.act(Action{Kind: ActStopProbe, Step: id, ID: p.ID})
	}
	s.State.Stage, s.State.StageAt = Counting, s.ev.At
	s.act(Action{Kind: ActCount})
}

func (s *step) measure() {
	s.State.Stage, s.State.StageAt = Measuring, s.ev.At
	s.act(Action{Kind: ActMeasure})
}

func (s *step) closing() {
	st := s.State
	if st.State != Verifying {
		return
	}
	switch {
	case s.ev.Kind == Counted && st.Stage == Counting:
		s.outcome(s.stepID(s.last()+3, "probe-stop"), true, "")
		s.measure()
	case s.ev.Kind == Measured && st.Stage == Measuring:
		v := s.ev.Verdict
		if v != Passed && v != Failed {
			v = Inconclusive
		}
		if s.State.Reason == "" {
			s.State.Reason = s.ev.Reason
		}
		s.finish(v)
	}
}

// finish closes the run with the worst of what it is and what was measured.
func (s *step) finish(measured Verdict) {
	st := &s.State
	st.Restored = len(s.LiveFaults()) == 0
	switch {
	case !st.Restored:
		st.Verdict = Dirty
	case st.Aborting:
		st.Verdict = Aborted
	default:
		st.Verdict = measured
	}
	s.enter(Done, st.Reason)
	st.EndedAt, st.Stage = s.ev.At, ""
	s.record(record.RunClosed, record.Closed{
		Verdict: string(st.Verdict), Reason: st.Reason, Restored: st.Restored, At: s.ev.At, Deviations: st.Deviations,
	}, "")
	s.act(Action{Kind: ActFinish})
}
