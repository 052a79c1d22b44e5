package hostfault

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
)

// kill = SIGKILL and held down until the lease ends, then started again.
func TestKillIsHeldDownForItsLeaseAndStartedAgain(t *testing.T) {
	r := newRig(t, "", nil)
	before := map[string]int{"app-1": r.pid("app-1"), "app-1/sidecar": r.pid("app-1/sidecar")}
	ordered := time.Now()
	o := newOrder(fault.Kill)
	if err := r.Order(o); err != nil {
		t.Fatal(err)
	}
	applied := next(t, r.reports, fault.Applied, names...)
	for n, x := range applied {
		if x.PID != before[n] || !strings.Contains(x.Proof, "gone (pidfd)") {
			t.Errorf("report of %s = %+v, want pid %d gone", n, x, before[n])
		}
		if x.Before.Before(ordered.Truncate(0)) || x.After.Before(x.Before) {
			t.Errorf("bracket of %s is %v to %v, want after %v", n, x.Before, x.After, ordered)
		}
		if x.ClockOffset != 7*time.Millisecond || x.ClockError != time.Millisecond || x.Service != "app" {
			t.Errorf("report of %s = %+v, want clock offset and service", n, x)
		}
	}
	// No process may run until the revert is reported; every start would be a change.
	for _, p := range r.sup.Processes() {
		if p.PID != 0 {
			t.Errorf("%s runs during the fault: %+v", p.Name, p)
		}
	}
	reverted := next(t, r.reports, fault.Reverted, names...)
	for n, x := range reverted {
		if held := x.After.Sub(ordered); held < o.Lease || held > o.Lease+time.Second {
			t.Errorf("%s was back after %v, want not before %v and at most a second later", n, held, o.Lease)
		}
		if x.Before.Sub(ordered) < o.Lease {
			t.Errorf("%s: the check before is %v after the order, want after the lease", n, x.Before.Sub(ordered))
		}
		if x.EndedBy != fault.ByLease || !strings.Contains(x.Proof, "started, ready") || x.PID == before[n] || x.PID != r.pid(n) || !x.Proven() {
			t.Errorf("report of %s = %+v, want a new pid by the lease", n, x)
		}
	}
	if a := r.Active(); len(a) != 0 {
		t.Errorf("active = %v, want none", a)
	}
}

func TestPauseStopsEveryProcessUntilWithdrawn(t *testing.T) {
	r := newRig(t, "", nil)
	o := newOrder(fault.Pause)
	o.Lease = 30 * time.Second
	if err := r.Order(o); err != nil {
		t.Fatal(err)
	}
	for n, x := range next(t, r.reports, fault.Applied, names...) {
		if s := stateOf(t, r.pid(n)); s != 'T' {
			t.Errorf("state of %s = %c, want T", n, s)
		}
		if !strings.HasSuffix(x.Proof, "state T") {
			t.Errorf("proof of %s = %q", n, x.Proof)
		}
	}
	if a := r.Active(); len(a) != 1 || a[0] != o.ID {
		t.Errorf("active = %v, want %s", a, o.ID)
	}
	r.Withdraw(o.ID)
	for n, x := range next(t, r.reports, fault.Reverted, names...) {
		if s := stateOf(t, r.pid(n)); s == 'T' {
			t.Errorf("%s is still stopped", n)
		}
		if x.EndedBy != fault.ByRevert || !x.Proven() {
			t.Errorf("report of %s = %+v", n, x)
		}
	}
}

// All targets at once: nothing but system calls lies between the first signal and the last, and each moment lies
// within its bracket.
func TestTargetsAreHitTogether(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Kill, fault.Pause} {
		t.Run(string(kind), func(t *testing.T) {
			r := newRig(t, "", nil)
			var ss []*subject
			for _, n := range names {
				if err := r.sup.Hold(n); err != nil {
					t.Fatal(err)
				}
				s, err := r.openTarget(target{Name: n}, kind)
				if err != nil {
					t.Fatal(err)
				}
				ss = append(ss, s)
			}
			defer closeAll(ss)
			strike(kind, ss, proofLimit)
			for _, s := range ss {
				if s.err != nil || s.proof == "" {
					t.Errorf("%s: proof %q, %v", s.Name, s.proof, s.err)
				}
				if s.after.Before(s.sent) || s.after.Before(s.before) {
					t.Errorf("%s: effect seen at %v, signal sent at %v, last seen without at %v", s.Name, s.after, s.sent, s.before)
				}
			}
			if spread := ss[len(ss)-1].sent.Sub(ss[0].sent); spread > 50*time.Millisecond {
				t.Errorf("from the first signal to the last: %v, want at most 50ms", spread)
			}
			if kind == fault.Pause {
				resume([]target{ss[0].target, ss[1].target})
			}
		})
	}
}

func TestRenewProlongsUpToMaxDurationAndNeverRevives(t *testing.T) {
	r := newRig(t, "", nil)
	o := newOrder(fault.Pause)
	o.MaxDuration = 2500 * time.Millisecond
	ordered := time.Now()
	if err := r.Order(o); err != nil {
		t.Fatal(err)
	}
	renewals := 0
	tick := time.NewTicker(o.Lease / 3)
	defer tick.Stop()
	var back fault.Report
	for back.Order == "" {
		select {
		case <-tick.C:
			if r.Renew(o.ID) == nil {
				renewals++
			}
		case x := <-r.reports:
			if x.Phase == fault.Reverted {
				back = x
			}
		}
	}
	if held := back.After.Sub(ordered); held < o.MaxDuration || held > o.MaxDuration+time.Second {
		t.Errorf("held for %v, want %v and at most a second more", held, o.MaxDuration)
	}
	if renewals < 5 {
		t.Errorf("%d renewals were accepted, want at least 5", renewals)
	}
	if back.EndedBy != fault.ByLease || !strings.Contains(back.Reason, "maxDuration") {
		t.Errorf("report = %+v, want ended at maxDuration", back)
	}
	if err := r.Renew(o.ID); api.KindOf(err) != api.Conflict {
		t.Errorf("Renew after the end: %v, want Conflict", err)
	}
	if err := r.Renew("run-1/nothing"); api.KindOf(err) != api.NotFound {
		t.Errorf("Renew of an unknown order: %v, want NotFound", err)
	}
}

// An ended order is dead for ever, also under the same id and for the next agent.
func TestDeadOrderNeverRevives(t *testing.T) {
	r := newRig(t, "", nil)
	o := newOrder(fault.Pause)
	if err := r.Order(o); err != nil {
		t.Fatal(err)
	}
	if err := r.Order(o); err != nil {
		t.Errorf("the same order while it is in force: %v, want nil", err)
	}
	r.Withdraw(o.ID)
	next(t, r.reports, fault.Reverted, names...)
	pids := []int{r.pid(names[0]), r.pid(names[1])}
	if err := r.Order(o); api.KindOf(err) != api.Conflict {
		t.Errorf("Order of a dead order: %v, want Conflict", err)
	}
	r.stop()
	again := newRig(t, r.dir, nil)
	next(t, again.reports, fault.Reverted, names...) // said again: the server may not have heard it
	if err := again.Order(o); api.KindOf(err) != api.Conflict {
		t.Errorf("Order of a dead order in the next agent: %v, want Conflict", err)
	}
	if err := again.Renew(o.ID); api.KindOf(err) != api.Conflict {
		t.Errorf("Renew of a dead order in the next agent: %v, want Conflict", err)
	}
	for i, n := range names {
		if again.pid(n) != pids[i] || stateOf(t, pids[i]) == 'T' {
			t.Errorf("%s: pid %d state %c, want pid %d running", n, again.pid(n), stateOf(t, pids[i]), pids[i])
		}
	}
}

// A target that is started again under a pause is paused as well.
func TestProcessStartedAgainUnderAPauseIsCaught(t *testing.T) {
	r := newRig(t, "", nil)
	o := newOrder(fault.Pause)
	o.Lease = 30 * time.Second
	if err := r.Order(o); err != nil {
		t.Fatal(err)
	}
	next(t, r.reports, fault.Applied, names...)
	old := r.pid("app-1")
	hd, err := r.sup.Handle("app-1")
	if err != nil {
		t.Fatal(err)
	}
	defer hd.Close()
	if err := hd.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	x := next(t, r.reports, fault.Applied, "app-1")["app-1"]
	if x.PID == old || stateOf(t, x.PID) != 'T' {
		t.Errorf("pid %d state %c, want a new pid in state T", x.PID, stateOf(t, x.PID))
	}
	rec, err := r.journal.read(o.ID)
	if err != nil || rec.Targets[0].PID != x.PID {
		t.Errorf("undo record names %+v, %v; want pid %d", rec.Targets, err, x.PID)
	}
	r.Withdraw(o.ID)
	next(t, r.reports, fault.Reverted, names...)
	if s := stateOf(t, x.PID); s == 'T' {
		t.Error("the caught process is still stopped")
	}
}

func TestShutdownReverts(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Kill, fault.Pause} {
		for _, supervisorFirst := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, supervisor ends first: %v", kind, supervisorFirst), func(t *testing.T) {
				r := newRig(t, "", nil)
				o := newOrder(kind)
				o.Lease = 30 * time.Second
				if err := r.Order(o); err != nil {
					t.Fatal(err)
				}
				next(t, r.reports, fault.Applied, names...)
				if supervisorFirst {
					r.stopSup()
				}
				r.stop()
				for n, x := range next(t, r.reports, fault.Reverted, names...) {
					if s := stateOf(t, x.PID); s == 'T' || s == 0 || s == 'Z' {
						t.Errorf("%s: state %q after the revert", n, s)
					}
				}
				if open, err := r.journal.open(); err != nil || len(open) != 0 {
					t.Errorf("open records = %v, %v", open, err)
				}
			})
		}
	}
}

// The pid of a record belongs to another process by now: that one is not continued, and counts as gone.
func TestReusedPidIsNotTakenForTheTarget(t *testing.T) {
	st, err := supervise.ReadStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	other := exec.Command(os.Args[0])
	other.Env = append(os.Environ(), roleEnv+"=idle")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { other.Process.Kill(); other.Wait() }()
	if err := other.Process.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	poll(t, "the other process to stop", func() bool { return stateOf(t, other.Process.Pid) == 'T' })
	ss := resume([]target{{Name: "app-1", PID: other.Process.Pid, Start: st.Start - 1}})
	if !strings.Contains(ss[0].proof, "gone") || ss[0].err != nil {
		t.Errorf("resume = %q, %v; want the target gone", ss[0].proof, ss[0].err)
	}
	if s := stateOf(t, other.Process.Pid); s != 'T' {
		t.Errorf("state of the other process = %c: it was continued", s)
	}
}

// A record that cannot be read may be a fault that nobody else ends: refuse to start rather than guess.
func TestUnreadableRecordStopsTheStart(t *testing.T) {
	dir := t.TempDir()
	sup, err := supervise.New(supervise.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x"+undoSuffix), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{Dir: dir, Site: site, Supervisor: sup})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(t.Context()); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run = %v, want an error that names the record", err)
	}
}
