package proxy

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/balance"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/outlier"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
)

type loadKey struct {
	service api.ServiceID
	site    api.SiteID
	inbound bool
}

// maxReflexes that wait for Health; older ones are dropped, since a reader that is so late has missed the moment.
const maxReflexes = 256

// Health is the whole current view: what this proxy sees of every endpoint that it checks, and what happened since the
// last call (reflexes, load). An observation abstains while an endpoint of it has not been checked yet, and when this
// proxy's own loop was late by over half an interval. What a call returns is not returned again.
func (p *Proxy) Health() nodeapi.Health {
	h := nodeapi.Health{Site: p.cfg.Node.Site}
	now := time.Now()
	if v := p.current.Load(); v != nil {
		for _, s := range v.services {
			for _, st := range s.sites {
				if o, ok := p.observation(s, st, now); ok {
					h.Observations = append(h.Observations, o)
				}
			}
		}
	}
	p.reportMu.Lock()
	defer p.reportMu.Unlock()
	h.Reflex, p.reflexes = p.reflexes, nil
	span := now.Sub(p.loadFrom)
	for _, l := range p.load {
		if l.Requests > 0 {
			l.Span = span
			h.Load = append(h.Load, *l)
		}
	}
	clear(p.load)
	p.loadFrom = now
	slices.SortFunc(h.Load, func(a, b nodeapi.Load) int {
		return cmp.Or(strings.Compare(string(a.Service), string(b.Service)), strings.Compare(string(a.Site), string(b.Site)))
	})
	return h
}

func (p *Proxy) observation(s *service, st site, now time.Time) (o health.Observation, ok bool) {
	if st.spec.Excluded {
		return o, false
	}
	o = health.Observation{Service: s.spec.Name, Site: st.spec.Name}
	interval := s.spec.Health.Interval.D()
	for _, e := range st.endpoints {
		if e.self {
			continue
		}
		e.mu.Lock()
		checked, late := e.tracker.Checked(), e.late || e.schedule.Overdue(now, interval)
		view := health.EndpointView{Workload: e.key.workload, Healthy: e.tracker.State(now) == outlier.Usable, Reason: e.tracker.Reason(now)}
		e.mu.Unlock()
		o.Abstains = o.Abstains || late || !checked
		if checked {
			o.Endpoints = append(o.Endpoints, view)
		}
	}
	slices.SortFunc(o.Endpoints, func(a, b health.EndpointView) int { return strings.Compare(a.Workload, b.Workload) })
	return o, len(o.Endpoints) > 0
}

// Changed is signalled when an endpoint's health or a reflex changed. Its capacity is one: read Health after each signal.
func (p *Proxy) Changed() <-chan struct{} { return p.changed }

// moved records what the reflex did.
func (p *Proxy) moved(s *service, moves []balance.Move) {
	if len(moves) == 0 {
		return
	}
	now := time.Now().UTC()
	p.reportMu.Lock()
	for _, m := range moves {
		p.reflexes = append(p.reflexes, nodeapi.Reflex{Service: s.spec.Name, From: m.From, To: m.To, At: now})
	}
	if over := len(p.reflexes) - maxReflexes; over > 0 {
		p.reflexes = slices.Delete(p.reflexes, 0, over)
	}
	p.reportMu.Unlock()
	for _, m := range moves {
		p.metrics.reflexes.WithLabelValues(string(s.spec.Name), string(m.From)).Inc()
		p.log.Warn("traffic left a site by reflex", "service", s.spec.Name, "site", m.From, "to", m.To)
	}
	p.signal()
}

// count adds one request to the load of a service at a site: where it was sent (the site is empty if nobody answered), or
// where it was served (inbound). The two are told apart, or each request would be counted twice.
func (p *Proxy) count(service api.ServiceID, site api.SiteID, inbound, failed bool) {
	if service == "" {
		return
	}
	p.reportMu.Lock()
	defer p.reportMu.Unlock()
	l := p.load[loadKey{service, site, inbound}]
	if l == nil {
		l = &nodeapi.Load{Service: service, Site: site, Inbound: inbound}
		p.load[loadKey{service, site, inbound}] = l
	}
	l.Requests++
	if failed {
		l.Failed++
	}
}
