package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

const (
	nodesPrefix     = store.NodePrefix
	registrationTTL = 3 * time.Second
	// lateBeat is how long after a farewell a heartbeat from before it may still arrive.
	lateBeat = 10 * time.Second
)

// registration is what stands under a node's lease.
type registration struct {
	Node     api.NodeID        `json:"node"`
	Site     api.SiteID        `json:"site"`
	Service  api.ServiceID     `json:"service,omitempty"`
	Agent    bool              `json:"agent,omitempty"`
	Workload *nodeapi.Workload `json:"workload,omitempty"`
}

// registrar keeps nodes registered, each under a lease of its own. Its calls are made by the nodes' own requests, not
// by the loop: a slow store delays a heartbeat, never a decision.
type registrar struct {
	store *store.Store
	fence store.Fence

	mu    sync.Mutex
	nodes map[api.NodeID]*renewal // guarded by mu
}

// renewal is what is known of one node's lease. Whoever holds its turn may read and change it.
type renewal struct {
	turn    chan struct{} // holds one token
	lease   store.LeaseID
	written string    // the registration under the lease, as JSON
	left    time.Time // node's clock: it said farewell then
	leftAt  time.Time // ours
}

// take waits for the turn of a node; give it back.
func (r *registrar) take(ctx context.Context, node api.NodeID) (*renewal, error) {
	r.mu.Lock()
	n := r.nodes[node]
	if n == nil {
		n = &renewal{turn: make(chan struct{}, 1)}
		n.turn <- struct{}{}
		r.nodes[node] = n
	}
	r.mu.Unlock()
	select {
	case <-n.turn:
		return n, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (n *renewal) give() { n.turn <- struct{}{} }

// beat renews a node's registration, or makes it.
func (r *registrar) beat(ctx context.Context, reg registration, sent time.Time) error {
	b, err := json.Marshal(reg)
	if err != nil {
		return fmt.Errorf("encode registration of %s: %w", reg.Node, err)
	}
	n, err := r.take(ctx, reg.Node)
	if err != nil {
		return err
	}
	defer n.give()
	if !sent.After(n.left) && time.Since(n.leftAt) < lateBeat {
		return api.Errorf(api.Conflict, "node/"+string(reg.Node), "has left after this heartbeat was sent")
	}
	if n.lease != 0 && n.written == string(b) {
		err := r.store.KeepAliveOnce(ctx, n.lease)
		if !errors.Is(err, store.ErrLeaseExpired) {
			return err
		}
	}
	lease, err := r.store.Grant(ctx, registrationTTL)
	if err != nil {
		return fmt.Errorf("register %s: %w", reg.Node, err)
	}
	n.lease = 0 // until the registration surely stands under the new one
	op := store.Op{Key: nodesPrefix + string(reg.Node), Value: b, IfRevision: store.AnyRevision, Lease: lease}
	if _, err := r.store.Txn(ctx, r.fence, op); err != nil {
		return fmt.Errorf("register %s: %w", reg.Node, err)
	}
	n.lease, n.written = lease, string(b)
	return nil
}

// leave makes room for the end of a registration: from now on no heartbeat from before it counts.
func (r *registrar) leave(ctx context.Context, node api.NodeID, sent time.Time) error {
	n, err := r.take(ctx, node)
	if err != nil {
		return err
	}
	defer n.give()
	n.lease, n.written, n.left, n.leftAt = 0, "", sent, time.Now()
	return nil
}

// registrationsChanged takes a batch of the watch.
func (l *Loop) registrationsChanged(ctx context.Context, b store.Batch) error {
	if b.Snapshot {
		l.regs = map[api.NodeID]registration{}
	}
	for _, it := range b.Items {
		var reg registration
		if err := json.Unmarshal(it.Value, &reg); err != nil {
			l.cfg.Logger.Error("registration not understood", "key", it.Key, "err", err)
			continue
		}
		l.regs[reg.Node] = reg
		if err := l.adoptWorkload(ctx, reg); err != nil {
			return err
		}
	}
	for _, key := range b.Deleted {
		node := api.NodeID(key[len(nodesPrefix):])
		if _, ok := l.regs[node]; ok {
			delete(l.regs, node)
			l.cfg.Logger.Warn("registration ended", "node", node)
		}
	}
	l.stale = true
	return nil
}

// workloadOf is the Workload that a sidecar registers.
func workloadOf(reg registration) *api.Workload {
	w := &api.Workload{
		Type:     api.Type{APIVersion: api.Version, Kind: api.KindWorkload},
		Metadata: api.Metadata{Name: reg.Workload.Name, Labels: map[string]string{nodeLabel: string(reg.Node)}},
		Spec: api.WorkloadSpec{Service: reg.Service, Site: reg.Site, Address: reg.Workload.Address,
			Version: reg.Workload.Version, Capacity: reg.Workload.Capacity},
	}
	w.Default()
	return w
}

// adoptWorkload writes the Workload that a sidecar registered, unless it stands there already.
func (l *Loop) adoptWorkload(ctx context.Context, reg registration) error {
	if reg.Workload == nil {
		return nil
	}
	w := workloadOf(reg)
	ref := api.RefOf(w)
	if old, ok := l.res.objects[ref].(*api.Workload); ok {
		switch owner := api.NodeID(old.Metadata.Labels[nodeLabel]); {
		case owner == "":
			l.cfg.Logger.Error("a node has the name of a workload that was written by hand", "node", reg.Node, "workload", w.Metadata.Name)
			return nil
		case owner != reg.Node:
			if _, alive := l.regs[owner]; alive {
				l.cfg.Logger.Error("two nodes say that they are one workload", "node", reg.Node, "other", owner, "workload", w.Metadata.Name)
				return nil
			}
		}
		if len(api.Diff(old, w)) == 0 {
			return nil
		}
	}
	op, err := putOp(w)
	if err != nil {
		return err
	}
	if _, err := l.commit(ctx, []store.Op{op}); err != nil {
		return err
	}
	l.res.objects[ref] = w
	l.stale = true
	return nil
}

// Leave takes a node's farewell: its registration and its workload go at once, unless that is the last of its service at
// the site. A table never becomes empty by itself: the last one stays, unhealthy, as if its lease had ended.
func (l *Loop) Leave(ctx context.Context, n Node, in nodeapi.Leave) error {
	if err := l.registrar.leave(ctx, n.ID, in.Sent); err != nil {
		return err
	}
	return l.do(ctx, func(ctx context.Context) error {
		if _, registered := l.regs[n.ID]; !registered {
			// The watch may not have told us yet: what is stored counts.
			_, err := l.cfg.Store.Get(ctx, nodesPrefix+string(n.ID))
			if api.KindOf(err) == api.NotFound {
				return nil
			}
			if err != nil {
				return err
			}
		}
		left := record.AccountChange{Action: "node.left", Name: string(n.ID), Detail: "no workload"}
		writes := []store.Op{{Key: nodesPrefix + string(n.ID), Delete: true, IfRevision: store.AnyRevision}}
		w := l.ownWorkload(n)
		switch {
		case w == nil:
		case l.lastOfSite(w):
			left.Detail = "workload kept: the last of its service at the site"
			w = nil
		default:
			left.Detail = "workload removed"
			writes = append(writes, store.Op{Key: store.KindPrefix(api.KindWorkload) + w.Metadata.Name, Delete: true, IfRevision: store.AnyRevision})
		}
		if _, err := l.commit(ctx, writes, l.entry(record.Account, "node:"+string(n.ID), "node/"+string(n.ID), left)); err != nil {
			return err
		}
		if w != nil {
			delete(l.res.objects, api.RefOf(w))
			delete(l.res.lostAt, w.Metadata.Name)
		}
		delete(l.regs, n.ID)
		delete(l.nodes, n.ID)
		l.stale = true
		l.cfg.Logger.Info("node left", "node", n.ID, "detail", left.Detail)
		return nil
	})
}

// ownWorkload is the one that a node registered, nil if there is none.
func (l *Loop) ownWorkload(n Node) *api.Workload {
	w, ok := lookup[*api.Workload](l.res, api.KindWorkload, string(n.ID))
	if !ok || w.Metadata.Labels[nodeLabel] != string(n.ID) {
		return nil
	}
	return w
}

// lastOfSite says whether a service would have no endpoint left at the site. Callers have none: nobody needs them.
func (l *Loop) lastOfSite(w *api.Workload) bool {
	last := w.Spec.Address != ""
	each(l.res, func(o *api.Workload) {
		if o.Metadata.Name != w.Metadata.Name && o.Spec.Service == w.Spec.Service && o.Spec.Site == w.Spec.Site && o.Spec.Address != "" {
			last = false
		}
	})
	return last
}
