package reconcile

import (
	"context"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/failover"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// nodeFacts is what a node last said of itself.
type nodeFacts struct {
	heartbeat nodeapi.Heartbeat
	at        time.Time                    // of the heartbeat, server clock
	left      map[api.ServiceID]api.SiteID // sites that its proxy left by itself and has not returned to
	nack      string
}

// Node is a proven node, as the API has checked it.
type Node struct {
	ID      api.NodeID
	Site    api.SiteID
	Service api.ServiceID
	Agent   bool
}

func (l *Loop) facts(id api.NodeID) *nodeFacts {
	f := l.nodes[id]
	if f == nil {
		f = &nodeFacts{}
		l.nodes[id] = f
	}
	return f
}

// Heartbeat renews a registration and gives the server's two times.
func (l *Loop) Heartbeat(ctx context.Context, n Node, h nodeapi.Heartbeat) (nodeapi.HeartbeatResponse, error) {
	resp := nodeapi.HeartbeatResponse{Received: l.cfg.Clock()}
	if h.Workload != nil && h.Workload.Service != n.Service || h.Agent != nil && !n.Agent {
		return resp, api.Errorf(api.Denied, "node/"+string(n.ID), "says that it is what its certificate does not")
	}
	if err := l.registrar.beat(ctx, registration{Node: n.ID, Site: n.Site, Service: n.Service, Agent: n.Agent, Workload: h.Workload}); err != nil {
		return resp, err
	}
	err := l.do(ctx, func(ctx context.Context) error {
		f := l.facts(n.ID)
		f.heartbeat, f.at = h, resp.Received
		resp.Lever = l.lever.Engaged
		return l.agentBeat(ctx, n, h)
	})
	resp.Replied = l.cfg.Clock()
	return resp, err
}

// Health takes a sidecar's view. A change is judged at once.
func (l *Loop) Health(ctx context.Context, n Node, h nodeapi.Health) error {
	return l.do(ctx, func(ctx context.Context) error {
		now := l.cfg.Clock()
		for _, o := range h.Observations {
			o.Observer, o.ObserverSite, o.At = n.ID, n.Site, now
			l.snapshot = l.snapshot.With(o)
		}
		for _, load := range h.Load {
			l.loads.add(now, load)
		}
		return l.reflexes(ctx, n, h.Reflex)
	})
}

// reflexes records what a proxy did by itself since its last report.
func (l *Loop) reflexes(ctx context.Context, n Node, moves []nodeapi.Reflex) error {
	f := l.facts(n.ID)
	for _, r := range moves {
		if f.left == nil {
			f.left = map[api.ServiceID]api.SiteID{}
		}
		f.left[r.Service] = r.From
		h := f.heartbeat
		if _, err := l.commit(ctx, nil, l.entry(record.ReflexLeft, "node:"+string(n.ID), string(r.Service), record.Reflex{
			Service: r.Service, Node: n.ID, From: r.From, To: r.To, At: r.At.Add(-h.ClockOffset).UTC(), ClockError: h.ClockError})); err != nil {
			return err
		}
	}
	return nil
}

// tableReturns forgets the reflexes that a new table ends: a proxy follows a table that changes a service.
func (l *Loop) tableReturns(old, next route.Table) {
	for _, svc := range old.Services {
		if now, ok := next.Service(svc.Name); ok && encode(svc) == encode(now) {
			continue
		}
		for _, f := range l.nodes {
			delete(f.left, svc.Name)
		}
	}
}

// serverView is the server's own observation: registrations that ended.
func (l *Loop) serverView(now time.Time) {
	for _, svc := range l.table.Services {
		for _, site := range svc.Sites {
			o := health.Observation{Observer: health.ServerObserver, Service: svc.Name, Site: site.Name, At: now}
			for _, e := range site.Endpoints {
				v := health.EndpointView{Workload: e.Workload, Healthy: e.Registered}
				if !e.Registered {
					v.Reason = "lease ended"
				}
				o.Endpoints = append(o.Endpoints, v)
			}
			if len(o.Endpoints) > 0 {
				l.snapshot = l.snapshot.With(o)
			}
		}
	}
	l.snapshot.At = now
}

// siteFacts is what audit and failover must know of a service at a site. A registration is renewed over mutual TLS, so a
// ready workload has a valid certificate.
func (l *Loop) siteFacts(service api.ServiceID, site api.SiteID, observers int) audit.Facts {
	svc, ok := l.table.Service(service)
	if !ok {
		return audit.Facts{}
	}
	return audit.Observe(l.snapshot, svc, observers, nil)[site]
}

// observed is everything that a service's failover machine is told.
func (l *Loop) observed(now time.Time, m failover.Machine) failover.Observed {
	ev := failover.Observed{At: now, Sites: map[api.SiteID]failover.SiteFacts{}}
	for _, site := range m.Config.Order {
		ev.Sites[site] = l.siteFacts(m.Config.Service, site, m.Config.Observers)
	}
	demand := l.loads.demand(now, m.Config.Service)
	ev.Demand, ev.DemandKnown = demand.Rate, demand.Known
	if success, known := l.loads.success(now, m.Config.Service, objectiveSpan); known {
		if svc, ok := l.res.service(m.Config.Service); ok && svc.Spec.Objectives.Success != nil {
			ev.ObjectivesKnown, ev.ObjectivesMet = true, success >= *svc.Spec.Objectives.Success
		}
	}
	for _, f := range l.nodes {
		from, left := f.left[m.Config.Service]
		if !left {
			continue
		}
		ev.Reflexed = ev.Reflexed || from == m.State.Active
		if !slices.Contains(ev.Left, from) {
			ev.Left = append(ev.Left, from)
		}
	}
	slices.Sort(ev.Left)
	return ev
}
