package hostfault

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
)

// An agent, SIGKILL while a fault is on: the watchdog reverts the fault within lease TTL + 1 s, and the next agent
// adopts what runs and reports it.
func TestWatchdogRevertsWhenTheAgentIsKilled(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Kill, fault.Pause} {
		t.Run(string(kind), func(t *testing.T) {
			dir := t.TempDir()
			o := newOrder(kind)
			o.Lease = 3 * time.Second
			agent := startAgent(t, agentOrder{Dir: dir, Order: o}, nil)
			applied := next(t, agent.reports, fault.Applied, names...)
			killed := time.Now()
			if err := agent.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			var pids []int
			for _, n := range names {
				poll(t, n+" to run again", func() bool {
					hd, err := supervise.Find(processDir(dir), n)
					if err != nil {
						return false
					}
					defer hd.Close()
					if stateOf(t, hd.PID) == 'T' {
						return false
					}
					pids = append(pids, hd.PID)
					return true
				})
			}
			if took := time.Since(killed); took > o.Lease+time.Second {
				t.Errorf("reverted after %v, want at most %v", took, o.Lease+time.Second)
			}
			awaitNoWatchdog(t, dir)
			r := newRig(t, dir, nil)
			for i, n := range names {
				x := next(t, r.reports, fault.Reverted, n)[n]
				if x.EndedBy != fault.ByWatchdog || !x.Proven() || x.PID != pids[i] {
					t.Errorf("report of %s = %+v, want pid %d by the watchdog", n, x, pids[i])
				}
				if x.Before.Before(applied[n].After) || x.After.Before(x.Before) {
					t.Errorf("revert of %s between %v and %v, want after the fault at %v", n, x.Before, x.After, applied[n].After)
				}
				if r.pid(n) != pids[i] {
					t.Errorf("%s has pid %d, want the adopted %d", n, r.pid(n), pids[i])
				}
				if r.pid(n) == applied[n].PID != (kind == fault.Pause) {
					t.Errorf("%s: pid %d before and %d after a %s", n, applied[n].PID, r.pid(n), kind)
				}
			}
		})
	}
}

// A crash between the record and the effect: the record alone must lead back to a clean state.
func TestCrashBetweenRecordAndEffectIsReverted(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Kill, fault.Pause} {
		t.Run(string(kind), func(t *testing.T) {
			dir := t.TempDir()
			o := newOrder(kind)
			agent := startAgent(t, agentOrder{Dir: dir, Order: o, CrashArm: true}, nil)
			awaitEnded(t, dir, o.ID)
			agent.Wait()
			r := newRig(t, dir, nil)
			for n, x := range next(t, r.reports, fault.Reverted, names...) {
				if !x.Proven() || stateOf(t, r.pid(n)) == 'T' || x.PID != r.pid(n) {
					t.Errorf("report of %s = %+v, pid %d", n, x, r.pid(n))
				}
			}
		})
	}
}

func awaitEnded(t *testing.T, dir, id string) record {
	t.Helper()
	var r record
	poll(t, "the record to say ended", func() bool {
		var err error
		r, err = journal{undoDir(dir)}.read(id)
		return err == nil && r.Stage == stageEnded
	})
	return r
}

// Without a watchdog, the next agent does it: a record without a live agent is a fault to be reverted.
func TestNextAgentRevertsWhatNobodyHas(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Kill, fault.Pause} {
		t.Run(string(kind), func(t *testing.T) {
			dir := t.TempDir()
			o := newOrder(kind)
			o.Lease = 30 * time.Second
			agent := startAgent(t, agentOrder{Dir: dir, Order: o}, nil)
			next(t, agent.reports, fault.Applied, names...)
			for _, pid := range watchdogs(dir) { // stopped: it can neither act nor be started again
				if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { unix.Kill(pid, unix.SIGCONT) })
			}
			if err := agent.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, dir, nil)
			for n, x := range next(t, r.reports, fault.Reverted, names...) {
				if x.EndedBy != fault.ByWatchdog || !strings.Contains(x.Reason, "next agent") || stateOf(t, r.pid(n)) == 'T' {
					t.Errorf("report of %s = %+v", n, x)
				}
			}
			for _, pid := range watchdogs(dir) {
				unix.Kill(pid, unix.SIGCONT)
			}
			awaitNoWatchdog(t, dir) // it finds nothing to do, though another agent lives
		})
	}
}

// A frozen agent renews no lease and ends none: the watchdog acts in its place. Thawed, the agent starts nothing twice.
func TestWatchdogEndsTheFaultOfAFrozenAgent(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Kill, fault.Pause} {
		t.Run(string(kind), func(t *testing.T) {
			dir := t.TempDir()
			o := newOrder(kind)
			o.Lease = 1500 * time.Millisecond
			ordered := time.Now()
			agent := startAgent(t, agentOrder{Dir: dir, Order: o}, nil)
			applied := next(t, agent.reports, fault.Applied, names...)
			if err := agent.Process.Signal(unix.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			rec := awaitEnded(t, dir, o.ID)
			if rec.EndedBy != fault.ByWatchdog {
				t.Errorf("ended by %s, want the watchdog", rec.EndedBy)
			}
			received := rec.Received
			for _, x := range rec.Reports {
				if x.Phase != fault.Reverted {
					continue
				}
				if held := x.After.Sub(received); held > o.Lease+time.Second || x.Before.Sub(ordered) < o.Lease {
					t.Errorf("%s reverted after %v, want between %v and a second more", x.Target, held, o.Lease)
				}
			}
			if err := agent.Process.Signal(unix.SIGCONT); err != nil {
				t.Fatal(err)
			}
			for n, x := range next(t, agent.reports, fault.Reverted, names...) {
				if x.EndedBy != fault.ByWatchdog {
					t.Errorf("report of %s = %+v, want by the watchdog", n, x)
				}
				hd, err := supervise.Find(processDir(dir), n)
				if err != nil {
					t.Fatal(err)
				}
				defer hd.Close()
				if hd.PID != x.PID || stateOf(t, hd.PID) == 'T' || hd.PID == applied[n].PID != (kind == fault.Pause) {
					t.Errorf("%s: state file names pid %d, report %d", n, hd.PID, x.PID)
				}
			}
		})
	}
}

func TestDeadWatchdogIsStartedAgain(t *testing.T) {
	r := newRig(t, "", func(c *Config) { c.Watchdog = watchdogCommand() })
	var first []int
	poll(t, "the watchdog", func() bool { first = watchdogs(r.dir); return len(first) == 1 })
	if err := unix.Kill(first[0], unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	poll(t, "another watchdog", func() bool {
		w := watchdogs(r.dir)
		return len(w) == 1 && w[0] != first[0]
	})
}

// An agent of a demo is killed and not replaced: its processes go on, and still end with the demo.
func TestWatchdogGuardsTheProcessesOfADeadAgent(t *testing.T) {
	rd, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer wr.Close()
	dir := t.TempDir()
	o := newOrder(fault.Kill)
	agent := startAgent(t, agentOrder{Dir: dir, Order: o, Lifetime: true}, rd)
	rd.Close()
	next(t, agent.reports, fault.Applied, names...)
	if err := agent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitEnded(t, dir, o.ID)
	for _, n := range names {
		hd, err := supervise.Find(processDir(dir), n)
		if err != nil {
			t.Fatalf("%s does not run after the revert: %v", n, err)
		}
		hd.Close()
	}
	if n := len(watchdogs(dir)); n != 1 {
		t.Errorf("%d watchdogs, want one that stays", n)
	}
	wr.Close()
	awaitNoWatchdog(t, dir)
	if supervise.AnyRuns(processDir(dir)) {
		t.Error("processes stay behind")
	}
}

// The demo is killed: nothing stays behind, neither a stopped process, nor one that was held down.
func TestEndOfLifetimePipeLeavesNothingBehind(t *testing.T) {
	for _, kind := range []fault.Kind{fault.Kill, fault.Pause} {
		for _, agentDies := range []bool{false, true} {
			name := string(kind) + ", agent lives"
			if agentDies {
				name = string(kind) + ", agent dies too"
			}
			t.Run(name, func(t *testing.T) {
				rd, wr, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				dir := t.TempDir()
				o := newOrder(kind)
				o.Lease = 30 * time.Second
				agent := startAgent(t, agentOrder{Dir: dir, Order: o, Lifetime: true}, rd)
				rd.Close()
				next(t, agent.reports, fault.Applied, names...)
				wr.Close()
				if agentDies {
					if err := agent.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				}
				awaitNoWatchdog(t, dir)
				for _, n := range names {
					if hd, err := supervise.Find(processDir(dir), n); err == nil {
						t.Errorf("%s still runs: %s", n, hd)
						hd.Close()
					}
				}
			})
		}
	}
}
