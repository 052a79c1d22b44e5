package hostfault

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

const (
	// startLimit is how long one attempt to revert a kill waits for the processes to run.
	startLimit = 5 * time.Second
	// readyLimit is how long the report then waits for them to be ready.
	readyLimit = 5 * time.Second
	// endLimit is when the watchdog takes over a revert that the agent has begun.
	endLimit = startLimit + 5*time.Second
	// tryAgain is between two attempts to revert.
	tryAgain = time.Second
)

// end reverts an order until it is proven gone. If ctx has ended it tries once and leaves the record to the watchdog
// and the next agent. A failure is reported once; the attempts go on.
func (h *Host) end(ctx context.Context, o *order) {
	rec, why, reason := h.snapshotEnd(o)
	if !rec.Order.Kind.HasUndo() {
		h.finish(o, fault.ByNone, nil)
		return
	}
	before := time.Now()
	if rec.Order.Kind == fault.Kill {
		h.release(rec.Targets) // first of all: the rest is paper
	}
	for marked, told := false, false; ; {
		if h.endedByWatchdog(o, rec) {
			return
		}
		if rec.Order.Kind == fault.Kill && !marked {
			marked = true
			h.markEnding(o, why)
		}
		rs := h.stamp(h.revert(rec, before), why, reason)
		if !failed(rs) {
			h.finish(o, why, rs)
			return
		}
		if !told {
			told = true
			h.log.Error("fault not reverted", "order", rec.Order.ID, "err", firstReason(rs))
			h.cfg.Report(rs)
		}
		if ctx.Err() != nil || !pause(ctx, tryAgain) {
			h.mu.Lock()
			delete(h.orders, rec.Order.ID)
			h.mu.Unlock()
			poke(h.wake)
			return
		}
	}
}

// endedByWatchdog takes over what the watchdog has done while this agent was frozen.
func (h *Host) endedByWatchdog(o *order, rec record) bool {
	r, err := h.journal.read(rec.Order.ID)
	if err != nil || r.Stage != stageEnded {
		return false // a record that cannot be read says nothing: revert
	}
	h.finish(o, r.EndedBy, r.Reports[min(len(rec.Reports), len(r.Reports)):])
	return true
}

func firstReason(rs []fault.Report) string {
	for _, r := range rs {
		if r.Phase == fault.Failed {
			return r.Target + ": " + r.Reason
		}
	}
	return ""
}

// markEnding gives the revert time before the watchdog takes over.
func (h *Host) markEnding(o *order, why string) {
	h.mu.Lock()
	o.rec.Stage, o.rec.EndedBy, o.rec.Deadline = stageEnding, why, sinceBoot()+endLimit
	h.mu.Unlock()
	if err := h.persist(o); err != nil {
		h.log.Warn("begun revert not written", "order", o.rec.Order.ID, "err", err)
	}
}

// revert undoes the fault on every target and proves it. It may be done again.
func (h *Host) revert(rec record, before time.Time) []fault.Report {
	if rec.Order.Kind == fault.Pause {
		return reports(rec.Order, fault.Reverted, resume(rec.Targets))
	}
	ss := make([]*subject, len(rec.Targets))
	for i, t := range rec.Targets {
		ss[i] = &subject{target: t, before: before}
	}
	settle(ss, h.runs, startLimit)
	h.awaitReady(ss)
	return reports(rec.Order, fault.Reverted, ss)
}

// runs says whether the target of a kill is alive again; a handle is proof that it was a moment ago.
func (h *Host) runs(s *subject) (string, error) {
	hd, err := h.cfg.Supervisor.Handle(s.Name)
	if errors.Is(err, supervise.ErrGone) {
		hd, err = h.reviveAtShutdown(s.Name)
	}
	if err != nil {
		return "", nil // not yet
	}
	defer hd.Close()
	if gone, err := hd.Exited(); gone || err != nil {
		return "", err
	}
	verb := "started"
	if hd.PID == s.PID && hd.Start == s.Start {
		verb = "was not killed" // the agent died between the intent and the effect
	}
	s.PID, s.Start = hd.PID, hd.Start
	return fmt.Sprintf("pid %d %s", hd.PID, verb), nil
}

// reviveAtShutdown starts a process itself if this agent shuts down and its Supervisor has ended already.
func (h *Host) reviveAtShutdown(name string) (*supervise.Handle, error) {
	h.mu.Lock()
	stop := h.stop
	h.mu.Unlock()
	if !stop {
		return nil, supervise.ErrGone
	}
	unlock, ok := supervise.TryLock(h.cfg.Supervisor.Dir())
	if !ok {
		return nil, supervise.ErrGone // the Supervisor is about to do it
	}
	defer unlock()
	return supervise.Revive(supervise.Config{Dir: h.cfg.Supervisor.Dir(), Lifetime: h.cfg.Lifetime}, name)
}

// awaitReady adds to each proof whether the process answers.
func (h *Host) awaitReady(ss []*subject) {
	late := time.NewTimer(readyLimit)
	defer late.Stop()
	for waiting := true; ; {
		changed := h.cfg.Supervisor.Changed()
		states := h.cfg.Supervisor.Processes()
		h.mu.Lock()
		waiting = waiting && !h.stop // nobody asks any more, and the Supervisor may have ended
		h.mu.Unlock()
		missing := slices.ContainsFunc(ss, func(s *subject) bool { return s.err == nil && !ready(states, s.Name) })
		if missing && waiting {
			select {
			case <-changed:
			case <-late.C:
				waiting = false
			}
			continue
		}
		for _, s := range ss {
			switch {
			case s.err != nil:
			case ready(states, s.Name):
				s.proof += ", ready"
			default:
				s.proof += ", not ready yet"
			}
		}
		return
	}
}

func ready(ps []nodeapi.Process, name string) bool {
	return slices.ContainsFunc(ps, func(p nodeapi.Process) bool { return p.Name == name && p.State == supervise.Running })
}

// finish closes an order for ever and reports. If the record cannot be written, the next agent reverts once more,
// which changes nothing.
func (h *Host) finish(o *order, why string, rs []fault.Report) {
	h.mu.Lock()
	o.rec.Stage, o.rec.EndedBy, o.rec.Ended = stageEnded, why, time.Now().UTC().Round(0)
	o.rec.Reports = append(o.rec.Reports, rs...)
	h.mu.Unlock()
	if err := h.persist(o); err != nil {
		h.log.Error("ended fault not written", "order", o.rec.Order.ID, "err", err)
	}
	h.mu.Lock()
	delete(h.orders, o.rec.Order.ID)
	h.dead[o.rec.Order.ID] = o.rec
	h.mu.Unlock()
	h.log.Info("fault ended", "order", o.rec.Order.ID, "by", why)
	if len(rs) > 0 {
		h.cfg.Report(rs)
	}
	poke(h.wake)
}

// stamp adds what all reports of one moment share.
func (h *Host) stamp(rs []fault.Report, endedBy, reason string) []fault.Report {
	off, spread := h.cfg.Offset()
	for i := range rs {
		rs[i].ClockOffset, rs[i].ClockError = off, spread
		if rs[i].Phase == fault.Reverted {
			rs[i].EndedBy = endedBy
		}
		rs[i].Reason = join(rs[i].Reason, reason)
	}
	return rs
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

func (h *Host) snapshot(o *order) record {
	rec, _, _ := h.snapshotEnd(o)
	return rec
}

func (h *Host) snapshotEnd(o *order) (rec record, why, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	rec = o.rec
	rec.Targets, rec.Reports = slices.Clone(rec.Targets), slices.Clone(rec.Reports)
	return rec, o.why, o.reason
}

// persist writes the record as it is now and has the watchdog look at it.
func (h *Host) persist(o *order) error {
	o.disk.Lock()
	defer o.disk.Unlock()
	rec := h.snapshot(o)
	err := h.journal.write(rec)
	return errors.Join(err, h.pokeWatchdog())
}
