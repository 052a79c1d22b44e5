package hostfault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
)

// Environment of the watchdog.
const (
	envDir       = "LIVEFIRE_WATCHDOG_DIR"
	envSupervise = "LIVEFIRE_WATCHDOG_PROCESSES"
	envPipe      = "LIVEFIRE_WATCHDOG_FD"
)

const (
	// frozen is how far an agent that still lives may overstep a deadline before the watchdog acts in its place.
	frozen = 500 * time.Millisecond
	// dogRetry is between two attempts of the watchdog.
	dogRetry = 20 * time.Millisecond
	// dogPatience is how long an agent that shuts down waits for its watchdog to go.
	dogPatience = 5 * time.Second
	// guardEvery is how often a watchdog looks whether there is something left to guard.
	guardEvery = 100 * time.Millisecond
	// agentPatience is how long the watchdog waits for the agent to go after the end of the lifetime pipe.
	agentPatience = 5 * time.Second
)

// dog is the watchdog as its agent sees it.
type dog struct {
	pid  int
	pipe *os.File // write end; nil = it does not run
}

// keepWatchdog starts the watchdog, again if it dies, until ctx ends. It closes up after the first start. At the end
// the pipe is closed: the watchdog ends what is left and goes.
func (h *Host) keepWatchdog(ctx context.Context, up chan struct{}) {
	delay := time.Duration(0)
	for ctx.Err() == nil {
		hd, pipe, err := h.startWatchdog()
		if err != nil {
			h.log.Error("watchdog not started", "err", err)
		} else {
			h.setDog(dog{pid: hd.PID, pipe: pipe})
			if up != nil {
				close(up)
				up = nil
			}
			err := hd.Wait(ctx)
			h.setDog(dog{})
			_ = pipe.Close() // nothing is buffered
			if err == nil {
				h.log.Error("watchdog ended, it is started again")
			} else if h.cfg.Lifetime == nil { // with a lifetime pipe it stays to guard the processes
				h.awaitWatchdog(hd)
			}
			hd.Reap()
			hd.Close()
		}
		delay = min(max(2*delay, 50*time.Millisecond), 5*time.Second)
		pause(ctx, delay)
	}
}

// awaitWatchdog gives the watchdog a while to go: it has nothing to do, or it does what we could not.
func (h *Host) awaitWatchdog(hd *supervise.Handle) {
	ctx, cancel := context.WithTimeout(context.Background(), dogPatience)
	defer cancel()
	if err := hd.Wait(ctx); err != nil {
		h.log.Warn("watchdog still has something to do", "err", err)
	}
}

func (h *Host) setDog(d dog) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dog = d
}

func (h *Host) startWatchdog() (*supervise.Handle, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer r.Close()
	cmd := exec.Command(h.cfg.Watchdog[0], h.cfg.Watchdog[1:]...)
	cmd.ExtraFiles = []*os.File{r}
	cmd.Env = append(os.Environ(), envDir+"="+h.cfg.Dir, envSupervise+"="+h.cfg.Supervisor.Dir(), envPipe+"=3")
	if h.cfg.Lifetime != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, h.cfg.Lifetime)
		cmd.Env = append(cmd.Env, supervise.LifetimeEnv+"=4")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a Ctrl-C for the agent is not for it
	if h.cfg.WatchdogLog != "" {
		f, err := os.OpenFile(h.cfg.WatchdogLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			return nil, nil, errors.Join(err, w.Close())
		}
		defer f.Close()
		cmd.Stdout, cmd.Stderr = f, f
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, w.Close())
	}
	hd, err := supervise.Open(cmd.Process.Pid, 0) // our child, not reaped: the pid is its own
	if err != nil {
		return nil, nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait(), w.Close())
	}
	return hd, w, cmd.Process.Release()
}

// pokeWatchdog has the watchdog read the records again. If its pipe is full it has enough to do.
func (h *Host) pokeWatchdog() error {
	h.mu.Lock()
	pipe := h.dog.pipe
	h.mu.Unlock()
	if pipe == nil {
		return nil
	}
	if err := pipe.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		return nil // it died: its keeper starts the next, which reads the records first
	}
	_, _ = pipe.Write([]byte{'.'}) // see above
	return nil
}

// WatchdogConfig says what a watchdog watches.
type WatchdogConfig struct {
	Dir       string   // undo records
	Processes string   // state files of the supervisor
	Agent     *os.File // read end of a pipe whose write end only the agent holds
	Lifetime  *os.File // nil = none
	Logger    *slog.Logger
}

// WatchdogFromEnv reads what the agent has passed to its watchdog. It returns *api.Error (Invalid) in any other process.
func WatchdogFromEnv() (WatchdogConfig, error) {
	cfg := WatchdogConfig{Dir: os.Getenv(envDir), Processes: os.Getenv(envSupervise)}
	fd, err := strconv.Atoi(os.Getenv(envPipe))
	if err != nil || cfg.Dir == "" || cfg.Processes == "" {
		return WatchdogConfig{}, api.Errorf(api.Invalid, "watchdog", "is started by the agent, not by hand")
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return WatchdogConfig{}, fmt.Errorf("open pipe to the agent: %w", err)
	}
	cfg.Agent = os.NewFile(uintptr(fd), "agent")
	if s := os.Getenv(supervise.LifetimeEnv); s != "" {
		fd, err := strconv.Atoi(s)
		if err != nil {
			return WatchdogConfig{}, api.Errorf(api.Invalid, "watchdog", "%s is %q", supervise.LifetimeEnv, s)
		}
		cfg.Lifetime = os.NewFile(uintptr(fd), "lifetime")
	}
	return cfg, nil
}

// watchdog is what RunWatchdog works on.
type watchdog struct {
	WatchdogConfig
	journal journal
	poked   chan struct{} // capacity 1: the agent has changed a record
	gone    chan struct{} // closed: the agent is dead
	over    chan struct{} // closed: the lifetime pipe is
}

// RunWatchdog waits for the agent to die, then ends every fault that it left and returns. It also ends a fault whose
// deadline a living agent has overstepped by half a second: a frozen agent keeps no lease. At the end of the lifetime
// pipe it kills everything supervised.
func RunWatchdog(ctx context.Context, cfg WatchdogConfig) error {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	w := &watchdog{
		WatchdogConfig: cfg, journal: journal{cfg.Dir},
		poked: make(chan struct{}, 1), gone: make(chan struct{}), over: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { w.listen(ctx) })
	if cfg.Lifetime != nil {
		wg.Go(func() {
			if supervise.WaitEOF(ctx, cfg.Lifetime) == nil {
				close(w.over)
			}
		})
	}
	for {
		timer := time.NewTimer(w.next())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-w.over:
			timer.Stop()
			return w.killAll(ctx)
		case <-w.gone:
			timer.Stop()
			w.Logger.Warn("agent is gone")
			if err := w.endAll(ctx); err != nil || cfg.Lifetime == nil {
				return err
			}
			return w.guard(ctx)
		case <-w.poked:
		case <-timer.C:
			w.endOverdue(ctx)
		}
		timer.Stop()
	}
}

// listen reads the agent's pipe until its end.
func (w *watchdog) listen(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = w.Agent.SetReadDeadline(time.Unix(1, 0)) }) // ends the read
	defer stop()
	buf := make([]byte, 512)
	for {
		_, err := w.Agent.Read(buf)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			close(w.gone)
			return
		}
		poke(w.poked)
	}
}

// next is how long until a deadline is overstepped.
func (w *watchdog) next() time.Duration {
	open, err := w.journal.open()
	if err != nil {
		w.Logger.Error("undo records not read", "err", err)
		return time.Second
	}
	if len(open) == 0 {
		return time.Minute // the agent pokes us when there is one
	}
	next := time.Second // a timer does not count a suspend; the deadline does
	for _, r := range open {
		next = min(next, r.Deadline+frozen-sinceBoot())
	}
	return max(next, 0)
}

// endOverdue acts in the place of an agent that lives and does nothing.
func (w *watchdog) endOverdue(ctx context.Context) {
	open, err := w.journal.open()
	if err != nil {
		return // next says so
	}
	overdue := false
	for _, r := range open {
		if sinceBoot() >= r.Deadline+frozen {
			overdue = true
			w.Logger.Warn("agent has overstepped a deadline", "order", r.Order.ID)
			if err := w.end(ctx, r, true); err != nil {
				w.Logger.Error("fault not reverted", "order", r.Order.ID, "err", err)
			}
		}
	}
	if overdue {
		pause(ctx, dogRetry)
	}
}

// endAll ends every fault that the dead agent left, however long it takes. A new agent may do the same at the same
// time: the lock says who writes, and what it finds ended stays as it is.
func (w *watchdog) endAll(ctx context.Context) error {
	left, err := w.journal.open()
	if err != nil {
		w.Logger.Error("undo records not read", "err", err)
	}
	mine := map[string]bool{}
	for _, r := range left {
		mine[r.Order.ID] = true
	}
	for {
		open, err := w.journal.open()
		n := 0
		for _, r := range open {
			if mine[r.Order.ID] {
				n++
			}
		}
		if n == 0 {
			return err
		}
		if unlock, ok := supervise.TryLock(w.Dir); ok {
			w.endThese(ctx, mine)
			unlock()
		}
		select {
		case <-w.over:
			return nil // guard kills everything, which ends every fault
		default:
		}
		if !pause(ctx, dogRetry) {
			return ctx.Err()
		}
	}
}

// endThese ends orders side by side: one that hangs must not delay the others. The lock is held.
func (w *watchdog) endThese(ctx context.Context, mine map[string]bool) {
	open, _ := w.journal.open() // one that cannot be read is reported by endAll
	var wg sync.WaitGroup
	for _, r := range open {
		if mine[r.Order.ID] {
			wg.Go(func() {
				if err := w.end(ctx, r, false); err != nil {
					w.Logger.Error("fault not reverted", "order", r.Order.ID, "err", err)
				}
			})
		}
	}
	wg.Wait()
}

// end reverts one record, proves it and marks it ended.
func (w *watchdog) end(ctx context.Context, r record, agentLives bool) error {
	var rs []fault.Report
	switch {
	case !r.Order.Kind.HasUndo():
		r.EndedBy = fault.ByNone
	case r.Order.Kind == fault.Pause:
		rs = reports(r.Order, fault.Reverted, resume(r.Targets))
	default:
		rs = reports(r.Order, fault.Reverted, w.revive(ctx, r.Targets, agentLives))
	}
	if failed(rs) {
		return errors.New(firstReason(rs))
	}
	if r.EndedBy == "" {
		r.EndedBy = fault.ByWatchdog
	}
	for i := range rs {
		rs[i].EndedBy = r.EndedBy
		if len(r.Reports) > 0 { // we have no estimate of our own; the agent's last one is seconds old
			rs[i].ClockOffset, rs[i].ClockError = r.Reports[0].ClockOffset, r.Reports[0].ClockError
		}
	}
	r.Stage, r.Ended, r.Reports = stageEnded, time.Now().UTC().Round(0), append(r.Reports, rs...)
	if err := w.journal.write(r); err != nil {
		return err
	}
	w.Logger.Info("fault ended", "order", r.Order.ID, "by", r.EndedBy)
	return nil
}

// revive starts killed targets again, or sees that a new agent has done it. A frozen agent holds the lock; it finds
// the process by its state file when it thaws.
func (w *watchdog) revive(ctx context.Context, targets []target, agentLives bool) []*subject {
	ss := make([]*subject, len(targets))
	for i, t := range targets {
		ss[i] = &subject{target: t, before: time.Now()}
	}
	cfg := supervise.Config{Dir: w.Processes, Lifetime: w.Lifetime}
	settle(ss, func(s *subject) (string, error) {
		hd, err := supervise.Find(w.Processes, s.Name)
		if errors.Is(err, supervise.ErrGone) {
			unlock, ok := supervise.TryLock(w.Processes)
			if !ok && !agentLives {
				return "", nil // the next agent is about to start it
			}
			if ok {
				defer unlock()
			}
			hd, err = supervise.Revive(cfg, s.Name)
		}
		if err != nil {
			return "", err
		}
		defer hd.Close()
		s.PID, s.Start = hd.PID, hd.Start
		return fmt.Sprintf("pid %d runs, by the watchdog", hd.PID), nil
	}, startLimit)
	return ss
}

// guard stays while processes run that no agent supervises, so that they still end with the lifetime pipe.
func (w *watchdog) guard(ctx context.Context) error {
	tick := time.NewTicker(guardEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.over:
			return w.killAll(ctx)
		case <-tick.C:
		}
		unlock, ok := supervise.TryLock(w.Processes)
		if !ok {
			return nil // the next agent is there, with a watchdog of its own
		}
		left := supervise.AnyRuns(w.Processes)
		unlock()
		if !left {
			return nil
		}
	}
}

// killAll ends everything supervised, again once the agent has gone: until then it may have started something.
func (w *watchdog) killAll(ctx context.Context) error {
	w.Logger.Warn("lifetime pipe is closed: everything ends")
	err := supervise.KillAll(w.Processes)
	timer := time.NewTimer(agentPatience)
	defer timer.Stop()
	select {
	case <-w.gone:
	case <-timer.C:
	case <-ctx.Done():
	}
	return errors.Join(err, supervise.KillAll(w.Processes))
}
