package failover

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// history is what a random run of one machine did.
type history struct {
	t     *testing.T
	rnd   *rand.Rand
	m     Machine
	now   time.Time
	epoch uint64
	last  map[api.SiteID]route.Weight
	auto  []time.Time // automatic switches outside drills
	drill bool
	moves int
}

// TestWhateverHappens feeds random events to machines and checks after each what must always hold.
func TestWhateverHappens(t *testing.T) {
	moves := 0
	for seed := range uint64(30) {
		h := newHistory(t, seed)
		for range 200 {
			h.step(h.event())
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		moves += h.moves
	}
	if moves < 50 {
		t.Errorf("only %d moves: the events do not exercise the machine", moves)
	}
}

func newHistory(t *testing.T, seed uint64) *history {
	rnd := rand.New(rand.NewPCG(seed, 7))
	c := Config{Service: "payments", Pattern: "ActivePassive/payments", Order: []api.SiteID{"eu-west", "us-east", "ap-south"},
		Mode:  []string{api.Automatic, api.Automatic, api.Approved, api.Manual}[rnd.IntN(4)],
		After: 5 * time.Second, MaxSwitches: 1 + rnd.IntN(3), SwitchWindow: 10 * time.Minute, RequireReady: true, RequireCapacity: 1,
		FailbackMode:  []string{api.Automatic, api.Automatic, api.Approved, api.Manual}[rnd.IntN(4)],
		FailbackAfter: time.Minute, RampShares: []float64{0.1, 0.5, 1}, RampEvery: 20 * time.Second, Stateful: rnd.IntN(6) == 0}
	if rnd.IntN(3) == 0 {
		c.Excluded = []api.SiteID{"ap-south"}
	}
	if rnd.IntN(3) == 0 {
		c.Weights = map[api.SiteID]float64{"eu-west": 2, "us-east": 1, "ap-south": 1}
		c.MaxSwitches = 0
	}
	m := New(c.complete())
	return &history{t: t, rnd: rnd, m: m, now: start, last: m.State.Shares}
}

func (h *history) event() Event {
	h.now = h.now.Add(time.Duration(h.rnd.IntN(8)) * time.Second)
	if next := h.m.Next(); !next.IsZero() && h.rnd.IntN(3) == 0 && next.After(h.now) {
		h.now = next
		return Tick{At: h.now}
	}
	pick := func(xs ...api.SiteID) api.SiteID { return xs[h.rnd.IntN(len(xs))] }
	switch h.rnd.IntN(12) {
	case 0:
		return Ordered{At: h.now, Actor: "ops1", Verb: []Verb{VerbFailover, VerbFailback, VerbApprove, VerbDeclareLost}[h.rnd.IntN(4)],
			To: pick("eu-west", "us-east", "ap-south", ""), Planned: h.rnd.IntN(2) == 0, DryRun: h.rnd.IntN(4) == 0}
	case 1, 2, 3:
		if p := h.m.State.Pending; p != nil {
			h.epoch++
			return Committed{At: h.now, Number: p.Publish.Number, Epoch: h.epoch}
		}
		return Acked{At: h.now, Epoch: h.epoch, AllReachable: true}
	case 4, 5:
		return Acked{At: h.now, Epoch: h.epoch, AllReachable: h.rnd.IntN(4) > 0}
	case 6:
		h.drill = !h.drill
		return Drill{At: h.now, Run: "r", Begin: h.drill, Site: "eu-west"}
	case 7:
		return Restarted{At: h.now}
	case 8:
		return Tick{At: h.now}
	}
	ev := Observed{At: h.now, Sites: map[api.SiteID]SiteFacts{}, Demand: 50, DemandKnown: h.rnd.IntN(5) > 0, ObjectivesKnown: h.rnd.IntN(2) == 0,
		ObjectivesMet: h.rnd.IntN(4) > 0, Reflexed: h.rnd.IntN(6) == 0}
	for _, site := range []api.SiteID{"eu-west", "us-east", "ap-south"} {
		if old, ok := h.m.State.Sites[site]; ok && h.rnd.IntN(5) > 0 {
			ev.Sites[site] = old.Facts // mostly nothing changes
			continue
		}
		state := []health.State{health.Ready, health.Ready, health.Ready, health.Lost, health.Lost, health.Degraded, health.Suspect, health.Unknown}[h.rnd.IntN(8)]
		f := SiteFacts{Verdict: health.Verdict{State: state}, Workloads: 2, CertificatesValid: h.rnd.IntN(20) > 0}
		if state == health.Ready || state == health.Degraded {
			f.ReadyWorkloads, f.ReadyCapacity = 2, float64(30+h.rnd.IntN(60))
		}
		ev.Sites[site] = f
	}
	return ev
}

func (h *history) step(ev Event) {
	before := h.m
	next := before.Next()
	m, actions := before.Step(ev)
	again, same := before.Step(ev)
	if d := cmp.Diff(m, again); d != "" || !cmp.Equal(actions, same) {
		h.t.Errorf("the same event gives another result: %s", d)
	}
	if o, ok := ev.(Ordered); ok && o.DryRun {
		if !cmp.Equal(before, m) {
			h.t.Errorf("a dry run changed the machine")
		}
		return
	}
	h.m = m
	if tick, ok := ev.(Tick); ok {
		h.checkNext(tick, next, before, actions)
	}
	for _, a := range actions {
		if pub, ok := a.(Publish); ok && pub.Number > before.State.Number { // a restart gives old ones again
			h.checkPublish(before, pub, ev)
		}
	}
	h.checkState()
}

// checkNext: a tick before Next does nothing; one at Next does something, unless what it would say has been said.
func (h *history) checkNext(tick Tick, next time.Time, before Machine, actions []Action) {
	due := !next.IsZero() && !tick.At.Before(next)
	if !due && len(actions) > 0 {
		h.t.Errorf("a tick at %s did %v, and Next said %s", tick.At, actions, next)
	}
	if due && tick.At.Equal(next) && tick.At.After(before.State.At) {
		a, b := before.State, h.m.State
		a.At, b.At = time.Time{}, time.Time{}
		said := b.Awaiting != "" || b.RefusedFailover != "" || b.RefusedFailback != ""
		if len(actions) == 0 && cmp.Equal(a, b) && !said {
			h.t.Errorf("a tick at Next (%s) did nothing: %+v", next, h.m.State)
		}
	}
}

func (h *history) checkPublish(before Machine, pub Publish, ev Event) {
	h.moves++
	c := h.m.Config
	for site := range pub.Shares {
		if slices.Contains(c.Excluded, site) {
			h.t.Errorf("%+v gives a share to an excluded site", pub)
		}
	}
	if pub.Cause == CauseLost && pub.Actor == c.policy() && before.State.Ramp == nil {
		h.checkAutomatic(pub)
	}
	if c.Weights != nil {
		h.last = pub.Shares
		return
	}
	switch pub.Cause {
	case CauseLost, CausePlanned, CauseUnplanned:
		if len(pub.Shares) != 1 || pub.Shares[pub.Active] != route.Whole {
			h.t.Errorf("a switch does not give everything to one site: %+v", pub)
		}
		s := h.m.State.Sites[pub.Active]
		back := before.State.Ramp != nil && (pub.Active == before.State.Ramp.From)
		if pub.Active != before.State.Active && !back && (s.Facts.ReadyWorkloads == 0 || s.Declared != "") {
			h.t.Errorf("%T moved everything to a site that is not ready: %+v %+v", ev, pub, s)
		}
	case CauseFailback, CauseReflex:
		if len(pub.Shares) > 2 || (c.Stateful && len(pub.Shares) != 1) {
			h.t.Errorf("a step of a fail-back has shares %v", pub.Shares)
		}
	}
	h.last = pub.Shares
}

// checkAutomatic: only in mode automatic, never for stateful data, and never more often than the limit.
func (h *history) checkAutomatic(pub Publish) {
	c := h.m.Config
	if c.Mode != api.Automatic || c.Stateful {
		h.t.Errorf("mode %s, stateful %v: the machine moved by itself: %+v", c.Mode, c.Stateful, pub)
	}
	if h.m.State.Drill != nil || c.MaxSwitches == 0 {
		return
	}
	h.auto = append(h.auto, h.now)
	recent := slices.DeleteFunc(slices.Clone(h.auto), func(at time.Time) bool { return h.now.Sub(at) >= c.SwitchWindow })
	if len(recent) > c.MaxSwitches {
		h.t.Errorf("%d automatic switches in %s, the limit is %d", len(recent), c.SwitchWindow, c.MaxSwitches)
	}
}

func (h *history) checkState() {
	st := h.m.State
	sum := route.Weight(0)
	for _, w := range st.Shares {
		sum += w
	}
	if sum != route.Whole {
		h.t.Errorf("shares add up to %d: %v", sum, st.Shares)
	}
	if !cmp.Equal(st.Shares, h.last) {
		h.t.Errorf("the shares changed without a Publish: %v, published %v", st.Shares, h.last)
	}
	if h.m.Config.Weights == nil && st.Ramp == nil && (len(st.Shares) != 1 || st.Shares[st.Active] != route.Whole) {
		h.t.Errorf("active %s, but shares %v", st.Active, st.Shares)
	}
	if next := h.m.Next(); !next.IsZero() && !next.After(h.now) {
		h.t.Errorf("Next %s is not after %s", next, h.now)
	}
	b, err := json.Marshal(h.m)
	if err != nil {
		h.t.Fatal(err)
	}
	read, err := Parse(b)
	if err != nil {
		h.t.Fatal(err)
	}
	if d := cmp.Diff(h.m, read, cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) })); d != "" {
		h.t.Errorf("the machine does not survive its JSON: %s", d)
	}
}

// "flapping primary (up and down every 20 s for 10 min): at most 1 site switch", with the defaults.
func TestAFlappingPrimaryIsLeftOnce(t *testing.T) {
	p := newPlayer(t)
	p.auto = true
	p.configure(nil)
	before := p.m.State.Number
	for i := range 30 {
		state := "eu-west=ready:100"
		if i%2 == 0 {
			state = "eu-west=lost"
		}
		p.command([]string{"observe", state, "us-east=ready:100", "demand=50"})
		p.run(20 * time.Second)
	}
	if got := p.m.State.Number - before; got != 1 || p.m.State.Active != "us-east" {
		t.Errorf("%d switches, active %s; want 1 and us-east", got, p.m.State.Active)
	}
}

// "Demand is the p95 of the 1 s load reports of the last 5 min, or of what there is from 5 reports on; fewer = unknown"
func TestDemand(t *testing.T) {
	var loads []Load
	for i := range 100 {
		loads = append(loads, Load{At: start.Add(-time.Duration(i) * time.Second), Rate: float64(i + 1)})
	}
	loads = append(loads, Load{At: start.Add(-DemandWindow), Rate: 1e6}, Load{At: start.Add(time.Second), Rate: 1e6})
	for _, tt := range []struct {
		loads []Load
		rate  float64
		known bool
	}{
		{nil, 0, false},
		{loads[:4], 0, false},
		{loads[:5], 5, true},
		{loads[:20], 19, true},
		{loads, 95, true},
	} {
		if rate, known := Demand(start, tt.loads); rate != tt.rate || known != tt.known {
			t.Errorf("Demand of %d loads = %g, %v; want %g, %v", len(tt.loads), rate, known, tt.rate, tt.known)
		}
	}
}

// What an operator did not write is already defaulted, but pointers may be nil.
func TestConfigOfResources(t *testing.T) {
	no, half := false, 0.5
	svc := api.Service{Metadata: api.Metadata{Name: "payments"}, Spec: api.ServiceSpec{Data: "stateful", Residency: []string{"EU"}}}
	sites := []api.Site{{Metadata: api.Metadata{Name: "eu-west"}, Spec: api.SiteSpec{Jurisdiction: "EU"}}, {Metadata: api.Metadata{Name: "us-east"}, Spec: api.SiteSpec{Jurisdiction: "US"}}}
	p := api.ActivePassive{Metadata: api.Metadata{Name: "p"}, Spec: api.ActivePassiveSpec{Service: "payments", Order: []api.SiteID{"us-east", "eu-west", "mars"}}}
	p.Spec.Failback.Ramp.Shares = []float64{0.1, 0.5}
	c := ActivePassive(p, svc, sites)
	if !c.RequireReady || c.RequireCapacity != 1 || !c.Stateful {
		t.Errorf("%+v", c)
	}
	if d := cmp.Diff([]api.SiteID{"mars", "us-east"}, c.Excluded); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]float64{1}, c.RampShares); d != "" {
		t.Errorf("stateful data fails back in one step: %s", d)
	}
	if m := New(c); m.State.Active != "eu-west" || m.Status().ActiveSite != "eu-west" || m.Placement().Shares["eu-west"] != route.Whole {
		t.Errorf("%+v", m.State)
	}
	p.Spec.Require = api.Require{Ready: &no, Capacity: &half}
	svc.Spec.Data = "stateless"
	if c = ActivePassive(p, svc, sites); c.RequireReady || c.RequireCapacity != 0.5 || !slices.Equal(c.RampShares, []float64{0.1, 0.5, 1}) {
		t.Errorf("%+v", c)
	}
	aa := api.ActiveActive{Metadata: api.Metadata{Name: "a"}, Spec: api.ActiveActiveSpec{Service: "payments", Weights: map[api.SiteID]float64{"us-east": 3, "eu-west": 1}}}
	m := New(ActiveActive(aa, svc, sites))
	if d := cmp.Diff(map[api.SiteID]route.Weight{"eu-west": route.Whole}, m.State.Shares); d != "" {
		t.Errorf("an excluded site has a share: %s", d)
	}
}

// FuzzParse: what Parse accepts can be stepped, whatever is in it.
func FuzzParse(f *testing.F) {
	for seed := range uint64(4) {
		h := newHistory(&testing.T{}, seed)
		for range 50 {
			h.m, _ = h.m.Step(h.event())
		}
		b, err := json.Marshal(h.m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		at := start.Add(24 * time.Hour)
		m.Next()
		for _, ev := range []Event{Restarted{At: at}, Tick{At: at}, Ordered{At: at, Verb: VerbFailover, To: "us-east"}, Ordered{At: at, Verb: VerbApprove},
			Ordered{At: at, Verb: VerbFailback}, Committed{At: at}, Tick{At: at.Add(time.Hour)}} {
			m, _ = m.Step(ev)
		}
	})
}
