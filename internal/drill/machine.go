package drill

import (
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

// Machine is one run.
//
//  1. No order is ever published twice, and none after a restart that found an intent to inject.
//  2. Done with a fault that is not proven gone has the verdict dirty.
//  3. Every wait of an active run ends at its deadline.
type Machine struct {
	Config Config `json:"config"`
	State  State  `json:"state"`
}

// New is the run in Draft at a moment. Carry out the actions, as after a Step.
func New(c Config, at time.Time) (Machine, []Action) {
	m := Machine{Config: c, State: State{State: Draft, Since: at}}
	return m, []Action{{Kind: ActRerender}}
}

// Times that the machine allows.
const (
	probeStart = 15 * time.Second // from the probes' start to their first samples
	proofGrace = 10 * time.Second // after the end of the lease, for the proof to arrive
	countLimit = 30 * time.Second
	measLimit  = 60 * time.Second
)

// step collects what one Step does. It works on its own copy of the machine.
type step struct {
	Machine
	ev  Event
	out []Action
}

// Step takes the run one event further. An event that does not fit the state changes nothing.
func (m Machine) Step(ev Event) (Machine, []Action) {
	if m.State.State == Done {
		return m, nil
	}
	s := &step{Machine: m.clone(), ev: ev}
	switch ev.Kind {
	case Rendered:
		s.rendered()
	case Approve:
		s.approve()
	case Reject:
		s.reject()
	case Start:
		s.start()
	case Prechecked:
		s.prechecked()
	case ProbesRunning:
		if s.State.State == PrecheckOK {
			s.outcome(s.stepID(1, "probe-start"), true, "")
			s.enter(Baseline, "")
		}
	case Restarted:
		s.restarted()
	case FaultReported:
		s.faultReport()
	case NoFault:
		s.noFault()
	case FailedOver, FailedBack:
		s.placement()
	case Healthy, Unhealthy:
		s.health()
	case Counted, Measured:
		s.closing()
	default:
		s.trouble()
	}
	s.advance()
	return s.Machine, s.out
}

// trouble handles what may end a run early.
func (s *step) trouble() {
	ev, st := s.ev, s.State.State
	switch ev.Kind {
	case AbortRequested:
		s.abort(reason("requested by "+ev.By, ev.Reason))
	case LeverEngaged:
		if st.active() {
			s.guardrail(LeverReason, reason("safety lever engaged by "+ev.By, ev.Reason))
		}
	case GuardrailTripped:
		if st.active() {
			s.guardrail(ev.Rule, ev.Reason)
		}
	case LeaseLost:
		for i := range s.State.Injected {
			if in := &s.State.Injected[i]; in.Order.ID == ev.Order && !in.Lost {
				in.Lost = true
				if st.active() {
					s.abort(LeaseExpired + ": " + ev.Order)
				}
			}
		}
	case ProbeStalled:
		if st.active() {
			s.abort(reason("probe-stalled: "+string(ev.Service), ev.Reason))
		}
	case DeadlineReached:
		if st.active() {
			s.abort(DeadlineOver)
		}
	}
}

func (s *step) guardrail(rule, message string) {
	s.record(record.RunGuardrail, record.Guardrail{Service: s.ev.Service, Rule: rule, Message: message}, "")
	s.abort(reason("guardrail "+rule, message))
}

func reason(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// abort takes the edge to Reverting, or closes the run at once when nothing was ever ordered. In a state that is
// already on its way out it only marks the run.
func (s *step) abort(why string) {
	st := &s.State
	if !st.Aborting {
		st.Aborting, st.Reason = true, why
	}
	switch {
	case len(st.Injected) == 0:
		for _, p := range s.probes() {
			if st.State == PrecheckOK || st.State == Baseline {
				s.act(Action{Kind: ActStopProbe, Step: s.stepID(s.last(), "probe-stop"), ID: p.ID})
			}
		}
		s.finish(Aborted)
	case !st.State.ending():
		s.revert(why)
	case st.State == Verifying && st.Stage == Observing:
		s.count() // whoever aborts now wants it over; nothing is left to restore
	}
}

// advance does what is due at the time of the event, in whatever state the run is now.
func (s *step) advance() {
	at := s.ev.At
	if s.State.State.active() && !s.State.Deadline.IsZero() && !at.Before(s.State.Deadline) {
		s.abort(DeadlineOver)
	}
	switch s.State.State {
	case PrecheckOK:
		if !at.Before(s.State.Since.Add(probeStart)) {
			s.abort("probe-stalled: no samples " + probeStart.String() + " after the probes were ordered")
		}
	case Baseline:
		if !at.Before(s.State.Since.Add(s.Config.Baseline)) {
			s.enter(Injecting, "")
			s.inject()
		}
	case Injecting:
		s.inject()
	case Holding:
		if !at.Before(s.State.Since.Add(s.Config.Hold)) {
			s.revert("hold ended")
		}
	}
	if st := s.State.State; st == Injecting || st == Holding {
		s.renew()
	}
	s.wind()
}

// Next is when the machine wants a Tick, zero if only an event can take it further. Ticking earlier is harmless.
func (m Machine) Next() time.Time {
	st, c := m.State, m.Config
	var next time.Time
	due := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if st.State.active() {
		due(st.Deadline)
	}
	switch st.State {
	case PrecheckOK:
		due(st.Since.Add(probeStart))
	case Baseline:
		due(st.Since.Add(c.Baseline))
	case Injecting:
		m.nextInjection(due)
	case Holding:
		due(st.Since.Add(c.Hold))
		due(st.RenewedAt.Add(c.Lease / 3))
	case Reverting:
		due(m.giveUp())
	case FailingBack:
		due(m.waitUntil())
	case Verifying:
		m.nextVerify(due)
	}
	return next
}

func (m Machine) nextInjection(due func(time.Time)) {
	st, c := m.State, m.Config
	for i := range c.Faults {
		if !m.injected(i) {
			due(m.faultDue(i))
		}
	}
	for _, in := range st.Injected {
		if !in.Applied {
			due(in.IntentAt.Add(c.Lease))
		}
	}
	due(st.RenewedAt.Add(c.Lease / 3))
}

func (m Machine) nextVerify(due func(time.Time)) {
	st := m.State
	switch st.Stage {
	case Observing:
		if !st.HealthyAt.IsZero() {
			due(st.HealthyAt.Add(m.Config.Verify))
		}
		due(m.waitUntil())
	case Counting:
		due(st.StageAt.Add(countLimit))
	case Measuring:
		due(st.StageAt.Add(measLimit))
	}
}

func (s *step) act(a Action) { s.out = append(s.out, a) }

// record appends to the log; actor is the account whose act it was, empty for the machine's own.
func (s *step) record(k record.Kind, payload any, actor string) {
	s.act(Action{Kind: ActRecord, Record: k, Payload: payload, Actor: actor})
}

// enter changes the state and records it.
func (s *step) enter(to Name, why string) {
	s.record(record.RunState, record.State{From: string(s.State.State), To: string(to), Reason: why}, "")
	s.State.State, s.State.Since = to, s.ev.At
}

func (s *step) intent(id, what string) {
	s.record(record.RunIntent, record.Intent{Step: id, What: what}, "")
}

func (s *step) outcome(id string, ok bool, message string) {
	s.record(record.RunOutcome, record.Outcome{Step: id, OK: ok, Message: message}, "")
}

// stepID numbers the steps of a run: 01 the probes, then one per fault, then last, last+1, ... for the way out.
func (m Machine) stepID(n int, name string) string {
	return fmt.Sprintf("%s/%02d-%s", m.Config.Run, n, name)
}

func (m Machine) last() int { return 2 + len(m.Config.Faults) }

func (m Machine) clone() Machine {
	st := &m.State
	st.Approvals = slices.Clone(st.Approvals)
	st.Targets = slices.Clone(st.Targets)
	st.Injected = slices.Clone(st.Injected)
	for i := range st.Injected {
		st.Injected[i].Targets = slices.Clone(st.Injected[i].Targets)
	}
	st.FailedOver, st.FailedBack = slices.Clone(st.FailedOver), slices.Clone(st.FailedBack)
	st.Deviations = slices.Clone(st.Deviations)
	return m
}

// LiveFaults are the orders that may still act somewhere: their faults are ordered and not proven gone.
func (m Machine) LiveFaults() []fault.Order {
	var out []fault.Order
	for _, in := range m.State.Injected {
		if !in.gone() {
			out = append(out, in.Order)
		}
	}
	return out
}
