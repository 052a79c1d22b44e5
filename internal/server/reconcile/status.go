package reconcile

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// Status is one screen of everything.
func (l *Loop) Status(ctx context.Context) (out userapi.Status, err error) {
	err = l.do(ctx, func(context.Context) error {
		out = l.status()
		return nil
	})
	return out, err
}

// WatchStatus emits a status now and after changes, at most four a second.
func (l *Loop) WatchStatus(ctx context.Context, emit func(userapi.Status) error) error {
	for {
		changed := l.news.wait()
		s, err := l.Status(ctx)
		if err != nil {
			return err
		}
		if err := emit(s); err != nil {
			return err
		}
		if err := pauseThen(ctx, changed); err != nil {
			return err
		}
	}
}

// pauseThen waits for news, but not less than a quarter of a second.
func pauseThen(ctx context.Context, news <-chan struct{}) error {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	for range 2 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			timer.Reset(time.Hour)
		case <-news:
			news = nil
		}
	}
	return nil
}

func (l *Loop) status() userapi.Status {
	s := userapi.Status{At: l.cfg.Clock(), Version: l.cfg.Software, Epoch: uint64(l.table.Epoch), Leader: true, Lever: l.lever,
		Services: []userapi.ServiceStatus{}, Audit: l.auditRules()}
	for _, svc := range l.table.Services {
		s.Services = append(s.Services, l.serviceStatus(svc.Name))
	}
	s.Nodes = l.nodeStatus()
	s.Runs = l.runs()
	if len(s.Runs) > 10 {
		s.Runs = s.Runs[:10]
	}
	return s
}

func (l *Loop) serviceStatus(name api.ServiceID) userapi.ServiceStatus {
	svc, _ := l.table.Service(name)
	v := userapi.ServiceStatus{Service: name, Reflex: svc.Reflex, Shares: map[api.SiteID]float64{}}
	for _, s := range svc.Sites {
		f := l.siteFacts(name, s.Name, health.MinObservers)
		if s.Share > 0 {
			v.Shares[s.Name] = s.Share.Ratio()
		}
		v.Sites = append(v.Sites, userapi.SiteStatus{Site: s.Name, State: string(f.Verdict.State), Healthy: f.Verdict.Healthy,
			Endpoints: f.Workloads, Capacity: f.ReadyCapacity, Agree: f.Verdict.Agree})
	}
	if m, ok := l.machines[name]; ok {
		st := m.Status()
		v.Pattern, _, _ = strings.Cut(m.Config.Pattern, "/")
		v.ActiveSite, v.Phase, v.Reason = st.ActiveSite, st.Phase, st.Reason
	}
	now := l.cfg.Clock()
	if d := l.loads.demand(now, name); d.Known {
		v.Demand = &d.Rate
	}
	if success, known := l.loads.success(now, name, 10*time.Second); known {
		v.Success = &success
	}
	if o, ok := l.res.service(name); ok && o.Spec.Objectives.RTO != nil {
		v.RTO = o.Spec.Objectives.RTO.String()
	}
	for _, r := range l.runs() {
		if d, ok := lookup[*api.Drill](l.res, api.KindDrill, r.Drill); ok && slices.Contains(d.Spec.Scope.Services, name) {
			v.LastRun = &r
			if last, err := l.findRun(r.ID); err == nil {
				v.RTA = last.saved.RTA[name]
			}
			break
		}
	}
	return v
}

func (l *Loop) nodeStatus() []userapi.NodeStatus {
	connected := map[api.NodeID]uint64{}
	for _, n := range l.cfg.XDS.Nodes() {
		if n.Connected {
			connected[n.Node.ID] = uint64(n.Epoch)
		}
	}
	out := []userapi.NodeStatus{}
	for _, id := range sortedKeys(l.nodes) {
		f := l.nodes[id]
		reg, registered := l.regs[id]
		acked, isConnected := connected[id]
		v := userapi.NodeStatus{Node: id, Site: reg.Site, Service: reg.Service, Agent: f.heartbeat.Agent != nil, Registered: registered,
			Connected: isConnected, Acked: acked, Nack: f.nack, PID: f.heartbeat.PID,
			OffsetMS: float64(f.heartbeat.ClockOffset) / 1e6, ErrorMS: float64(f.heartbeat.ClockError) / 1e6}
		if f.heartbeat.Workload != nil {
			v.Address = f.heartbeat.Workload.Address
		}
		if a := f.heartbeat.Agent; a != nil {
			for _, p := range a.Processes {
				v.Processes = append(v.Processes, userapi.Process{Name: p.Name, Service: p.Service, Workload: p.Workload, Sidecar: p.Sidecar,
					PID: p.PID, State: p.State, Restarts: p.Restarts, Address: p.Address})
			}
		}
		out = append(out, v)
	}
	return out
}

// Audit is the answer of every rule now.
func (l *Loop) Audit(ctx context.Context) (out []userapi.Rule, err error) {
	err = l.do(ctx, func(context.Context) error {
		out = l.auditRules()
		return nil
	})
	return out, err
}

func (l *Loop) auditRules() []userapi.Rule {
	in := audit.Input{At: l.cfg.Clock(), Table: l.table, Snapshot: l.snapshot, Facts: map[api.ServiceID]map[api.SiteID]audit.Facts{},
		Demand: map[api.ServiceID]audit.Demand{}, Active: map[api.ServiceID]api.SiteID{}}
	each(l.res, func(o *api.Service) { in.Services = append(in.Services, *o) })
	each(l.res, func(o *api.ActivePassive) { in.ActivePassive = append(in.ActivePassive, *o) })
	each(l.res, func(o *api.ActiveActive) { in.ActiveActive = append(in.ActiveActive, *o) })
	for _, svc := range l.table.Services {
		in.Facts[svc.Name] = audit.Observe(l.snapshot, svc, health.MinObservers, nil)
		in.Demand[svc.Name] = l.loads.demand(in.At, svc.Name)
		if m, ok := l.machines[svc.Name]; ok {
			in.Active[svc.Name] = m.State.Active
		}
	}
	out := []userapi.Rule{}
	for _, f := range audit.Check(in) {
		out = append(out, userapi.Rule{Code: f.Code, Name: f.Name, Severity: f.Severity, Service: f.Service, Site: f.Site, OK: f.OK, Message: f.Message, Fix: f.Fix})
	}
	return out
}

func (l *Loop) observerCount(service api.ServiceID, site api.SiteID) int {
	return len(health.Observers(l.snapshot, service, site))
}

// StatusOf fills in the status of an object that an operator wrote.
func (l *Loop) StatusOf(ctx context.Context, o api.Object) {
	// Without a leader the object is shown without its status.
	_ = l.do(ctx, func(context.Context) error {
		switch o := o.(type) {
		case *api.ActivePassive:
			o.Status = l.placementStatus(o.Spec.Service)
		case *api.ActiveActive:
			o.Status = l.placementStatus(o.Spec.Service)
		case *api.Workload:
			o.Status = l.workloadStatus(o)
		}
		return nil
	})
}

func (l *Loop) placementStatus(service api.ServiceID) *api.PlacementStatus {
	m, ok := l.machines[service]
	if !ok {
		return nil
	}
	st := m.Status()
	st.Epoch = uint64(l.table.Epoch)
	for _, p := range l.table.Problems {
		if p.Service == service {
			st.Conditions = append(st.Conditions, api.Condition{Type: "InTable", Status: "False", Reason: p.Code, Message: p.Message})
		}
	}
	return &st
}

// runs are all runs, newest first.
func (l *Loop) runs() []userapi.RunSummary {
	out := []userapi.RunSummary{}
	if l.run != nil {
		out = append(out, l.run.summary())
	}
	for _, r := range l.ended {
		out = append(out, r.summary())
	}
	slices.SortStableFunc(out, func(a, b userapi.RunSummary) int { return strings.Compare(b.Started, a.Started) })
	return out
}

// Runs are all runs, newest first.
func (l *Loop) Runs(ctx context.Context) (out []userapi.RunSummary, err error) {
	err = l.do(ctx, func(context.Context) error {
		out = l.runs()
		return nil
	})
	return out, err
}

func (l *Loop) findRun(id string) (*run, error) {
	if l.run != nil && l.run.id() == id {
		return l.run, nil
	}
	if r, ok := l.ended[id]; ok {
		return r, nil
	}
	return nil, api.Errorf(api.NotFound, "run/"+id, "does not exist").WithHint("livefire drill list")
}

// RunOf is one run.
func (l *Loop) RunOf(ctx context.Context, id string) (out userapi.Run, err error) {
	err = l.do(ctx, func(context.Context) error {
		r, err := l.findRun(id)
		if err == nil {
			out = r.view()
		}
		return err
	})
	return out, err
}

// Bundle is the directory of a run's evidence.
func (l *Loop) Bundle(ctx context.Context, id string) (dir string, err error) {
	err = l.do(ctx, func(context.Context) error {
		r, err := l.findRun(id)
		switch {
		case err != nil:
			return err
		case r.open():
			return api.Errorf(api.Unavailable, "run/"+id, "is %s: its evidence is complete when it is Done", r.state()).WithHint("livefire drill watch %s", id)
		case r.saved.Report == "":
			return api.Errorf(api.Unavailable, "run/"+id, "its evidence is being written").WithHint("try again in a second")
		case strings.HasPrefix(r.saved.Report, reportFailed):
			return api.Errorf(api.Internal, "run/"+id, "its evidence was not written: %s", strings.TrimPrefix(r.saved.Report, reportFailed))
		}
		dir = r.saved.Report
		return nil
	})
	return dir, err
}

// WatchRun emits a run's records so far, then new ones and live numbers, and ends with Done once the evidence is written.
func (l *Loop) WatchRun(ctx context.Context, id string, emit func(userapi.RunEvent) error) error {
	records, live := 0, 0
	for {
		changed := l.news.wait()
		var done *userapi.RunSummary
		var state drill.Name
		var fresh []userapi.Live
		err := l.do(ctx, func(context.Context) error {
			r, err := l.findRun(id)
			if err != nil {
				return err
			}
			state = r.state()
			fresh = slices.Clone(r.live[live:])
			if !r.open() && r.saved.Report != "" {
				s := r.summary()
				done = &s
			}
			return nil
		})
		if err != nil {
			return err
		}
		all, err := l.cfg.Ledger.Records(ctx, id)
		if err != nil {
			return err
		}
		if err := emitNews(all[records:], fresh, string(state), emit); err != nil {
			return err
		}
		records, live = len(all), live+len(fresh)
		if done != nil {
			return emit(userapi.RunEvent{Done: done, State: string(state)})
		}
		if err := pauseThen(ctx, changed); err != nil {
			return err
		}
	}
}

func emitNews(records []evidence.Record, live []userapi.Live, state string, emit func(userapi.RunEvent) error) error {
	for i := range records {
		if err := emit(userapi.RunEvent{Record: &records[i], State: state}); err != nil {
			return err
		}
	}
	if len(live) > 0 {
		return emit(userapi.RunEvent{Live: live, State: state})
	}
	return nil
}
