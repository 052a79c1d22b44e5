package supervise

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

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
