package balance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// step sets which sites may be used and says which shares and moves follow.
type step struct {
	usable string // letters of the sites that may be used
	want   string // "A=10000" or "A=6000 B=4000"; "" = none
	moves  string // "A>B", separated by spaces
}

func run(t *testing.T, name string, sites []Site, reflex bool, steps []step) {
	t.Helper()
	var l Latch
	for i, st := range steps {
		for k := range sites {
			sites[k].Usable = slices.Contains([]byte(st.usable), sites[k].Name[0])
		}
		out := make([]route.Weight, len(sites))
		moves := l.Shares(sites, reflex, out)
		var got, gotMoves string
		for k, w := range out {
			if w > 0 {
				got += fmt.Sprintf(" %s=%d", sites[k].Name, w)
			}
		}
		for _, m := range moves {
			gotMoves += fmt.Sprintf(" %s>%s", m.From, m.To)
		}
		want, wantMoves := st.want, st.moves
		if want != "" {
			want = " " + want
		}
		if wantMoves != "" {
			wantMoves = " " + wantMoves
		}
		if got != want || gotMoves != wantMoves {
			t.Errorf("%s, step %d, usable %q: shares %q moves %q, want %q %q", name, i, st.usable, got, gotMoves, want, wantMoves)
		}
	}
}

func passive() []Site {
	return []Site{{Name: "A", Share: route.Whole}, {Name: "B", Priority: 1}, {Name: "C", Priority: 2}}
}

func active() []Site {
	return []Site{{Name: "A", Share: 6000}, {Name: "B", Share: 4000}, {Name: "C", Priority: 1}}
}

func TestReflexTakesTheNextPriority(t *testing.T) {
	run(t, "preferred lost", passive(), true, []step{{"ABC", "A=10000", ""}, {"BC", "B=10000", "A>B"}, {"C", "C=10000", "B>C"}, {"", "", ""}, {"C", "C=10000", ""}})
	run(t, "next one lost too", passive(), true, []step{{"ABC", "A=10000", ""}, {"C", "C=10000", "A>C"}})
}

// architecture.md: "The reflex never changes status.activeSite; when the preferred site returns, proxies wait for the server's share."
func TestTrafficStaysAwayUntilTheServerSpeaks(t *testing.T) {
	run(t, "preferred returns", passive(), true, []step{{"ABC", "A=10000", ""}, {"BC", "B=10000", "A>B"}, {"ABC", "B=10000", ""}, {"ABC", "B=10000", ""}})
	run(t, "a closer standby returns", passive(), true, []step{{"C", "C=10000", "A>C"}, {"BC", "C=10000", ""}})
	run(t, "active-active", active(), true, []step{{"ABC", "A=6000 B=4000", ""}, {"BC", "B=4000", "A>B"}, {"ABC", "B=4000", ""}})
}

func TestLatchEndsWhenTheSiteInUseIsLost(t *testing.T) {
	run(t, "back to the preferred", passive(), true, []step{{"BC", "B=10000", "A>B"}, {"ABC", "B=10000", ""}, {"AC", "A=10000", "B>A"}, {"ABC", "A=10000", ""}})
	run(t, "active-active", active(), true, []step{{"BC", "B=4000", "A>B"}, {"ABC", "B=4000", ""}, {"AC", "A=6000", "B>A"}, {"ABC", "A=6000", ""}})
	run(t, "both, then the standby", active(), true, []step{{"C", "C=10000", "A>C B>C"}, {"BC", "C=10000", ""}, {"B", "B=4000", "C>B"}})
}

func TestNothingLeavesWhenThereIsNowhereToGo(t *testing.T) {
	run(t, "one site", []Site{{Name: "A", Share: route.Whole}}, true, []step{{"A", "A=10000", ""}, {"", "", ""}, {"A", "A=10000", ""}})
	run(t, "all sites", passive(), true, []step{{"", "", ""}, {"ABC", "A=10000", ""}})
}

// architecture.md, decision 12: without reflex only the control plane moves a service.
func TestWithoutReflexSharesStand(t *testing.T) {
	run(t, "passive", passive(), false, []step{{"ABC", "A=10000", ""}, {"BC", "A=10000", ""}, {"", "A=10000", ""}})
}

// dataplane.md: "residency is a hard exclusion that no failure overrides".
func TestExcludedSitesAreNeverUsed(t *testing.T) {
	sites := passive()
	sites[1].Excluded = true
	run(t, "excluded standby", sites, true, []step{{"ABC", "A=10000", ""}, {"BC", "C=10000", "A>C"}, {"B", "", ""}})
	sites = passive()
	sites[0].Excluded = true
	run(t, "excluded although it has a share", sites, false, []step{{"ABC", "", ""}})
}

func TestSitesArePickedByShare(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	shares := []route.Weight{6000, 0, 4000}
	var n [3]int
	for range 10_000 {
		n[PickSite(shares, rnd.Float64())]++
	}
	if n[1] != 0 || n[0] < 5800 || n[0] > 6200 || n[0]+n[2] != 10_000 {
		t.Errorf("picked %v of 10,000, want 6000, 0, 4000 within 200", n)
	}
	if got := PickSite([]route.Weight{0, 0}, 0.5); got != -1 {
		t.Errorf("PickSite of nothing = %d, want -1", got)
	}
	if got := PickSite([]route.Weight{1, 1}, 0.999999999); got != 1 {
		t.Errorf("PickSite at the end = %d, want 1", got)
	}
}

func TestSecondAttemptGoesElsewhere(t *testing.T) {
	all := func(sites []Site) []Site {
		for i := range sites {
			sites[i].Usable = true
		}
		return sites
	}
	for _, tt := range []struct {
		name   string
		sites  []Site
		shares []route.Weight
		tried  []int
		want   []route.Weight
	}{
		{"to the standby", all(passive()), []route.Weight{10000, 0, 0}, []int{0}, []route.Weight{0, 10000, 0}},
		{"to the other share", all(active()), []route.Weight{6000, 4000, 0}, []int{0}, []route.Weight{0, 4000, 0}},
		{"to the last one", all(active()), []route.Weight{6000, 4000, 0}, []int{0, 1}, []route.Weight{0, 0, 10000}},
		{"nowhere: the same again", all(active()), []route.Weight{6000, 4000, 0}, []int{0, 1, 2}, []route.Weight{6000, 4000, 0}},
		{"never to an excluded one", []Site{{Usable: true, Share: 10000}, {Usable: true, Excluded: true}}, []route.Weight{10000, 0}, []int{0}, []route.Weight{10000, 0}},
	} {
		Elsewhere(tt.sites, tt.shares, func(i int) bool { return slices.Contains(tt.tried, i) })
		if !slices.Equal(tt.shares, tt.want) {
			t.Errorf("%s: shares %v, want %v", tt.name, tt.shares, tt.want)
		}
	}
}

func TestLessLoadedOfTwoIsPicked(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	load := []int64{5, 0, 5, 5}
	var n [4]int
	for range 4000 {
		n[PickEndpoint(4, func(int) int { return 0 }, func(i int) int64 { return load[i] }, rnd.IntN)]++
	}
	// The idle one is among two of four with probability 1/2; the others share the rest.
	if n[1] < 1800 || n[1] > 2200 || min(n[0], n[2], n[3]) < 500 {
		t.Errorf("picked %v of 4000, want about 667, 2000, 667, 667", n)
	}
}

func TestLowestRankIsPicked(t *testing.T) {
	zero := func(int) int64 { return 0 }
	random := func(k int) int { return k - 1 }
	for _, tt := range []struct {
		ranks []int
		want  int
	}{{[]int{1, 0, 2}, 1}, {[]int{Never, Never, 3}, 2}, {[]int{Never}, -1}, {nil, -1}} {
		if got := PickEndpoint(len(tt.ranks), func(i int) int { return tt.ranks[i] }, zero, random); got != tt.want {
			t.Errorf("PickEndpoint(%v) = %d, want %d", tt.ranks, got, tt.want)
		}
	}
}
