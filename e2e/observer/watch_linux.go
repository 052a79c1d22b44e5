package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lookEvery = 2 * time.Millisecond
	readEvery = 20 * time.Millisecond
	tick      = 10 * time.Millisecond // of start times in /proc: USER_HZ is 100 on every Linux
)

// watcher holds a pidfd of every target.
type watcher struct {
	path, site string
	pids       map[string]int
	names      []string // by descriptor
	fds        []unix.PollFd
	seen       map[string]*sighting
	looked     time.Time // when the last look at the states began
}

func newWatcher(path, site string, pids map[string]int) (*watcher, error) {
	w := &watcher{path: path, site: site, pids: pids, seen: map[string]*sighting{}}
	for name, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			w.close()
			return nil, fmt.Errorf("pidfd of %s (pid %d): %w", name, pid, err)
		}
		w.names = append(w.names, name)
		w.fds = append(w.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return w, nil
}

func (w *watcher) close() {
	for _, fd := range w.fds {
		if fd.Fd >= 0 {
			_ = unix.Close(int(fd.Fd))
		}
	}
}

// run looks until ctx ends, or until after has passed since the first target lived again.
func (w *watcher) run(ctx context.Context, after time.Duration) error {
	defer w.close()
	last, lastRead := time.Now(), time.Now()
	for ctx.Err() == nil {
		if _, err := unix.Poll(w.fds, int(lookEvery/time.Millisecond)); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll pidfds: %w", err)
		}
		now := time.Now()
		w.gone(bracket{last.UTC().Round(0), now.UTC().Round(0)})
		last = now
		w.stopped()
		if now.Sub(lastRead) >= readEvery {
			lastRead = now
			if err := w.startedAgain(); err != nil {
				return err
			}
		}
		if end := holdEnd(w.sightings()); !end.IsZero() && now.Sub(end) > after {
			return nil
		}
	}
	return nil
}

// gone notes whose pidfd says that they have ended.
func (w *watcher) gone(when bracket) {
	for i := range w.fds {
		if w.fds[i].Fd < 0 || w.fds[i].Revents == 0 {
			continue
		}
		name := w.names[i]
		w.seen[name] = &sighting{Target: name, PID: w.pids[name], How: howGone, Seen: when}
		_ = unix.Close(int(w.fds[i].Fd))
		w.fds[i].Fd = -1 // poll passes over it
	}
}

// stopped notes who is stopped, and who was and runs again, between the look before and this one.
func (w *watcher) stopped() {
	before := w.looked
	w.looked = time.Now()
	if before.IsZero() {
		before = w.looked
	}
	for i, name := range w.names {
		if w.fds[i].Fd < 0 {
			continue
		}
		state, _, ok := stat(w.pids[name])
		if !ok {
			continue
		}
		s := w.seen[name]
		when := bracket{before.UTC().Round(0), time.Now().UTC().Round(0)}
		switch {
		case state == 'T' && s == nil:
			w.seen[name] = &sighting{Target: name, PID: w.pids[name], How: howStopped, Seen: when}
		case state != 'T' && s != nil && s.Back == nil:
			s.Back = &when
		}
	}
}

// startedAgain looks for new pids of killed targets; when they began is in /proc.
func (w *watcher) startedAgain() error {
	missing := false
	for _, s := range w.seen {
		missing = missing || s.How == howGone && s.Back == nil
	}
	if !missing {
		return nil
	}
	d, err := readDemo(w.path)
	if err != nil {
		return nil // replaced at this moment, or the demo is over
	}
	for _, p := range d.Sites[w.site] {
		for name, pid := range map[string]int{p.Name: p.PID, p.Name + "/sidecar": p.Sidecar} {
			s := w.seen[name]
			if s == nil || s.How != howGone || s.Back != nil || pid <= 0 || pid == s.PID {
				continue
			}
			if _, started, ok := stat(pid); ok {
				began, err := sinceBoot(started)
				if err != nil {
					return err
				}
				s.Back, s.NewPID = &bracket{began, began.Add(tick)}, pid
			}
		}
	}
	return nil
}

// sinceBoot is the moment of a start time in /proc, on the wall clock.
func sinceBoot(ticks uint64) (time.Time, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Time{}, fmt.Errorf("read the clock since the boot: %w", err)
	}
	ago := time.Duration(ts.Nano()) - time.Duration(ticks)*tick
	return time.Now().Add(-ago).UTC().Round(0), nil
}

func (w *watcher) sightings() []sighting {
	out := make([]sighting, 0, len(w.seen))
	for _, s := range w.seen {
		out = append(out, *s)
	}
	return out
}
