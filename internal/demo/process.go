package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
)

// lifetime is the pipe whose end of file tells every process that the demo is gone.
type lifetime struct {
	read, write *os.File
}

func newLifetime() (*lifetime, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make the lifetime pipe: %w", err)
	}
	return &lifetime{read: r, write: w}, nil
}

func (l *lifetime) close() {
	_ = l.write.Close() // now, for the processes
	_ = l.read.Close()
}

// processes are the server and the agents: the demo stands in for systemd and starts them again when they die.
type processes struct {
	bin, dir string
	life     *lifetime

	mu      sync.Mutex
	running map[string]*process // guarded by mu

	stopping chan struct{} // closed by stop
	group    sync.WaitGroup
}

type process struct {
	name    string
	args    []string
	restart time.Duration // pause before it is started again
	cmd     *exec.Cmd     // guarded by processes.mu
	starts  int           // guarded by processes.mu
	gone    chan struct{} // closed when it has ended for good
}

func newProcesses(bin, dir string, life *lifetime) *processes {
	return &processes{bin: bin, dir: dir, life: life, running: map[string]*process{}, stopping: make(chan struct{})}
}

// start starts a process that is kept running.
func (p *processes) start(name string, restart time.Duration, args ...string) error {
	proc := &process{name: name, args: args, restart: restart, gone: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.launch(proc); err != nil {
		return err
	}
	p.running[name] = proc
	p.group.Go(func() { p.keep(proc) })
	return nil
}

// launch starts the process once. The caller holds mu.
func (p *processes) launch(proc *process) error {
	log, err := os.OpenFile(filepath.Join(p.dir, proc.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("log of %s: %w", proc.name, err)
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(p.bin, proc.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, log, log
	cmd.ExtraFiles = []*os.File{p.life.read}
	cmd.Env = append(os.Environ(), supervise.LifetimeEnv+"=3")
	// A group of its own: Ctrl-C at the terminal is for the demo, which ends the others in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", proc.name, err)
	}
	proc.cmd = cmd
	proc.starts++
	return nil
}

// keep waits for the process and starts it again until the demo stops.
func (p *processes) keep(proc *process) {
	defer close(proc.gone)
	for {
		p.mu.Lock()
		cmd := proc.cmd
		p.mu.Unlock()
		_ = cmd.Wait() // however it ended, it is started again or not by what the demo wants
		if !p.pause(proc.restart) {
			return
		}
		p.mu.Lock()
		err := p.launch(proc)
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// pause waits; false says that the demo stops.
func (p *processes) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.stopping:
		return false
	case <-timer.C:
		return true
	}
}

// pid of a process, 0 if it does not run.
func (p *processes) pid(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	proc, ok := p.running[name]
	if !ok || proc.cmd.ProcessState != nil {
		return 0
	}
	return proc.cmd.Process.Pid
}

// stop ends the agents with their workloads, then the server, and waits for all of them.
func (p *processes) stop(ctx context.Context) error {
	close(p.stopping)
	p.mu.Lock()
	var agents, others []*process
	for name, proc := range p.running {
		if name == "server" {
			others = append(others, proc)
		} else {
			agents = append(agents, proc)
		}
	}
	p.mu.Unlock()
	return errors.Join(p.end(ctx, agents), p.end(ctx, others))
}

func (p *processes) end(ctx context.Context, list []*process) error {
	for _, proc := range list {
		p.signal(proc, syscall.SIGTERM)
	}
	patience := time.NewTimer(15 * time.Second)
	defer patience.Stop()
	var errs []error
	for _, proc := range list {
		select {
		case <-proc.gone:
			continue
		case <-patience.C:
		case <-ctx.Done():
		}
		p.signal(proc, syscall.SIGKILL)
		<-proc.gone
		errs = append(errs, fmt.Errorf("%s had to be killed", proc.name))
	}
	return errors.Join(errs...)
}

func (p *processes) signal(proc *process, sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = proc.cmd.Process.Signal(sig) // one that has ended needs none
}
