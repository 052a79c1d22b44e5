package pattern

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// checkTable is what every table must be, whatever went in.
func checkTable(t *testing.T, tbl route.Table) {
	t.Helper()
	if !slices.IsSortedFunc(tbl.Services, func(a, b route.Service) int { return compare(a.Name, b.Name) }) {
		t.Errorf("services are not sorted")
	}
	for _, s := range tbl.Services {
		sum, last := route.Weight(0), -1
		for i, x := range s.Sites {
			sum += x.Share
			if (x.Share > 0) != (x.Priority == 0) {
				t.Errorf("%s at %s: share %d with priority %d", s.Name, x.Name, x.Share, x.Priority)
			}
			if x.Excluded && x.Share > 0 {
				t.Errorf("%s at %s is excluded and has share %d", s.Name, x.Name, x.Share)
			}
			if i > 0 && (x.Priority < last || x.Priority > last+1 || (x.Priority == last && x.Name <= s.Sites[i-1].Name)) {
				t.Errorf("%s: sites out of order or a gap: %+v", s.Name, s.Sites)
			}
			if i == 0 && x.Priority > 1 {
				t.Errorf("%s: priorities begin at %d", s.Name, x.Priority)
			}
			last = x.Priority
			if !slices.IsSortedFunc(x.Endpoints, func(a, b route.Endpoint) int { return compare(a.Workload, b.Workload) }) {
				t.Errorf("%s at %s: endpoints are not sorted", s.Name, x.Name)
			}
		}
		if sum != route.Whole && sum != 0 {
			t.Errorf("%s: shares add up to %d", s.Name, sum)
		}
		if s.Stateful && s.Reflex {
			t.Errorf("%s is stateful and has reflex", s.Name)
		}
	}
}

func compare[T ~string](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func TestEveryTableIsWellFormedAndIndependentOfTheOrderOfItsInput(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	pick := func(n int) bool { return rnd.IntN(n) == 0 }
	prev := route.Table{}
	for range 500 {
		r, placed := world(), map[api.ServiceID]Placement{}
		for i := range r.Services {
			if pick(3) {
				r.Services[i].Spec.Residency = [][]string{{"EU"}, {"US"}, {"EU", "IN"}, {"XX"}}[rnd.IntN(4)]
			}
			if pick(3) {
				p := Placement{Shares: map[api.SiteID]route.Weight{}}
				for _, at := range []api.SiteID{"eu-west", "us-east", "ap-south", "mars"} {
					if pick(2) {
						p.Active, p.Shares[at] = at, route.Weight(rnd.IntN(10001))
					}
				}
				placed[api.ServiceID(r.Services[i].Metadata.Name)] = p
			}
		}
		r.Workloads = slices.DeleteFunc(r.Workloads, func(api.Workload) bool { return pick(3) })
		if pick(10) {
			r.Workloads = nil
		}
		tbl := Route(r, placed, prev)
		checkTable(t, tbl)
		for _, s := range prev.Services {
			if next, ok := tbl.Service(s.Name); !ok || (countEndpoints(s) > 0 && countEndpoints(next) == 0) {
				t.Fatalf("%s lost every endpoint", s.Name)
			}
		}

		rnd.Shuffle(len(r.Services), func(i, j int) { r.Services[i], r.Services[j] = r.Services[j], r.Services[i] })
		rnd.Shuffle(len(r.Workloads), func(i, j int) { r.Workloads[i], r.Workloads[j] = r.Workloads[j], r.Workloads[i] })
		rnd.Shuffle(len(r.Policies), func(i, j int) { r.Policies[i], r.Policies[j] = r.Policies[j], r.Policies[i] })
		slices.Reverse(r.Sites)
		slices.Reverse(r.ActivePassive)
		if again := Route(r, placed, prev); !Equal(tbl, again) || again.Epoch != tbl.Epoch {
			t.Fatalf("another order of the input gives another table: %s", cmp.Diff(string(encode(tbl)), string(encode(again))))
		}
		prev = tbl
	}
}
