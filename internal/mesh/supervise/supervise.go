package supervise

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

// Environment of a supervised process.
const (
	// LifetimeEnv names the file descriptor of the lifetime pipe: end of file there means that everything ends.
	LifetimeEnv = "LIVEFIRE_LIFETIME_FD"
	// MarkEnv says which process this is, so that one whose start was not written down in time is found again.
	MarkEnv = "LIVEFIRE_PROCESS"
)

// States of a process, as nodeapi.Process says them.
const (
	Running  = "running"
	Held     = "held"
	Starting = "starting"
	Stopped  = "stopped"
	Failed   = "failed"
)

// Back-off between an exit and the next start. It begins anew after a life of settled.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 5 * time.Second
	settled    = 10 * time.Second
	stopGrace  = 5 * time.Second // of a process that was removed
)

var (
	// ErrGone says that the process has ended, or that its pid belongs to another one now.
	ErrGone = errors.New("process is gone")
	// ErrLifetime says that the lifetime pipe was closed; everything supervised was killed.
	ErrLifetime = errors.New("lifetime pipe closed")
)

// Spec is one process. A sidecar and its application are two.
type Spec struct {
	Name     string        `json:"name"` // "payments-1", "payments-1/sidecar"
	Service  api.ServiceID `json:"service"`
	Workload string        `json:"workload"`
	Sidecar  bool          `json:"sidecar,omitempty"`
	Command  []string      `json:"command"`
	Env      []string      `json:"env,omitempty"` // added to Config.Env
	Dir      string        `json:"dir,omitempty"` // working directory; empty = the agent's
	Log      string        `json:"log,omitempty"` // file that stdout and stderr are appended to; empty = discarded
	// The process is ready when this URL answers 200 to 399, or this address accepts ("host:port" or
	// "unix:/path"). With neither it is ready as soon as it runs.
	ReadyURL     string `json:"readyURL,omitempty"`
	ReadyAddress string `json:"readyAddress,omitempty"`
	Address      string `json:"address,omitempty"` // shown to people
}

// Config of a Supervisor.
type Config struct {
	Dir      string // state files, made 0700
	Logger   *slog.Logger
	Lifetime *os.File // read end of a pipe that is passed to every process; nil = none
	Env      []string // of every process; nil = the agent's own
}

// Supervisor keeps a set of processes running.
type Supervisor struct {
	// set once
	launcher
	log   *slog.Logger
	added chan struct{} // capacity 1: Run has a process to tend

	mu      sync.Mutex
	procs   map[string]*process // guarded by mu
	changed chan struct{}       // guarded by mu; closed and replaced at each change
	ended   bool                // guarded by mu; StopAll was called: nothing is started any more
}

// process is what the Supervisor knows of one Spec.
type process struct {
	spec Spec
	wake chan struct{} // capacity 1: its loop looks again

	// guarded by Supervisor.mu
	tended   bool
	state    string
	handle   *Handle // nil while it does not run
	restarts int
	held     bool
	fresh    bool          // released a moment ago: start without back-off
	removed  bool          // stop it and forget it
	starting chan struct{} // closed at the end of the start in progress; nil = none
}

// New makes a Supervisor for a directory; it starts nothing.
func New(cfg Config) (*Supervisor, error) {
	l, err := newLauncher(cfg)
	if err != nil {
		return nil, err
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Supervisor{
		launcher: l, log: log, added: make(chan struct{}, 1),
		procs: map[string]*process{}, changed: make(chan struct{}),
	}, nil
}

// Run adopts or starts every process and keeps it running. When ctx ends it returns nil and leaves the processes
// running. When the lifetime pipe is closed it kills them all and returns ErrLifetime. It waits for the directory if
// another Supervisor, or a watchdog, holds it.
func (s *Supervisor) Run(ctx context.Context) error {
	unlock, err := Lock(ctx, s.dir)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer unlock()
	defer s.forget()
	g, ctx := errgroup.WithContext(ctx)
	if s.lifetime != nil {
		g.Go(func() error {
			if WaitEOF(ctx, s.lifetime) != nil {
				return nil // ctx ended first
			}
			return errors.Join(ErrLifetime, s.StopAll(context.WithoutCancel(ctx), 0))
		})
	}
	g.Go(func() error {
		for {
			for _, p := range s.untended() {
				g.Go(func() error { return s.tend(ctx, p) })
			}
			select {
			case <-ctx.Done():
				return nil
			case <-s.added:
			}
		}
	})
	return g.Wait()
}

// forget closes every handle: the processes go on without us.
func (s *Supervisor) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.procs {
		p.handle.Close()
		p.handle, p.tended = nil, false
	}
}

func (s *Supervisor) untended() []*process {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*process
	for _, p := range s.procs {
		if !p.tended {
			p.tended = true
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *process) int { return cmp.Compare(a.spec.Name, b.spec.Name) })
	return out
}

// Add puts a process under supervision: Run adopts it if it runs with the same Spec, replaces it if it runs with
// another one, and starts it if not.
func (s *Supervisor) Add(spec Spec) error {
	if err := spec.validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.procs[spec.Name]; ok {
		return api.Errorf(api.Conflict, "process "+spec.Name, "is supervised already").
			WithHint("remove it first, or give the workload another name")
	}
	s.procs[spec.Name] = &process{spec: spec, wake: make(chan struct{}, 1), state: Starting}
	poke(s.added)
	s.announce()
	return nil
}

func (spec Spec) validate() error {
	switch {
	case spec.Name == "":
		return api.Errorf(api.Invalid, "process", "no name")
	case len(spec.Command) == 0 || spec.Command[0] == "":
		return api.Errorf(api.Invalid, "process "+spec.Name, "no command")
	}
	return nil
}

// Remove stops a process (SIGTERM, after 5 s SIGKILL) and forgets it. It returns at once; Run does it.
func (s *Supervisor) Remove(name string) error {
	return s.change(name, func(p *process) { p.removed = true })
}

// Release ends Hold: the process is started again, at once.
func (s *Supervisor) Release(name string) error {
	return s.change(name, func(p *process) { p.held, p.fresh = false, p.held })
}

// Hold keeps a process down once it exits. After its return no start of it is in progress and none will begin
// before Release. A hold does not outlive the Supervisor.
func (s *Supervisor) Hold(name string) error {
	if err := s.change(name, func(p *process) { p.held = true }); err != nil {
		return err
	}
	s.mu.Lock()
	var starting chan struct{}
	if p := s.procs[name]; p != nil {
		starting = p.starting
	}
	s.mu.Unlock()
	if starting != nil {
		<-starting // a fork and a small write: milliseconds
	}
	return nil
}

func (s *Supervisor) change(name string, do func(*process)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.procs[name]
	if !ok {
		return notSupervised(name)
	}
	do(p)
	poke(p.wake)
	s.announce()
	return nil
}

func notSupervised(name string) error {
	return api.Errorf(api.NotFound, "process "+name, "is not supervised here")
}

// Processes lists every process, by name.
func (s *Supervisor) Processes() []nodeapi.Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]nodeapi.Process, 0, len(s.procs))
	for _, p := range s.procs {
		x := nodeapi.Process{
			Name: p.spec.Name, Service: p.spec.Service, Workload: p.spec.Workload, Sidecar: p.spec.Sidecar,
			State: p.state, Restarts: p.restarts, Address: p.spec.Address,
		}
		if p.handle != nil {
			x.PID = p.handle.PID
		} else if p.held {
			x.State = Held
		}
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b nodeapi.Process) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Handle opens a handle of a running process, which the caller closes. It returns ErrGone if it does not run.
func (s *Supervisor) Handle(name string) (*Handle, error) {
	s.mu.Lock()
	p, ok := s.procs[name]
	var pid int
	var start uint64
	if ok && p.handle != nil {
		pid, start = p.handle.PID, p.handle.Start
	}
	s.mu.Unlock()
	switch {
	case !ok:
		return nil, notSupervised(name)
	case pid == 0:
		return nil, ErrGone
	}
	return Open(pid, start)
}

// Changed returns a channel that is closed at the next change of any process. Ask for it before looking.
func (s *Supervisor) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Dir is where the state files are.
func (s *Supervisor) Dir() string { return s.dir }

// announce is called with mu held.
func (s *Supervisor) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
