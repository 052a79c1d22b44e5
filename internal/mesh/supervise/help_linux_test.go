package supervise

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

// roleEnv makes the test binary one of the helper processes below.
const roleEnv = "SUPERVISE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "":
		os.Exit(m.Run())
	case "serve": // answers on the address given until it is killed
		l, err := net.Listen("tcp", os.Args[1])
		if err != nil {
			os.Exit(1)
		}
		http.Serve(l, http.NotFoundHandler())
	case "idle":
		fmt.Println("idle")
		select {}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("stubborn")
		select {}
	case "exit":
	case "parent": // leaves a child behind in its group
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), roleEnv+"=idle")
		if c.Start() != nil {
			os.Exit(1)
		}
		fmt.Println("child", c.Process.Pid)
		select {}
	case "agent": // a supervisor that is killed by the test
		s, err := New(Config{Dir: os.Args[1]})
		if err != nil {
			os.Exit(1)
		}
		if s.Add(idle("app-1", os.Args[2])) != nil {
			os.Exit(1)
		}
		s.Run(context.Background())
	}
}

func role(name string, args ...string) (command, env []string) {
	return append([]string{os.Args[0]}, args...), []string{roleEnv + "=" + name}
}

func spec(name, r string, args ...string) Spec {
	cmd, env := role(r, args...)
	return Spec{Name: name, Service: "app", Workload: name, Command: cmd, Env: env}
}

func idle(name, log string) Spec {
	s := spec(name, "idle")
	s.Log = log
	return s
}

// begin runs a Supervisor until the test ends, and then ends everything it supervised.
func begin(t *testing.T, cfg Config) (s *Supervisor, stop func() error) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var result error
	stopped := false
	stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			result = <-done
		}
		return result
	}
	t.Cleanup(func() {
		if err := KillAll(cfg.Dir); err != nil {
			t.Error(err)
		}
		stop()
		if err := KillAll(cfg.Dir); err != nil {
			t.Error(err)
		}
	})
	return s, stop
}

// until waits for a process to fulfil a condition.
func until(t *testing.T, s *Supervisor, name, what string, ok func(nodeapi.Process) bool) nodeapi.Process {
	t.Helper()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for {
		changed := s.Changed()
		p := find(s, name)
		if ok(p) {
			return p
		}
		select {
		case <-changed:
		case <-late.C:
			t.Fatalf("process %s is %+v, want it to be %s", name, p, what)
		}
	}
}

func find(s *Supervisor, name string) nodeapi.Process {
	for _, p := range s.Processes() {
		if p.Name == name {
			return p
		}
	}
	return nodeapi.Process{}
}

func running(p nodeapi.Process) bool { return p.State == Running }

func handle(t *testing.T, s *Supervisor, name string) *Handle {
	t.Helper()
	h, err := s.Handle(name)
	if err != nil {
		t.Fatalf("Handle(%s): %v", name, err)
	}
	t.Cleanup(h.Close)
	return h
}

func gone(t *testing.T, h *Handle) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := h.Wait(ctx); err != nil {
		t.Fatalf("%s has not ended: %v", h, err)
	}
}

func awaitState(t *testing.T, dir, name string) state {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for {
		if st, err := readState(dir, name); err == nil {
			return st
		}
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("no state file of %s", name)
		}
	}
}

// awaitLine waits until a file contains a line that begins with prefix, and returns it.
func awaitLine(t *testing.T, path, prefix string) string {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(20 * time.Second)
	defer late.Stop()
	for {
		if f, err := os.Open(path); err == nil {
			for sc := bufio.NewScanner(f); sc.Scan(); {
				if strings.HasPrefix(sc.Text(), prefix) {
					f.Close()
					return sc.Text()
				}
			}
			f.Close()
		}
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("%s has no line %q", path, prefix)
		}
	}
}
