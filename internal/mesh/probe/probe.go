package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// Limits of an order.
const (
	MaxRate    = 10_000 // requests per second: half of what a chunk can hold
	MaxTimeout = time.Minute
)

const (
	// maxInFlight bounds the requests of one probe at the same moment; a sample beyond waits for its turn, from its
	// intended time on.
	maxInFlight = 1024
	// headStart is from the order to its first sample: time to write it down.
	headStart = 50 * time.Millisecond
	// remember is how long it stays known that an order has ended.
	remember = 30 * 24 * time.Hour
)

// Config of a Prober.
type Config struct {
	Dir string // spool, made 0700
	// Target says where the client sidecar takes requests for a service, as http://host:port. It is asked for every
	// sample; ok is false while there is no such port.
	Target func(api.ServiceID) (baseURL string, ok bool)
	// Upload brings one chunk to the server. It is idempotent and is called again until it returns nil.
	Upload func(ctx context.Context, order string, chunk int64, data []byte) error
	// Offset is the estimate of (this clock - server clock) and its error. nil = unknown, 0.
	Offset      func() (off, err time.Duration)
	Logger      *slog.Logger
	MaxInFlight int // requests of one probe at the same moment; 0 = 1024
}

// Prober runs probes.
type Prober struct {
	// set once
	cfg       Config
	boot      string
	transport *http.Transport
	added     chan struct{} // capacity 1: Run has a probe to begin

	mu     sync.Mutex
	probes map[string]*probe // guarded by mu; not finished
	dead   map[string]bool   // guarded by mu; ended for ever
}

// New reads the spool of earlier processes; Run acts on it.
func New(cfg Config) (*Prober, error) {
	switch {
	case cfg.Dir == "":
		return nil, api.Errorf(api.Invalid, "prober", "no directory for the spool")
	case cfg.Target == nil || cfg.Upload == nil:
		return nil, api.Errorf(api.Invalid, "prober", "no target or no upload")
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make spool: %w", err)
	}
	if cfg.Offset == nil {
		cfg.Offset = func() (time.Duration, time.Duration) { return 0, 0 }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.MaxInFlight = cmp.Or(cfg.MaxInFlight, maxInFlight)
	p := &Prober{
		cfg: cfg, boot: boot, transport: newTransport(cfg.MaxInFlight), added: make(chan struct{}, 1),
		probes: map[string]*probe{}, dead: map[string]bool{},
	}
	return p, p.inherit()
}

// inherit takes over what the spool holds. A directory that makes no sense is left alone and logged.
func (p *Prober) inherit() error {
	entries, err := os.ReadDir(p.cfg.Dir)
	if err != nil {
		return fmt.Errorf("read spool: %w", err)
	}
	for _, e := range entries {
		sp := spool{filepath.Join(p.cfg.Dir, e.Name())}
		m, err := sp.readMeta()
		if err != nil {
			p.cfg.Logger.Warn("spool of a probe not read", "dir", sp.dir, "err", err)
			continue
		}
		switch {
		case !m.Finished.IsZero() && time.Since(m.Finished) > remember:
			if err := os.RemoveAll(sp.dir); err != nil {
				p.cfg.Logger.Warn("old spool not removed", "dir", sp.dir, "err", err)
			}
			continue
		case m.Ended:
			p.dead[m.Order.ID] = true
		}
		if !m.Finished.IsZero() {
			if err := sp.clear(); err != nil {
				p.cfg.Logger.Warn("spool not cleared", "dir", sp.dir, "err", err)
			}
		} else {
			pr := p.newProbe(m)
			pr.inherited = true
			p.probes[m.Order.ID] = pr
		}
	}
	return nil
}

func (p *Prober) newProbe(m meta) *probe {
	return &probe{
		Prober: p, order: m.Order, pace: pace{m.Order.Rate}, spool: spool{filepath.Join(p.cfg.Dir, spoolName(m.Order.ID))},
		slots: make(chan struct{}, p.cfg.MaxInFlight), target: p.cfg.Target,
		log:  p.cfg.Logger.With("probe", m.Order.ID),
		wake: make(chan struct{}, 1), complete: make(chan struct{}, 1), meta: m,
	}
}

// Run sends what is ordered and uploads what came of it until ctx ends. Samples in flight are then unknown, to be
// continued or closed by the next Prober.
func (p *Prober) Run(ctx context.Context) error {
	defer p.transport.CloseIdleConnections()
	var g errgroup.Group
	for {
		for _, pr := range p.waiting() {
			g.Go(func() error { pr.live(ctx); return nil })
		}
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-p.added:
		}
	}
}

func (p *Prober) waiting() []*probe {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []*probe
	for _, pr := range p.probes {
		if pr.ready && !pr.begun || pr.inherited && !pr.begun {
			pr.begun = true
			out = append(out, pr)
		}
	}
	return out
}

// Start begins a probe, or continues the one of that id that a crash has interrupted while its lease still runs. It
// does nothing for a probe that runs already. Its lease counts from the call.
func (p *Prober) Start(o sample.Order) error {
	if err := validate(o); err != nil {
		return err
	}
	now := time.Now()
	boot := sinceBoot()
	p.mu.Lock()
	if pr, ok := p.probes[o.ID]; ok || p.dead[o.ID] {
		defer p.mu.Unlock()
		switch {
		case p.dead[o.ID] || pr.meta.Ended || pr.overdue():
			return api.Errorf(api.Conflict, "probe "+o.ID, "has ended; an ended probe is never started again")
		case pr.order != o:
			return api.Errorf(api.Conflict, "probe "+o.ID, "runs with another order")
		case pr.inherited && !pr.resumed:
			pr.resumed = true
			pr.meta.Deadline = boot + o.Lease
			poke(pr.wake)
		}
		return nil
	}
	pr := p.newProbe(meta{
		Order: o, Boot: p.boot, Start: boot + headStart, Deadline: boot + o.Lease, Wall: now.Add(headStart).UTC().Round(0),
	})
	p.probes[o.ID] = pr
	m := pr.meta
	p.mu.Unlock()

	err := os.MkdirAll(pr.spool.dir, 0o700)
	if err == nil {
		err = errors.Join(syncDir(p.cfg.Dir), pr.spool.writeMeta(m))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		delete(p.probes, o.ID)
		return api.Errorf(api.Unavailable, "probe "+o.ID, "spool not written: %v", err).WithHint("free space on the disk of the agent's state directory")
	}
	pr.ready = true
	poke(p.added)
	return nil
}

func validate(o sample.Order) error {
	bad := func(format string, args ...any) error {
		return api.Errorf(api.Invalid, "probe order "+o.ID, format, args...)
	}
	switch {
	case o.ID == "" || o.Run == "" || o.Service == "" || o.From == "":
		return bad("id, run, service and site are needed")
	case len(spoolName(o.ID)) > maxFileName || spoolName(o.ID) == "." || spoolName(o.ID) == "..":
		return bad("the id cannot be a file name")
	case !(o.Rate > 0) || o.Rate > MaxRate || math.IsInf(o.Rate, 0):
		return bad("rate %v is not above 0 and at most %d", o.Rate, MaxRate)
	case o.Timeout <= 0 || o.Timeout > MaxTimeout:
		return bad("timeout %v is not above 0 and at most %v", o.Timeout, MaxTimeout)
	case o.Lease <= 0:
		return bad("lease %v is not positive", o.Lease)
	case o.Method != http.MethodGet && o.Method != http.MethodHead && o.Method != http.MethodOptions && o.Method != http.MethodPost:
		return bad("method %q: GET, HEAD, OPTIONS or POST", o.Method)
	case !strings.HasPrefix(o.Path, "/"):
		return bad("path %q does not begin with /", o.Path)
	}
	return nil
}

// Renew counts the lease of a probe anew from now. One that missed its lease stays ended.
func (p *Prober) Renew(id string) error {
	p.mu.Lock()
	pr, ok := p.probes[id]
	switch {
	case !ok && p.dead[id] || ok && (pr.meta.Ended || pr.overdue()):
		p.mu.Unlock()
		return api.Errorf(api.Conflict, "probe "+id, "has ended; an ended probe is never renewed")
	case !ok:
		p.mu.Unlock()
		return api.Errorf(api.NotFound, "probe "+id, "is not known here")
	}
	pr.meta.Deadline = sinceBoot() + pr.order.Lease
	p.mu.Unlock()
	poke(pr.wake)
	if err := pr.save(); err != nil {
		pr.log.Warn("renewed lease not written", "err", err) // a crash now would end the probe early
	}
	return nil
}

// Stop ends a probe: no sample is due after now, those in flight end, and the last chunk says that it is the last.
func (p *Prober) Stop(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pr, ok := p.probes[id]; ok {
		pr.stopped = true
		poke(pr.wake)
	}
}

// Active are the ids of the probes in force, sorted.
func (p *Prober) Active() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := []string{}
	for id, pr := range p.probes {
		if !pr.meta.Ended && (!pr.inherited || pr.resumed) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
