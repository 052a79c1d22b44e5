package proxy

import (
	"bytes"
	"encoding/json"
	"net"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/balance"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/retry"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/shed"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// view is one table in force: built whole, swapped whole, never edited.
type view struct {
	epoch    route.Epoch
	services []*service // sorted by name
	byName   map[api.ServiceID]*service
	byHost   map[string]*service
}

// service is one version of a service in the table. A version that did not change keeps its *service, and with it what
// its latch remembers.
type service struct {
	// set once
	spec  route.Service
	sites []site
	run   *serviceRun
	admit float64 // requests per second that the workload beside this proxy takes; 0 = no limit

	mu    sync.Mutex // guards latch
	latch balance.Latch
}

type site struct {
	spec      route.Site
	endpoints []*endpoint
}

// serviceRun is what survives the versions of a service.
type serviceRun struct {
	budget   retry.Budget
	requests atomic.Int64 // in flight
	pending  atomic.Int64 // waiting for a connection
	admitted shed.Bucket
}

// lookup finds the service that a Host field means.
func (v *view) lookup(host string) *service {
	if v == nil {
		return nil
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if s := v.byHost[host]; s != nil {
		return s
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		return nil
	}
	return v.byHost[strings.TrimSuffix(name, ".")]
}

func (v *view) service(id api.ServiceID) *service {
	if v == nil {
		return nil
	}
	return v.byName[id]
}

// live says whether any endpoint may be used.
func (s *service) live() bool {
	for _, st := range s.sites {
		for _, e := range st.endpoints {
			if e.usable() {
				return true
			}
		}
	}
	return false
}

// now is what balance needs to know of the sites at this moment.
func (s *service) now(out []balance.Site) []balance.Site {
	for _, st := range s.sites {
		b := balance.Site{Name: st.spec.Name, Share: st.spec.Share, Priority: st.spec.Priority, Excluded: st.spec.Excluded}
		for _, e := range st.endpoints {
			if e.usable() {
				b.Usable = true
				break
			}
		}
		out = append(out, b)
	}
	return out
}

// tried is where a request has been.
type tried struct {
	endpoints []*endpoint
	sites     []int
}

func (t *tried) endpoint(e *endpoint) bool {
	for _, x := range t.endpoints {
		if x == e {
			return true
		}
	}
	return false
}

func (t *tried) site(i int) bool {
	for _, x := range t.sites {
		if x == i {
			return true
		}
	}
	return false
}

// pick chooses the endpoint of the next attempt; nil if there is none that may be used.
func (s *service) pick(t *tried, rnd *source) (e *endpoint, siteIndex int, moves []balance.Move) {
	var sitesBuf [8]balance.Site
	var sharesBuf [8]route.Weight
	sites := s.now(sitesBuf[:0])
	shares := append(sharesBuf[:0], make([]route.Weight, len(sites))...)
	s.mu.Lock()
	moves = s.latch.Shares(sites, s.spec.Reflex, shares)
	s.mu.Unlock()
	i := -1
	switch {
	case len(t.sites) > 0 && !s.spec.Reflex:
		i = t.sites[0] // another site is not ours to choose
	case len(t.sites) > 0:
		balance.Elsewhere(sites, shares, t.site)
		fallthrough
	default:
		i = balance.PickSite(shares, rnd.float())
	}
	if i < 0 {
		return nil, -1, moves
	}
	eps := s.sites[i].endpoints
	j := balance.PickEndpoint(len(eps),
		func(k int) int { return eps[k].rank(t.endpoint(eps[k])) },
		func(k int) int64 { return eps[k].inFlight.Load() },
		rnd.intn)
	if j < 0 {
		return nil, i, moves
	}
	return eps[j], i, moves
}

// sameService compares two versions by their encoded form, which is what a server hashes too.
func sameService(a, b route.Service) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
