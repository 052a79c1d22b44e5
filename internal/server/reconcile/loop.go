package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/mesh/xdsserver"
	"github.com/livefire-mesh/livefire/internal/recovery/failover"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/pattern"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
	"github.com/livefire-mesh/livefire/internal/server/ledger"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// Config of a loop. All fields are required.
type Config struct {
	Store       *store.Store
	Ledger      *ledger.Ledger
	Signer      *evidence.Signer
	XDS         *xdsserver.Server
	Fence       store.Fence
	TrustDomain string
	Dir         string           // samples/ and reports/ live here
	Software    string           // version of livefire
	Clock       func() time.Time // server clock: UTC, never goes back
	Change      func(ctx context.Context, by string, r userapi.ApplyRequest) (userapi.ApplyResponse, error)
	Logger      *slog.Logger
}

// Loop is one leader's term.
type Loop struct {
	// set once
	cfg       Config
	calls     chan func(context.Context)
	stopped   chan struct{}
	registrar registrar
	news      broadcast // signalled after every change that a watcher may want to see

	// owned by Run
	res        resources
	regs       map[api.NodeID]registration
	nodes      map[api.NodeID]*nodeFacts
	snapshot   health.Snapshot
	loads      loads
	table      route.Table
	placed     map[api.ServiceID]pattern.Placement
	machines   map[api.ServiceID]failover.Machine
	saved      map[api.ServiceID]string // what of each machine is stored
	rounds     []ackRound
	run        *run // the active one, nil if none
	ended      map[string]*run
	unfinished []*run // closed without a bundle
	lever      userapi.Lever
	stale      bool // the table may have to change
	// configurations that machines have not been told yet
	pendingConfig []failover.Configured
	tasks         *errgroup.Group
	fatal         error
}

// New makes a loop; Run starts it.
func New(cfg Config) *Loop {
	return &Loop{
		cfg:       cfg,
		calls:     make(chan func(context.Context)),
		stopped:   make(chan struct{}),
		registrar: registrar{store: cfg.Store, fence: cfg.Fence, nodes: map[api.NodeID]*renewal{}},
		news:      broadcast{changed: make(chan struct{})},
		res:       newResources(),
		regs:      map[api.NodeID]registration{},
		nodes:     map[api.NodeID]*nodeFacts{},
		placed:    map[api.ServiceID]pattern.Placement{},
		machines:  map[api.ServiceID]failover.Machine{},
		saved:     map[api.ServiceID]string{},
		ended:     map[string]*run{},
	}
}

// Run loads the state and serves until ctx ends or a write fails: then the next term starts from the store.
func (l *Loop) Run(ctx context.Context) error {
	defer close(l.stopped)
	group, ctx := errgroup.WithContext(ctx)
	l.tasks = group
	if err := l.load(ctx); err != nil {
		group.Go(func() error { return fmt.Errorf("load state: %w", err) })
		return group.Wait()
	}
	l.unfinishedRuns(ctx)
	group.Go(func() error { return l.watch(ctx, store.ResourcePrefix, l.resourcesChanged) })
	group.Go(func() error { return l.watch(ctx, nodesPrefix, l.registrationsChanged) })
	group.Go(func() error { return l.serve(ctx) })
	return group.Wait()
}

func (l *Loop) watch(ctx context.Context, prefix string, changed func(context.Context, store.Batch) error) error {
	return l.cfg.Store.Watch(ctx, prefix, func(b store.Batch) error {
		return l.do(ctx, func(ctx context.Context) error { return changed(ctx, b) })
	})
}

// serve is the one goroutine that owns the state.
func (l *Loop) serve(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case f := <-l.calls:
			f(ctx)
		case <-timer.C:
		}
		if err := l.settle(ctx); err != nil {
			return err
		}
		timer.Reset(l.pause())
	}
}

// settle does everything that is due now.
func (l *Loop) settle(ctx context.Context) error {
	for _, due := range []func(context.Context) error{l.expireWorkloads, l.routeDue, l.failoverDue, l.acksDue, l.drillDue} {
		if l.fatal == nil {
			l.fatal = due(ctx)
		}
	}
	l.news.signal()
	return l.fatal
}

// tick bounds how long the loop sleeps: what is observed grows stale, and orders need their renewal.
const tick = 250 * time.Millisecond

// pause is the time until something is due.
func (l *Loop) pause() time.Duration {
	now := l.cfg.Clock()
	wait := tick
	soonest := func(t time.Time) {
		if !t.IsZero() {
			wait = min(wait, max(t.Sub(now), 0))
		}
	}
	for _, m := range l.machines {
		soonest(m.Next())
	}
	if l.run != nil && l.run.resumeBy.IsZero() {
		soonest(l.run.machine.Next())
	}
	// A deadline that stays in the past must not become a busy loop.
	return max(wait, time.Millisecond)
}

// do runs f on the loop's goroutine and waits for it.
func (l *Loop) do(ctx context.Context, f func(context.Context) error) error {
	done := make(chan error, 1)
	select {
	case l.calls <- func(ctx context.Context) { done <- f(ctx) }:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.stopped:
		return errStopped
	}
	select {
	case err := <-done:
		return err
	case <-l.stopped:
	}
	select { // it may have been the last thing that was done
	case err := <-done:
		return err
	default:
		return errStopped
	}
}

var errStopped = api.Errorf(api.Unavailable, "server", "is not the leader now").WithHint("try again: a server takes over within seconds")

// entry makes a ledger entry of now, for the active run if there is one: a closed run takes no more records.
func (l *Loop) entry(kind record.Kind, actor, subject string, data any) ledger.Entry {
	e := ledger.Entry{Kind: string(kind), Actor: actor, Subject: subject, At: l.cfg.Clock(), Data: data}
	if l.run != nil && l.run.open() {
		e.Run = l.run.id()
	}
	return e
}

// commit appends records and writes state in one transaction. A failure ends the term: the next one starts from what is stored.
func (l *Loop) commit(ctx context.Context, ops []store.Op, entries ...ledger.Entry) ([]evidence.Record, error) {
	records, err := l.cfg.Ledger.AppendWith(ctx, ops, entries...)
	if err != nil {
		l.fatal = errors.Join(l.fatal, fmt.Errorf("write state: %w", err))
		return nil, l.fatal
	}
	return records, nil
}

// broadcast wakes every waiter.
type broadcast struct {
	mu      sync.Mutex
	changed chan struct{} // guarded by mu; closed and replaced by signal
}

func (b *broadcast) signal() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}
