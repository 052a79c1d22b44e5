package supervise

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// tend keeps one process running until ctx ends or it is removed. It is the only writer of the process's handle.
func (s *Supervisor) tend(ctx context.Context, p *process) error {
	var delay time.Duration
	for s.awaitTurn(ctx, p, delay) {
		h, err := s.bringUp(p)
		if err != nil {
			s.log.Error("process not started, or its state not written", "process", p.spec.Name, "err", err)
		}
		if h == nil {
			delay = backoff(delay)
			continue
		}
		began := time.Now()
		if err := s.watch(ctx, p, h); err != nil {
			return nil // ctx ended: the process goes on without us
		}
		_ = h.SignalGroup(sigKill) // children that it left behind would hold its port
		s.log.Info("process ended", "process", p.spec.Name, "pid", h.PID, "exit", h.reap())
		s.set(p, func() { p.state, p.handle = Stopped, nil })
		h.Close()
		if time.Since(began) >= settled {
			delay = 0
		}
		delay = backoff(delay)
	}
	return nil
}

func backoff(d time.Duration) time.Duration { return min(max(2*d, minBackoff), maxBackoff) }

// awaitTurn waits for the back-off and for as long as the process is held. It returns false when the process is not
// to be started any more, and then forgets a removed one.
func (s *Supervisor) awaitTurn(ctx context.Context, p *process, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	due := delay == 0
	for {
		s.mu.Lock()
		removed, held, ended := p.removed, p.held, s.ended
		due = due || p.fresh
		if !removed && !held && !ended && due {
			p.fresh, p.state, p.starting = false, Starting, make(chan struct{})
		}
		s.mu.Unlock()
		switch {
		case removed:
			s.forgetRemoved(p.spec.Name)
			return false
		case !held && !ended && due:
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			due = true
		case <-p.wake:
		}
	}
}

// forgetRemoved ends what a state file still knows of a process that was removed before it was ever tended, and
// forgets it. The name is free only then: a new process of that name must not lose its state file.
func (s *Supervisor) forgetRemoved(name string) {
	if st, err := s.read(name); err == nil {
		if h, err := st.open(); err == nil {
			defer h.Close()
			_ = h.SignalGroup(sigKill) // it ended meanwhile: that is what we want
		}
	}
	s.remove(name)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.procs, name)
	s.announce()
}

// bringUp adopts the process if it runs already, and starts it if not. The caller's turn has set p.starting.
func (s *Supervisor) bringUp(p *process) (*Handle, error) {
	h, restarts, adopted, err := s.up(p.spec)
	s.set(p, func() {
		close(p.starting)
		p.starting, p.handle = nil, h
		p.restarts = restarts
		if h == nil {
			p.state = Failed
		}
	})
	if h != nil {
		s.log.Info("process runs", "process", p.spec.Name, "pid", h.PID, "adopted", adopted, "restarts", restarts)
	}
	return h, err
}

func (s *Supervisor) set(p *process, do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	s.announce()
}

// watch returns nil when the process has exited and ctx's error when ctx ended first. It finds out when the process
// is ready, and stops it once it is removed.
func (s *Supervisor) watch(ctx context.Context, p *process, h *Handle) error {
	ctx, cancel := context.WithCancel(ctx)
	exited := make(chan error, 1)
	ready := make(chan struct{})
	defer func() { <-ready }()
	defer cancel()
	go func() {
		defer close(ready)
		if awaitReady(ctx, p.spec) == nil {
			s.set(p, func() { p.state = Running })
		}
	}()
	go func() { exited <- h.Wait(ctx) }()
	var kill <-chan time.Time
	for {
		select {
		case err := <-exited:
			return err
		case <-kill:
			_ = h.SignalGroup(sigKill) // gone meanwhile: the wait says so
		case <-p.wake:
			s.mu.Lock()
			removed := p.removed
			s.mu.Unlock()
			if removed && kill == nil {
				_ = h.SignalGroup(sigTerm)
				_ = h.SignalGroup(sigCont) // a stopped process acts on SIGTERM only then
				timer := time.NewTimer(stopGrace)
				defer timer.Stop()
				kill = timer.C
			}
		}
	}
}

// awaitReady returns nil once the process answers.
func awaitReady(ctx context.Context, spec Spec) error {
	if spec.ReadyURL == "" && spec.ReadyAddress == "" {
		return nil
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready(ctx, client, spec) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be ready: %w", spec.Name, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, client *http.Client, spec Spec) bool {
	if spec.ReadyURL != "" {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, spec.ReadyURL, nil)
		if err != nil {
			return false
		}
		resp, err := client.Do(req)
		if err != nil {
			return false
		}
		_ = resp.Body.Close() // only the status counts
		return resp.StatusCode < 400
	}
	network, address := "tcp", spec.ReadyAddress
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	_ = conn.Close() // it accepted: that is the answer
	return true
}
