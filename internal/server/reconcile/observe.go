package reconcile

import (
	"context"
	"regexp"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/failover"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/pattern"
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

// checkHeartbeat refuses what a node may not say of itself. What passes is written to the store and to files as it is.
func checkHeartbeat(n Node, h nodeapi.Heartbeat) error {
	subject := "node/" + string(n.ID)
	switch {
	case h.Workload != nil && (n.Agent || h.Workload.Service != n.Service), h.Agent != nil && (!n.Agent || h.Agent.Site != n.Site):
		return api.Errorf(api.Denied, subject, "says that it is what its certificate does not")
	case h.Workload != nil && h.Workload.Name != string(n.ID):
		return api.Errorf(api.Denied, subject, "registers workload %q: a sidecar's workload has its name", h.Workload.Name)
	case h.ClockOffset.Abs() > maxClockOffset || h.ClockError < 0 || h.ClockError > maxClockOffset:
		return api.Errorf(api.Invalid, subject, "clock offset %v +- %v", h.ClockOffset, h.ClockError)
	}
	if h.Workload != nil {
		w := workloadOf(registration{Node: n.ID, Site: n.Site, Service: n.Service, Workload: h.Workload})
		if w.Spec.Address == "" {
			w.Spec.Address = "127.0.0.1:1" // a caller has none; the rest must be right
		}
		if problems := w.Validate(); len(problems) > 0 {
			return api.Errorf(api.Invalid, subject, "%s: %s", problems[0].Path, problems[0].Message)
		}
	}
	if h.Agent == nil {
		return nil
	}
	for _, p := range h.Agent.Processes {
		if !nameRE.MatchString(p.Workload) || len(p.Name) > maxProcessName {
			return api.Errorf(api.Invalid, subject, "process %.80q of workload %.80q: not names", p.Name, p.Workload)
		}
	}
	return nil
}

const (
	maxClockOffset = 10 * 365 * 24 * time.Hour
	maxProcessName = 128
)

// nameRE is the form of every name that becomes part of a file's.
var nameRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// Heartbeat renews a registration and gives the server's two times.
func (l *Loop) Heartbeat(ctx context.Context, n Node, h nodeapi.Heartbeat) (nodeapi.HeartbeatResponse, error) {
	resp := nodeapi.HeartbeatResponse{Received: l.cfg.Clock()}
	if err := checkHeartbeat(n, h); err != nil {
		return resp, err
	}
	reg := registration{Node: n.ID, Site: n.Site, Service: n.Service, Agent: n.Agent, Workload: h.Workload}
	if err := l.registrar.beat(ctx, reg, h.Sent); err != nil {
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
			if !l.routed(o.Service, o.Site) || !l.holds(n, o.Service) {
				continue // of a table that was, or of none, or not this node's business
			}
			o.Observer, o.ObserverSite, o.At = n.ID, n.Site, now
			l.snapshot = l.snapshot.With(o)
		}
		for _, load := range h.Load {
			if l.holds(n, load.Service) && believableLoad(load) {
				l.loads.add(now, load)
			}
		}
		return l.reflexes(ctx, n, h.Reflex)
	})
}

// Load takes a load report of a client that speaks only xDS (LRS).
func (l *Loop) Load(ctx context.Context, node api.NodeID, load []nodeapi.Load) error {
	return l.do(ctx, func(context.Context) error {
		now := l.cfg.Clock()
		reg, ok := l.regs[node]
		for _, x := range load {
			if ok && l.holds(Node{ID: node, Site: reg.Site, Service: reg.Service}, x.Service) && believableLoad(x) {
				l.loads.add(now, x)
			}
		}
		return nil
	})
}

// holds says whether a service is in the part of the table that a node holds: nobody is believed about another's business.
func (l *Loop) holds(n Node, service api.ServiceID) bool {
	svc, ok := l.table.Service(service)
	return ok && (service == n.Service || svc.MayBeCalledBy(pattern.Identity(l.cfg.TrustDomain, n.Site, n.Service)))
}

// maxRate is more than one sidecar can carry: a report beyond it is an error, or a lie that would block every failover.
const maxRate = 200_000 // requests per second

func believableLoad(x nodeapi.Load) bool {
	if x.Span <= 0 || x.Span > 10*time.Second || x.Failed < 0 || x.Failed > x.Requests {
		return false
	}
	return float64(x.Requests) <= maxRate*max(x.Span.Seconds(), 0.1)
}

// reflexes records what a proxy did by itself since its last report.
func (l *Loop) reflexes(ctx context.Context, n Node, moves []nodeapi.Reflex) error {
	f := l.facts(n.ID)
	for _, r := range moves {
		h := f.heartbeat
		at := r.At.Add(-h.ClockOffset).UTC()
		if !l.routed(r.Service, r.From) || l.cfg.Clock().Sub(at).Abs() > believable {
			l.cfg.Logger.Warn("reflex not believed", "node", n.ID, "service", r.Service, "site", r.From, "at", at)
			continue
		}
		if f.left == nil {
			f.left = map[api.ServiceID]api.SiteID{}
		}
		f.left[r.Service] = r.From
		if _, err := l.commit(ctx, nil, l.entry(record.ReflexLeft, "node:"+string(n.ID), string(r.Service), record.Reflex{
			Service: r.Service, Node: n.ID, From: r.From, To: r.To, At: at, ClockError: h.ClockError})); err != nil {
			return err
		}
	}
	return nil
}

// believable is how far from now a node may say that something happened: it may have been cut off for long.
const believable = 24 * time.Hour

// routed says whether the table holds a service at a site.
func (l *Loop) routed(service api.ServiceID, site api.SiteID) bool {
	svc, ok := l.table.Service(service)
	return ok && slices.ContainsFunc(svc.Sites, func(s route.Site) bool { return s.Name == site })
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
