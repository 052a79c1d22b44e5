package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/nodeclient"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

// reports keeps what became of faults until the server has taken it, in order.
type reports struct {
	client *nodeclient.Client
	log    *slog.Logger
	wake   chan struct{}

	mu      sync.Mutex
	waiting []fault.Report // guarded by mu
}

// add takes reports from the faults; it never blocks.
func (r *reports) add(more []fault.Report) {
	r.mu.Lock()
	r.waiting = append(r.waiting, more...)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run sends reports until ctx ends; what no server takes is sent again, with back-off.
func (r *reports) run(ctx context.Context) error {
	wait := 100 * time.Millisecond
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.wake:
		case <-timer.C:
		}
		if r.send(ctx) {
			wait = 100 * time.Millisecond
			continue
		}
		timer.Reset(wait)
		wait = min(2*wait, time.Second)
	}
}

// send says whether nothing waits any more.
func (r *reports) send(ctx context.Context) bool {
	r.mu.Lock()
	batch := r.waiting[:len(r.waiting):len(r.waiting)]
	r.mu.Unlock()
	if len(batch) == 0 {
		return true
	}
	call, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := r.client.Faults(call, nodeapi.Faults{Reports: batch})
	if kind := api.KindOf(err); err != nil && kind != api.Invalid && kind != api.Denied {
		return false
	}
	if err != nil {
		r.log.Error("fault reports refused", "reports", len(batch), "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = r.waiting[len(batch):]
	return len(r.waiting) == 0
}
