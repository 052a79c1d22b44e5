package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/pattern"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// nodeLabel marks a Workload that a sidecar registered, with the node's name.
const nodeLabel = "livefire.dev/node"

// resources is everything that operators and sidecars wrote, decoded.
type resources struct {
	objects map[api.Ref]api.Object
	lostAt  map[string]time.Time // workload -> when its registration was first seen to be gone
}

func newResources() resources {
	return resources{objects: map[api.Ref]api.Object{}, lostAt: map[string]time.Time{}}
}

// resourcesChanged takes a batch of the watch.
func (l *Loop) resourcesChanged(_ context.Context, b store.Batch) error {
	if b.Snapshot {
		l.res.objects = map[api.Ref]api.Object{}
	}
	for _, it := range b.Items {
		o, err := store.DecodeObject(it)
		if err != nil {
			l.cfg.Logger.Error("resource not understood", "key", it.Key, "err", err)
			continue
		}
		l.res.objects[api.RefOf(o)] = o
	}
	for _, key := range b.Deleted {
		if ref, err := store.RefOfKey(key); err == nil {
			delete(l.res.objects, ref)
		}
	}
	l.stale = true
	return nil
}

// each calls f for every resource of a kind.
func each[T api.Object](r resources, f func(T)) {
	for _, o := range r.objects {
		if t, ok := o.(T); ok {
			f(t)
		}
	}
}

func lookup[T api.Object](r resources, kind api.Kind, name string) (T, bool) {
	t, ok := r.objects[api.Ref{Kind: kind, Name: name}].(T)
	return t, ok
}

func (r resources) service(name api.ServiceID) (*api.Service, bool) {
	return lookup[*api.Service](r, api.KindService, string(name))
}

// patternInput is what pattern.Route takes, with each workload's registration filled in.
func (l *Loop) patternInput() pattern.Resources {
	in := pattern.Resources{TrustDomain: l.cfg.TrustDomain}
	each(l.res, func(o *api.Site) { in.Sites = append(in.Sites, *o) })
	each(l.res, func(o *api.Service) { in.Services = append(in.Services, *o) })
	each(l.res, func(o *api.ActivePassive) { in.ActivePassive = append(in.ActivePassive, *o) })
	each(l.res, func(o *api.ActiveActive) { in.ActiveActive = append(in.ActiveActive, *o) })
	each(l.res, func(o *api.AuthorizationPolicy) { in.Policies = append(in.Policies, *o) })
	each(l.res, func(o *api.Workload) {
		w := *o
		w.Status = l.workloadStatus(o)
		in.Workloads = append(in.Workloads, w)
	})
	return in
}

func (l *Loop) workloadStatus(w *api.Workload) *api.WorkloadStatus {
	node := api.NodeID(w.Metadata.Labels[nodeLabel])
	if node == "" {
		return &api.WorkloadStatus{Registered: true} // written by hand
	}
	s := &api.WorkloadStatus{Node: node}
	if _, ok := l.regs[node]; ok {
		s.Registered = true
	} else if at, ok := l.res.lostAt[w.Metadata.Name]; ok {
		s.LostAt = at.Format(time.RFC3339Nano)
	}
	return s
}

// expireWorkloads deletes a registered workload whose sidecar has been gone for route.StaleAfter.
func (l *Loop) expireWorkloads(ctx context.Context) error {
	now := l.cfg.Clock()
	var gone []api.Ref
	each(l.res, func(w *api.Workload) {
		name := w.Metadata.Name
		if l.workloadStatus(w).Registered {
			delete(l.res.lostAt, name)
			return
		}
		if _, ok := l.res.lostAt[name]; !ok {
			l.res.lostAt[name] = now
		}
		if now.Sub(l.res.lostAt[name]) >= route.StaleAfter && l.run == nil {
			gone = append(gone, api.RefOf(w))
		}
	})
	if len(gone) == 0 {
		return nil
	}
	for _, ref := range gone {
		delete(l.res.lostAt, ref.Name)
		delete(l.res.objects, ref)
	}
	l.stale = true
	_, err := l.cfg.Store.PutObjects(ctx, l.cfg.Fence, nil, gone)
	return err
}

// putOp is the write of one server-owned object.
func putOp(o api.Object) (store.Op, error) {
	b, err := json.Marshal(o)
	if err != nil {
		return store.Op{}, fmt.Errorf("encode %s: %w", api.RefOf(o), err)
	}
	return store.Op{Key: store.KindPrefix(o.TypeOf().Kind) + o.Meta().Name, Value: b, IfRevision: store.AnyRevision}, nil
}
