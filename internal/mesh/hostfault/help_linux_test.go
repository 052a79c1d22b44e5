package hostfault

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

// roleEnv makes the test binary one of the processes below.
const roleEnv = "HOSTFAULT_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleEnv) {
	case "":
		os.Exit(m.Run())
	case "idle":
		fmt.Println("idle")
		select {}
	case "watchdog":
		cfg, err := WatchdogFromEnv()
		if err == nil {
			cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
			err = RunWatchdog(context.Background(), cfg)
		}
		if err != nil {
			slog.Error("watchdog", "err", err)
			os.Exit(1)
		}
	case "agent":
		if err := runAgent(os.Args[1]); err != nil {
			slog.Error("agent", "err", err)
			os.Exit(1)
		}
	}
}

const site = "eu-west"

var names = []string{"app-1", "app-1/sidecar"}

func specs() []supervise.Spec {
	var out []supervise.Spec
	for _, n := range names {
		out = append(out, supervise.Spec{
			Name: n, Service: "app", Workload: "app-1", Sidecar: n != "app-1",
			Command: []string{os.Args[0]}, Env: []string{roleEnv + "=idle"},
		})
	}
	return out
}

func watchdogCommand() []string { return []string{"/usr/bin/env", roleEnv + "=watchdog", os.Args[0]} }

// agentOrder is what the agent process is told to do: order this, say on stdout what came of it, and wait.
type agentOrder struct {
	Dir      string
	Order    fault.Order
	CrashArm bool // die between the undo record and the effect
	Lifetime bool
}

// runAgent is an agent in a process of its own, which the test kills.
func runAgent(arg string) error {
	var a agentOrder
	if err := json.Unmarshal([]byte(arg), &a); err != nil {
		return err
	}
	var lifetime *os.File
	if a.Lifetime {
		lifetime = os.NewFile(3, "lifetime")
	}
	sup, err := supervise.New(supervise.Config{Dir: processDir(a.Dir), Lifetime: lifetime})
	if err != nil {
		return err
	}
	for _, s := range specs() {
		if err := sup.Add(s); err != nil {
			return err
		}
	}
	var out sync.Mutex
	h, err := New(Config{
		Dir: undoDir(a.Dir), Site: site, Supervisor: sup, Watchdog: watchdogCommand(),
		WatchdogLog: filepath.Join(a.Dir, "watchdog.log"), Lifetime: lifetime,
		Report: func(rs []fault.Report) {
			out.Lock()
			defer out.Unlock()
			for _, r := range rs {
				json.NewEncoder(os.Stdout).Encode(r)
			}
		},
	})
	if err != nil {
		return err
	}
	if a.CrashArm {
		h.armed = func() { syscall.Kill(os.Getpid(), syscall.SIGKILL); select {} }
	}
	ended := make(chan error, 2)
	go func() { ended <- sup.Run(context.Background()) }()
	go func() { ended <- h.Run(context.Background()) }()
	return giveOrder(h, sup, a.Order, ended)
}

// giveOrder orders as soon as the agent is ready for it, then waits for the agent to end.
func giveOrder(h *Host, sup *supervise.Supervisor, o fault.Order, ended <-chan error) error {
	for {
		changed := sup.Changed()
		if allRun(sup) {
			err := h.Order(o)
			if err == nil {
				return <-ended
			}
			if api.KindOf(err) != api.Unavailable { // Run is taking over
				return err
			}
		}
		select {
		case <-changed:
		case <-time.After(5 * time.Millisecond):
		case err := <-ended:
			return err
		}
	}
}

func allRun(sup *supervise.Supervisor) bool {
	ps := sup.Processes()
	return len(ps) == len(names) && !slices.ContainsFunc(ps, func(p nodeapi.Process) bool { return p.State != supervise.Running })
}

func processDir(dir string) string { return filepath.Join(dir, "processes") }
func undoDir(dir string) string    { return filepath.Join(dir, "faults") }

// agentProcess is an agent that the test has started.
type agentProcess struct {
	*exec.Cmd
	reports chan fault.Report
}

func startAgent(t *testing.T, a agentOrder, lifetime *os.File) *agentProcess {
	t.Helper()
	arg, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], string(arg))
	cmd.Env = append(os.Environ(), roleEnv+"=agent")
	cmd.Stderr = os.Stderr
	if lifetime != nil {
		cmd.ExtraFiles = []*os.File{lifetime}
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &agentProcess{cmd, make(chan fault.Report, 100)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for sc := bufio.NewScanner(stdout); sc.Scan(); {
			var r fault.Report
			if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
				t.Errorf("agent said %q: %v", sc.Text(), err)
			}
			p.reports <- r
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-read
		cmd.Wait()
		awaitNoWatchdog(t, a.Dir)
		if err := supervise.KillAll(processDir(a.Dir)); err != nil {
			t.Error(err)
		}
	})
	return p
}

// watchdogs are the pids of the watchdogs of a directory.
func watchdogs(dir string) []int {
	var pids []int
	envs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, e := range envs {
		b, err := os.ReadFile(e)
		if err == nil && bytes.Contains(b, []byte(envDir+"="+undoDir(dir)+"\x00")) {
			pid, _ := strconv.Atoi(strings.Split(e, "/")[2])
			pids = append(pids, pid)
		}
	}
	return pids
}

func awaitNoWatchdog(t *testing.T, dir string) {
	t.Helper()
	poll(t, "the watchdog to go", func() bool { return len(watchdogs(dir)) == 0 })
}

// poll waits for a fact about other processes, which nothing announces.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late.C:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// next takes reports until each target has one of this phase.
func next(t *testing.T, reports <-chan fault.Report, phase fault.Phase, targets ...string) map[string]fault.Report {
	t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	got := map[string]fault.Report{}
	for len(got) < len(targets) {
		select {
		case r := <-reports:
			if r.Phase == phase && slices.Contains(targets, r.Target) {
				got[r.Target] = r
			} else if r.Phase == fault.Failed {
				t.Fatalf("failed: %+v", r)
			}
		case <-late.C:
			t.Fatalf("reports of %s: %v, want one of each of %v", phase, got, targets)
		}
	}
	return got
}

// rig is an agent within the test: Supervisor and Host.
type rig struct {
	*Host
	sup     *supervise.Supervisor
	dir     string
	reports chan fault.Report
	stop    func()
	stopSup func() // the Supervisor alone
}

func newRig(t *testing.T, dir string, set func(*Config)) *rig {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	sup, err := supervise.New(supervise.Config{Dir: processDir(dir)})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range specs() {
		if err := sup.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	r := &rig{sup: sup, dir: dir, reports: make(chan fault.Report, 100)}
	cfg := Config{
		Dir: undoDir(dir), Site: site, Supervisor: sup,
		Report: func(rs []fault.Report) {
			for _, x := range rs {
				r.reports <- x
			}
		},
		Offset: func() (time.Duration, time.Duration) { return 7 * time.Millisecond, time.Millisecond },
	}
	if set != nil {
		set(&cfg)
	}
	if r.Host, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	hostCtx, stopHost := context.WithCancel(context.Background())
	supCtx, stopSup := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- r.Host.Run(hostCtx) }()
	supEnded := make(chan error, 1)
	go func() { supEnded <- sup.Run(supCtx) }()
	r.stopSup = sync.OnceFunc(func() {
		stopSup()
		if err := <-supEnded; err != nil {
			t.Errorf("Supervisor.Run: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() {
		stopHost()
		if err := <-ended; err != nil {
			t.Errorf("Host.Run: %v", err)
		}
		r.stopSup()
	})
	t.Cleanup(func() {
		r.stop()
		awaitNoWatchdog(t, dir)
		if err := supervise.KillAll(processDir(dir)); err != nil {
			t.Error(err)
		}
	})
	poll(t, "the processes to run", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return allRun(sup) && r.running
	})
	return r
}

func (r *rig) pid(name string) int {
	for _, p := range r.sup.Processes() {
		if p.Name == name {
			return p.PID
		}
	}
	return 0
}

func stateOf(t *testing.T, pid int) byte {
	t.Helper()
	st, err := supervise.ReadStat(pid)
	if err != nil {
		return 0
	}
	return st.State
}

func newOrder(kind fault.Kind) fault.Order {
	return fault.Order{
		ID: "run-1/02-" + string(kind), Run: "run-1", Kind: kind, Site: site, Services: []api.ServiceID{"app"},
		MaxTargets: 2, Lease: fault.MinLease, MaxDuration: time.Minute, Fence: 5,
	}
}
