package hostfault

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
)

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
