package drill

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// probes are the probe orders of the present attempt.
func (m Machine) probes() []sample.Order {
	out := slices.Clone(m.Config.Probes)
	for i := range out {
		if m.State.Attempt > 1 {
			out[i].ID = fmt.Sprintf("%s.%d", out[i].ID, m.State.Attempt)
		}
	}
	return out
}

// startProbes starts a new attempt of the baseline, with probe ids of its own: a probe whose lease ended while
// the server was away has closed its last chunk and is not continued.
func (s *step) startProbes() {
	for _, p := range s.probes() {
		if s.State.Attempt > 0 {
			s.act(Action{Kind: ActStopProbe, Step: s.stepID(1, "probe-start"), ID: p.ID})
		}
	}
	s.State.Attempt++
	id := s.stepID(1, "probe-start")
	for _, p := range s.probes() {
		s.record(record.RunIntent, record.Intent{Step: id, What: "probe-start", Probe: &p, Lease: p.Lease}, "")
		s.act(Action{Kind: ActStartProbe, Step: id, ID: p.ID, Probe: &p})
	}
}

func (m Machine) injected(fault int) bool {
	return slices.ContainsFunc(m.State.Injected, func(in Injection) bool { return in.Index == fault })
}

// faultDue is when fault i is to be ordered: After counts from the order of the first one.
func (m Machine) faultDue(i int) time.Time {
	first := m.State.Since
	if len(m.State.Injected) > 0 {
		first = m.State.Injected[0].IntentAt
	}
	return first.Add(m.Config.Faults[i].After - m.Config.Faults[0].After)
}

// inject orders every fault that is due, then holds once all of them are applied. An intent is in the state and
// on record before its order is published; nothing in the state with an intent is ever ordered again.
func (s *step) inject() {
	c, st := s.Config, &s.State
	for i, f := range c.Faults {
		if s.injected(i) || s.ev.At.Before(s.faultDue(i)) {
			continue
		}
		o := s.order(i, f)
		in := Injection{Order: o, Index: i, IntentAt: s.ev.At, LeaseAt: s.ev.At}
		if f.Site == c.Site && f.Kind.HasUndo() {
			in.Expected = slices.Clone(st.Targets)
		}
		st.Injected = append(st.Injected, in)
		s.record(record.RunIntent, record.Intent{Step: o.ID, What: "inject", Fault: &o, Lease: o.Lease}, "")
		s.act(Action{Kind: ActPublishFault, Step: o.ID, ID: o.ID, Fault: &o})
		if st.RenewedAt.IsZero() {
			st.RenewedAt = s.ev.At
		}
	}
	for _, in := range st.Injected {
		if !in.Applied && !s.ev.At.Before(in.IntentAt.Add(c.Lease)) {
			s.abort(fmt.Sprintf("%s: %s was not applied to every target within its lease of %v", InjectTimeout, in.Order.ID, c.Lease))
			return
		}
	}
	if len(st.Injected) == len(c.Faults) && !slices.ContainsFunc(st.Injected, func(in Injection) bool { return !in.Applied }) {
		s.enter(Holding, "all faults applied")
	}
}

func (s *step) order(i int, f Fault) fault.Order {
	c := s.Config
	o := fault.Order{
		ID: s.stepID(2+i, string(f.Kind)), Run: c.Run, Kind: f.Kind, Site: f.Site, MaxTargets: c.MaxTargets,
		Lease: c.Lease,
		// Whatever is renewed by mistake, a fault never outlives its drill's deadline.
		MaxDuration: max(c.Lease, s.State.Deadline.Sub(s.ev.At)),
	}
	if f.Kind.HasUndo() {
		for _, svc := range c.Services {
			o.Services = append(o.Services, svc.Name)
		}
	}
	return o
}

// renew sends heartbeats each third of the lease, never for an order that lost its lease once.
func (s *step) renew() {
	st := &s.State
	if st.RenewedAt.IsZero() || s.ev.At.Before(st.RenewedAt.Add(s.Config.Lease/3)) {
		return
	}
	var ids []string
	for i := range st.Injected {
		in := &st.Injected[i]
		if !in.Order.Kind.HasUndo() || in.Lost {
			continue
		}
		if !s.ev.At.Before(in.leaseEnd()) {
			in.Lost = true // the tick came too late: an order that missed its lease once is dead for ever
			s.abort(LeaseExpired + ": " + in.Order.ID)
			return
		}
		in.LeaseAt = s.ev.At
		ids = append(ids, in.Order.ID)
	}
	st.RenewedAt = s.ev.At
	if len(ids) > 0 {
		s.act(Action{Kind: ActRenewFaults, IDs: ids})
	}
}

// faultReport takes in what an agent says of one target. A repeated report changes nothing.
func (s *step) faultReport() {
	r := s.ev.Report
	if r == nil {
		return
	}
	i := slices.IndexFunc(s.State.Injected, func(in Injection) bool { return in.Order.ID == r.Order })
	if i < 0 {
		return
	}
	in := &s.State.Injected[i]
	if r.Phase == fault.Refused && r.Target == "" {
		if in.Refused || len(in.Targets) > 0 {
			return
		}
		in.Refused = true
		s.record(record.FaultEnded, *r, "")
		s.outcome(in.Order.ID, false, reason("refused", r.Reason))
		s.abort(reason(FaultRefused+": "+in.Order.ID, r.Reason))
		return
	}
	if !s.target(in, *r) {
		return
	}
	if !in.Applied && in.complete() {
		in.Applied = true
		s.outcome(in.Order.ID, true, fmt.Sprintf("%d targets", len(in.Targets)))
	}
	s.afterReport(*in, *r)
}

// target notes the report in its target; false if it says nothing new.
func (s *step) target(in *Injection, r fault.Report) bool {
	j, ok := slices.BinarySearchFunc(in.Targets, r.Target, func(t Target, n string) int { return cmp.Compare(t.Name, n) })
	if !ok {
		in.Targets = slices.Insert(in.Targets, j, Target{Name: r.Target})
	}
	t, kind := in.Targets[j], record.FaultEnded
	switch r.Phase {
	case fault.Applied:
		t.Applied, kind = true, record.FaultApplied
	case fault.Reverted:
		t.Proven, t.Failed = r.Proven(), false
	case fault.Refused:
		t.Refused = !t.Applied
	case fault.Failed:
		t.Failed, t.Proven = true, false
	default:
		return false
	}
	if ok && t == in.Targets[j] {
		return false
	}
	in.Targets[j] = t
	s.record(kind, r, "")
	return true
}

// endedEarly marks a run whose fault ended before it was withdrawn, though its agent says so only now: it did not hold
// what was measured.
func (s *step) endedEarly(r fault.Report) {
	st := &s.State
	_, end, _ := r.Bracket()
	byItself := r.EndedBy == fault.ByLease || r.EndedBy == fault.ByWatchdog
	if st.Aborting || r.Phase != fault.Reverted || !byItself || !end.Before(st.RevertedAt) {
		return
	}
	st.Aborting, st.Reason = true, reason(LeaseExpired+": "+r.ID()+" ended early", r.EndedBy)
	s.deviate(st.Reason)
}

// afterReport ends the run early when a report says that the fault is not what was ordered.
func (s *step) afterReport(in Injection, r fault.Report) {
	if s.State.State.ending() {
		s.endedEarly(r)
		return
	}
	applied := 0
	for _, t := range in.Targets {
		if t.Applied {
			applied++
		}
	}
	switch {
	case applied > s.Config.MaxTargets:
		s.guardrail("blast-radius", tooMany(applied, s.Config.MaxTargets))
	case r.Phase == fault.Refused:
		s.abort(reason(FaultRefused+": "+r.ID(), r.Reason))
	case r.Phase == fault.Failed:
		s.abort(reason(FaultFailed+": "+r.ID(), r.Reason))
	case r.Phase == fault.Reverted:
		s.abort(reason(LeaseExpired+": "+r.ID()+" ended early", r.EndedBy))
	}
}

func tooMany(n, limit int) string { return fmt.Sprintf("%d targets, at most %d allowed", n, limit) }

func (s *step) noFault() {
	if s.State.RevertedAt.IsZero() || s.ev.At.Before(s.State.RevertedAt) {
		return
	}
	for i := range s.State.Injected {
		if in := &s.State.Injected[i]; in.Order.ID == s.ev.Order && !in.Absent {
			in.Absent = true
			s.outcome(in.Order.ID, false, "its agent holds no such order after the withdrawal")
		}
	}
}
