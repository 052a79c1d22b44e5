package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/livefire-mesh/livefire/api"
)

// lockPatience is how long Run waits for whoever had the directory before: a watchdog at its work needs seconds.
const lockPatience = 15 * time.Second

// killPatience is how long a process may take to go after SIGKILL.
const killPatience = 5 * time.Second

// end has every loop keep its process down.
func (s *Supervisor) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.announce()
}

// StopAll ends every process of the directory, also those that nobody has added since the last agent died: SIGTERM,
// and SIGKILL after the grace. Nothing is started afterwards. It works with and without Run. It returns an error
// that names who is still there.
func (s *Supervisor) StopAll(ctx context.Context, grace time.Duration) error {
	s.end()
	s.mu.Lock()
	var starting []chan struct{}
	for _, p := range s.procs {
		if p.starting != nil {
			starting = append(starting, p.starting)
		}
	}
	s.mu.Unlock()
	for _, c := range starting {
		<-c // milliseconds, and then there is a state file
	}
	return stopAll(ctx, s.dir, grace)
}

// KillAll ends every process of a directory at once: SIGKILL, which also ends a stopped one. It needs no Supervisor.
func KillAll(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	return stopAll(ctx, dir, 0)
}

func stopAll(ctx context.Context, dir string, grace time.Duration) error {
	type target struct {
		state
		h *Handle
	}
	var targets []target
	for _, st := range states(dir) {
		h, err := st.open()
		if err != nil {
			continue // it does not run
		}
		defer h.Close()
		targets = append(targets, target{st, h})
	}
	wait := func(d time.Duration) {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		targets = slices.DeleteFunc(targets, func(t target) bool {
			if t.h.Wait(ctx) != nil {
				return false
			}
			_ = t.h.SignalGroup(sigKill) // what is left of its process group, if anything
			t.h.reap()
			return true
		})
	}
	if grace > 0 {
		for _, t := range targets {
			_ = t.h.SignalGroup(sigTerm) // an error here shows in the wait
			_ = t.h.SignalGroup(sigCont) // a stopped process acts on SIGTERM only then
		}
		wait(grace)
	}
	for _, t := range targets {
		_ = t.h.SignalGroup(sigKill)
	}
	wait(killPatience)
	var errs []error
	for _, t := range targets {
		errs = append(errs, fmt.Errorf("process %s (%s) does not end", t.Spec.Name, t.h))
	}
	return errors.Join(errs...)
}

// end stops a process that is to be replaced.
func end(h *Handle) error {
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{sigTerm, stopGrace}, {sigKill, killPatience}} {
		if err := h.SignalGroup(step.sig); err != nil && !errors.Is(err, ErrGone) {
			return err
		}
		_ = h.SignalGroup(sigCont) // gone meanwhile: the wait says so
		ctx, cancel := context.WithTimeout(context.Background(), step.wait)
		err := h.Wait(ctx)
		cancel()
		if err == nil {
			h.reap()
			return nil
		}
	}
	return fmt.Errorf("%s does not end", h)
}

// Revive starts the process of a state file again as it was started before, unless it runs. It is for a watchdog,
// which holds the directory's lock; the next agent adopts the process.
func Revive(cfg Config, name string) (*Handle, error) {
	l, err := newLauncher(cfg)
	if err != nil {
		return nil, err
	}
	st, err := l.read(name)
	if err != nil {
		return nil, err
	}
	h, err := st.open()
	if err == nil || !errors.Is(err, ErrGone) {
		return h, err
	}
	h, _, _, err = l.start(st.Spec, st.Env, st.Restarts+1)
	return h, err
}

// Reap takes the exit status of a child that has ended, so that it leaves no zombie. For a process that is not a
// child of ours it does nothing.
func (h *Handle) Reap() { h.reap() }

// Find holds the process of a state file. It returns ErrGone if it does not run.
func Find(dir, name string) (*Handle, error) {
	st, err := readState(dir, name)
	if err != nil {
		return nil, err
	}
	return st.open()
}

// AnyRuns says whether any process of a directory runs.
func AnyRuns(dir string) bool {
	for _, st := range states(dir) {
		if h, err := st.open(); err == nil {
			h.Close()
			return true
		}
	}
	return false
}

// Lock takes a directory for this process and returns how to give it back. The kernel gives it back when the process
// dies. It waits up to 15 s, then returns *api.Error (Unavailable).
func Lock(ctx context.Context, dir string) (unlock func(), err error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(lockPatience)
	defer late.Stop()
	for {
		unlock, err := flock(dir)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", dir, context.Cause(ctx))
		case <-late.C:
			return nil, api.Errorf(api.Unavailable, dir, "another agent uses this directory").
				WithHint("stop the other agent, or give this one a directory of its own")
		case <-tick.C:
		}
	}
}

// TryLock takes a directory if it is free.
func TryLock(dir string) (unlock func(), ok bool) {
	unlock, err := flock(dir)
	return unlock, err == nil
}

func flock(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close() // nothing was locked
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil // closing is what unlocks
}

// WaitEOF returns nil once the other end of a pipe is closed, and ctx's error if ctx ends first. It reads nothing, so
// that several processes can share the pipe.
func WaitEOF(ctx context.Context, pipe *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make pipe: %w", err)
	}
	defer r.Close()
	stop := context.AfterFunc(ctx, func() { _ = w.Close() }) // wakes the poll
	defer func() {
		if stop() {
			_ = w.Close()
		}
	}()
	for {
		fds := []unix.PollFd{{Fd: int32(pipe.Fd())}, {Fd: int32(r.Fd())}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for end of pipe: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fds[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0 {
			return nil
		}
	}
}

// closed says whether the other end of a pipe is closed.
func closed(pipe *os.File) bool {
	fds := []unix.PollFd{{Fd: int32(pipe.Fd())}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&unix.POLLHUP != 0
}
