package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Pauses between attempts while etcd does not answer.
const (
	minPause = 100 * time.Millisecond
	maxPause = 2 * time.Second
)

// Batch is either everything under the prefix (Snapshot) or the changes of exactly one transaction.
type Batch struct {
	Snapshot bool
	Items    []Item   // sorted by key in a snapshot; shared with other watchers: do not change the values
	Deleted  []string // keys; also those whose lease ended. Always empty in a snapshot: what it lacks is gone
	Revision int64    // of the store after the batch
}

// errCompacted ends one stretch of watching: the changes in between are lost, a new snapshot is needed.
var errCompacted = errors.New("compacted")

// Watch calls fn with a snapshot, then with each transaction that touches the prefix, in order and without a gap. It
// resumes after a disconnection; when the history in between was compacted, fn gets a new snapshot. It returns when ctx
// ends (with its cause) or fn fails (with that error). One call of fn at a time.
func (s *Store) Watch(ctx context.Context, prefix string, fn func(Batch) error) error {
	pause := newPause()
	for {
		items, revision, err := s.List(ctx, prefix)
		if err != nil {
			if err := pause.wait(ctx); err != nil {
				return err
			}
			continue
		}
		if err := fn(Batch{Snapshot: true, Items: items, Revision: revision}); err != nil {
			return fmt.Errorf("watch %s: %w", prefix, err)
		}
		if err := s.follow(ctx, prefix, revision+1, pause, fn); !errors.Is(err, errCompacted) {
			return err
		}
	}
}

// follow passes on changes from a revision on, through as many streams as it takes.
func (s *Store) follow(ctx context.Context, prefix string, next int64, pause *pause, fn func(Batch) error) error {
	for {
		var err error
		if next, err = s.stream(ctx, prefix, next, pause, fn); err != nil {
			return err
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// stream reads one etcd watch until it breaks, and returns the revision to go on from.
func (s *Store) stream(ctx context.Context, prefix string, next int64, pause *pause, fn func(Batch) error) (int64, error) {
	sctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	// Progress notifications keep next near the present while nothing changes, so that a compaction rarely costs a snapshot.
	for resp := range s.client.Watch(sctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(next), clientv3.WithProgressNotify()) {
		if resp.CompactRevision != 0 {
			return next, errCompacted
		}
		if resp.Err() != nil {
			return next, nil
		}
		pause.reset()
		for _, b := range batches(resp.Events) {
			if err := fn(b); err != nil {
				return next, fmt.Errorf("watch %s: %w", prefix, err)
			}
			next = b.Revision + 1
		}
		if resp.IsProgressNotify() {
			next = resp.Header.Revision + 1
		}
	}
	return next, context.Cause(ctx)
}

// batches groups events, which etcd orders by revision and never splits within one, by transaction.
func batches(events []*clientv3.Event) []Batch {
	var out []Batch
	for _, e := range events {
		if n := len(out); n == 0 || out[n-1].Revision != e.Kv.ModRevision {
			out = append(out, Batch{Revision: e.Kv.ModRevision})
		}
		b := &out[len(out)-1]
		if e.Type == mvccpb.Event_DELETE {
			b.Deleted = append(b.Deleted, string(e.Kv.Key))
		} else {
			b.Items = append(b.Items, itemOf(e.Kv))
		}
	}
	return out
}

// pause waits longer each time until it is reset. One goroutine uses it.
type pause struct{ next time.Duration }

func newPause() *pause { return &pause{minPause} }

func (p *pause) reset() { p.next = minPause }

// wait returns the cause when ctx ends first.
func (p *pause) wait(ctx context.Context) error {
	t := time.NewTimer(p.next)
	defer t.Stop()
	p.next = min(2*p.next, maxPause)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
