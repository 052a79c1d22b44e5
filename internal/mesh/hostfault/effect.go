package hostfault

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
)

// Bounds of the local checks.
const (
	checkEvery = 500 * time.Microsecond
	proofLimit = 2 * time.Second // for a signal to show its effect
)

// subject is one target at the moment of an effect.
type subject struct {
	target
	h             *supervise.Handle
	sent          time.Time // the signal
	before, after time.Time // the bracket: last check without the effect, first with it
	proof         string
	err           error
}

func (s *subject) done() bool { return s.proof != "" || s.err != nil }

// check says whether the effect is there, with the proof.
type check func(*subject) (proof string, err error)

func closeAll(ss []*subject) {
	for _, s := range ss {
		s.h.Close()
	}
}

// strike sends the signal of the kind to every subject in one go, then checks until all show the effect. The pidfds
// are open already: between the first signal and the last there are only system calls.
func strike(kind fault.Kind, ss []*subject, limit time.Duration) {
	signal, there := killer(kind)
	for _, s := range ss {
		s.before = time.Now()
		if _, err := there(s); err != nil {
			s.err = err
		}
	}
	for _, s := range ss {
		if s.err != nil {
			continue
		}
		if err := signal(s); err != nil && !(errors.Is(err, supervise.ErrGone) && kind != fault.Pause) {
			s.err = err
		}
		s.sent = time.Now()
	}
	settle(ss, there, limit)
}

func killer(kind fault.Kind) (signal func(*subject) error, there check) {
	switch kind {
	case fault.Pause:
		return func(s *subject) error { return s.h.SignalGroup(syscall.SIGSTOP) }, stopped
	case fault.ServerKill:
		return func(s *subject) error { return s.h.Signal(syscall.SIGKILL) }, ended
	default:
		return func(s *subject) error { return s.h.SignalGroup(syscall.SIGKILL) }, ended
	}
}

func ended(s *subject) (string, error) {
	gone, err := s.h.Exited()
	if err != nil || !gone {
		return "", err
	}
	return fmt.Sprintf("pid %d gone (pidfd)", s.PID), nil
}

func stopped(s *subject) (string, error) {
	st, err := s.h.Stat()
	if err != nil || st.State != 'T' {
		return "", err
	}
	return fmt.Sprintf("pid %d state T", s.PID), nil
}

// settle checks every subject until its effect is there, it fails, or the limit is over.
func settle(ss []*subject, there check, limit time.Duration) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	late := time.NewTimer(limit)
	defer late.Stop()
	over := false
	for {
		open := false
		for _, s := range ss {
			if s.done() {
				continue
			}
			at := time.Now()
			s.proof, s.err = there(s)
			switch {
			case s.proof != "":
				s.after = time.Now()
			case s.err == nil:
				s.before, open = at, true
			}
		}
		if !open || over {
			break
		}
		select {
		case <-tick.C:
		case <-late.C:
			over = true // one last look
		}
	}
	for _, s := range ss {
		if !s.done() {
			s.err = fmt.Errorf("%s shows no effect after %v", s.Name, limit)
		}
		if s.after.IsZero() {
			s.after = time.Now()
		}
	}
}

// resume ends a pause for every target and says what became of it. A target whose process is gone is free of it.
func resume(targets []target) []*subject {
	ss := make([]*subject, len(targets))
	var open []*subject
	for i, t := range targets {
		s := &subject{target: t, before: time.Now()}
		ss[i] = s
		h, err := supervise.Open(t.PID, t.Start)
		switch {
		case errors.Is(err, supervise.ErrGone):
			s.proof, s.after = fmt.Sprintf("pid %d gone (pidfd)", t.PID), time.Now()
		case err != nil:
			s.err, s.after = err, time.Now()
		default:
			s.h = h
			open = append(open, s)
		}
	}
	defer closeAll(open)
	settle(open, func(s *subject) (string, error) {
		if err := s.h.SignalGroup(syscall.SIGCONT); err != nil && !errors.Is(err, supervise.ErrGone) {
			return "", err
		}
		st, err := s.h.Stat()
		switch {
		case errors.Is(err, supervise.ErrGone):
			return fmt.Sprintf("pid %d gone (pidfd)", s.PID), nil
		case err != nil || st.State == 'T':
			return "", err
		}
		return fmt.Sprintf("pid %d state %c", s.PID, st.State), nil
	}, proofLimit)
	return ss
}

// reports turns subjects into reports of one phase, or Failed.
func reports(o fault.Order, phase fault.Phase, ss []*subject) []fault.Report {
	out := make([]fault.Report, len(ss))
	for i, s := range ss {
		r := fault.Report{
			Order: o.ID, Target: s.Name, Service: s.Service, Phase: phase, PID: s.PID, Proof: s.proof,
			Before: s.before.UTC().Round(0), After: s.after.UTC().Round(0),
		}
		if s.err != nil {
			r.Phase, r.Proof, r.Reason = fault.Failed, "", s.err.Error()
		}
		out[i] = r
	}
	return out
}

func failed(rs []fault.Report) bool {
	for _, r := range rs {
		if r.Phase == fault.Failed {
			return true
		}
	}
	return false
}

// pause waits, and returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
