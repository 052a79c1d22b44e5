package measure_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/drilltest"
	"github.com/livefire-mesh/livefire/internal/drill/measure"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

const ms = time.Millisecond

func input(b drilltest.Built) measure.Input {
	return measure.Input{Proposal: b.Proposal, Records: b.Records, Chunks: b.Chunks, Executions: b.Executions}
}

func run(t *testing.T, b drilltest.Built) measure.Result {
	t.Helper()
	r, err := measure.Run(input(b))
	if err != nil {
		t.Fatalf("Run: %v", err)
	}
	for _, s := range r.Services {
		invariants(t, s)
	}
	return r
}

// invariants hold for every service of every run.
func invariants(t *testing.T, s measure.Service) {
	t.Helper()
	var sum time.Duration
	for _, p := range s.Phases {
		if p.Took < 0 {
			t.Errorf("%s: phase %s is negative: %v", s.Name, p.Name, p.Took)
		}
		sum += p.Took
	}
	if len(s.Phases) > 0 && sum != s.RTA {
		t.Errorf("%s: phases %v add up to %v, RTA is %v", s.Name, s.Phases, sum, s.RTA)
	}
	sum = 0
	for _, p := range s.SwitchPhases {
		sum += p.Took
	}
	if s.Switch != nil && sum != *s.Switch {
		t.Errorf("%s: switch phases %v add up to %v, switch time is %v", s.Name, s.SwitchPhases, sum, *s.Switch)
	}
	for _, a := range []measure.Account{s.Account, s.Hurt, s.Outside} {
		if got := a.OK + a.RetriedOK + a.Slow + a.Shed + a.Unknown + a.Failed(); got != a.Sent {
			t.Errorf("%s: classes add up to %d of %d sent", s.Name, got, a.Sent)
		}
	}
	if s.Hurt.Sent+s.Outside.Sent != s.Account.Sent {
		t.Errorf("%s: %d inside + %d outside are not %d sent", s.Name, s.Hurt.Sent, s.Outside.Sent, s.Account.Sent)
	}
	if s.Result == measure.Absorbed && (s.RTA != 0 || s.Marks.TX != nil || s.Marks.TR != nil) {
		t.Errorf("%s: absorbed with RTA %v, tX %v, tR %v", s.Name, s.RTA, s.Marks.TX, s.Marks.TR)
	}
	if s.RTA < 0 || s.Epsilon < 0 || s.ReflexLead < 0 || s.LateAck < 0 {
		t.Errorf("%s: a negative time: %+v", s.Name, s)
	}
}

func service(t *testing.T, r measure.Result, name api.ServiceID) measure.Service {
	t.Helper()
	for _, s := range r.Services {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no service %s", name)
	return measure.Service{}
}

func objective(t *testing.T, s measure.Service, name string) measure.Objective {
	t.Helper()
	for _, o := range s.Objectives {
		if o.Name == name {
			return o
		}
	}
	t.Fatalf("%s: objective %s was not judged", s.Name, name)
	return measure.Objective{}
}

func phases(s []measure.Phase) string {
	var out []string
	for _, p := range s {
		out = append(out, p.Name+" "+p.Took.String())
	}
	return strings.Join(out, " | ")
}

// only keeps orders, the service whose users wait for the switch.
func only(s drilltest.Script, edit func(*drilltest.Service)) drilltest.Script {
	s.Services = slices.Clone(s.Services[1:])
	edit(&s.Services[0])
	return s
}

// "A service with reflex: false shows the phases; one with reflex: true shows that users did not need them."
func TestSiteLossShowsBothKindsSideBySide(t *testing.T) {
	r := run(t, drilltest.SiteLoss().Build())
	if r.Verdict != measure.Passed {
		t.Fatalf("verdict %s (%s), want passed", r.Verdict, r.Reason)
	}
	p, o := service(t, r, "payments"), service(t, r, "orders")
	if p.Result != measure.Absorbed || p.RTA != 0 || len(p.Phases) != 0 {
		t.Errorf("payments: %s, RTA %v, phases %v; want absorbed, 0, none", p.Result, p.RTA, p.Phases)
	}
	if got, want := phases(p.SwitchPhases), "detect 1.21s | decide 1.02s | propagate 30ms"; got != want {
		t.Errorf("payments: switch %s, want %s", got, want)
	}
	// orders' samples are due 1 ms after the whole 10 ms: the first good one is due at +2.311 s.
	if got, want := phases(o.Phases), "detect 1.21s | decide 1.02s | propagate 30ms | settle 51ms"; got != want || o.Result != measure.Recovered {
		t.Errorf("orders: %s: %s, want recovered: %s", o.Result, got, want)
	}
	if o.RTA != 2311*ms || *o.Switch != 2260*ms {
		t.Errorf("orders: RTA %v, switch %v; want 2.311s, 2.26s", o.RTA, *o.Switch)
	}
	if got, want := o.Epsilon, 10*ms+4*ms; got != want {
		t.Errorf("orders: uncertainty %v, want %v (one probe interval and the bracket)", got, want)
	}
	if a := o.Account; a.Status != 231 || a.Failed() != 231 || o.Hurt.Status != 231 || o.Outside.Failed() != 0 {
		t.Errorf("orders: %d failed, %d of them inside, %d outside; want 231, 231, 0", a.Failed(), o.Hurt.Failed(), o.Outside.Failed())
	}
	if p.Account.RetriedOK != 140 || p.ReflexServed != 446 {
		t.Errorf("payments: %d retried, %d served by reflex; want 140, 446", p.Account.RetriedOK, p.ReflexServed)
	}
	if m := p.Marks; m.TE == nil || m.TE.At.Sub(m.TI.At) != 120*ms {
		t.Errorf("payments: tE = %+v, want tI + 120 ms", m.TE)
	}
	if g := o.Propagation; g.P50 != 15*ms || g.Max != 30*ms || g.Slowest != "us-2" || len(g.Silent) != 2 {
		t.Errorf("orders: propagation %+v", g)
	}
	if r.Revert == nil || *r.Revert != 400*ms {
		t.Errorf("revert time %v, want 400ms (the last of four targets)", r.Revert)
	}
	if o.Failback == nil || *o.Failback != 1007*ms {
		t.Errorf("orders: fail-back time %v, want 1.007s (restored after 1 s, next sample 7 ms later)", o.Failback)
	}
	if r.Blast.Predicted != 4 || r.Blast.Actual != 4 {
		t.Errorf("blast radius %d predicted, %d actual; want 4 and 4", r.Blast.Predicted, r.Blast.Actual)
	}
	for _, f := range r.Faults {
		if !f.Proven || f.EndedBy != "revert" || f.Applied == nil || f.Ended == nil {
			t.Errorf("fault %+v is not shown to be over", f)
		}
	}
}

func TestEveryLineOfTheResultTable(t *testing.T) {
	for _, tc := range []struct {
		name   string
		edit   func(*drilltest.Script, *drilltest.Service)
		result string
		phases string
		check  func(*testing.T, measure.Service)
	}{
		{"no bad window: absorbed", func(_ *drilltest.Script, s *drilltest.Service) { s.HurtTo, s.Reflex = -1, true }, measure.Absorbed, "", nil},
		{"after the last ACK: four phases", func(*drilltest.Script, *drilltest.Service) {}, measure.Recovered,
			"detect 1.21s | decide 1.02s | propagate 30ms | settle 50ms", nil},
		{"between commit and last ACK: propagate ends at tR", func(sc *drilltest.Script, _ *drilltest.Service) { sc.Propagate = time.Second },
			measure.Recovered, "detect 1.21s | decide 1.02s | propagate 80ms", func(t *testing.T, s measure.Service) {
				if s.LateAck != 920*ms {
					t.Errorf("last acknowledgement %v later, want 920ms", s.LateAck)
				}
			}},
		{"exactly at the last ACK: no settle", func(_ *drilltest.Script, s *drilltest.Service) { s.HurtTo = 2260 * ms }, measure.Recovered,
			"detect 1.21s | decide 1.02s | propagate 30ms", nil},
		{"before the switch: by reflex", func(_ *drilltest.Script, s *drilltest.Service) { s.HurtTo, s.Reflex = 400*ms, true }, measure.Recovered, "",
			func(t *testing.T, s measure.Service) {
				if s.RTA != 400*ms || s.ReflexLead != 1830*ms {
					t.Errorf("RTA %v, %v before the switch; want 400ms, 1.83s", s.RTA, s.ReflexLead)
				}
			}},
		{"exactly at the commit: by reflex", func(_ *drilltest.Script, s *drilltest.Service) { s.HurtTo = 2230 * ms }, measure.Recovered, "",
			func(t *testing.T, s measure.Service) {
				if s.RTA != 2230*ms || s.ReflexLead != 0 {
					t.Errorf("RTA %v, lead %v; want 2.23s, 0", s.RTA, s.ReflexLead)
				}
			}},
		{"never: not recovered", func(_ *drilltest.Script, s *drilltest.Service) { s.HurtTo = time.Hour }, measure.NotRecovered, "", nil},
		{"no switch at all, users recovered", func(sc *drilltest.Script, s *drilltest.Service) { sc.Decide = -1; s.HurtTo = 400 * ms; s.Reflex = true },
			measure.Recovered, "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sc := only(drilltest.SiteLoss(), func(*drilltest.Service) {})
			tc.edit(&sc, &sc.Services[0])
			s := run(t, sc.Build()).Services[0]
			if s.Result != tc.result || phases(s.Phases) != tc.phases {
				t.Errorf("%s: %q, want %s: %q", s.Result, phases(s.Phases), tc.result, tc.phases)
			}
			if tc.check != nil {
				tc.check(t, s)
			}
		})
	}
}

// An operator may order the switch before the detector has judged: no detect phase is invented, and the sum holds.
func TestASwitchBeforeTheVerdictHasNoDetectPhase(t *testing.T) {
	for name, edit := range map[string]func(*record.Verdict){
		"judged after the switch": func(v *record.Verdict) { v.At = v.At.Add(2 * time.Second) },
		"never judged lost":       func(v *record.Verdict) { v.State = "suspect" },
	} {
		b := only(drilltest.SiteLoss(), func(*drilltest.Service) {}).Build()
		for i, r := range b.Records {
			if r.Kind != string(record.SiteVerdict) {
				continue
			}
			v, err := record.Decode[record.Verdict](r)
			if err != nil {
				t.Fatal(err)
			}
			edit(&v)
			if b.Records[i].Data, err = json.Marshal(v); err != nil {
				t.Fatal(err)
			}
		}
		s := run(t, b).Services[0]
		if got, want := phases(s.Phases), "decide 2.23s | propagate 30ms | settle 50ms"; got != want || len(s.Notes) == 0 {
			t.Errorf("%s: %s with notes %q, want %s and a note", name, got, s.Notes, want)
		}
	}
}

// A proxy that acknowledges only after its site came back was not reachable while it counted.
func TestLateProxiesAreSilent(t *testing.T) {
	b := only(drilltest.SiteLoss(), func(*drilltest.Service) {}).Build()
	sc := drilltest.SiteLoss()
	late, err := json.Marshal(record.Acks{Epoch: 42, Acks: []record.Ack{{Node: "eu-1", At: sc.Reverted().Add(time.Second)}}})
	if err != nil {
		t.Fatal(err)
	}
	last := &b.Records[len(b.Records)-2] // a state that nothing is measured from
	last.Kind, last.Data = string(record.TableAcked), late
	s := run(t, b).Services[0]
	if got := *s.Switch; got != 2260*ms || !slices.Equal(s.Propagation.Silent, []api.NodeID{"eu-1", "eu-2"}) {
		t.Errorf("switch %v, silent %v; want 2.26s, eu-1 and eu-2", got, s.Propagation.Silent)
	}
}

// "Verdict pass if RTA + e <= RTO; fail if RTA - e > RTO; else inconclusive."
func TestRTOVerdictAtItsBounds(t *testing.T) {
	const rta, eps = 2310 * ms, 14 * ms
	for _, tc := range []struct {
		rto  time.Duration
		want string
		run  string
	}{
		{rta + eps, measure.Pass, measure.Passed},
		{rta + eps - 1, measure.Inconclusive, measure.Inconclusive},
		{rta - eps, measure.Inconclusive, measure.Inconclusive},
		{rta - eps - 1, measure.Fail, measure.Failed},
	} {
		r := run(t, only(drilltest.SiteLoss(), func(s *drilltest.Service) { s.RTO = tc.rto }).Build())
		o := objective(t, r.Services[0], "rto")
		if o.Verdict != tc.want || r.Verdict != tc.run {
			t.Errorf("RTO %v: %s, run %s; want %s, %s (RTA %v, e %v)", tc.rto, o.Verdict, r.Verdict, tc.want, tc.run, r.Services[0].RTA, r.Services[0].Epsilon)
		}
	}
}

// A node's clock that is 200 ms off and a local check that came 100 ms late both widen the answer, and neither
// moves it.
func TestUncertaintyGrowsWithClockAndBracket(t *testing.T) {
	base := run(t, only(drilltest.SiteLoss(), func(*drilltest.Service) {}).Build()).Services[0]
	sc := only(drilltest.SiteLoss(), func(*drilltest.Service) {})
	sc.Offset, sc.Bracket = 200*ms, sc.Bracket+100*ms
	got := run(t, sc.Build()).Services[0]
	if d := got.Epsilon - base.Epsilon; d != 300*ms {
		t.Errorf("uncertainty grew by %v, want 300ms", d)
	}
	if got.RTA != base.RTA || phases(got.Phases) != phases(base.Phases) {
		t.Errorf("a shifted clock moved the result: %v (%s), want %v (%s)", got.RTA, phases(got.Phases), base.RTA, phases(base.Phases))
	}
}

func TestHoldTooShortOrNoDataIsNotMeasured(t *testing.T) {
	short := only(drilltest.SiteLoss(), func(*drilltest.Service) {})
	short.Hold = 900 * ms
	blind := only(drilltest.SiteLoss(), func(*drilltest.Service) {}).Build()
	blind.Chunks = nil
	dead := only(drilltest.SiteLoss(), func(*drilltest.Service) {}).Build()
	dead.Chunks = dead.Chunks[:4] // the probe died before the fault
	noFault := only(drilltest.SiteLoss(), func(*drilltest.Service) {}).Build()
	noFault.Records = slices.DeleteFunc(noFault.Records, func(r evidence.Record) bool { return r.Kind == string(record.FaultApplied) })
	died := only(drilltest.SiteLoss(), func(s *drilltest.Service) { s.HurtTo = time.Hour; s.Class = sample.Unknown }).Build()
	for name, b := range map[string]drilltest.Built{
		"a hold shorter than the window": short.Build(), "no samples": blind, "samples that end before the fault": dead,
		"no fault": noFault, "only unknown samples": died,
	} {
		r := run(t, b)
		if s := r.Services[0]; s.Result != measure.NotMeasured || s.Why == "" || r.Verdict == measure.Passed {
			t.Errorf("%s: %s (%s), verdict %s; want not-measured with a reason, not passed", name, s.Result, s.Why, r.Verdict)
		}
	}
}

func TestMissingChunkIsNotAPass(t *testing.T) {
	b := only(drilltest.SiteLoss(), func(*drilltest.Service) {}).Build()
	b.Chunks = slices.Delete(b.Chunks, 1, 2) // in the baseline
	r := run(t, b)
	if o := objective(t, r.Services[0], "success"); o.Verdict != measure.Inconclusive || r.Verdict != measure.Inconclusive {
		t.Errorf("success %s, run %s; want inconclusive", o.Verdict, r.Verdict)
	}
}

func TestContradictionsAreErrors(t *testing.T) {
	twice := drilltest.SiteLoss().Build()
	twice.Chunks = append(twice.Chunks, twice.Chunks[3])
	same := drilltest.SiteLoss().Build()
	same.Chunks[2].Samples[5].Request = same.Chunks[2].Samples[6].Request
	order := drilltest.SiteLoss().Build()
	order.Records[5], order.Records[6] = order.Records[6], order.Records[5]
	odd := drilltest.SiteLoss().Build()
	odd.Records[5].Data = []byte(`{"x":1}`)
	odd.Records[5].Kind = string(record.RunState)
	for name, b := range map[string]drilltest.Built{"a chunk twice": twice, "an identifier twice": same, "records out of order": order, "an unknown field": odd} {
		if _, err := measure.Run(input(b)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
