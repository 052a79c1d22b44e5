package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/livefire-mesh/livefire/api"
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

func TestProcessIsStartedInItsOwnSession(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	s, _ := begin(t, Config{})
	if err := s.Add(idle("app-1", log)); err != nil {
		t.Fatal(err)
	}
	p := until(t, s, "app-1", "running", running)
	st, err := ReadStat(p.PID)
	if err != nil {
		t.Fatal(err)
	}
	if st.Session != p.PID {
		t.Errorf("session = %d, want its own, %d", st.Session, p.PID)
	}
	if p.Restarts != 0 {
		t.Errorf("restarts = %d, want 0", p.Restarts)
	}
	if fi, err := os.Stat(s.Dir()); err != nil || fi.Mode().Perm()&0o077 != 0 && fi.Mode().Perm() != 0o755 {
		t.Errorf("state directory: %v, %v", fi.Mode(), err)
	}
	if fi, err := os.Stat(statePath(s.Dir(), "app-1")); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("state file: %v, %v; want 0600: it holds the environment", fi, err)
	}
}

func TestKilledProcessIsRestartedAfterBackoff(t *testing.T) {
	s, _ := begin(t, Config{})
	if err := s.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	p := until(t, s, "app-1", "running", running)
	h := handle(t, s, "app-1")
	killed := time.Now()
	if err := h.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	q := until(t, s, "app-1", "restarted", func(q nodeapi.Process) bool { return running(q) && q.PID != p.PID })
	if took := time.Since(killed); took < minBackoff {
		t.Errorf("restarted after %v, want at least %v", took, minBackoff)
	}
	if q.Restarts != 1 {
		t.Errorf("restarts = %d, want 1", q.Restarts)
	}
}

func TestBackoffDoublesUpToItsLimit(t *testing.T) {
	var got []time.Duration
	var d time.Duration
	for range 8 {
		d = backoff(d)
		got = append(got, d)
	}
	want := "[100ms 200ms 400ms 800ms 1.6s 3.2s 5s 5s]"
	if fmt.Sprint(got) != want {
		t.Errorf("back-off = %v, want %v", got, want)
	}
}

func TestHeldProcessStaysDownUntilReleased(t *testing.T) {
	s, _ := begin(t, Config{})
	if err := s.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	p := until(t, s, "app-1", "running", running)
	h := handle(t, s, "app-1")
	if err := s.Hold("app-1"); err != nil {
		t.Fatal(err)
	}
	if err := h.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, s, "app-1", "held", func(p nodeapi.Process) bool { return p.State == Held && p.PID == 0 })
	if _, err := s.Handle("app-1"); !errors.Is(err, ErrGone) {
		t.Errorf("Handle of a held process: %v, want ErrGone", err)
	}
	// It must stay down for longer than any back-off could explain.
	timer := time.NewTimer(4 * minBackoff)
	defer timer.Stop()
	for waiting := true; waiting; {
		changed := s.Changed()
		if q := find(s, "app-1"); q.PID != 0 {
			t.Fatalf("held process runs: %+v", q)
		}
		select {
		case <-changed:
		case <-timer.C:
			waiting = false
		}
	}
	if err := s.Release("app-1"); err != nil {
		t.Fatal(err)
	}
	until(t, s, "app-1", "running again", func(q nodeapi.Process) bool { return running(q) && q.PID != p.PID })
}

func TestProcessesOutliveTheSupervisorAndAreAdopted(t *testing.T) {
	dir := t.TempDir()
	s, stop := begin(t, Config{Dir: dir})
	if err := s.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	p := until(t, s, "app-1", "running", running)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	again, _ := begin(t, Config{Dir: dir})
	if err := again.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	q := until(t, again, "app-1", "adopted", running)
	if q.PID != p.PID || q.Restarts != 0 {
		t.Errorf("adopted pid %d with %d restarts, want pid %d with 0", q.PID, q.Restarts, p.PID)
	}
}

// The agent is another process here, killed like a real one: what it leaves is no child of the next agent.
func TestProcessOfAKilledAgentIsAdoptedAndWatched(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	cmd, env := role("agent", dir, log)
	agent := exec.Command(cmd[0], cmd[1:]...)
	agent.Env = append(os.Environ(), env...)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	st := awaitState(t, dir, "app-1")
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	agent.Wait()

	s, _ := begin(t, Config{Dir: dir})
	if err := s.Add(idle("app-1", log)); err != nil {
		t.Fatal(err)
	}
	p := until(t, s, "app-1", "adopted", running)
	if p.PID != st.PID {
		t.Fatalf("pid = %d, want the one of the dead agent, %d", p.PID, st.PID)
	}
	if err := handle(t, s, "app-1").Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, s, "app-1", "restarted", func(q nodeapi.Process) bool { return running(q) && q.PID != p.PID && q.Restarts == 1 })
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

// A crash between the start of a process and its state file must not lead to a second one.
func TestProcessWithoutStateFileIsFoundByItsMark(t *testing.T) {
	dir := t.TempDir()
	s, stop := begin(t, Config{Dir: dir})
	if err := s.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	p := until(t, s, "app-1", "running", running)
	stop()
	if err := os.Remove(statePath(dir, "app-1")); err != nil {
		t.Fatal(err)
	}
	again, _ := begin(t, Config{Dir: dir})
	if err := again.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	if q := until(t, again, "app-1", "adopted", running); q.PID != p.PID {
		t.Errorf("pid = %d, want %d", q.PID, p.PID)
	}
	if st := awaitState(t, dir, "app-1"); st.PID != p.PID {
		t.Errorf("new state file names pid %d, want %d", st.PID, p.PID)
	}
}

func TestChangedSpecReplacesTheProcess(t *testing.T) {
	dir := t.TempDir()
	s, stop := begin(t, Config{Dir: dir})
	if err := s.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	until(t, s, "app-1", "running", running)
	h := handle(t, s, "app-1")
	stop()
	again, _ := begin(t, Config{Dir: dir})
	changed := spec("app-1", "idle", "another-argument")
	if err := again.Add(changed); err != nil {
		t.Fatal(err)
	}
	until(t, again, "app-1", "replaced", func(q nodeapi.Process) bool { return running(q) && q.PID != h.PID })
	gone(t, h)
}

// The pid of the state file belongs to somebody else now: this very test process, which must survive.
func TestReusedPidIsNeverTakenForTheProcess(t *testing.T) {
	self, err := ReadStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		start uint64
		boot  string
	}{
		{"other start time", self.Start + 1, boot},
		{"other boot", self.Start, "00000000-0000-0000-0000-000000000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			l := launcher{dir: dir}
			sp := spec("app-1", "idle")
			st := state{Format: stateFormat, Spec: sp, PID: os.Getpid(), Start: c.start, Boot: c.boot}
			if err := l.write(st); err != nil {
				t.Fatal(err)
			}
			if err := KillAll(dir); err != nil {
				t.Errorf("KillAll: %v", err)
			}
			s, _ := begin(t, Config{Dir: dir})
			if err := s.Add(sp); err != nil {
				t.Fatal(err)
			}
			if p := until(t, s, "app-1", "running", running); p.PID == os.Getpid() {
				t.Errorf("adopted pid %d, which is another process", p.PID)
			}
		})
	}
}

func TestOpenRefusesAnotherStartTime(t *testing.T) {
	st, err := ReadStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(os.Getpid(), st.Start-1); !errors.Is(err, ErrGone) {
		t.Errorf("Open with another start time: %v, want ErrGone", err)
	}
	h, err := Open(os.Getpid(), st.Start)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	h.Close()
}

func TestReadyOnlyWhenItAnswers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	for _, c := range []struct {
		name string
		set  func(*Spec)
	}{
		{"address", func(s *Spec) { s.ReadyAddress = address }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := begin(t, Config{})
			sp := spec("app-1", "idle") // never answers
			c.set(&sp)
			if err := s.Add(sp); err != nil {
				t.Fatal(err)
			}
			until(t, s, "app-1", "started", func(p nodeapi.Process) bool { return p.PID != 0 })
			if st := find(s, "app-1").State; st != Starting {
				t.Errorf("state = %s, want %s", st, Starting)
			}
			sp = spec("app-2", "serve", address)
			c.set(&sp)
			if err := s.Add(sp); err != nil {
				t.Fatal(err)
			}
			until(t, s, "app-2", "ready", running)
		})
	}
}

func TestReadyURLMustNotAnswerAnError(t *testing.T) {
	status := 503
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() { srv.Close(); <-served }()
	sp := Spec{ReadyURL: "http://" + l.Addr().String()}
	client := &http.Client{}
	defer client.CloseIdleConnections()
	if ready(t.Context(), client, sp) {
		t.Error("ready with status 503")
	}
	status = 204
	if !ready(t.Context(), client, sp) {
		t.Error("not ready with status 204")
	}
}

func TestProcessThatCannotStartIsFailedAndTriedAgain(t *testing.T) {
	s, _ := begin(t, Config{})
	path := filepath.Join(t.TempDir(), "later")
	if err := s.Add(Spec{Name: "app-1", Command: []string{path}, Env: []string{roleEnv + "=idle"}}); err != nil {
		t.Fatal(err)
	}
	until(t, s, "app-1", "failed", func(p nodeapi.Process) bool { return p.State == Failed })
	if err := os.Symlink(os.Args[0], path); err != nil {
		t.Fatal(err)
	}
	until(t, s, "app-1", "running", running)
}

func TestStopAllEndsEverythingAndStartsNothing(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	s, stop := begin(t, Config{})
	stubborn := spec("app-2", "stubborn")
	stubborn.Log = log
	for _, sp := range []Spec{spec("app-1", "idle"), stubborn, spec("app-3", "exit")} {
		if err := s.Add(sp); err != nil {
			t.Fatal(err)
		}
	}
	until(t, s, "app-1", "running", running)
	until(t, s, "app-2", "running", running)
	awaitLine(t, log, "stubborn")
	one, two := handle(t, s, "app-1"), handle(t, s, "app-2")
	if err := two.SignalGroup(unix.SIGSTOP); err != nil { // a stopped process must end as well
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.StopAll(ctx, 200*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	gone(t, one)
	gone(t, two)
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	for _, st := range states(s.Dir()) {
		if _, err := st.open(); !errors.Is(err, ErrGone) {
			t.Errorf("%s still runs: %v", st.Spec.Name, err)
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

func TestChildrenDieWithTheProcess(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	s, _ := begin(t, Config{})
	sp := spec("app-1", "parent")
	sp.Log = log
	if err := s.Add(sp); err != nil {
		t.Fatal(err)
	}
	until(t, s, "app-1", "running", running)
	pid, err := strconv.Atoi(strings.TrimPrefix(awaitLine(t, log, "child "), "child "))
	if err != nil {
		t.Fatal(err)
	}
	st, err := ReadStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	child, err := Open(pid, st.Start)
	if err != nil {
		t.Fatal(err)
	}
	defer child.Close()
	if err := s.Remove("app-1"); err != nil {
		t.Fatal(err)
	}
	gone(t, child)
	until(t, s, "app-1", "forgotten", func(p nodeapi.Process) bool { return p.Name == "" })
	if _, err := os.Stat(statePath(s.Dir(), "app-1")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state file of a removed process: %v, want none", err)
	}
}

func TestEndOfLifetimePipeEndsEverything(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, stop := begin(t, Config{Lifetime: r})
	if err := s.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	until(t, s, "app-1", "running", running)
	h := handle(t, s, "app-1")
	if target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", h.PID, lifetimeFD)); err != nil || !strings.HasPrefix(target, "pipe:") {
		t.Errorf("descriptor %d of the process is %q, %v; want the lifetime pipe", lifetimeFD, target, err)
	}
	w.Close()
	gone(t, h)
	if err := stop(); !errors.Is(err, ErrLifetime) {
		t.Errorf("Run: %v, want ErrLifetime", err)
	}
}

func TestSecondSupervisorWaitsForTheFirst(t *testing.T) {
	dir := t.TempDir()
	s, stop := begin(t, Config{Dir: dir})
	if err := s.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	p := until(t, s, "app-1", "running", running)
	second, _ := begin(t, Config{Dir: dir})
	if err := second.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	if q := find(second, "app-1"); q.PID != 0 {
		t.Errorf("the second has a process: %+v", q)
	}
	stop()
	if q := until(t, second, "app-1", "adopted", running); q.PID != p.PID {
		t.Errorf("pid = %d, want the adopted %d", q.PID, p.PID)
	}
}

func TestReviveStartsWhatIsDownAndFindsWhatRuns(t *testing.T) {
	dir := t.TempDir()
	s, stop := begin(t, Config{Dir: dir})
	if err := s.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	until(t, s, "app-1", "running", running)
	h := handle(t, s, "app-1")
	stop()
	same, err := Revive(Config{Dir: dir}, "app-1")
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	if same.PID != h.PID {
		t.Errorf("Revive of a running process = pid %d, want %d", same.PID, h.PID)
	}
	if err := h.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, h)
	h.Reap()
	other, err := Revive(Config{Dir: dir}, "app-1")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	again, _ := begin(t, Config{Dir: dir})
	if err := again.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	if q := until(t, again, "app-1", "adopted", running); q.PID != other.PID || q.Restarts != 1 {
		t.Errorf("adopted pid %d, %d restarts; want %d, 1", q.PID, q.Restarts, other.PID)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	s, _ := begin(t, Config{})
	if err := s.Add(spec("app-1", "idle")); err != nil {
		t.Fatal(err)
	}
	until(t, s, "app-1", "running", running)
	h := handle(t, s, "app-1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait = %v, want context.Canceled", err)
	}
	if err := h.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, h) // the handle is good for another wait
}

func TestEnvironmentOfTheSpecWins(t *testing.T) {
	l, err := newLauncher(Config{Dir: t.TempDir(), Env: []string{"A=agent", "B=agent", MarkEnv + "=agent", LifetimeEnv + "=9"}})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(l.environ(Spec{Name: "app-1", Env: []string{"A=spec"}}), " ")
	if want := "B=agent A=spec " + MarkEnv + "=" + l.mark("app-1"); got != want {
		t.Errorf("environment = %q, want %q", got, want)
	}
}

func TestAddRefusesWhatCannotRun(t *testing.T) {
	s, err := New(Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		spec Spec
		want api.ErrorKind
	}{
		{Spec{Command: []string{"true"}}, api.Invalid},
		{Spec{Name: "app-1"}, api.Invalid},
		{Spec{Name: "app-1", Command: []string{"true"}}, ""},
		{Spec{Name: "app-1", Command: []string{"true"}}, api.Conflict},
	} {
		if got := api.KindOf(s.Add(c.spec)); got != c.want {
			t.Errorf("Add(%+v) = %q, want %q", c.spec, got, c.want)
		}
	}
	if _, err := New(Config{}); api.KindOf(err) != api.Invalid {
		t.Errorf("New without directory: %v, want Invalid", err)
	}
	if got := api.KindOf(s.Hold("nobody")); got != api.NotFound {
		t.Errorf("Hold of an unknown process = %q, want NotFound", got)
	}
}

func TestStatIsReadWhateverTheNameHolds(t *testing.T) {
	tail := " S 1 4711 4712 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 998877 0 0\n"
	for _, name := range []string{"(app)", "(a) b)", "(() R 1 2 3 4)"} {
		st, err := parseStat([]byte("4711 " + name + tail))
		if want := (Stat{State: 'S', Session: 4712, Start: 998877}); err != nil || st != want {
			t.Errorf("parseStat of %s = %+v, %v; want %+v", name, st, err, want)
		}
	}
	for _, bad := range []string{"", "4711", "4711 (app)", "4711 (app) S 1 2"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q): no error", bad)
		}
	}
}
