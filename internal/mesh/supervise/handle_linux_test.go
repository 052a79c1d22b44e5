package supervise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

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
