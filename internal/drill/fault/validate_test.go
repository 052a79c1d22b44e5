package fault

import (
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

func order() Order {
	return Order{
		ID: "r-1/02-kill", Run: "r-1", Kind: Kill, Site: "eu", Services: []api.ServiceID{"orders"}, MaxTargets: 4,
		Lease: 15 * time.Second, MaxDuration: time.Minute,
	}
}

func TestOrderIsRefusedUnlessItIsWhole(t *testing.T) {
	if err := order().Validate(); err != nil {
		t.Fatalf("a whole order was refused: %v", err)
	}
	server := order()
	server.Kind, server.Services = ServerKill, nil
	if err := server.Validate(); err != nil {
		t.Errorf("server-kill without services was refused: %v", err)
	}
	for name, edit := range map[string]func(*Order){
		"no id":                      func(o *Order) { o.ID = "" },
		"the id of another run":      func(o *Order) { o.ID = "r-2/02-kill" },
		"an unknown kind":            func(o *Order) { o.Kind = "flood" },
		"no site":                    func(o *Order) { o.Site = "" },
		"no target":                  func(o *Order) { o.Services = nil },
		"no limit of targets":        func(o *Order) { o.MaxTargets = 0 },
		"no lease":                   func(o *Order) { o.Lease = 0 },
		"a lease without end":        func(o *Order) { o.Lease = time.Hour },
		"a cap shorter than a lease": func(o *Order) { o.MaxDuration = time.Second },
	} {
		o := order()
		edit(&o)
		if err := o.Validate(); api.KindOf(err) != api.Invalid {
			t.Errorf("order with %s: got %v, want Invalid", name, err)
		}
	}
}

func TestKindsAreKnownAndOnlyServerKillHasNoUndo(t *testing.T) {
	for _, k := range Kinds() {
		if !k.Known() || k.HasUndo() == (k == ServerKill) {
			t.Errorf("%s: known %v, undo %v", k, k.Known(), k.HasUndo())
		}
	}
}

func TestOnlyALocalCheckProves(t *testing.T) {
	for _, tc := range []struct {
		r    Report
		want bool
	}{
		{Report{Phase: Reverted, Proof: "pid 7 started"}, true},
		{Report{Phase: Reverted}, false},
		{Report{Phase: Applied, Proof: "pid 7 gone"}, false},
		{Report{Phase: Failed, Proof: "?"}, false},
	} {
		if got := tc.r.Proven(); got != tc.want {
			t.Errorf("Proven(%+v) = %v, want %v", tc.r, got, tc.want)
		}
	}
}

// Offset is (agent - server): what the agent saw at 12:00:00.2 with an offset of +200 ms was 12:00:00 on the server.
func TestBracketIsOnTheServersClock(t *testing.T) {
	at := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	r := Report{Before: at.Add(200 * time.Millisecond), After: at.Add(300 * time.Millisecond), ClockOffset: 200 * time.Millisecond, ClockError: 7}
	from, to, e := r.Bracket()
	if !from.Equal(at) || !to.Equal(at.Add(100*time.Millisecond)) || e != 7 {
		t.Errorf("Bracket = %v..%v +-%v", from, to, e)
	}
}
