package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

const (
	nodesPrefix     = "/livefire/nodes/"
	registrationTTL = 3 * time.Second
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

	mu      sync.Mutex
	leases  map[api.NodeID]store.LeaseID // guarded by mu
	written map[api.NodeID]string        // guarded by mu: the registration under the lease, as JSON
}

// beat renews a node's registration, or makes it.
func (r *registrar) beat(ctx context.Context, reg registration) error {
	b, err := json.Marshal(reg)
	if err != nil {
		return fmt.Errorf("encode registration of %s: %w", reg.Node, err)
	}
	r.mu.Lock()
	lease, written := r.leases[reg.Node], r.written[reg.Node]
	r.mu.Unlock()
	if lease != 0 && written == string(b) {
		err := r.store.KeepAliveOnce(ctx, lease)
		if !errors.Is(err, store.ErrLeaseExpired) {
			return err
		}
	}
	lease, err = r.store.Grant(ctx, registrationTTL)
	if err != nil {
		return fmt.Errorf("register %s: %w", reg.Node, err)
	}
	op := store.Op{Key: nodesPrefix + string(reg.Node), Value: b, IfRevision: store.AnyRevision, Lease: lease}
	if _, err := r.store.Txn(ctx, r.fence, op); err != nil {
		return fmt.Errorf("register %s: %w", reg.Node, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leases[reg.Node], r.written[reg.Node] = lease, string(b)
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

// adoptWorkload writes the Workload that a sidecar registered, unless it stands there already.
func (l *Loop) adoptWorkload(ctx context.Context, reg registration) error {
	if reg.Workload == nil {
		return nil
	}
	w := &api.Workload{
		Type:     api.Type{APIVersion: api.Version, Kind: api.KindWorkload},
		Metadata: api.Metadata{Name: reg.Workload.Name, Labels: map[string]string{nodeLabel: string(reg.Node)}},
		Spec: api.WorkloadSpec{Service: reg.Service, Site: reg.Site, Address: reg.Workload.Address,
			Version: reg.Workload.Version, Capacity: reg.Workload.Capacity},
	}
	w.Default()
	ref := api.RefOf(w)
	if old, ok := l.res.objects[ref].(*api.Workload); ok {
		if owner := old.Metadata.Labels[nodeLabel]; owner != "" && owner != string(reg.Node) {
			if _, alive := l.regs[api.NodeID(owner)]; alive {
				l.cfg.Logger.Error("two nodes say that they are one workload", "node", reg.Node, "other", owner, "workload", w.Metadata.Name)
				return nil
			}
		}
		if len(api.Diff(old, w)) == 0 {
			return nil
		}
	}
	l.res.objects[ref] = w
	_, err := l.cfg.Store.PutObjects(ctx, l.cfg.Fence, []api.Object{w}, nil)
	return err
}
