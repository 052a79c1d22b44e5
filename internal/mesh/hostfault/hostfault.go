package hostfault

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
)

// reportAgain is how long the reports of an order that has ended are repeated at each start of the agent: the server
// may not have had them, and a repeated report is harmless.
const reportAgain = 24 * time.Hour

// Config of a Host.
type Config struct {
	Dir           string // undo records, made 0700
	Site          api.SiteID
	Supervisor    *supervise.Supervisor
	ServerPIDFile string // pid of the server of this host; with it the host can do server-kill
	// Report is called for each change of a fault, from several goroutines, and must not block. nil = none.
	Report func([]fault.Report)
	// Offset is the estimate of (this clock - server clock) and its error. nil = unknown, 0.
	Offset func() (off, err time.Duration)
	Logger *slog.Logger
	// Watchdog is the command that calls RunWatchdog(ctx, WatchdogFromEnv()): the same binary with a hidden verb.
	// Empty = no watchdog: faults then end with the agent only when it is started again.
	Watchdog    []string
	WatchdogLog string   // file for its stdout and stderr, appended; empty = discarded
	Lifetime    *os.File // read end of a pipe that is passed to the watchdog; nil = none
}

// Host holds the faults of one agent.
type Host struct {
	// set once
	cfg     Config
	journal journal
	boot    string
	log     *slog.Logger
	wake    chan struct{} // capacity 1: Run looks again
	armed   func()        // called between the undo record and the effect; a test dies here; nil = none

	mu      sync.Mutex
	running bool              // guarded by mu; Run has taken over what was left behind
	stop    bool              // guarded by mu; Run ends: no new order
	fence   int64             // guarded by mu
	orders  map[string]*order // guarded by mu; not ended
	dead    map[string]record // guarded by mu; ended for ever
	dog     dog               // guarded by mu
}

// order is one fault that is not ended.
type order struct {
	// guarded by Host.mu
	rec    record
	state  orderState
	why    string // fault.ByRevert, ByLease or ByWatchdog once it is to end
	reason string

	disk sync.Mutex // held while rec is copied and written, so that files never go back in time
}

type orderState int

const (
	applying orderState = iota // owned by the caller of Order; the end waits for it
	active
	ending // owned by the goroutine that ends it
)

// New reads what earlier agents left in the directory; Run acts on it.
func New(cfg Config) (*Host, error) {
	switch {
	case cfg.Dir == "":
		return nil, api.Errorf(api.Invalid, "host faults", "no directory for undo records")
	case cfg.Site == "":
		return nil, api.Errorf(api.Invalid, "host faults", "no site")
	case cfg.Supervisor == nil:
		return nil, api.Errorf(api.Unavailable, "host faults", "no supervised processes; they need Linux")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("make directory for undo records: %w", err)
	}
	cfg.Dir = dir
	if cfg.Report == nil {
		cfg.Report = func([]fault.Report) {}
	}
	if cfg.Offset == nil {
		cfg.Offset = func() (time.Duration, time.Duration) { return 0, 0 }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Host{
		cfg: cfg, journal: journal{dir}, log: cfg.Logger, wake: make(chan struct{}, 1),
		orders: map[string]*order{}, dead: map[string]record{},
	}
	if h.boot, err = bootID(); err != nil {
		return nil, err
	}
	if h.fence, err = h.journal.readFence(); err != nil {
		return nil, err
	}
	return h, nil
}

// Run takes over what an earlier agent left: it reverts every fault and reports it. Then it ends each order when its
// lease ends or it is withdrawn, catches targets that start again under a pause, and keeps the watchdog alive. When
// ctx ends it reverts everything and returns nil. It returns an error only if it cannot begin.
func (h *Host) Run(ctx context.Context) error {
	unlock, err := supervise.Lock(ctx, h.cfg.Dir)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer unlock()
	if err := h.inherit(); err != nil {
		return err
	}
	var g errgroup.Group
	dogCtx, stopDog := context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		stopDog()
		_ = g.Wait() // the watchdog's keeper returns no error
	}()
	if len(h.cfg.Watchdog) > 0 {
		up := make(chan struct{})
		g.Go(func() error { h.keepWatchdog(dogCtx, up); return nil })
		select {
		case <-up:
		case <-ctx.Done():
		}
	}
	h.setRunning(true)
	defer h.setRunning(false)
	h.loop(ctx)
	return nil
}

func (h *Host) setRunning(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = on
}

// inherit reads every record: what is ended stays dead and is reported again for a while, the rest is to end now.
func (h *Host) inherit() error {
	all, err := h.journal.all()
	if err != nil {
		return fmt.Errorf("take over faults: %w", err)
	}
	var again []fault.Report
	h.mu.Lock()
	h.stop = false
	for _, r := range all {
		if r.Stage == stageEnded {
			h.dead[r.Order.ID] = r
			if time.Since(r.Ended).Abs() < reportAgain {
				again = append(again, r.Reports...)
			}
			continue
		}
		o := &order{rec: r, state: active, why: r.EndedBy, reason: "reverted by the next agent"}
		if o.why == "" {
			o.why = fault.ByWatchdog // the constant for: the agent died
			if r.Boot == h.boot && sinceBoot() >= r.Deadline {
				o.why = fault.ByLease
			}
		}
		h.orders[r.Order.ID] = o
		again = append(again, r.Reports...)
	}
	h.mu.Unlock()
	if len(again) > 0 {
		h.cfg.Report(again)
	}
	return nil
}

// loop ends orders when they are due.
func (h *Host) loop(ctx context.Context) {
	var g errgroup.Group
	defer func() { _ = g.Wait() }() // enders return no error
	done, stopping := ctx.Done(), false
	for {
		changed := h.cfg.Supervisor.Changed()
		h.catchRestarted()
		due, next, left := h.due()
		for _, o := range due {
			g.Go(func() error { h.end(ctx, o); return nil })
		}
		if left == 0 && stopping {
			return
		}
		timer := time.NewTimer(next)
		select {
		case <-done:
			done, stopping = nil, true
			h.endAll("the agent stops")
		case <-timer.C:
		case <-h.wake:
		case <-changed:
		}
		timer.Stop()
	}
}

// endAll has every order end, and no new one begin.
func (h *Host) endAll(reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stop = true
	for _, o := range h.orders {
		if o.why == "" {
			o.why, o.reason = fault.ByRevert, reason
		}
	}
}

// due picks the orders that are to end and are not yet being ended, says when to look again at the latest, and how
// many orders there are. It looks each second at least: a timer of Go does not count a suspend, a lease does.
func (h *Host) due() (due []*order, next time.Duration, left int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := sinceBoot()
	next = time.Second
	for _, o := range h.orders {
		if o.why == "" && o.rec.Order.Kind.HasUndo() && now >= o.rec.Deadline {
			o.why = fault.ByLease
			if now >= o.rec.Cap {
				o.reason = "maxDuration reached"
			}
		}
		switch {
		case o.state != active:
			// it ends once it has been applied, or is about to be gone
		case o.why != "":
			o.state = ending
			due = append(due, o)
		default:
			next = min(next, o.rec.Deadline-now)
		}
	}
	return due, max(next, 0), len(h.orders)
}

// Renew counts the lease of an order anew from now. An order that has ended, or missed its lease, stays dead.
func (h *Host) Renew(id string) error {
	h.mu.Lock()
	o, ok := h.orders[id]
	dead, wasHere := h.dead[id]
	now := sinceBoot()
	switch {
	case !ok && wasHere && !dead.Order.Kind.HasUndo() && dead.EndedBy == fault.ByNone:
		h.mu.Unlock()
		return nil // there is nothing to prolong and nothing to end
	case !ok && wasHere:
		h.mu.Unlock()
		return api.Errorf(api.Conflict, "fault "+id, "has ended (%s); an ended order is never renewed", dead.EndedBy)
	case !ok:
		h.mu.Unlock()
		return api.Errorf(api.NotFound, "fault "+id, "is not known here")
	case o.why != "" || now >= o.rec.Deadline:
		h.mu.Unlock()
		poke(h.wake)
		return api.Errorf(api.Conflict, "fault "+id, "its lease has ended; an ended order is never renewed")
	}
	o.rec.Deadline = min(now+o.rec.Order.Lease, o.rec.Cap)
	h.mu.Unlock()
	poke(h.wake)
	// The watchdog goes by the file. An error shortens the lease, as seen by the watchdog: it never prolongs it.
	if err := h.persist(o); err != nil {
		h.log.Warn("renewed lease not written", "order", id, "err", err)
	}
	return nil
}

// Withdraw reverts an order now. The reports say when it is done. An unknown or ended order is left as it is.
func (h *Host) Withdraw(id string) {
	h.mu.Lock()
	if o, ok := h.orders[id]; ok && o.why == "" {
		o.why = fault.ByRevert
	}
	h.mu.Unlock()
	poke(h.wake)
}

// Kinds are the fault kinds that this host can apply, and undo.
func (h *Host) Kinds() []fault.Kind {
	kinds := []fault.Kind{fault.Kill, fault.Pause}
	if h.cfg.ServerPIDFile != "" {
		if _, err := os.Stat(h.cfg.ServerPIDFile); err == nil {
			kinds = append(kinds, fault.ServerKill)
		}
	}
	return kinds
}

// Active are the ids of the orders that are in force or not yet proven gone, sorted.
func (h *Host) Active() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := make([]string, 0, len(h.orders))
	for id := range h.orders {
		ids = append(ids, id)
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
