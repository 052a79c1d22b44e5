package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const (
	beatEvery   = 10 * time.Second // heartbeat lines while nothing else is printed
	detachWith  = 5 * time.Second  // a second Ctrl-C within it detaches
	awayLimit   = 2 * time.Minute  // how long a server may be away
	retryServer = 250 * time.Millisecond
)

// errDetached ends a watch without ending the run.
var errDetached = errors.New("detached")

// watch follows one run until its evidence is written. One goroutine reads the stream, the one of run shows it.
type watch struct {
	// set once
	s          *streams
	c          *client.Client
	id         string
	out        format
	interrupts <-chan os.Signal
	mine       bool          // Ctrl-C aborts the run, not only the watch
	limit      time.Duration // for the approvals; 0 = none
	grace      time.Duration // for telling the server of an abort before detaching
	view       *view.Drill

	accepted atomic.Bool // the server has taken the abort

	// owned by run
	state       string
	missing     []string
	seen        int64 // index of the last record that was shown
	shown       map[api.ServiceID]time.Time
	aborting    bool
	interrupted time.Time
}

// run shows the run until it is done, and gives the command's status.
func (w *watch) run(ctx context.Context) error {
	following, stop := context.WithCancel(ctx)
	defer stop()
	group, following := errgroup.WithContext(following)
	events := make(chan userapi.RunEvent)
	group.Go(func() error {
		defer close(events)
		return w.follow(following, events)
	})
	sum, err := w.loop(following, group, events)
	stop()
	if ended := group.Wait(); err == nil && sum.ID == "" {
		err = ended // the stream ended without the run's end
	}
	if err != nil {
		w.view.End()
		return w.ended(err)
	}
	return w.finish(ctx, sum)
}

// ended is the status of a watch that ended before its run did.
func (w *watch) ended(err error) error {
	if !errors.Is(err, errDetached) {
		return err
	}
	if w.mine {
		return w.detach()
	}
	w.s.note("detached: the run goes on. Next: livefire drill watch %s\n", w.id)
	return nil
}

// detach leaves the restoring to the server, once the server knows of it.
func (w *watch) detach() error {
	if !w.accepted.Load() {
		ctx, cancel := context.WithTimeout(context.Background(), w.grace)
		defer cancel()
		if err := w.abort(ctx); err != nil {
			w.s.note("detached, and the server was NOT told to abort: %v\nEvery fault ends with its lease. Next: livefire drill abort %s --reason TEXT\n", err, w.id)
			return status(ExitNotRestored)
		}
	}
	w.s.note("detached: the server goes on restoring. Next: livefire drill watch %s\n", w.id)
	return status(ExitInterrupted)
}

// abort asks until the server has taken the request.
func (w *watch) abort(ctx context.Context) error {
	for {
		_, err := w.c.Abort(ctx, w.id, "interrupted by the user")
		switch {
		case err == nil, api.KindOf(err) == api.Denied: // taken, or it is done already
			w.accepted.Store(true)
			return nil
		case api.KindOf(err) != api.Unavailable:
			return err
		}
		if wait(ctx, retryServer) != nil {
			return err
		}
	}
}

func (w *watch) loop(ctx context.Context, group *errgroup.Group, events <-chan userapi.RunEvent) (sum userapi.RunSummary, err error) {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	until := time.Now().Add(w.limit)
	var over <-chan time.Time
	if w.limit > 0 {
		timer := time.NewTimer(w.limit)
		defer timer.Stop()
		over = timer.C
	}
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return sum, nil
			}
			if err := w.event(e); err != nil {
				return sum, err
			}
			if e.Done != nil {
				return *e.Done, nil
			}
		case <-beat.C:
			w.heartbeat(until)
		case <-over:
			if w.state == "Proposed" {
				return sum, api.Errorf(api.Unavailable, "run/"+w.id, "not approved within %s by %s", w.limit, strings.Join(w.missing, ", ")).
					WithHint("livefire drill watch %s goes on; livefire drill abort %s --reason TEXT ends it", w.id, w.id)
			}
		case <-w.interrupts:
			if err := w.interrupt(ctx, group, time.Now()); err != nil {
				return sum, err
			}
		}
	}
}

// heartbeat says what is waited for, and how long still, where the view says nothing by itself.
func (w *watch) heartbeat(until time.Time) {
	if w.state != "Proposed" || len(w.missing) == 0 {
		return
	}
	left := ""
	if w.limit > 0 {
		left = ", " + max(time.Until(until), 0).Round(time.Second).String() + " left"
	}
	w.s.note("   ... waiting for the approval of %s%s\n", strings.Join(w.missing, ", "), left)
}

// interrupt is one Ctrl-C.
func (w *watch) interrupt(ctx context.Context, group *errgroup.Group, now time.Time) error {
	if !w.mine || w.aborting && now.Sub(w.interrupted) <= detachWith {
		return errDetached
	}
	w.interrupted = now
	w.view.End()
	w.s.note("\ninterrupted: aborting the run and restoring; Ctrl-C again within %s detaches\n", detachWith)
	if w.aborting {
		return nil
	}
	w.aborting = true
	group.Go(func() error {
		if err := w.abort(ctx); ctx.Err() == nil {
			return err
		}
		return nil // the run is done, or the person has detached
	})
	return nil
}

// follow reads the stream; one that breaks, because the server restarts for example, is opened again.
func (w *watch) follow(ctx context.Context, events chan<- userapi.RunEvent) error {
	var since time.Time
	for {
		finished := false
		err := w.c.WatchRun(ctx, w.id, func(e userapi.RunEvent) error {
			since = time.Time{}
			finished = e.Done != nil
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		if finished || ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = api.Errorf(api.Unavailable, "run/"+w.id, "the stream ended before the run did")
		}
		if api.KindOf(err) != api.Unavailable {
			return err
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) > awayLimit {
			return api.Errorf(api.Unavailable, "run/"+w.id, "the server has been away for %s: %v", awayLimit, err).
				WithHint("every fault ends with its lease; livefire drill watch %s goes on when the server is back", w.id)
		}
		if wait(ctx, retryServer) != nil {
			return nil
		}
	}
}

// event shows what was not shown before the stream broke.
func (w *watch) event(e userapi.RunEvent) error {
	if e.Record != nil {
		if e.Record.Index <= w.seen {
			return nil
		}
		w.seen = e.Record.Index
		w.approved(*e.Record)
	}
	e.Live = slices.DeleteFunc(slices.Clone(e.Live), func(v userapi.Live) bool { return !v.At.After(w.shown[v.Service]) })
	for _, v := range e.Live {
		w.shown[v.Service] = v.At
	}
	if e.State != "" {
		w.state = e.State
	}
	if w.out == "jsonl" {
		return w.line(e)
	}
	if e.Done == nil {
		w.view.Event(e)
	}
	return nil
}

func (w *watch) line(e userapi.RunEvent) error {
	b, err := document("RunEvent", e)
	if err != nil {
		return err
	}
	_, err = io.WriteString(w.s.out, string(b)+"\n")
	return err
}

// approved takes a group off the list of those that are waited for.
func (w *watch) approved(r evidence.Record) {
	if r.Kind != string(record.RunApproved) {
		return
	}
	var a record.Approved
	if err := json.Unmarshal(r.Data, &a); err != nil {
		w.s.note("%v\n", fmt.Errorf("read an approval: %w", err))
		return
	}
	w.missing = slices.DeleteFunc(w.missing, func(g string) bool { return g == a.Group })
}
