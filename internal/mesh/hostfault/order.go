package hostfault

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

// serverTarget is the name of the target of a server-kill.
const serverTarget = "server"

// Order applies a fault to all its targets at once, or refuses it whole. Its lease counts from the call. It returns
// once every target shows the effect, or after 2 s; what happened to each target is in the reports. An order that is
// in force already is left as it is. One that was refused here is dead like one that has ended, except Unavailable
// before Run has taken over or while the watchdog is being started: then it may be given again.
func (h *Host) Order(o fault.Order) error {
	received := sinceBoot()
	if err := o.Validate(); err != nil {
		return err
	}
	if len(undoName(o.ID)) > maxFileName {
		return api.Errorf(api.Invalid, "fault order "+o.ID, "the id is too long for a file name")
	}
	able := slices.Contains(h.Kinds(), o.Kind)
	mine, again, err := h.reserve(o, received, able, choose(o, h.cfg.Supervisor.Processes()))
	if len(again) > 0 {
		h.cfg.Report(again)
	}
	if mine == nil {
		return err
	}
	var ss []*subject
	if err == nil {
		ss, err = h.prepare(mine)
	}
	if err != nil {
		h.refuse(mine, err)
		return err
	}
	defer closeAll(ss)
	h.apply(mine, ss)
	return nil
}

// reserve takes the id and the targets for this order. It returns no order if there is nothing to do: then err says
// why, and again holds what was reported of it before. An order with an error is to be refused for ever.
func (h *Host) reserve(o fault.Order, received time.Duration, able bool, targets []target) (mine *order, again []fault.Report, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.orders[o.ID]; ok {
		return nil, nil, nil
	}
	if r, ok := h.dead[o.ID]; ok {
		return nil, r.Reports, api.Errorf(api.Conflict, "fault "+o.ID, "has ended; an ended order is never applied again")
	}
	switch {
	case !h.running || h.stop:
		return nil, nil, api.Errorf(api.Unavailable, "fault "+o.ID, "the agent is starting or stopping")
	case len(h.cfg.Watchdog) > 0 && h.dog.pipe == nil && o.Kind.HasUndo():
		return nil, nil, api.Errorf(api.Unavailable, "fault "+o.ID, "the watchdog does not run")
	}
	mine = &order{state: applying, rec: record{
		Order: o, Boot: h.boot, Received: time.Now().UTC().Round(0), Stage: stageIntent,
		Deadline: received + o.Lease, Cap: received + o.MaxDuration,
	}}
	h.orders[o.ID] = mine
	refused := func(kind api.ErrorKind, format string, args ...any) (*order, []fault.Report, error) {
		return mine, nil, api.Errorf(kind, "fault "+o.ID, format, args...)
	}
	switch {
	case o.Site != h.cfg.Site:
		return refused(api.Invalid, "is for site %s; this agent is at %s", o.Site, h.cfg.Site)
	case !able:
		return refused(api.Unavailable, "this host cannot do %s", o.Kind)
	case o.Fence < h.fence:
		return refused(api.Denied, "its fence %d is lower than %d: another server has taken over", o.Fence, h.fence)
	case len(targets) == 0:
		return refused(api.NotFound, "no process of %s runs here", o)
	case len(targets) > o.MaxTargets:
		return refused(api.Denied, "%d targets, at most %d allowed", len(targets), o.MaxTargets)
	}
	for id, other := range h.orders {
		for _, t := range other.rec.Targets {
			if slices.ContainsFunc(targets, func(x target) bool { return x.Name == t.Name }) {
				return refused(api.Denied, "%s is a target of %s already", t.Name, id)
			}
		}
	}
	mine.rec.Targets = targets
	return mine, nil, nil
}

// choose lists the processes of the order's services: applications and sidecars.
func choose(o fault.Order, ps []nodeapi.Process) []target {
	if o.Kind == fault.ServerKill {
		return []target{{Name: serverTarget}}
	}
	var out []target
	for _, p := range ps {
		if slices.Contains(o.Services, p.Service) {
			out = append(out, target{Name: p.Name, Service: p.Service})
		}
	}
	return out
}

// prepare opens every target by pidfd and writes the undo record. After it nothing but the effect is missing. A kill
// is held from before the pidfds are opened, so that no target can be replaced by another process in between.
func (h *Host) prepare(o *order) (ss []*subject, err error) {
	rec := h.snapshot(o)
	defer func() {
		if err != nil {
			closeAll(ss)
			ss = nil
		}
	}()
	for _, t := range rec.Targets {
		if rec.Order.Kind == fault.Kill {
			if err := h.cfg.Supervisor.Hold(t.Name); err != nil {
				return ss, err
			}
		}
		s, err := h.openTarget(t, rec.Order.Kind)
		if err != nil {
			return ss, err
		}
		ss = append(ss, s)
	}
	if err := h.raiseFence(rec.Order.Fence); err != nil {
		return ss, api.Errorf(api.Unavailable, "fault "+rec.Order.ID, "%v", err)
	}
	h.mu.Lock()
	for i, s := range ss {
		o.rec.Targets[i] = s.target
	}
	h.mu.Unlock()
	if err := h.persist(o); err != nil {
		return ss, api.Errorf(api.Unavailable, "fault "+rec.Order.ID, "%v", err).
			WithHint("free space on the disk of the agent's state directory")
	}
	return ss, nil
}

// openTarget holds one target and makes sure that it is one that may be hit.
func (h *Host) openTarget(t target, kind fault.Kind) (*subject, error) {
	open := func() (*supervise.Handle, error) { return h.cfg.Supervisor.Handle(t.Name) }
	if kind == fault.ServerKill {
		open = func() (*supervise.Handle, error) { return openServer(h.cfg.ServerPIDFile) }
	}
	hd, err := open()
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "target "+t.Name, "does not run: %v", err)
	}
	t.PID, t.Start = hd.PID, hd.Start
	s := &subject{target: t, h: hd}
	st, err := hd.Stat()
	h.mu.Lock()
	dog := h.dog.pid
	h.mu.Unlock()
	switch {
	case err != nil:
		err = api.Errorf(api.Unavailable, "target "+t.Name, "does not run: %v", err)
	case t.PID == 1 || t.PID == os.Getpid() || t.PID == dog:
		err = api.Errorf(api.Denied, "target "+t.Name, "pid %d is the agent, its watchdog or init; none is ever a target", t.PID)
	case kind == fault.Pause && st.State == 'T':
		err = api.Errorf(api.Unavailable, "target "+t.Name, "is stopped already, and not by this order")
	}
	if err != nil {
		hd.Close()
		return nil, err
	}
	return s, nil
}

// openServer holds the server of a pid file. A process that began after the file was written is another one: the pid
// was used again.
func openServer(path string) (*supervise.Handle, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return nil, fmt.Errorf("%s holds no pid of a server", path)
	}
	st, err := supervise.ReadStat(pid)
	if err != nil {
		return nil, err
	}
	// A second of tolerance: the start time counts in ticks, the file's in those of the file system.
	if startedAt(st.Start).After(fi.ModTime().Add(time.Second)) {
		return nil, fmt.Errorf("pid %d of %s began after the file was written: %w", pid, path, supervise.ErrGone)
	}
	return supervise.Open(pid, st.Start)
}

// raiseFence notes the highest fence seen, on disk before anything is done under it.
func (h *Host) raiseFence(n int64) error {
	h.mu.Lock()
	higher := n > h.fence
	if higher {
		h.fence = n
	}
	h.mu.Unlock()
	if !higher {
		return nil
	}
	return h.journal.writeFence(n)
}

// apply strikes and reports. A crash before it leaves an intent, which is reverted like an applied fault.
func (h *Host) apply(o *order, ss []*subject) {
	rec := h.snapshot(o)
	if h.armed != nil {
		h.armed()
	}
	strike(rec.Order.Kind, ss, max(min(proofLimit, rec.Deadline-sinceBoot()), 0))
	rs := h.stamp(reports(rec.Order, fault.Applied, ss), "", "")
	if !rec.Order.Kind.HasUndo() {
		for i := range rs {
			rs[i].EndedBy = fault.ByNone
		}
		h.finish(o, fault.ByNone, rs)
		return
	}
	h.mu.Lock()
	o.rec.Stage, o.rec.Reports = stageApplied, append(o.rec.Reports, rs...)
	h.mu.Unlock()
	if err := h.persist(o); err != nil {
		h.log.Error("applied fault not written; its record still says intent", "order", rec.Order.ID, "err", err)
	}
	h.log.Info("fault applied", "order", rec.Order.ID, "targets", len(ss))
	h.cfg.Report(rs)
	h.mu.Lock()
	o.state = active
	h.mu.Unlock()
	poke(h.wake)
}

// refuse ends an order that nothing was done for. It is dead: a repeated message must not apply it later, when
// nobody expects it any more.
func (h *Host) refuse(o *order, cause error) {
	rec := h.snapshot(o)
	if rec.Order.Kind == fault.Kill {
		h.release(rec.Targets)
	}
	reason := cause.Error()
	var e *api.Error
	if errors.As(cause, &e) {
		reason = e.Message
		if e.Subject != "fault "+rec.Order.ID {
			reason = e.Subject + " " + e.Message
		}
	}
	now := time.Now().UTC().Round(0)
	rs := h.stamp([]fault.Report{{Order: rec.Order.ID, Phase: fault.Refused, Before: now, After: now}}, "", reason)
	h.log.Warn("fault refused", "order", rec.Order.ID, "err", cause)
	h.finish(o, "", rs)
}

// release lets the supervisor start targets again. One that is not supervised any more has nothing to be released.
func (h *Host) release(targets []target) {
	for _, t := range targets {
		if err := h.cfg.Supervisor.Release(t.Name); err != nil {
			h.log.Warn("target not released", "process", t.Name, "err", err)
		}
	}
}

// catchRestarted pauses targets that were started again under a pause. It runs in the loop that also begins every
// end, so that none is stopped after its order has ended.
func (h *Host) catchRestarted() {
	for _, o := range h.pausing() {
		rec := h.snapshot(o)
		for i, t := range rec.Targets {
			hd, err := h.cfg.Supervisor.Handle(t.Name)
			if err != nil {
				continue // down: it is caught when it comes
			}
			if hd.PID != t.PID || hd.Start != t.Start {
				t.PID, t.Start = hd.PID, hd.Start
				h.catch(o, i, &subject{target: t, h: hd})
			}
			hd.Close()
		}
	}
}

func (h *Host) pausing() []*order {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*order
	for _, o := range h.orders {
		live := o.state == active && o.why == "" && sinceBoot() < o.rec.Deadline
		if live && o.rec.Order.Kind == fault.Pause {
			out = append(out, o)
		}
	}
	return out
}

// catchLimit bounds the proof of a late pause: the loop has leases to end meanwhile.
const catchLimit = 100 * time.Millisecond

func (h *Host) catch(o *order, i int, s *subject) {
	h.mu.Lock()
	o.rec.Targets[i] = s.target
	h.mu.Unlock()
	if err := h.persist(o); err != nil {
		h.log.Error("restarted target not paused: no undo record", "process", s.Name, "err", err)
		return
	}
	ss := []*subject{s}
	strike(fault.Pause, ss, catchLimit)
	h.cfg.Report(h.stamp(reports(o.rec.Order, fault.Applied, ss), "", "started again under the fault"))
}
