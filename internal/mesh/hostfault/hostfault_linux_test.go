package hostfault

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// All targets at once: gone within 50 ms of each other, and each known to a few milliseconds.
func TestTargetsAreHitTogether(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Kill, fault.Pause} {
		t.Run(string(kind), func(t *testing.T) {
			r := newRig(t, "", nil)
			if err := r.Order(newOrder(kind)); err != nil {
				t.Fatal(err)
			}
			var first, last time.Time
			for _, x := range next(t, r.reports, fault.Applied, names...) {
				if first.IsZero() || x.Before.Before(first) {
					first = x.Before
				}
				if x.After.After(last) {
					last = x.After
				}
			}
			if spread := last.Sub(first); spread > 50*time.Millisecond {
				t.Errorf("from the first to the last target: %v, want at most 50ms", spread)
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

func TestRefusedOrderTouchesNothing(t *testing.T) {
	r := newRig(t, "", nil)
	first := newOrder(fault.Pause)
	first.Lease = 30 * time.Second
	for _, c := range []struct {
		name  string
		spoil func(*fault.Order)
		want  api.ErrorKind
	}{
		{"too many targets", func(o *fault.Order) { o.MaxTargets = 1 }, api.Denied},
		{"another site", func(o *fault.Order) { o.Site = "us-east" }, api.Invalid},
		{"no such service", func(o *fault.Order) { o.Services = []api.ServiceID{"other"} }, api.NotFound},
		{"no server here", func(o *fault.Order) { o.Kind = fault.ServerKill }, api.Unavailable},
		{"id too long", func(o *fault.Order) { o.ID = "run-1/" + strings.Repeat("x", 300) }, api.Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			pids := []int{r.pid(names[0]), r.pid(names[1])}
			o := newOrder(fault.Kill)
			o.ID = "run-1/" + strings.ReplaceAll(c.name, " ", "-")
			c.spoil(&o)
			if err := r.Order(o); api.KindOf(err) != c.want {
				t.Errorf("Order = %v, want %s", err, c.want)
			}
			if len(o.ID) < 300 {
				if x := <-r.reports; x.Phase != fault.Refused || x.Target != "" || x.Order != o.ID || x.Reason == "" {
					t.Errorf("report = %+v, want the whole order refused", x)
				}
			}
			for i, n := range names {
				if r.pid(n) != pids[i] || stateOf(t, pids[i]) == 'T' {
					t.Errorf("%s was touched", n)
				}
			}
			if a := r.Active(); len(a) != 0 {
				t.Errorf("active = %v, want none", a)
			}
		})
	}
	if err := r.Order(first); err != nil {
		t.Fatal(err)
	}
	next(t, r.reports, fault.Applied, names...)
	second := newOrder(fault.Kill)
	if err := r.Order(second); api.KindOf(err) != api.Denied || !strings.Contains(err.Error(), first.ID) {
		t.Errorf("a second fault on the same targets: %v, want Denied by the first", err)
	}
	r.Withdraw(first.ID)
	next(t, r.reports, fault.Reverted, names...)
	if err := r.Order(second); api.KindOf(err) != api.Conflict {
		t.Errorf("a refused order again, when it would be possible: %v, want Conflict", err)
	}
}

// An old server must not act after a new one has taken over.
func TestLowerFenceIsRefusedAlsoByTheNextAgent(t *testing.T) {
	r := newRig(t, "", nil)
	o := newOrder(fault.Pause)
	if err := r.Order(o); err != nil {
		t.Fatal(err)
	}
	next(t, r.reports, fault.Applied, names...)
	r.stop() // reverts
	again := newRig(t, r.dir, nil)
	for i, c := range []struct {
		fence int64
		want  api.ErrorKind
	}{{4, api.Denied}, {5, ""}, {6, ""}, {5, api.Denied}} {
		x := newOrder(fault.Pause)
		x.ID, x.Fence = "run-2/"+strconv.Itoa(i), c.fence
		x.Run = "run-2"
		if err := again.Order(x); api.KindOf(err) != c.want {
			t.Errorf("fence %d: %v, want %q", c.fence, err, c.want)
		}
		if c.want == "" {
			again.Withdraw(x.ID)
			next(t, again.reports, fault.Reverted, names...)
			poll(t, "the order to end", func() bool { return len(again.Active()) == 0 })
		}
	}
}

// Without a record on disk there must be no effect: if it cannot be written, nothing happens.
func TestNoEffectWithoutAnUndoRecord(t *testing.T) {
	r := newRig(t, "", nil)
	o := newOrder(fault.Kill)
	o.Fence = 0 // no fence to be written: the record itself must be what fails
	if err := os.RemoveAll(undoDir(r.dir)); err != nil {
		t.Fatal(err)
	}
	pids := []int{r.pid(names[0]), r.pid(names[1])}
	if err := r.Order(o); api.KindOf(err) != api.Unavailable {
		t.Errorf("Order = %v, want Unavailable", err)
	}
	for i, n := range names {
		hd, err := r.sup.Handle(n)
		if err != nil || hd.PID != pids[i] {
			t.Errorf("%s was touched: %v", n, err)
			continue
		}
		hd.Close()
	}
	for _, p := range r.sup.Processes() {
		if p.State == supervise.Held {
			t.Errorf("%s is held", p.Name)
		}
	}
}

func TestRecordIsThereBeforeTheEffect(t *testing.T) {
	r := newRig(t, "", nil)
	o := newOrder(fault.Pause)
	var rec record
	var err error
	var states []byte
	r.Host.armed = func() {
		rec, err = r.journal.read(o.ID)
		states = []byte{stateOf(t, r.pid(names[0])), stateOf(t, r.pid(names[1]))}
	}
	if err := r.Order(o); err != nil {
		t.Fatal(err)
	}
	if err != nil || rec.Stage != stageIntent || len(rec.Targets) != 2 || rec.Targets[0].PID == 0 || rec.Targets[0].Start == 0 {
		t.Errorf("record before the effect = %+v, %v; want the intent with its targets", rec, err)
	}
	for _, s := range states {
		if s == 'T' {
			t.Error("stopped before the record was written")
		}
	}
	if rec, err := r.journal.read(o.ID); err != nil || rec.Stage != stageApplied {
		t.Errorf("record after the effect: stage %q, %v", rec.Stage, err)
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

func TestShutdownInGoodOrderRevertsFirst(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Kill, fault.Pause} {
		t.Run(string(kind), func(t *testing.T) {
			r := newRig(t, "", nil)
			o := newOrder(kind)
			o.Lease = 30 * time.Second
			if err := r.Order(o); err != nil {
				t.Fatal(err)
			}
			next(t, r.reports, fault.Applied, names...)
			r.stop()
			for n, x := range next(t, r.reports, fault.Reverted, names...) {
				if s := stateOf(t, x.PID); s == 'T' || s == 0 {
					t.Errorf("%s: state %q after the revert", n, s)
				}
			}
			if open, err := r.journal.open(); err != nil || len(open) != 0 {
				t.Errorf("open records = %v, %v", open, err)
			}
		})
	}
}

func TestServerKillHitsTheServerOfThePidFileOnly(t *testing.T) {
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), roleEnv+"=idle")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { server.Process.Kill(); server.Wait() }()
	path := filepath.Join(t.TempDir(), "server.pid")
	r := newRig(t, "", func(c *Config) { c.ServerPIDFile = path })
	if k := r.Kinds(); len(k) != 2 {
		t.Errorf("kinds without a pid file = %v, want no server-kill", k)
	}
	if err := os.WriteFile(path, []byte(strconv.Itoa(server.Process.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if k := r.Kinds(); len(k) != 3 {
		t.Errorf("kinds = %v, want server-kill as well", k)
	}
	o := newOrder(fault.ServerKill)
	// A file older than the process that has the pid now: the server of that file is gone.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	o.ID = "run-1/stale"
	if err := r.Order(o); api.KindOf(err) != api.Unavailable {
		t.Errorf("Order with a reused pid: %v, want Unavailable", err)
	}
	next(t, r.reports, fault.Refused, "")
	if stateOf(t, server.Process.Pid) == 'Z' {
		t.Fatal("another process than the server was killed")
	}
	if err := os.Chtimes(path, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	o.ID = "run-1/fresh"
	if err := r.Order(o); err != nil {
		t.Fatal(err)
	}
	x := next(t, r.reports, fault.Applied, serverTarget)[serverTarget]
	if x.PID != server.Process.Pid || x.EndedBy != fault.ByNone || stateOf(t, x.PID) != 'Z' {
		t.Errorf("report = %+v, state %c", x, stateOf(t, x.PID))
	}
	if err := r.Renew(o.ID); err != nil {
		t.Errorf("Renew of a fault without undo: %v, want nil", err)
	}
	if a := r.Active(); len(a) != 0 {
		t.Errorf("active = %v, want none", a)
	}
}

func TestAgentIsNeverATarget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "server.pid")
	r := newRig(t, "", func(c *Config) { c.ServerPIDFile = path })
	if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Order(newOrder(fault.ServerKill)); api.KindOf(err) != api.Denied {
		t.Errorf("Order that would kill the agent: %v, want Denied", err)
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

func TestNewRefusesWhatCannotWork(t *testing.T) {
	sup, err := supervise.New(supervise.Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  Config
		want api.ErrorKind
	}{
		"no directory":  {Config{Site: site, Supervisor: sup}, api.Invalid},
		"no site":       {Config{Dir: t.TempDir(), Supervisor: sup}, api.Invalid},
		"no supervisor": {Config{Dir: t.TempDir(), Site: site}, api.Unavailable},
	} {
		if _, err := New(c.cfg); api.KindOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	h, err := New(Config{Dir: t.TempDir(), Site: site, Supervisor: sup})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Order(newOrder(fault.Kill)); api.KindOf(err) != api.Unavailable {
		t.Errorf("Order before Run: %v, want Unavailable", err)
	}
	if _, err := WatchdogFromEnv(); api.KindOf(err) != api.Invalid {
		t.Errorf("watchdog by hand: %v, want Invalid", err)
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
