package xds

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Renderer renders one table for many nodes. What a service contributes to every node of one kind is made once.
// It is safe from any goroutine.
type Renderer struct {
	table route.Table             // set once
	kept  map[api.ServiceID]error // set once: services that are older than the table, and why
	bad   map[api.ServiceID]error // set once: services that are left out, and why, besides those whose part has failed

	mu    sync.Mutex
	parts map[partKey]*part // guarded by mu; a part is made once, by its own lock
}

type partKey struct {
	service api.ServiceID
	kind    string
}

// part is what one service contributes whoever the node is, or why it contributes nothing.
type part struct {
	once      sync.Once
	resources []Resource
	vhost     *routev3.VirtualHost
	observed  *routev3.VirtualHost // the same without routes, for a node that may not call but must observe
	err       error
}

// NewRenderer prepares a table, which must not be edited afterwards.
func NewRenderer(t route.Table) *Renderer {
	return &Renderer{table: t, parts: map[partKey]*part{}}
}

// Next prepares the table after r's. A service that cannot be rendered as it is now stays as it was in r: a mistake in a
// service's description must not take away the service. Nor may one that is new take a host from another.
func (r *Renderer) Next(t route.Table) *Renderer {
	next := NewRenderer(t)
	if r == nil {
		return next
	}
	next.kept, next.bad = map[api.ServiceID]error{}, map[api.ServiceID]error{}
	next.table.Services = slices.Clone(t.Services)
	owners := r.owners(t)
	for i, s := range t.Services {
		err := next.part(s, KindBuiltin).err
		if err == nil {
			err = taken(owners, s)
		}
		if err == nil {
			continue
		}
		old, ok := r.table.Service(s.Name)
		if !ok || r.bad[s.Name] != nil || r.part(old, KindBuiltin).err != nil {
			next.bad[s.Name] = err
			continue
		}
		next.kept[s.Name] = fmt.Errorf("it stays as it was: %w", err)
		next.table.Services[i] = old
		delete(next.parts, partKey{s.Name, KindBuiltin})
	}
	return next
}

// owners are the services of r by their domains, as far as t still has them.
func (r *Renderer) owners(t route.Table) map[string]api.ServiceID {
	out := map[string]api.ServiceID{}
	for _, s := range r.table.Services {
		now, ok := t.Service(s.Name)
		if !ok || r.bad[s.Name] != nil {
			continue
		}
		still := domains(now)
		for _, d := range domains(s) {
			if slices.Contains(still, d) {
				out[strings.ToLower(d)] = s.Name
			}
		}
	}
	return out
}

// Epoch of the table.
func (r *Renderer) Epoch() route.Epoch { return r.table.Epoch }

// RenderFor is Render of the part of the table that a node holds.
func (r *Renderer) RenderFor(n route.Node, caps route.Capabilities) (Resources, []route.Problem) {
	return r.render(r.table.For(n), n, caps)
}

func (r *Renderer) part(s route.Service, kind string) *part {
	key := partKey{s.Name, kind}
	r.mu.Lock()
	p := r.parts[key]
	if p == nil {
		p = new(part)
		r.parts[key] = p
	}
	r.mu.Unlock()
	p.once.Do(func() { p.make(s, kind) })
	return p
}

// make renders one service, alone: all of it or nothing.
func (p *part) make(s route.Service, kind string) {
	if p.err = check(s); p.err != nil {
		return
	}
	var all []named
	for _, c := range clustersOf(s) {
		all = append(all, named{c.name, clusterMessage(s, c, kind)}, named{c.name, loadAssignment(c)})
	}
	if kind == KindGRPC {
		all = append(all, grpcListeners(s)...)
	}
	p.vhost = virtualHost(s, domains(s))
	if p.err = Validate(p.vhost); p.err != nil {
		return
	}
	if _, p.err = NewResource(p.vhost.GetName(), p.vhost); p.err != nil {
		return
	}
	p.observed = &routev3.VirtualHost{Name: p.vhost.GetName(), Domains: p.vhost.GetDomains(), Metadata: p.vhost.GetMetadata()}
	made := Resources{}
	if p.err = addAll(made, all); p.err != nil {
		return
	}
	for _, rs := range made {
		p.resources = append(p.resources, rs...)
	}
}
