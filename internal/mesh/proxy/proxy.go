package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/http1"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Proxy is one sidecar's request path.
type Proxy struct {
	// set once
	cfg          Config
	log          *slog.Logger
	metrics      *metrics
	access       *accessLog
	random       *source
	outbound     *listener
	ports        map[api.ServiceID]*listener
	inbound      *listener
	app          *http1.Pool
	changed      chan struct{}
	tableSwapped chan struct{}
	in, out      side

	// atomic
	current  atomic.Pointer[view]
	draining atomic.Bool

	late     lateness   // of this process
	applying sync.Mutex // serializes Apply

	// guarded by endpointsMu
	endpointsMu sync.Mutex
	endpoints   map[endpointKey]*endpoint
	leaving     map[*endpoint]time.Time // until when its requests in flight may last

	// guarded by reportMu
	reportMu sync.Mutex
	reflexes []nodeapi.Reflex
	load     map[loadKey]*nodeapi.Load
	loadFrom time.Time

	handlersMu sync.Mutex // guards stopped, and that no request begins once Run waits
	stopped    bool
	handlers   sync.WaitGroup // requests in flight
	tasks      sync.WaitGroup // probes; owned by Run
}

// New checks the configuration and binds the listeners, so that Addresses is complete. It starts nothing; Run closes
// what New has bound.
func New(cfg Config) (*Proxy, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		cfg: cfg, log: cfg.Logger, metrics: m, access: &accessLog{w: cfg.AccessLog}, random: newSource(cfg.Seed),
		ports:   map[api.ServiceID]*listener{},
		changed: make(chan struct{}, 1), tableSwapped: make(chan struct{}, 1),
		endpoints: map[endpointKey]*endpoint{}, leaving: map[*endpoint]time.Time{},
		load: map[loadKey]*nodeapi.Load{}, loadFrom: time.Now(),
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.app = http1.NewPool(http1.PoolConfig{Dial: p.dialApp})
	p.in.limit = func() int {
		if s := p.current.Load().service(p.cfg.Node.Service); s != nil {
			return s.spec.Limits.Connections
		}
		return 0
	}
	if err := p.bind(); err != nil {
		return nil, err
	}
	return p, nil
}

// Run serves until ctx ends, then cuts what is in flight (call Drain before to let it finish) and returns when every
// goroutine has ended. The error is of a listener that failed by itself.
func (p *Proxy) Run(ctx context.Context) error {
	requests, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	g, ctx := errgroup.WithContext(ctx)
	out, in := p.newServer(requests, p.serveOutbound), p.newServer(requests, p.serveInbound)
	serve := func(srv *http.Server, l *listener) {
		g.Go(func() error {
			err := srv.Serve(l)
			if ctx.Err() != nil || p.draining.Load() && errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		})
	}
	if p.outbound != nil {
		serve(out, p.outbound)
	}
	for _, l := range p.ports {
		serve(out, l)
	}
	if p.inbound != nil {
		serve(in, p.inbound)
	}
	g.Go(func() error { p.watch(ctx); return nil })
	g.Go(func() error { p.checkAll(ctx); return nil })
	<-ctx.Done()
	stop(errStopped)
	p.closeListeners()
	err := errors.Join(out.Close(), in.Close())
	if errors.Is(err, net.ErrClosed) {
		err = nil // the listeners were closed just before
	}
	err = errors.Join(g.Wait(), err)
	p.tasks.Wait()
	p.handlersMu.Lock()
	p.stopped = true
	p.handlersMu.Unlock()
	p.handlers.Wait()
	for _, e := range p.all() {
		e.pool.Stop()
		e.checks.Stop()
	}
	p.app.Stop()
	return err
}

// begin counts a request in; false once Run is ending.
func (p *Proxy) begin(s *side) bool {
	p.handlersMu.Lock()
	defer p.handlersMu.Unlock()
	if p.stopped {
		return false
	}
	p.handlers.Add(1)
	s.inFlight.Add(1)
	return true
}

func (p *Proxy) finish(s *side) {
	s.inFlight.Add(-1)
	p.handlers.Done()
}

// checkAll runs one check loop for each endpoint of the table in force that may be used one day.
func (p *Proxy) checkAll(ctx context.Context) {
	var loops sync.WaitGroup
	defer loops.Wait()
	running := map[*endpoint]context.CancelFunc{}
	for {
		want := map[*endpoint]bool{}
		if v := p.current.Load(); v != nil {
			for _, s := range v.services {
				for _, st := range s.sites {
					for _, e := range st.endpoints {
						want[e] = !st.spec.Excluded && !e.self
					}
				}
			}
		}
		for e, cancel := range running {
			if !want[e] {
				cancel()
				delete(running, e)
			}
		}
		for e, wanted := range want {
			if _, ok := running[e]; wanted && !ok {
				loop, cancel := context.WithCancel(ctx)
				running[e] = cancel
				loops.Go(func() { p.checkLoop(loop, e) })
			}
		}
		select {
		case <-ctx.Done():
			for _, cancel := range running {
				cancel()
			}
			return
		case <-p.tableSwapped:
		}
	}
}

// Epoch of the table in force, zero before the first.
func (p *Proxy) Epoch() route.Epoch {
	if v := p.current.Load(); v != nil {
		return v.epoch
	}
	return 0
}

// Addresses that the listeners are bound to; empty for those that were not asked for.
func (p *Proxy) Addresses() (outbound string, ports map[api.ServiceID]string, inbound string) {
	ports = map[api.ServiceID]string{}
	for id, l := range p.ports {
		ports[id] = l.Addr().String()
	}
	return p.outbound.address(), ports, p.inbound.address()
}

func (l *listener) address() string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

// Drain stops accepting, answers with Connection: close and waits for the requests in flight until ctx ends; it returns
// how many remain. The application's own calls are accepted until its requests have ended. Run goes on until its context ends.
func (p *Proxy) Drain(ctx context.Context) (remaining int) {
	p.draining.Store(true)
	p.closeInbound()
	if p.inbound == nil {
		p.closeOutbound()
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		n := int(p.in.inFlight.Load() + p.out.inFlight.Load())
		if n == 0 || ctx.Err() != nil {
			p.closeOutbound()
			return n
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// source is the seeded randomness of one proxy.
type source struct {
	mu  sync.Mutex // guards rnd
	rnd *rand.Rand
}

func newSource(seed uint64) *source { return &source{rnd: rand.New(rand.NewPCG(seed, 0x6c697665))} }

func (s *source) float() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rnd.Float64()
}

func (s *source) intn(n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rnd.IntN(n)
}
