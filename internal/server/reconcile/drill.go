package reconcile

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// stallAfter is how long a probe may send nothing before the run cannot be measured.
const stallAfter = 10 * time.Second

// drillDue ticks the active run and tells it what the loop sees.
func (l *Loop) drillDue(ctx context.Context) error {
	r := l.run
	if r == nil || !r.open() {
		return nil
	}
	l.renewOrders(r)
	if waits, err := l.resumeDue(ctx, r); err != nil || waits {
		return err
	}
	for _, ev := range append(l.probeEvents(r), drill.Event{Kind: drill.Tick}) {
		if err := l.stepRun(ctx, ev); err != nil {
			return err
		}
	}
	switch {
	case r.state() == drill.Verifying && r.machine.State.Stage == drill.Observing:
		return l.tellHealth(ctx, r)
	case r.counting && r.machine.State.Stage == drill.Counting && l.allCounted(r):
		r.counting = false
		for _, node := range sortedKeys(l.nodes) {
			l.withdraw(r, countName(r.id(), node))
		}
		return l.stepRun(ctx, drill.Event{Kind: drill.Counted})
	}
	return nil
}

// renewOrders keeps probes and counts; faults are renewed by the machine alone.
func (l *Loop) renewOrders(r *run) {
	now := time.Now()
	if now.Sub(r.renewedAt) < 5*time.Second {
		return
	}
	r.renewedAt = now
	for _, o := range r.machine.Probes() {
		if node, ok := r.placed[o.ID]; ok {
			l.renew(node, o.ID, now.Add(o.Lease))
		}
	}
	for id, node := range r.placed {
		if id == countName(r.id(), node) {
			l.renew(node, id, now.Add(time.Minute))
		}
	}
}

// probeEvents says that all probes send, or that one has stopped.
func (l *Loop) probeEvents(r *run) []drill.Event {
	switch r.state() {
	case drill.PrecheckOK:
		for _, o := range r.machine.Probes() {
			if st := r.chunks[o.ID]; st == nil || st.next == 0 {
				return nil
			}
		}
		return []drill.Event{{Kind: drill.ProbesRunning}}
	case drill.Baseline, drill.Injecting, drill.Holding:
		for _, o := range r.machine.Probes() {
			st := r.chunks[o.ID]
			if st != nil && !st.lastAt.IsZero() && l.cfg.Clock().Sub(st.lastAt) > stallAfter {
				return []drill.Event{{Kind: drill.ProbeStalled, Service: o.Service, Reason: "no samples for " + stallAfter.String()}}
			}
		}
	}
	return nil
}

func (l *Loop) tellHealth(ctx context.Context, r *run) error {
	for _, svc := range r.machine.Config.Services {
		if ok, why := l.steadyState(r, svc.Name); !ok {
			if !r.steady {
				return nil
			}
			r.steady = false
			return l.stepRun(ctx, drill.Event{Kind: drill.Unhealthy, Service: svc.Name, Reason: svcReason(svc.Name, why)})
		}
	}
	r.steady = true
	return l.stepRun(ctx, drill.Event{Kind: drill.Healthy})
}

func svcReason(service api.ServiceID, why string) string { return string(service) + ": " + why }

// allCounted says whether the last chunk of every probe and the executions of every workload are stored.
func (l *Loop) allCounted(r *run) bool {
	for _, o := range r.machine.Probes() {
		if st := r.chunks[o.ID]; st == nil || st.next > 0 && !st.last {
			return false
		}
	}
	return !slices.ContainsFunc(sortedKeys(r.expected), func(w string) bool { return !r.counted[w] })
}

// Faults takes an agent's reports on fault orders of its site.
func (l *Loop) Faults(ctx context.Context, n Node, f nodeapi.Faults) error {
	return l.do(ctx, func(ctx context.Context) error {
		var refused error
		for _, rep := range f.Reports {
			rep := rep
			if l.run == nil || !strings.HasPrefix(rep.Order, l.run.id()+"/") {
				l.cfg.Logger.Info("fault report of a run that is over", "order", rep.Order, "target", rep.Target, "phase", rep.Phase)
				continue
			}
			if err := l.checkReport(n, rep); err != nil {
				refused = cmp.Or(refused, err) // the others count all the same
				continue
			}
			if err := l.stepRun(ctx, drill.Event{Kind: drill.FaultReported, Report: &rep}); err != nil {
				return err
			}
		}
		return refused
	})
}

// checkReport refuses a report on an order that the agent cannot have: nobody else proves a site free of a fault.
func (l *Loop) checkReport(n Node, rep fault.Report) error {
	i := slices.IndexFunc(l.run.machine.State.Injected, func(in drill.Injection) bool { return in.Order.ID == rep.Order })
	if i < 0 {
		return api.Errorf(api.Invalid, rep.Order, "was never ordered")
	}
	o := l.run.machine.State.Injected[i].Order
	if o.Site != n.Site && (o.Kind != fault.ServerKill || !l.can(n.ID, o.Kind)) {
		return api.Errorf(api.Denied, rep.Order, "is for the agent of %s, not of %s", o.Site, n.Site)
	}
	for _, at := range []time.Time{rep.Before, rep.After} {
		if !at.IsZero() && l.cfg.Clock().Sub(at.Add(-rep.ClockOffset)).Abs() > believable {
			return api.Errorf(api.Invalid, rep.Order, "%s: a report of %v is not believed", rep.Target, at)
		}
	}
	return nil
}

// agentBeat draws from an agent's heartbeat what the run must know: an order that was withdrawn and that the agent
// does not hold is proven absent.
func (l *Loop) agentBeat(ctx context.Context, n Node, h nodeapi.Heartbeat) error {
	r := l.run
	if r == nil || !r.open() || h.Agent == nil || r.state() != drill.Reverting {
		return nil
	}
	// One beat may have been on its way when the order was withdrawn.
	if l.cfg.Clock().Sub(r.machine.State.RevertedAt) < 2*time.Second {
		return nil
	}
	for _, in := range r.machine.State.Injected {
		o := in.Order
		if o.Site == n.Site && o.Kind != fault.ServerKill && !in.Absent && !slices.Contains(h.Agent.Faults, o.ID) {
			if err := l.stepRun(ctx, drill.Event{Kind: drill.NoFault, Order: o.ID}); err != nil {
				return err
			}
		}
	}
	return nil
}

// OrderLost says that a fault order missed its lease on the way to its agent.
func (l *Loop) OrderLost(ctx context.Context, id string) error {
	return l.do(ctx, func(ctx context.Context) error {
		if l.run == nil || !l.run.open() {
			return nil
		}
		return l.stepRun(ctx, drill.Event{Kind: drill.LeaseLost, Order: id})
	})
}

// Approve takes a signed approval or rejection. key is the approver's enrolled public key.
func (l *Loop) Approve(ctx context.Context, name, group string, key []byte, id string, envelope []byte) (out userapi.Run, err error) {
	a, err := evidence.VerifyApproval(envelope, key)
	if err != nil {
		return out, api.Errorf(api.Denied, "run/"+id, "approval refused: %v", err).WithHint("livefire drill approve %s --as %s", id, group)
	}
	err = l.do(ctx, func(ctx context.Context) error {
		r, err := l.active(id)
		if err != nil {
			return err
		}
		if group == "" {
			return api.Errorf(api.Denied, "run/"+id, "%s speaks for no group and cannot approve", name).
				WithHint("--context FILE of a person of group %s", a.Group)
		}
		if a.Run != id || a.By != name || a.Group != group {
			return api.Errorf(api.Denied, "run/"+id, "the envelope says run %s, group %s, by %s; this is run %s, group %s, by %s", a.Run, a.Group, a.By, id, group, name)
		}
		if name == r.machine.Config.By && a.Decision == evidence.Approve {
			return api.Errorf(api.Denied, "run/"+id, "%s runs this drill and cannot approve it, with whatever key", name).WithCode(drill.RuleRunnerKey)
		}
		ev := drill.Event{Kind: drill.Approve, By: name, Approval: &drill.Approval{Group: a.Group, By: a.By, At: a.At, Key: evidence.KeyID(key),
			PublicKey: key, SHA256: a.ProposalSHA256, EnvelopeSHA256: sha256Hex(envelope)}}
		if a.Decision == evidence.Reject {
			ev.Kind, ev.Reason = drill.Reject, "rejected by "+name
		} else if err := r.machine.CheckApproval(*ev.Approval); err != nil {
			return err
		}
		before, had := r.saved.Approvals[a.Group]
		r.saved.Approvals[a.Group] = envelope
		if err := l.stepRun(ctx, ev); err != nil {
			if delete(r.saved.Approvals, a.Group); had {
				r.saved.Approvals[a.Group] = before
			}
			return err
		}
		if ev.Kind == drill.Reject && r.open() && !r.machine.State.Aborting {
			delete(r.saved.Approvals, a.Group)
			return api.Errorf(api.Denied, "run/"+id, "the rejection is of another proposal, of a group that is not asked, or too late: the run is %s", r.state()).
				WithHint("livefire drill abort %s --reason TEXT", id)
		}
		out = r.view()
		return nil
	})
	return out, err
}

// Abort ends a run: it restores and closes as aborted.
func (l *Loop) Abort(ctx context.Context, by, id, reason string) (out userapi.Run, err error) {
	err = l.do(ctx, func(ctx context.Context) error {
		r, err := l.active(id)
		if err != nil {
			return err
		}
		if err := l.stepRun(ctx, drill.Event{Kind: drill.AbortRequested, By: by, Reason: reason}); err != nil {
			return err
		}
		out = r.view()
		return nil
	})
	return out, err
}

func (l *Loop) active(id string) (*run, error) {
	if l.run == nil || l.run.id() != id {
		return nil, api.Errorf(api.NotFound, "run/"+id, "is not the active run").WithHint("livefire drill list")
	}
	if !l.run.open() {
		return nil, api.Errorf(api.Denied, "run/"+id, "is done: %s", l.run.machine.State.Verdict)
	}
	return l.run, nil
}

// SetLever engages or releases the safety lever; engaged, no run starts and the active one reverts.
func (l *Loop) SetLever(ctx context.Context, by string, v userapi.Lever) (out userapi.Lever, err error) {
	err = l.do(ctx, func(ctx context.Context) error {
		v.By, v.At = by, l.cfg.Clock()
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		entry := l.entry(record.LeverChanged, "user:"+by, "lever", record.Lever{Engaged: v.Engaged, By: by, Reason: v.Reason})
		if _, err := l.commit(ctx, []store.Op{{Key: leverKey, Value: b, IfRevision: store.AnyRevision}}, entry); err != nil {
			return err
		}
		l.lever, out = v, v
		if v.Engaged && l.run != nil && l.run.open() {
			return l.stepRun(ctx, drill.Event{Kind: drill.LeverEngaged, By: by, Reason: v.Reason})
		}
		return nil
	})
	return out, err
}

// loadRun takes over what the term before left open, and finishes the bundle of a run that was closed without one.
func (l *Loop) loadRun(ctx context.Context) error {
	items, _, err := l.cfg.Store.List(ctx, drillPrefix)
	if err != nil {
		return err
	}
	saved := map[string][]byte{}
	for _, it := range items {
		saved[strings.TrimPrefix(it.Key, drillPrefix)] = it.Value
	}
	for key, value := range saved {
		id, ok := strings.CutSuffix(key, "/machine")
		if !ok {
			continue
		}
		var m drill.Machine
		var s savedRun
		if err := json.Unmarshal(value, &m); err != nil {
			return fmt.Errorf("decode run %s: %w", id, err)
		}
		if err := json.Unmarshal(saved[id+"/saved"], &s); err != nil {
			return fmt.Errorf("decode run %s: %w", id, err)
		}
		r, err := newRun(m, s)
		if err != nil {
			return fmt.Errorf("run %s: %w", id, err)
		}
		switch {
		case r.open():
			l.run = r
		default:
			l.ended[id] = r
			if s.Report == "" || strings.HasPrefix(s.Report, reportFailed) {
				l.unfinished = append(l.unfinished, r)
			}
		}
	}
	if l.run == nil {
		return nil
	}
	return l.takeOver(ctx)
}

// takeOver goes on with a run that another process, or this one before it died, had begun.
func (l *Loop) takeOver(ctx context.Context) error {
	r := l.run
	if err := l.loadChunks(ctx, r); err != nil {
		return err
	}
	// Probes are not faults: they go on, so that the run can still be measured. A fault order is never put back.
	for _, o := range r.machine.Probes() {
		if st := r.chunks[o.ID]; r.machine.State.Attempt > 0 && !st.last {
			if err := l.place(r, l.agentAt(o.From), o.ID, xds.ProbeOrder(o, time.Now().Add(o.Lease))); err != nil {
				return err
			}
		}
	}
	l.cfg.Logger.Warn("taking a run over", "run", r.id(), "state", r.state(), "gap", l.cfg.Clock().Sub(r.saved.StepAt))
	switch r.state() {
	case drill.Scheduled, drill.PrecheckOK, drill.Baseline:
		if len(r.machine.State.Injected) == 0 {
			// Nothing is to be restored, and nobody has told this server how the mesh is: the rules would all fail.
			r.resumeBy = l.cfg.Clock().Add(resumeWithin)
			return nil
		}
	}
	return l.resume(ctx, r)
}

// resumeWithin is how long a new term listens to the nodes before it checks the rules of a run again.
const resumeWithin = 5 * time.Second

// resume tells the run that its server was away.
func (l *Loop) resume(ctx context.Context, r *run) error {
	r.resumeBy = time.Time{}
	return l.stepRun(ctx, drill.Event{Kind: drill.Restarted, Gap: l.cfg.Clock().Sub(r.saved.StepAt)})
}

// resumeDue goes on with a run once the rules hold again, or their time is over; waits says that it is not yet so.
func (l *Loop) resumeDue(ctx context.Context, r *run) (waits bool, err error) {
	if r.resumeBy.IsZero() {
		return false, nil
	}
	rules, _ := l.precheck(r)
	broken := slices.ContainsFunc(rules, func(rule record.Rule) bool { return !rule.OK })
	if broken && l.cfg.Clock().Before(r.resumeBy) {
		return true, nil
	}
	return false, l.resume(ctx, r)
}
