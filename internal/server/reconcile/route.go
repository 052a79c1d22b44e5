package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/recovery/failover"
	"github.com/livefire-mesh/livefire/internal/recovery/pattern"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
	"github.com/livefire-mesh/livefire/internal/server/ledger"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

const tableKey = "/livefire/table"

// routeDue makes a new table if resources or registrations changed.
func (l *Loop) routeDue(ctx context.Context) error {
	if !l.stale {
		return nil
	}
	l.stale = false
	l.configureMachines()
	next := pattern.Route(l.patternInput(), l.placed, l.table)
	if next.Epoch == l.table.Epoch {
		return nil
	}
	return l.publish(ctx, next, "resources or registrations changed", nil, nil)
}

// publish stores a table with whatever belongs to it, then sends it to the proxies.
func (l *Loop) publish(ctx context.Context, next route.Table, reason string, ops []store.Op, entries []ledger.Entry) error {
	b, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode table %d: %w", next.Epoch, err)
	}
	ops = append(ops, store.Op{Key: tableKey, Value: b, IfRevision: store.AnyRevision})
	entries = append(entries, l.entry(record.TableCommitted, "server", fmt.Sprintf("epoch/%d", next.Epoch), l.tableRecord(next, reason)))
	if _, err := l.commit(ctx, ops, entries...); err != nil {
		return err
	}
	l.tableReturns(l.table, next)
	l.table = next
	l.cfg.XDS.SetTable(next)
	l.rounds = append(l.rounds, ackRound{epoch: next.Epoch, since: l.cfg.Clock(), acks: map[api.NodeID]time.Time{}})
	l.cfg.Logger.Info("table committed", "epoch", next.Epoch, "reason", reason)
	return nil
}

func (l *Loop) tableRecord(t route.Table, reason string) record.Table {
	r := record.Table{Epoch: uint64(t.Epoch), At: l.cfg.Clock(), Reason: reason,
		Shares: map[api.ServiceID]map[api.SiteID]float64{}, Usable: map[api.ServiceID][]api.SiteID{}}
	for _, s := range t.Services {
		shares := map[api.SiteID]float64{}
		for _, site := range s.Sites {
			if site.Share > 0 {
				shares[site.Name] = float64(site.Share) / float64(route.Whole)
			}
		}
		r.Shares[s.Name] = shares
		r.Usable[s.Name] = pattern.Usable(s)
	}
	return r
}

// ackRound is who has acknowledged an epoch.
type ackRound struct {
	epoch route.Epoch
	since time.Time
	acks  map[api.NodeID]time.Time
	done  bool
}

// Acked takes one proxy's acknowledgement of an epoch, or of a later one.
func (l *Loop) Acked(ctx context.Context, node api.NodeID, epoch route.Epoch, at time.Time) error {
	return l.do(ctx, func(context.Context) error {
		for i := range l.rounds {
			r := &l.rounds[i]
			if _, known := r.acks[node]; !known && r.epoch <= epoch {
				r.acks[node] = at
			}
		}
		return nil
	})
}

// Nacked takes a refusal, for the status.
func (l *Loop) Nacked(ctx context.Context, node api.NodeID, message string) error {
	return l.do(ctx, func(context.Context) error {
		l.facts(node).nack = message
		return nil
	})
}

// acksDue closes the rounds that every reachable proxy has answered and tells the failover machines.
func (l *Loop) acksDue(ctx context.Context) error {
	if len(l.rounds) == 0 {
		return nil
	}
	reachable, silentIfNot := l.proxies()
	for i := range l.rounds {
		r := &l.rounds[i]
		if slices.ContainsFunc(reachable, func(n api.NodeID) bool { _, ok := r.acks[n]; return !ok }) {
			continue
		}
		r.done = true
		acks := record.Acks{Epoch: uint64(r.epoch), Acks: []record.Ack{}, Silent: []api.NodeID{}}
		for node, at := range r.acks {
			acks.Acks = append(acks.Acks, record.Ack{Node: node, At: at})
		}
		slices.SortFunc(acks.Acks, func(a, b record.Ack) int { return cmpStrings(a.Node, b.Node) })
		for _, node := range silentIfNot {
			if _, ok := r.acks[node]; !ok {
				acks.Silent = append(acks.Silent, node)
			}
		}
		if _, err := l.commit(ctx, nil, l.entry(record.TableAcked, "server", fmt.Sprintf("epoch/%d", r.epoch), acks)); err != nil {
			return err
		}
		if err := l.acknowledge(ctx, r.epoch, acks.Silent); err != nil {
			return err
		}
	}
	l.rounds = slices.DeleteFunc(l.rounds, func(r ackRound) bool { return r.done })
	return nil
}

// proxies are those that must answer (connected and registered), and all that are known.
func (l *Loop) proxies() (reachable, all []api.NodeID) {
	connected := map[api.NodeID]bool{}
	for _, n := range l.cfg.XDS.Nodes() {
		connected[n.Node.ID] = n.Connected
	}
	each(l.res, func(w *api.Workload) {
		node := api.NodeID(w.Metadata.Labels[nodeLabel])
		if node == "" {
			return
		}
		all = append(all, node)
		if _, registered := l.regs[node]; registered && connected[node] {
			reachable = append(reachable, node)
		}
	})
	slices.Sort(reachable)
	slices.Sort(all)
	return reachable, all
}

func (l *Loop) acknowledge(ctx context.Context, epoch route.Epoch, silent []api.NodeID) error {
	for _, name := range sortedKeys(l.machines) {
		ev := failover.Acked{At: l.cfg.Clock(), Epoch: uint64(epoch), AllReachable: true, Silent: silent}
		if err := l.stepFailover(ctx, name, ev); err != nil {
			return err
		}
	}
	return nil
}
