package health

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// see is an observation of payments at eu-west, made at now: "a b" healthy, "!a" bad.
func see(observer api.NodeID, at api.SiteID, views ...string) Observation {
	o := Observation{Observer: observer, ObserverSite: at, Service: "payments", Site: "eu-west", At: now}
	for _, v := range views {
		if v[0] == '!' {
			o.Endpoints = append(o.Endpoints, EndpointView{Workload: v[1:], Reason: "timeout"})
		} else {
			o.Endpoints = append(o.Endpoints, EndpointView{Workload: v, Healthy: true})
		}
	}
	return o
}

func (o Observation) aged(d time.Duration) Observation { o.At = o.At.Add(-d); return o }
func (o Observation) late() Observation                { o.Abstains = true; return o }

func TestJudge(t *testing.T) {
	ab := []string{"a", "b"}
	tests := []struct {
		rule      string
		obs       []Observation
		endpoints []string
		observers int
		want      State
	}{
		{"two observers outside the site agree on every endpoint: lost",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("client-1", "client", "!a", "!b")}, ab, 2, Lost},
		{"one observer is not a disaster",
			[]Observation{see("us-1", "us-east", "!a", "!b")}, ab, 2, Suspect},
		{"one observer is not a disaster, even if one is asked for",
			[]Observation{see("us-1", "us-east", "!a", "!b")}, ab, 1, Suspect},
		{"an observer inside the site does not count",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("eu-1", "eu-west", "!a", "!b")}, ab, 2, Suspect},
		{"an observer inside the site that sees healthy endpoints does not block",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("client-1", "client", "!a", "!b"), see("eu-1", "eu-west", "a", "b")}, ab, 2, Lost},
		{"an observer of unknown site does not count",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("x", "", "!a", "!b")}, ab, 2, Suspect},
		{"the server counts as one observer when every lease has ended",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see(ServerObserver, "", "!a", "!b")}, ab, 2, Lost},
		{"the server does not count when one lease lives",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see(ServerObserver, "", "!a", "b")}, ab, 2, Suspect},
		{"a living lease is no proof of health and does not block",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("us-2", "us-east", "!a", "!b"), see(ServerObserver, "", "a", "b")}, ab, 2, Lost},
		{"one observer outside that sees one endpoint healthy blocks",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("us-2", "us-east", "!a", "!b"), see("client-1", "client", "!a", "b")}, ab, 2, Suspect},
		{"an abstaining observer neither agrees",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("us-2", "us-east", "!a", "!b").late()}, ab, 2, Suspect},
		{"nor blocks",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("us-2", "us-east", "!a", "!b"), see("client-1", "client", "a", "b").late()}, ab, 2, Lost},
		{"an observation of exactly 3 s still counts",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("us-2", "us-east", "!a", "!b").aged(Fresh)}, ab, 2, Lost},
		{"an older one does not",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("us-2", "us-east", "!a", "!b").aged(Fresh + 1)}, ab, 2, Suspect},
		{"one from before a step of the clock does not",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("us-2", "us-east", "!a", "!b").aged(-time.Minute)}, ab, 2, Suspect},
		{"three are needed when three are asked for",
			[]Observation{see("us-1", "us-east", "!a", "!b"), see("us-2", "us-east", "!a", "!b")}, ab, 3, Suspect},
		{"half of the endpoints each is not every endpoint",
			[]Observation{see("us-1", "us-east", "!a"), see("us-2", "us-east", "!b")}, ab, 2, Suspect},
		{"the same observer twice is one observer",
			[]Observation{see("us-1", "us-east", "!a", "!b").aged(time.Second), see("us-1", "us-east", "!a", "!b")}, ab, 2, Suspect},
		{"the later word of an observer counts",
			[]Observation{see("us-1", "us-east", "!a", "!b").aged(time.Second), see("us-1", "us-east", "a", "b")}, ab, 2, Ready},
		{"every observer outside sees every endpoint healthy: ready",
			[]Observation{see("us-1", "us-east", "a", "b"), see("client-1", "client", "a", "b")}, ab, 2, Ready},
		{"an observer inside the site does not make it less ready",
			[]Observation{see("us-1", "us-east", "a", "b"), see("eu-1", "eu-west", "!a", "b")}, ab, 2, Ready},
		{"an ended lease makes it less ready",
			[]Observation{see("us-1", "us-east", "a", "b"), see(ServerObserver, "", "a", "!b")}, ab, 2, Degraded},
		{"an observer that does not know an endpoint makes it less ready",
			[]Observation{see("us-1", "us-east", "a", "b"), see("client-1", "client", "a")}, ab, 2, Degraded},
		{"those inside are believed when nobody outside is left",
			[]Observation{see("eu-1", "eu-west", "a", "b"), see("eu-2", "eu-west", "a", "b")}, ab, 2, Ready},
		{"those inside do not make it lost",
			[]Observation{see("eu-1", "eu-west", "!a", "!b"), see("eu-2", "eu-west", "!a", "!b")}, ab, 2, Suspect},
		{"some endpoints are healthy: degraded",
			[]Observation{see("us-1", "us-east", "!a", "b"), see("client-1", "client", "!a", "b")}, ab, 2, Degraded},
		{"endpoints that the table does not have are ignored",
			[]Observation{see("us-1", "us-east", "!a", "!b", "gone"), see("us-2", "us-east", "!a", "!b", "gone")}, ab, 2, Lost},
		{"nobody reports: unknown", nil, ab, 2, Unknown},
		{"no endpoint: unknown", []Observation{see("us-1", "us-east")}, nil, 2, Unknown},
		{"other services and sites are not looked at",
			[]Observation{{Observer: "us-1", ObserverSite: "us-east", Service: "search", Site: "eu-west", At: now, Endpoints: []EndpointView{{Workload: "a"}}}}, ab, 2, Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			snap := Snapshot{At: now, Observations: tt.obs}
			v := Judge(snap, "payments", "eu-west", tt.endpoints, tt.observers)
			if v.State != tt.want {
				t.Errorf("State = %s (%s), want %s", v.State, v.Reason, tt.want)
			}
			if want := dumbState(snap, tt.endpoints, tt.observers); v.State != want {
				t.Errorf("State = %s, the dumb version says %s", v.State, want)
			}
		})
	}
}

// A verdict names who agrees and who does not, and counts what at least half of the observers see healthy.
func TestJudgeNamesItsObservers(t *testing.T) {
	snap := Snapshot{At: now, Observations: []Observation{
		see("us-2", "us-east", "!a", "!b"), see("us-1", "us-east", "!a", "!b"), see("client-1", "client", "a", "!b"),
		see("eu-1", "eu-west", "a", "b"),
	}}
	got := Judge(snap, "payments", "eu-west", []string{"a", "b"}, 2)
	want := Verdict{Service: "payments", Site: "eu-west", State: Suspect, Agree: []api.NodeID{"us-1", "us-2"},
		Disagree: []api.NodeID{"client-1"}, Endpoints: 2, Healthy: 1, Reason: "2 see every endpoint bad, 1 disagree"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"a"}, Healthy(snap, "payments", "eu-west", []string{"a", "b"})); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]api.NodeID{"client-1", "us-1", "us-2"}, Observers(snap, "payments", "eu-west")); d != "" {
		t.Error(d)
	}
}

// dumbState follows the words of the rule one by one, with no thought of speed.
func dumbState(snap Snapshot, endpoints []string, observers int) State {
	opinion := map[api.NodeID]map[string]bool{}
	site := map[api.NodeID]api.SiteID{}
	seen := map[api.NodeID]time.Time{}
	for _, o := range snap.Observations {
		if o.Service != "payments" || o.Site != "eu-west" || o.At.Before(seen[o.Observer]) {
			continue
		}
		seen[o.Observer], site[o.Observer] = o.At, o.ObserverSite
		opinion[o.Observer] = map[string]bool{}
		if o.Abstains || snap.At.Sub(o.At).Abs() > 3*time.Second {
			continue
		}
		for _, e := range o.Endpoints {
			if slices.Contains(endpoints, e.Workload) && (o.Observer != ServerObserver || !e.Healthy) {
				opinion[o.Observer][e.Workload] = e.Healthy
			}
		}
	}
	var agree, disagree, outside, outsideAll, inside, insideAll, someHealthy, ended, any int
	for who, views := range opinion {
		good, bad := 0, 0
		for _, ok := range views {
			if ok {
				good++
			} else {
				bad++
			}
		}
		if good+bad == 0 {
			continue
		}
		any++
		someHealthy += good
		switch {
		case who != ServerObserver && (site[who] == "eu-west" || site[who] == ""):
			inside++
			if good == len(endpoints) {
				insideAll++
			}
			continue
		case who == ServerObserver:
			ended += bad
		default:
			outside++
			if good == len(endpoints) {
				outsideAll++
			}
		}
		if bad == len(endpoints) {
			agree++
		}
		if good > 0 {
			disagree++
		}
	}
	switch {
	case len(endpoints) == 0 || any == 0:
		return Unknown
	case agree >= 2 && agree >= observers && disagree == 0:
		return Lost
	case agree > 0 || someHealthy == 0:
		return Suspect
	case ended == 0 && outside > 0 && outsideAll == outside, ended == 0 && outside == 0 && insideAll == inside && inside > 0:
		return Ready
	}
	return Degraded
}

func TestJudgeAgreesWithTheDumbVersion(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	sites := []api.SiteID{"eu-west", "us-east", "client", ""}
	count := map[State]int{}
	for range 20_000 {
		endpoints := []string{"a", "b", "c"}[:rnd.IntN(4)]
		snap := Snapshot{At: now}
		mood := rnd.IntN(4) // 0: all bad, 1: all good, otherwise mixed
		for i := range rnd.IntN(6) {
			o := Observation{Observer: api.NodeID(fmt.Sprint("n", i)), ObserverSite: sites[rnd.IntN(len(sites))],
				Service: "payments", Site: "eu-west", At: now.Add(-time.Duration(rnd.IntN(40)) * 100 * time.Millisecond), Abstains: rnd.IntN(6) == 0}
			if rnd.IntN(5) == 0 {
				o.Observer, o.ObserverSite = ServerObserver, ""
			}
			for _, e := range []string{"a", "b", "c", "d"} {
				if rnd.IntN(12) > 0 {
					o.Endpoints = append(o.Endpoints, EndpointView{Workload: e, Healthy: mood == 1 || (mood > 1 && rnd.IntN(2) == 0)})
				}
			}
			snap = snap.With(o)
		}
		observers := rnd.IntN(4)
		got := Judge(snap, "payments", "eu-west", endpoints, observers)
		if want := dumbState(snap, endpoints, observers); got.State != want {
			t.Fatalf("Judge = %+v, want %s\nendpoints %v, observers %d, %+v", got, want, endpoints, observers, snap)
		}
		count[got.State]++
	}
	for _, s := range []State{Unknown, Ready, Degraded, Suspect, Lost} {
		if count[s] == 0 {
			t.Errorf("no case reached %s: %v", s, count)
		}
	}
}

func TestWithReplacesByObserverServiceAndSite(t *testing.T) {
	first := see("us-1", "us-east", "a")
	other := see("us-1", "us-east", "a")
	other.Site = "ap-south"
	old := Snapshot{At: now}.With(see("us-2", "us-east", "a"), first, other)
	next := old.With(see("us-1", "us-east", "!a"))

	if len(old.Observations) != 3 || len(next.Observations) != 3 {
		t.Fatalf("%d and %d observations, want 3 and 3", len(old.Observations), len(next.Observations))
	}
	if !slices.IsSortedFunc(next.Observations, compareObservations) {
		t.Errorf("not sorted: %+v", next.Observations)
	}
	both := old.With(see("us-1", "us-east", "!a"), see("us-0", "us-east", "a"), see("us-1", "us-east", "a"), see("us-3", "us-east", "a"))
	oneByOne := old.With(see("us-1", "us-east", "!a")).With(see("us-0", "us-east", "a")).With(see("us-1", "us-east", "a")).With(see("us-3", "us-east", "a"))
	if d := cmp.Diff(oneByOne, both); d != "" {
		t.Errorf("together is not one by one: %s", d)
	}
	if v := Judge(old, "payments", "eu-west", []string{"a"}, 2); v.State != Ready {
		t.Errorf("the old snapshot changed: %+v", v)
	}
	if v := Judge(next, "payments", "eu-west", []string{"a"}, 2); v.State != Suspect {
		t.Errorf("the new snapshot says %+v", v)
	}
	if got := next.With(see("us-9", "us-east", "a").aged(time.Minute)).Prune(30 * time.Second); len(got.Observations) != 3 {
		t.Errorf("Prune left %d observations, want 3", len(got.Observations))
	}
}
