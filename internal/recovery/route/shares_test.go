package route

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
)

func TestSharesGiveTheRestToTheLargestRemainders(t *testing.T) {
	type weights = map[api.SiteID]float64
	type shares = map[api.SiteID]Weight
	tests := []struct {
		rule string
		in   weights
		want shares
	}{
		{"one site has the whole", weights{"eu": 0.001}, shares{"eu": 10000}},
		{"equal weights, equal shares", weights{"eu": 1, "us": 1}, shares{"eu": 5000, "us": 5000}},
		{"among equals the first by name gets the rest", weights{"c": 1, "b": 1, "a": 1}, shares{"a": 3334, "b": 3333, "c": 3333}},
		{"the largest remainder gets the rest", weights{"a": 1, "b": 2}, shares{"a": 3333, "b": 6667}},
		{"a ramp", weights{"eu": 0.1, "us": 0.9}, shares{"eu": 1000, "us": 9000}},
		{"zero, negative, NaN and infinite weights get nothing", weights{"a": 1, "b": 0, "c": -1, "d": math.NaN(), "e": math.Inf(1)},
			shares{"a": 10000, "b": 0, "c": 0, "d": 0, "e": 0}},
		{"without a weight there is no share", weights{"a": 0}, shares{"a": 0}},
		{"huge weights do not overflow", weights{"a": math.MaxFloat64, "b": math.MaxFloat64}, shares{"a": 5000, "b": 5000}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			if d := cmp.Diff(tt.want, Shares(tt.in)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestSharesAddUpToWholeAndKeepProportion(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		in, total := map[api.SiteID]float64{}, 0.0
		for i := range 1 + rnd.IntN(9) {
			w := rnd.ExpFloat64()
			in[api.SiteID(rune('a'+i))] = w
			total += w
		}
		sum := Weight(0)
		for site, got := range Shares(in) {
			sum += got
			if exact := in[site] / total * float64(Whole); math.Abs(float64(got)-exact) >= 1+1e-6 {
				t.Fatalf("Shares(%v)[%s] = %d, want %f to within one", in, site, got, exact)
			}
		}
		if sum != Whole {
			t.Fatalf("Shares(%v) adds up to %d, want %d", in, sum, Whole)
		}
	}
}

func TestForKeepsTheOwnServiceAndThoseItMayCall(t *testing.T) {
	caller := "spiffe://demo.livefire/site/client/service/caller"
	tbl := Table{Epoch: 7, Services: []Service{
		{Name: "caller"},
		{Name: "orders", Callers: []api.AllowRule{{Identity: "spiffe://demo.livefire/site/client/service/*"}}},
		{Name: "payments", Callers: []api.AllowRule{{Identity: "spiffe://demo.livefire/site/client/service/other"}}},
	}}
	got := tbl.For(Node{ID: "n", Service: "caller", Identity: caller})
	want := Table{Epoch: 7, Services: []Service{tbl.Services[0], tbl.Services[1]}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, ok := got.Service("payments"); ok {
		t.Error("payments may not be called and is in the table")
	}
	if s, ok := got.Service("orders"); !ok || s.Name != "orders" {
		t.Errorf("Service(orders) = %v, %v", s, ok)
	}
}

// "A service with problems keeps its last good version": whoever held it must hear of them.
func TestForKeepsTheProblemsOfWhatTheNodeHoldsOrMayHaveHeld(t *testing.T) {
	caller := "spiffe://demo.livefire/site/client/service/caller"
	problem := func(name api.ServiceID) Problem {
		return Problem{Service: name, Code: "LF2122", Message: "of " + string(name)}
	}
	gone := problem("deleted")
	gone.Gone = true
	tbl := Table{
		Epoch:    7,
		Services: []Service{{Name: "caller"}, {Name: "orders", Callers: []api.AllowRule{{Identity: caller}}}, {Name: "payments"}},
		Problems: []Problem{problem("absent"), problem("caller"), gone, problem("orders"), problem("payments")},
	}
	got := tbl.For(Node{ID: "n", Service: "caller", Identity: caller})
	if d := cmp.Diff(tbl.Problems[:4], got.Problems); d != "" {
		t.Errorf("all but those of payments, which it does not hold: %s", d)
	}
	for name, want := range map[api.ServiceID]bool{"absent": true, "deleted": false, "payments": false, "other": false} {
		if got.Keeps(name) != want {
			t.Errorf("Keeps(%s) = %t, want %t", name, !want, want)
		}
	}
}

func TestMatchIdentityElementByElement(t *testing.T) {
	for _, tt := range []struct {
		pattern, id string
		want        bool
	}{
		{"spiffe://d/site/eu/service/a", "spiffe://d/site/eu/service/a", true},
		{"spiffe://d/site/eu/service/a", "spiffe://d/site/eu/service/ab", false},
		{"spiffe://d/site/eu/service/*", "spiffe://d/site/eu/service/ab", true},
		{"spiffe://d/site/eu/service/*", "spiffe://d/site/eu/service/", false},
		{"spiffe://d/site/eu/*", "spiffe://d/site/eu/service/a", false},
		{"spiffe://d/*", "spiffe://d", false},
		{"spiffe://d/site/*/service/a", "spiffe://d/site/eu/service/a", false},
	} {
		if got := MatchIdentity(tt.pattern, tt.id); got != tt.want {
			t.Errorf("MatchIdentity(%q, %q) = %v, want %v", tt.pattern, tt.id, got, tt.want)
		}
	}
}
