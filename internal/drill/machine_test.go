package drill

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

func TestRunPassesThroughEveryState(t *testing.T) {
	w := newWorld(t, proposal())
	w.finish()
	var states []string
	for _, a := range w.records {
		if s, ok := a.Payload.(record.State); ok {
			states = append(states, s.To)
		}
	}
	want := "Proposed Approved Scheduled Prechecked Baseline Injecting Holding Reverting FailingBack Verifying Done"
	if got := strings.Join(states, " "); got != want {
		t.Errorf("states:\n got %s\nwant %s", got, want)
	}
	if w.m.State.Verdict != Passed || !w.m.State.Restored {
		t.Errorf("got %s, want passed and restored", w)
	}
}

// "Any inject intent, with or without outcome: never inject again, go to Reverting with reason server-lost, verdict
// at best aborted." (architecture, flow Drill)
func TestRestartAtEveryStep(t *testing.T) {
	p := proposal()
	p.Scenario.Spec.Faults = append(p.Scenario.Spec.Faults,
		api.FaultTemplate{Kind: "pause", Target: api.FaultTarget{Site: "eu"}, After: sec(2)})
	for cut := 0; ; cut++ {
		w := newWorld(t, p)
		steps := 0
		// The same run as finish, stopped after cut steps: its server is lost, its queue of answers with it.
		for steps < cut && w.m.State.State != Done {
			w.oneStep()
			steps++
		}
		if w.m.State.State == Done {
			return
		}
		found, injected := w.m.State.State, len(w.m.State.Injected) > 0
		w.restart(4 * time.Second)
		w.finish()
		want := Passed
		if injected {
			want = Aborted
		}
		if w.m.State.Verdict != want {
			t.Errorf("restart at step %d in %s: %s, want %s", cut, found, w, want)
		}
		if injected && w.m.State.Reason != ServerLost {
			t.Errorf("restart at step %d in %s: reason %q", cut, found, w.m.State.Reason)
		}
	}
}

// oneStep delivers one queued answer, or else does what the run waits for.
func (w *world) oneStep() {
	if len(w.queue) > 0 {
		ev := w.queue[0]
		w.queue = w.queue[1:]
		w.at = w.at.Add(time.Millisecond)
		w.step(ev)
		return
	}
	switch next := w.m.Next(); {
	case w.m.State.State == Proposed:
		w.approveAll()
	case w.m.State.State == Approved:
		w.step(Event{Kind: Start, By: "dev1"})
	default:
		if next.After(w.at) {
			w.at = next
		}
		if w.m.State.State == Verifying {
			w.step(Event{Kind: Healthy})
		}
		w.step(Event{Kind: Tick})
	}
}

func TestServerKillScenarioEndsAborted(t *testing.T) {
	p := proposal()
	p.Scenario.Spec.Faults = []api.FaultTemplate{
		{Kind: "pause", Target: api.FaultTarget{Site: "eu"}},
		{Kind: "server-kill", Target: api.FaultTarget{Server: true}, After: sec(1)},
	}
	w := newWorld(t, p)
	for len(w.m.State.Injected) < 2 {
		w.oneStep()
	}
	w.restart(6 * time.Second)
	if w.m.State.State != Reverting {
		t.Fatalf("after the restart: %s, want Reverting", w.m.State.State)
	}
	w.finish()
	if w.m.State.Verdict != Aborted || w.m.State.Reason != ServerLost || !w.m.State.Restored {
		t.Errorf("got %s restored=%v, want aborted by server-lost, restored", w, w.m.State.Restored)
	}
}

func TestApprovalRules(t *testing.T) {
	w := newWorld(t, proposal())
	w.drain()
	ok := Approval{Group: "development", By: "dev2", Key: "key-dev2", SHA256: "aa", At: t0}
	w.step(Event{Kind: Approve, Approval: &ok})
	for _, tc := range []struct {
		rule string
		edit func(*Approval)
	}{
		{RuleSameKey, func(a *Approval) { a.Key = "key-dev2" }},
		{RuleRunnerKey, func(a *Approval) { a.Key = "key-dev1" }},
		{RuleSameKey, func(a *Approval) { a.Key = "" }},
		{RuleGroup, func(a *Approval) { a.Group = "marketing" }},
		{RuleGroup, func(a *Approval) { a.Group = "development" }},
		{RuleStale, func(a *Approval) { a.SHA256 = "bb" }},
	} {
		a := Approval{Group: "operations", By: "ops1", Key: "key-ops1", SHA256: "aa", At: t0}
		tc.edit(&a)
		acts := w.step(Event{Kind: Approve, Approval: &a})
		var e *api.Error
		if len(acts) != 1 || acts[0].Kind != ActRefuse || !errors.As(acts[0].Err, &e) || e.Code != tc.rule || e.Kind != api.Denied {
			t.Errorf("approval %+v: got %+v, want refusal by %s", a, acts, tc.rule)
		}
		if n := len(w.m.State.Approvals); n != 1 {
			t.Fatalf("%d approvals counted, want 1", n)
		}
	}
}

func TestEditAfterApprovalVoidsAllApprovals(t *testing.T) {
	for _, started := range []bool{false, true} {
		w := newWorld(t, proposal())
		w.drain()
		w.approveAll()
		w.auto = !started
		if started {
			w.step(Event{Kind: Start, By: "dev1"})
		}
		w.step(Event{Kind: Rendered, SHA256: "bb"})
		if st := w.m.State; st.State != Proposed || len(st.Approvals) != 0 || st.SHA256 != "bb" {
			t.Errorf("started=%v: %s with %d approvals of %s, want Proposed with none of bb", started, st.State, len(st.Approvals), st.SHA256)
		}
	}
}

func TestMissingProofMakesTheRunDirty(t *testing.T) {
	w := newWorld(t, proposal())
	for w.m.State.State != Holding {
		w.oneStep()
	}
	w.deaf["orders-1"] = true
	w.finish()
	st := w.m.State
	if st.Verdict != Dirty || st.Restored {
		t.Errorf("got %s, want dirty", w)
	}
	if st.EndedAt.Before(st.Deadline) {
		t.Errorf("gave up at %v, before the deadline %v", st.EndedAt, st.Deadline)
	}
}

func TestProofWithoutTextIsNoProof(t *testing.T) {
	w := newWorld(t, proposal())
	for w.m.State.State != Holding {
		w.oneStep()
	}
	w.auto = false
	w.step(Event{Kind: AbortRequested, By: "dev1"})
	order := w.m.State.Injected[0].Order.ID
	for _, n := range targets {
		w.step(Event{Kind: FaultReported, Report: &fault.Report{Order: order, Target: n, Phase: fault.Reverted, EndedBy: fault.ByRevert}})
	}
	if w.m.State.State != Reverting {
		t.Errorf("reports without proof took the run to %s", w.m.State.State)
	}
}

func TestRenewalsStopWithHolding(t *testing.T) {
	w := newWorld(t, proposal())
	for w.m.State.State != Holding {
		w.oneStep()
	}
	begin := w.m.State.Injected[0].IntentAt
	var renewed []time.Duration
	for w.m.State.State == Holding {
		w.at = w.m.Next()
		for _, a := range w.step(Event{Kind: Tick}) {
			if a.Kind == ActRenewFaults {
				renewed = append(renewed, w.at.Sub(begin))
			}
		}
	}
	want := []time.Duration{5 * time.Second, 10 * time.Second, 15 * time.Second, 20 * time.Second}
	if len(renewed) != len(want) {
		t.Fatalf("renewed at %v, want %v", renewed, want)
	}
	for i := range want {
		if renewed[i] != want[i] {
			t.Errorf("renewal %d at %v, want %v", i, renewed[i], want[i])
		}
	}
	w.at = w.at.Add(time.Minute)
	for _, a := range w.step(Event{Kind: Tick}) {
		if a.Kind == ActRenewFaults {
			t.Error("renewed after the hold")
		}
	}
}

func TestLateTickNeverRevivesALease(t *testing.T) {
	w := newWorld(t, proposal())
	for w.m.State.State != Holding {
		w.oneStep()
	}
	w.at = w.at.Add(16 * time.Second)
	for _, a := range w.step(Event{Kind: Tick}) {
		if a.Kind == ActRenewFaults {
			t.Error("renewed an order whose lease had ended")
		}
	}
	if st := w.m.State; st.State != Reverting || !strings.HasPrefix(st.Reason, LeaseExpired) {
		t.Errorf("got %s", w)
	}
}

// Random events in random order: never two injections, never Done with a live fault unless dirty (both checked by
// the world on every step), and with a fair environment afterwards always Done.
func TestRandomEventOrders(t *testing.T) {
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 7))
		p := proposal()
		if seed%3 == 0 {
			p.Scenario.Spec.Faults = append(p.Scenario.Spec.Faults,
				api.FaultTemplate{Kind: "server-kill", Target: api.FaultTarget{Server: true}, After: sec(1)})
		}
		w := newWorld(t, p)
		for range 80 {
			w.at = w.at.Add(time.Duration(rng.IntN(3000)) * time.Millisecond)
			if len(w.queue) > 0 && rng.IntN(3) > 0 {
				i := rng.IntN(len(w.queue))
				ev := w.queue[i]
				if rng.IntN(5) > 0 { // else it will be delivered again
					w.queue = append(w.queue[:i:i], w.queue[i+1:]...)
				}
				w.step(ev)
				continue
			}
			w.step(randomEvent(rng, w))
		}
		if w.m.State.State != Done {
			w.finish()
		}
	}
}

func randomEvent(rng *rand.Rand, w *world) Event {
	order := p0(w)
	names := append([]string{"", "stranger"}, targets...)
	report := func(ph fault.Phase, proof string) Event {
		return Event{Kind: FaultReported, Report: &fault.Report{
			Order: order, Target: names[rng.IntN(len(names))], Phase: ph, Proof: proof, EndedBy: fault.ByLease}}
	}
	switch n := rng.IntN(40); {
	case n == 0:
		return Event{Kind: Restarted, Gap: time.Second}
	case n == 1:
		return Event{Kind: LeaseLost, Order: order}
	case n == 2:
		return Event{Kind: AbortRequested, By: "ops1"}
	case n == 3:
		return Event{Kind: GuardrailTripped, Rule: "success", Service: "search"}
	case n == 4:
		return Event{Kind: LeverEngaged, By: "ops1"}
	case n == 5:
		return report(fault.Failed, "")
	case n == 6:
		return report(fault.Refused, "")
	case n == 7:
		return Event{Kind: Rendered, SHA256: "bb"}
	case n == 8:
		return Event{Kind: ProbeStalled, Service: "orders"}
	case n < 12:
		return Event{Kind: FailedOver, Services: []api.ServiceID{"orders", "payments"}}
	case n < 14:
		return Event{Kind: FailedBack, Service: "orders"}
	case n < 16:
		return Event{Kind: Unhealthy}
	case n < 20:
		return Event{Kind: Healthy}
	case n < 24:
		g := w.m.Config.Groups[rng.IntN(3)]
		return Event{Kind: Approve, Approval: &Approval{Group: g, Key: "key-" + g, SHA256: w.m.State.SHA256}}
	case n < 26:
		return Event{Kind: Start, By: "dev1"}
	default:
		return Event{Kind: Tick}
	}
}

func p0(w *world) string {
	if len(w.m.State.Injected) > 0 {
		return w.m.State.Injected[0].Order.ID
	}
	return w.m.Config.Run + "/02-kill"
}

func TestConfigureRefuses(t *testing.T) {
	for name, edit := range map[string]func(*record.Proposal){
		"an unknown parameter":       func(p *record.Proposal) { p.Drill.Spec.Parameters = map[string]string{"colour": "red"} },
		"a value outside the list":   func(p *record.Proposal) { p.Drill.Spec.Parameters = map[string]string{"fault": "flood"} },
		"a kind that is not known":   func(p *record.Proposal) { p.Scenario.Spec.Faults[0].Kind = "flood" },
		"a placeholder without name": func(p *record.Proposal) { p.Scenario.Spec.Faults[0].Kind = "{fault" },
		"no fault":                   func(p *record.Proposal) { p.Scenario.Spec.Faults = nil },
		"no probe":                   func(p *record.Proposal) { p.Drill.Spec.Probes = nil },
		"two probes of one service":  func(p *record.Proposal) { p.Drill.Spec.Probes[1].Service = "payments" },
		"no site":                    func(p *record.Proposal) { p.Drill.Spec.Scope.Site = "" },
		"no hold":                    func(p *record.Proposal) { p.Drill.Spec.Hold = 0 },
		"a lease that is too short":  func(p *record.Proposal) { p.Drill.Spec.Lease = 1 },
	} {
		p := proposal()
		edit(&p)
		if _, err := Configure(p, "dev1", "k"); api.KindOf(err) != api.Invalid {
			t.Errorf("Configure with %s: got %v, want Invalid", name, err)
		}
	}
}

func TestParametersFillTheScenario(t *testing.T) {
	p := proposal()
	p.Drill.Spec.Parameters = map[string]string{"fault": "pause"}
	c, err := Configure(p, "dev1", "k")
	if err != nil || c.Faults[0].Kind != fault.Pause || c.Faults[0].Site != "eu" {
		t.Errorf("got %+v, %v, want pause at eu", c.Faults, err)
	}
}
