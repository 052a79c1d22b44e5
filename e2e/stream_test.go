//go:build e2e

package e2e

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// stream is the watch stream of the demo's run, record by record. It only says when to act; what is checked comes from /proc
// and from the bundle.
type stream struct {
	mu      sync.Mutex
	states  []string      // guarded by mu
	changed chan struct{} // guarded by mu; closed at each state
}

// watch follows the demo's first run until the test ends.
func (d *demoRun) watch() *stream {
	s := &stream{changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.follow(ctx, filepath.Join(d.home, "context.yaml"))
	}()
	d.t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *stream) follow(ctx context.Context, path string) {
	var c *client.Client
	seen := int64(-1)
	for ctx.Err() == nil {
		if c == nil {
			c, _ = client.Load(path) // not written yet
		}
		if c != nil {
			if runs, err := c.Runs(ctx); err == nil && len(runs) > 0 {
				_ = c.WatchRun(ctx, runs[len(runs)-1].ID, func(e userapi.RunEvent) error {
					if e.Record != nil && e.Record.Index > seen {
						seen = e.Record.Index
						s.add(*e.Record)
					}
					return nil
				})
			}
		}
		select { // the server is away, or has no run yet
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	if c != nil {
		c.Close()
	}
}

func (s *stream) add(r evidence.Record) {
	if r.Kind != string(record.RunState) {
		return
	}
	var st record.State
	if err := unmarshal(r.Data, &st); err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states = append(s.states, st.To)
	close(s.changed)
	s.changed = make(chan struct{})
}

// entered waits until the run has entered a state; false if it did not within the limit.
func (s *stream) entered(state string, limit time.Duration) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		changed := s.changed
		for _, got := range s.states {
			if got == state {
				s.mu.Unlock()
				return true
			}
		}
		s.mu.Unlock()
		select {
		case <-changed:
		case <-deadline.C:
			return false
		}
	}
}
