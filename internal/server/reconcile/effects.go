package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/failover"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// effect carries out one action of the run's machine. Each may be done again.
func (l *Loop) effect(ctx context.Context, r *run, a drill.Action) ([]drill.Event, error) {
	switch a.Kind {
	case drill.ActRerender:
		return l.rerender(r)
	case drill.ActPrecheck:
		rules, targets := l.precheck(r)
		return []drill.Event{{Kind: drill.Prechecked, Rules: rules, Targets: targets}}, nil
	case drill.ActStartProbe:
		r.chunks[a.Probe.ID] = &chunkState{}
		return nil, l.place(r, l.agentAt(a.Probe.From), a.Probe.ID, xds.ProbeOrder(*a.Probe, time.Now().Add(a.Probe.Lease)))
	case drill.ActStopProbe, drill.ActWithdrawFault:
		l.withdraw(r, a.ID)
	case drill.ActPublishFault:
		return l.publishFault(r, *a.Fault)
	case drill.ActRenewFaults:
		for _, id := range a.IDs {
			if node, ok := r.placed[id]; ok {
				l.renew(node, id, time.Now().Add(r.machine.Config.Lease))
			}
		}
	case drill.ActWaitFailback:
		l.cfg.Logger.Warn("the run waits for a person's fail-back", "run", r.id(), "service", a.Service)
	case drill.ActCount:
		return nil, l.count(r)
	case drill.ActMeasure:
		l.measure(ctx, r)
	case drill.ActFinish:
		l.finish(ctx, r)
	}
	return nil, nil
}

// rerender makes the proposal again; other bytes replace it, and the machine voids the approvals.
func (l *Loop) rerender(r *run) ([]drill.Event, error) {
	b, parsed, err := l.render(r.id(), r.machine.Config.Drill, r.parsed.Drill.Spec.Parameters)
	if err != nil {
		return []drill.Event{{Kind: drill.AbortRequested, By: "server", Reason: err.Error()}}, nil
	}
	r.saved.Proposal, r.parsed = b, parsed
	return []drill.Event{{Kind: drill.Rendered, SHA256: sha256Hex(b)}}, nil
}

// agentAt is the agent of a site that is registered now, "" if there is none.
func (l *Loop) agentAt(site api.SiteID) api.NodeID {
	for _, node := range sortedKeys(l.regs) {
		if reg := l.regs[node]; reg.Agent && reg.Site == site {
			return node
		}
	}
	return ""
}

// place gives an order to an agent, under a lease that the loop renews.
func (l *Loop) place(r *run, node api.NodeID, id string, o xds.Order) error {
	if node == "" {
		l.cfg.Logger.Error("no agent for an order", "order", id)
		return nil // the machine sees that nothing happens and ends the run
	}
	o.Name = id
	if err := l.cfg.XDS.PutOrder(node, o); err != nil {
		l.cfg.Logger.Error("order not placed", "order", id, "node", node, "err", err)
		return nil // as above
	}
	r.placed[id] = node
	return nil
}

// renew keeps an order. One that cannot be kept is dead: its agent ends it, and the machine hears of that.
func (l *Loop) renew(node api.NodeID, id string, until time.Time) {
	if err := l.cfg.XDS.Renew(node, id, until); err != nil {
		l.cfg.Logger.Debug("order not renewed", "order", id, "node", node, "err", err)
	}
}

func (l *Loop) withdraw(r *run, id string) {
	if node, ok := r.placed[id]; ok {
		l.cfg.XDS.RemoveOrder(node, id)
		delete(r.placed, id)
		return
	}
	// A term of this process before this one may have placed it; elsewhere there is nothing to remove.
	for _, node := range sortedKeys(l.regs) {
		l.cfg.XDS.RemoveOrder(node, id)
	}
}

func (l *Loop) publishFault(r *run, o fault.Order) ([]drill.Event, error) {
	o.Fence = l.cfg.Fence.Revision()
	node := l.agentAt(o.Site)
	if !l.can(node, o.Kind) {
		for _, other := range sortedKeys(l.regs) {
			// The server is one process: whichever agent stands on its host can end it.
			if o.Kind == fault.ServerKill && l.can(other, o.Kind) {
				node = other
			}
		}
	}
	return nil, l.place(r, node, o.ID, xds.FaultOrder(o, time.Now().Add(o.Lease)))
}

func (l *Loop) can(node api.NodeID, kind fault.Kind) bool {
	f := l.nodes[node]
	return f != nil && f.heartbeat.Agent != nil && slices.Contains(f.heartbeat.Agent.Kinds, kind)
}

// precheck answers the rules that must hold before a fault is injected, and names the processes that it would hit.
func (l *Loop) precheck(r *run) ([]record.Rule, []string) {
	c := r.machine.Config
	targets := l.targets(r.parsed.Drill.Spec.Scope)
	rules := []record.Rule{{Code: "LF3201", Name: "lever-released", OK: !l.lever.Engaged, Message: l.lever.Reason}}
	add := func(code, name string, ok bool, format string, args ...any) {
		rules = append(rules, record.Rule{Code: code, Name: name, OK: ok, Message: fmt.Sprintf(format, args...)})
	}
	add("LF3202", "targets", len(targets) > 0 && len(targets) <= c.MaxTargets, "%d processes at %s, at most %d", len(targets), c.Site, c.MaxTargets)
	for _, f := range c.Faults {
		node := l.agentAt(f.Site)
		ok := l.can(node, f.Kind)
		if f.Kind == fault.ServerKill {
			ok = slices.ContainsFunc(sortedKeys(l.regs), func(n api.NodeID) bool { return l.can(n, f.Kind) })
		}
		add("LF3203", "capability", ok, "an agent at %s can apply and undo %s", f.Site, f.Kind)
	}
	for _, p := range c.Probes {
		node := l.agentAt(p.From)
		ok := node != "" && l.nodes[node] != nil && l.nodes[node].heartbeat.Agent != nil &&
			slices.Contains(l.nodes[node].heartbeat.Agent.CanProbe, p.Service)
		add("LF3204", "probe", ok, "the agent at %s can probe %s", p.From, p.Service)
	}
	for _, svc := range c.Services {
		ready, why := l.steadyState(r, svc.Name)
		add("LF3205", "steady-state", ready, "%s: %s", svc.Name, why)
		standby, why := l.standby(svc.Name, c.Site)
		add("LF2101", "standby-ready", standby, "%s: %s", svc.Name, why)
	}
	return rules, targets
}

// standby says whether another site could take a service over.
func (l *Loop) standby(service api.ServiceID, lost api.SiteID) (bool, string) {
	svc, _ := l.table.Service(service)
	for _, s := range svc.Sites {
		if s.Name == lost || s.Excluded {
			continue
		}
		f := l.siteFacts(service, s.Name, health.MinObservers)
		if f.Verdict.State == health.Ready {
			return true, fmt.Sprintf("%s is ready with %d workloads", s.Name, f.ReadyWorkloads)
		}
	}
	return false, "no other site is ready"
}

// steadyState says whether a service is as it was when the run started: its shares, and every site of them ready.
func (l *Loop) steadyState(r *run, service api.ServiceID) (bool, string) {
	svc, ok := l.table.Service(service)
	if !ok {
		return false, "not in the table"
	}
	for _, s := range svc.Sites {
		if want, known := r.saved.Original[service][s.Name]; known && want != s.Share {
			return false, fmt.Sprintf("%s has share %.2f, not %.2f", s.Name, s.Share.Ratio(), want.Ratio())
		}
		f := l.siteFacts(service, s.Name, health.MinObservers)
		if f.Verdict.State != health.Ready {
			return false, fmt.Sprintf("%s is %s: %s", s.Name, f.Verdict.State, f.Verdict.Reason)
		}
	}
	return true, "every site ready"
}

// runStateChanged does what belongs to a state, whatever action led there.
func (l *Loop) runStateChanged(ctx context.Context, r *run) error {
	switch r.state() {
	case drill.Scheduled:
		l.rememberShares(r)
	case drill.Injecting, drill.Done:
		begin := r.state() == drill.Injecting
		for _, svc := range r.machine.Config.Services {
			ev := failover.Drill{At: l.cfg.Clock(), Run: r.id(), Begin: begin, Site: r.machine.Config.Site}
			if err := l.stepFailover(ctx, svc.Name, ev); err != nil {
				return err
			}
		}
	}
	return nil
}

// rememberShares notes where the services stand, so that "original shares restored" has a meaning.
func (l *Loop) rememberShares(r *run) {
	r.saved.Original = map[api.ServiceID]map[api.SiteID]route.Weight{}
	for _, svc := range r.machine.Config.Services {
		s, _ := l.table.Service(svc.Name)
		shares := map[api.SiteID]route.Weight{}
		for _, site := range s.Sites {
			shares[site.Name] = site.Share
		}
		r.saved.Original[svc.Name] = shares
	}
}

// runPlacement tells the run that a service in its scope moved away, or is back where it was.
func (l *Loop) runPlacement(ctx context.Context, f failover.Record) error {
	if l.run == nil || !l.run.open() {
		return nil
	}
	original, inScope := l.run.saved.Original[f.Service]
	if !inScope {
		return nil
	}
	switch f.Kind {
	case failover.RecordOrder:
		if f.Cause == failover.CauseFailback || f.Cause == failover.CauseReflex {
			return nil
		}
		return l.stepRun(ctx, drill.Event{Kind: drill.FailedOver, Services: []api.ServiceID{f.Service}})
	case failover.RecordFailbackDone:
		svc, _ := l.table.Service(f.Service)
		for _, s := range svc.Sites {
			if s.Share != original[s.Name] {
				return nil
			}
		}
		return l.stepRun(ctx, drill.Event{Kind: drill.FailedBack, Service: f.Service})
	}
	return nil
}

// count asks every agent for what its workloads executed.
func (l *Loop) count(r *run) error {
	r.counting = true
	r.expected = map[string]api.NodeID{}
	for _, node := range sortedKeys(l.nodes) {
		f := l.nodes[node]
		if _, alive := l.regs[node]; !alive || f.heartbeat.Agent == nil {
			continue
		}
		wanted := false
		for _, p := range f.heartbeat.Agent.Processes {
			if !p.Sidecar && p.Counts && slices.ContainsFunc(r.machine.Config.Probes, func(o sample.Order) bool { return o.Service == p.Service }) {
				wanted = true
				r.expected[p.Workload] = node
			}
		}
		if wanted {
			o := xds.CountOrder(xds.Count{ID: r.id() + "/count", Run: r.id(), Prefix: requestPrefix(r.id()), Lease: time.Minute}, time.Now().Add(time.Minute))
			if err := l.place(r, node, countName(r.id(), node), o); err != nil {
				return err
			}
		}
	}
	return nil
}

// countName names the order to one agent to count what was executed in a run. Every run has names of its own: an order
// that has ended is never put in force again.
func countName(run string, node api.NodeID) string { return run + "/count/" + string(node) }
