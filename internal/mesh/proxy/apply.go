package proxy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/outlier"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// drainSpan is how long requests in flight may last at an endpoint that left the table.
const drainSpan = 30 * time.Second

// Apply puts a table in force: when it returns nil, every new request uses it. Requests in flight keep theirs.
//
// It refuses (Conflict), and keeps the table in force, when t is older than that, or when t leaves a service without any
// endpoint while one of them is alive here. A service that t does not contain but has a problem with keeps its last
// version, unless it is gone. The same epoch may be applied again.
func (p *Proxy) Apply(t route.Table) error {
	p.applying.Lock()
	defer p.applying.Unlock()
	old := p.current.Load()
	t, err := p.accept(old, t)
	if err != nil {
		p.metrics.tables.WithLabelValues("refused").Inc()
		return fmt.Errorf("apply table %d: %w", t.Epoch, err)
	}
	now := time.Now()
	kept := map[endpointKey]*endpoint{}
	next := p.build(old, t, kept, now)
	p.current.Store(next)
	p.retire(kept, now)
	p.release(old, next, now)
	p.metrics.tables.WithLabelValues("applied").Inc()
	p.metrics.epoch.Set(float64(t.Epoch))
	p.log.Info("table in force", "epoch", uint64(t.Epoch), "services", len(next.services))
	select {
	case p.tableSwapped <- struct{}{}:
	default: // Run has one swap to look at already, and looks at the newest table
	}
	return nil
}

// accept refuses what must not come into force, and completes t with the last version of services with problems.
func (p *Proxy) accept(old *view, t route.Table) (route.Table, error) {
	if old == nil {
		return t, nil
	}
	if t.Epoch < old.epoch {
		return t, api.Errorf(api.Conflict, "table", "epoch %d is older than epoch %d in force", t.Epoch, old.epoch).
			WithHint("a proxy never goes back to an older table; publish a newer one")
	}
	empty := len(t.Services) == 0
	t.Services = slices.Clone(t.Services)
	for _, s := range old.services {
		name := s.spec.Name
		i := slices.IndexFunc(t.Services, func(x route.Service) bool { return x.Name == name })
		switch {
		case i < 0 && t.Keeps(name):
			t.Services = append(t.Services, s.spec)
		case i < 0 && !empty:
			// deleted, or no longer ours to call
		case (i < 0 || endpoints(t.Services[i]) == 0) && s.live():
			return t, api.Errorf(api.Conflict, "Service/"+string(name), "the table removes every endpoint of a service that is alive here").
				WithHint("delete the service to stop it; an empty list is taken for a failure of its source")
		}
	}
	slices.SortFunc(t.Services, func(a, b route.Service) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return t, nil
}

func endpoints(s route.Service) (n int) {
	for _, x := range s.Sites {
		n += len(x.Endpoints)
	}
	return n
}

// build makes the view of a table, with the endpoints and versions that stay.
func (p *Proxy) build(old *view, t route.Table, kept map[endpointKey]*endpoint, now time.Time) *view {
	v := &view{epoch: t.Epoch, byName: map[api.ServiceID]*service{}, byHost: map[string]*service{}}
	for _, spec := range t.Services {
		s := &service{spec: spec, run: &serviceRun{}}
		if was := old.service(spec.Name); was != nil {
			s.run = was.run
			if sameService(was.spec, spec) {
				s = was
			}
		}
		if s.sites == nil {
			if own, ok := p.own(spec); ok {
				s.admit = spec.Shed * own.Capacity
			}
			for _, st := range spec.Sites {
				s.sites = append(s.sites, site{spec: st, endpoints: p.endpointsOf(spec, st, now)})
			}
		}
		for _, st := range s.sites {
			for _, e := range st.endpoints {
				kept[e.key] = e
			}
		}
		v.services = append(v.services, s)
		v.byName[spec.Name] = s
		for _, h := range spec.Hosts {
			h = strings.ToLower(h)
			if _, taken := v.byHost[h]; !taken { // the first by name wins, in every proxy alike
				v.byHost[h] = s
			}
		}
	}
	return v
}

func (p *Proxy) endpointsOf(spec route.Service, st route.Site, now time.Time) (eps []*endpoint) {
	p.endpointsMu.Lock()
	defer p.endpointsMu.Unlock()
	for _, x := range st.Endpoints {
		key := endpointKey{spec.Name, st.Name, x.Workload, x.Address, x.Identity}
		e := p.endpoints[key]
		if e == nil {
			e = p.newEndpoint(key)
			p.endpoints[key] = e
		}
		e.configure(spec, x.Registered, now)
		eps = append(eps, e)
	}
	return eps
}

// retire takes endpoints that are in no table any more out; their requests in flight may end until drainSpan.
func (p *Proxy) retire(kept map[endpointKey]*endpoint, now time.Time) {
	p.endpointsMu.Lock()
	defer p.endpointsMu.Unlock()
	for key, e := range p.endpoints {
		if kept[key] != e {
			delete(p.endpoints, key)
			p.leaving[e] = now.Add(drainSpan)
			e.close()
		}
	}
}

// release closes the idle connections to sites whose share became smaller, so that what lives long moves with it.
func (p *Proxy) release(old, next *view, now time.Time) {
	if old == nil {
		return
	}
	for _, s := range next.services {
		was := old.service(s.spec.Name)
		if was == nil || was == s {
			continue
		}
		for _, st := range s.sites {
			if st.spec.Share < was.spec.Share(st.spec.Name) {
				for _, e := range st.endpoints {
					e.pool.CloseIdle(now, 0)
				}
			}
		}
	}
}

// all gives every endpoint of the table in force and those that are leaving.
func (p *Proxy) all() []*endpoint {
	p.endpointsMu.Lock()
	defer p.endpointsMu.Unlock()
	eps := make([]*endpoint, 0, len(p.endpoints)+len(p.leaving))
	for _, e := range p.endpoints {
		eps = append(eps, e)
	}
	for e := range p.leaving {
		eps = append(eps, e)
	}
	return eps
}

// seen handles what an event at an endpoint changed.
func (p *Proxy) seen(e *endpoint, o observed) {
	if o.lost != "" {
		p.metrics.ejections.WithLabelValues(string(e.key.service), string(e.key.site), string(o.lost)).Inc()
		p.log.Warn("endpoint lost", "service", e.key.service, "site", e.key.site, "endpoint", e.key.workload, "cause", string(o.lost), "ended", o.ended)
	} else if o.changed {
		p.log.Info("endpoint changed", "service", e.key.service, "site", e.key.site, "endpoint", e.key.workload, "usable", e.usable())
	}
	if o.lost != "" || o.changed {
		p.signal()
	}
}

// signal tells the reader of Changed that there is something new.
func (p *Proxy) signal() {
	select {
	case p.changed <- struct{}{}:
	default: // told already
	}
}

// eject takes an endpoint out of use at once.
func (p *Proxy) eject(e *endpoint, cause outlier.Cause) {
	now := time.Now()
	p.seen(e, e.observe(now, func(t *outlier.Tracker) outlier.Cause {
		if t.Eject(cause, now) {
			return cause
		}
		return ""
	}))
}
