package drill

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

var t0 = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// proposal is a site loss of two services, one fault, three approvals.
func proposal() record.Proposal {
	p := record.Proposal{Run: "loss-20261120-1", Software: "v0.1.0"}
	p.Scenario.Metadata.Name = "site-loss"
	p.Scenario.Spec = api.ScenarioSpec{
		Parameters: map[string]api.Parameter{"fault": {Enum: []string{"kill", "pause"}, Default: "kill"}},
		Faults:     []api.FaultTemplate{{Kind: "{fault}", Target: api.FaultTarget{Site: "{site}"}}},
		Expect:     api.Expect{Verdict: "passed"},
	}
	p.Drill.Metadata.Name = "loss"
	p.Drill.Spec = api.DrillSpec{
		Scenario: "site-loss", Scope: api.DrillScope{Site: "eu", Services: []api.ServiceID{"payments", "orders"}, MaxTargets: 4},
		Probes:   []api.Probe{{Service: "payments", From: "client", Rate: 100}, {Service: "orders", From: "client", Rate: 100}},
		Baseline: sec(5), Hold: sec(20), Verify: sec(5), Lease: sec(15), Deadline: sec(300),
		Approvals: []string{"development", "operations", "security"},
	}
	ap := func(s api.ServiceID, mode string) api.ActivePassive {
		x := api.ActivePassive{Spec: api.ActivePassiveSpec{Service: s}}
		x.Metadata.Name, x.Spec.Failback.Mode = string(s), mode
		return x
	}
	p.ActivePassive = []api.ActivePassive{ap("payments", api.Automatic), ap("orders", api.Approved)}
	return p
}

func sec(n int) api.Duration { return api.Duration(time.Duration(n) * time.Second) }

func newMachine(t testing.TB, p record.Proposal) (Machine, []Action) {
	t.Helper()
	c, err := Configure(p, "dev1", "key-dev1")
	if err != nil {
		t.Fatalf("Configure: %v", err)
	}
	return New(c, t0)
}

// world is a small real environment of a machine: agents that obey, until told otherwise. It checks on every step
// what must never happen.
type world struct {
	t         testing.TB
	m         Machine
	at        time.Time
	queue     []Event
	published map[string]int
	faults    map[string]bool // in force, by "<order>/<target>"
	restarts  bool            // an inject intent was on record when a server took over
	records   []Action
	deaf      map[string]bool // targets that never report
	outbox    []fault.Report  // reverts; agents repeat them until a server has taken them
	auto      bool            // answer actions
}

func newWorld(t testing.TB, p record.Proposal) *world {
	w := &world{t: t, at: t0, published: map[string]int{}, faults: map[string]bool{}, deaf: map[string]bool{}, auto: true}
	var acts []Action
	w.m, acts = newMachine(t, p)
	w.do(acts)
	return w
}

var targets = []string{"orders-1", "orders-1/sidecar", "payments-1"}

func (w *world) step(ev Event) []Action {
	w.t.Helper()
	if ev.At.IsZero() {
		ev.At = w.at
	}
	if ev.Kind == Restarted && len(w.m.State.Injected) > 0 {
		w.restarts = true
	}
	before := marshal(w.t, w.m)
	m, acts := w.m.Step(ev)
	if got := marshal(w.t, w.m); got != before {
		w.t.Fatalf("Step(%s) edited the machine it was given", ev.Kind)
	}
	// A machine is stored after every step: what comes back must be the same machine.
	var back Machine
	if err := json.Unmarshal([]byte(marshal(w.t, m)), &back); err != nil {
		w.t.Fatal(err)
	}
	if got, want := marshal(w.t, back), marshal(w.t, m); got != want {
		w.t.Fatalf("machine does not survive JSON:\n%s\n%s", got, want)
	}
	w.m = back
	w.check(ev, acts)
	w.do(acts)
	return acts
}

func marshal(t testing.TB, m Machine) string {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// check is what holds after every step, whatever happened.
func (w *world) check(ev Event, acts []Action) {
	w.t.Helper()
	intents := map[string]bool{}
	for _, a := range acts {
		switch a.Kind {
		case ActRecord:
			if i, ok := a.Payload.(record.Intent); ok {
				intents[i.Step] = true
			}
			w.records = append(w.records, a)
		case ActPublishFault:
			w.published[a.ID]++
			switch {
			case w.published[a.ID] > 1:
				w.t.Fatalf("%s was published twice", a.ID)
			case w.restarts:
				w.t.Fatalf("%s was published after a restart that found an inject intent", a.ID)
			case !intents[a.ID]:
				w.t.Fatalf("%s was published without an intent before it", a.ID)
			}
			if err := a.Fault.Validate(); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	if w.m.State.State != Done {
		return
	}
	v := w.m.State.Verdict
	if len(w.m.LiveFaults()) > 0 && v != Dirty {
		w.t.Fatalf("Done with live faults and verdict %s", v)
	}
	if w.m.State.Restored != (v != Dirty) {
		w.t.Fatalf("verdict %s, restored %v", v, w.m.State.Restored)
	}
	if w.restarts && v != Aborted && v != Dirty {
		w.t.Fatalf("verdict %s after the server was lost", v)
	}
}

// do answers actions as a healthy environment does.
func (w *world) do(acts []Action) {
	if !w.auto {
		return
	}
	for _, a := range acts {
		switch a.Kind {
		case ActRerender:
			w.push(Event{Kind: Rendered, SHA256: "aa"})
		case ActPrecheck:
			w.push(Event{Kind: Prechecked, Rules: []record.Rule{{Code: "LF3101", Name: "lever", OK: true}}, Targets: targets})
		case ActStartProbe:
			w.push(Event{Kind: ProbesRunning})
		case ActPublishFault:
			w.apply(*a.Fault)
		case ActWithdrawFault:
			w.revert(a.ID, fault.ByRevert)
		case ActAllowFailback, ActWaitFailback:
			w.push(Event{Kind: FailedBack, Service: a.Service})
		case ActCount:
			w.push(Event{Kind: Counted})
		case ActMeasure:
			w.push(Event{Kind: Measured, Verdict: Passed})
		}
	}
}

func (w *world) push(ev Event) { w.queue = append(w.queue, ev) }

func (w *world) apply(o fault.Order) {
	names := targets
	if o.Kind == fault.ServerKill {
		names = []string{"server"}
	}
	for _, n := range names {
		if o.Kind.HasUndo() {
			w.faults[o.ID+"/"+n] = true
		}
		if !w.deaf[n] {
			w.push(Event{Kind: FaultReported, Report: &fault.Report{Order: o.ID, Target: n, Phase: fault.Applied, Proof: "gone"}})
		}
	}
}

func (w *world) revert(order, by string) {
	live := slices.DeleteFunc(slices.Clone(targets), func(n string) bool { return !w.faults[order+"/"+n] })
	for _, n := range live {
		delete(w.faults, order+"/"+n)
		if !w.deaf[n] {
			r := fault.Report{Order: order, Target: n, Phase: fault.Reverted, EndedBy: by, Proof: "started, ready"}
			w.outbox = append(w.outbox, r)
			w.push(Event{Kind: FaultReported, Report: &r})
		}
	}
	if len(live) == 0 {
		w.push(Event{Kind: NoFault, Order: order})
	}
}

// restart loses the server for a while, and every answer on its way to it; then another one takes over. The agents
// ended their leases meanwhile and say so.
func (w *world) restart(gap time.Duration) {
	w.queue = nil
	w.at = w.at.Add(gap)
	w.step(Event{Kind: Restarted, Gap: gap})
	for _, in := range w.m.State.Injected {
		w.revert(in.Order.ID, fault.ByLease)
	}
	for _, r := range w.outbox {
		w.push(Event{Kind: FaultReported, Report: &r})
	}
}

// drain delivers everything that is queued, each a millisecond later.
func (w *world) drain() {
	for n := 0; len(w.queue) > 0; n++ {
		if n > 1000 {
			w.t.Fatal("the environment and the machine never come to rest")
		}
		ev := w.queue[0]
		w.queue = w.queue[1:]
		w.at = w.at.Add(time.Millisecond)
		w.step(ev)
	}
}

func (w *world) approveAll() {
	for _, g := range w.m.Missing() {
		w.step(Event{Kind: Approve, Approval: &Approval{Group: g, By: g + "1", Key: "key-" + g, SHA256: w.m.State.SHA256, At: w.at}})
	}
}

// finish runs a started machine to its end with a healthy environment.
func (w *world) finish() {
	w.t.Helper()
	for n := 0; w.m.State.State != Done; n++ {
		if n > 2000 {
			w.t.Fatalf("not Done after %d steps: %s", n, w.m.State.State)
		}
		w.drain()
		next := w.m.Next()
		if next.IsZero() {
			switch w.m.State.State {
			case Done:
				return
			case Proposed:
				w.approveAll()
			case Approved:
				w.step(Event{Kind: Start, By: "dev1"})
			default:
				w.t.Fatalf("%s wants no tick and is not Done", w.m.State.State)
			}
			continue
		}
		if next.After(w.at) {
			w.at = next
		}
		if w.m.State.State == Verifying {
			w.step(Event{Kind: Healthy})
		}
		w.step(Event{Kind: Tick})
		if got := w.m.Next(); w.m.State.State != Done && len(w.queue) == 0 && got.Equal(next) {
			w.t.Fatalf("a tick at %v did nothing, and the machine wants it again (%s)", next, w.m.State.State)
		}
	}
}

func (w *world) String() string {
	return fmt.Sprintf("%s verdict=%s reason=%q", w.m.State.State, w.m.State.Verdict, w.m.State.Reason)
}
