//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

// moments are the states in which a server is killed, each with how long into it at most: the shortest ones last some 50 ms.
var moments = map[string]time.Duration{
	"Prechecked": 100 * time.Millisecond, "Baseline": 1500 * time.Millisecond, "Injecting": time.Millisecond, "Holding": 3 * time.Second,
	"Reverting": 50 * time.Millisecond, "FailingBack": 3 * time.Second, "Verifying": time.Second,
}

// draw gives the states to hit: those that must be, then random ones up to n.
func draw(rng *rand.Rand, n int, must ...string) []string {
	all := slices.Sorted(maps.Keys(moments))
	for len(must) < n {
		must = append(must, all[rng.IntN(len(all))])
	}
	return must
}

// "SIGKILL of the shipped server binary, by pid, at moments drawn per state from the watch stream, each state from Prechecked to
// Verifying hit (the seed and the table of states hit are printed; a zero fails): never a fault left after its lease + 1 s,
// never a lost or contradictory record, always a closed run with a truthful verdict; checked from /proc and with evidence
// verify." 20 in the soak; in the short list the three states with a fault on.
func TestServerSIGKILLInEveryState(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed, 20))
	all := []string{"Prechecked", "Baseline", "Injecting", "Holding", "Reverting", "FailingBack", "Verifying"}
	want := pick([]string{"Injecting", "Holding", "Reverting"}, all)
	drawn := pick(draw(rng, 3, "Injecting", "Holding", "Reverting"), draw(rng, 20, all...))
	hit, limit := map[string]int{}, pick(8, 40)
	for i := 0; i < len(drawn) && i < limit; i++ {
		state := drawn[i]
		t.Run(state, func(t *testing.T) {
			d := newRig(t).demo(short...)
			found := d.killServerIn(state, time.Duration(rng.Int64N(int64(moments[state])+1)))
			if hit[found]++; found != state && !t.Failed() {
				t.Logf("aimed at %s, hit %s: drawn again", state, found)
				drawn = append(drawn, state)
			}
		})
		if t.Failed() {
			break
		}
	}
	t.Logf("seed %d: server killed in %v", seed, hit)
	for _, s := range want {
		if hit[s] == 0 && !t.Failed() {
			t.Errorf("no server was killed in %s", s)
		}
	}
}

// killServerIn kills the server some time after the run has entered a state and says in which state it was found.
func (d *demoRun) killServerIn(state string, after time.Duration) string {
	t := d.t
	t.Helper()
	s := d.serving()
	server := openPID(t, s.Server.PID)
	d.reach(s, state)
	_ = server.gone(after) // it must not die by itself before its moment
	d.rig.kill(s.Server.PID)
	killed := time.Now()
	if !server.gone(5 * time.Second) {
		t.Fatal("the server lives after SIGKILL")
	}
	d.noFault(killed.Add(lease + time.Second))
	if !d.endWithin(150 * time.Second) {
		t.Fatal("the demo did not end within 150 s after the kill")
	}
	return d.truthful(d.verify(), killed)
}

// reach waits until the run is in a state. Injecting is over before a watch stream can say that it has begun: there the
// first target that dies or stops says it.
func (d *demoRun) reach(s demoState, state string) {
	t := d.t
	t.Helper()
	from := state
	if state == "Injecting" {
		from = "Baseline"
	}
	if !d.watch().entered(from, 90*time.Second) {
		t.Fatalf("the run did not reach %s", from)
	}
	if from == state {
		return
	}
	var pids []int
	for _, i := range s.Sites["eu-west"] {
		pids = append(pids, i.PID, i.SidecarPID)
	}
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		for _, pid := range pids {
			if state, _, ok := stat(pid); !ok || state == 'T' || state == 'Z' {
				return
			}
		}
	}
	t.Fatal("no fault within 30 s")
}

// truthful checks the record of a run that lost its server, and gives the state in which the next server found it.
func (d *demoRun) truthful(records []evidence.Record, killed time.Time) (found string) {
	t := d.t
	t.Helper()
	end := closed(t, records)
	restarted := slices.IndexFunc(records, func(r evidence.Record) bool { return r.Kind == string(record.RunRestarted) })
	if restarted < 0 {
		t.Errorf("no record says that a server took the run over; verdict %s", end.Verdict)
		return ""
	}
	re := payload[record.Restarted](t, records[restarted])
	found = re.Found
	injectedBefore := false
	for i, r := range records {
		if r.RunSeq != int64(i) {
			t.Errorf("record %d has number %d in the run, want %d", r.Index, r.RunSeq, i)
		}
		if r.Kind != string(record.RunIntent) || payload[record.Intent](t, r).What != "inject" {
			continue
		}
		if i < restarted {
			injectedBefore = true
		} else if injectedBefore {
			t.Errorf("record %d: a fault was ordered again after the server was lost", r.Index)
		}
	}
	t.Logf("found in %s after %v without a server: %s (%s), restored %t, %d records", re.Found, re.Gap.Round(time.Millisecond), end.Verdict, end.Reason, end.Restored, len(records))
	switch {
	case injectedBefore && end.Verdict != "aborted":
		t.Errorf("verdict %s (%s) of a run that lost its server with faults ordered, want aborted", end.Verdict, end.Reason)
	case !injectedBefore && end.Verdict != "aborted" && end.Verdict != "passed":
		t.Errorf("verdict %s (%s), want aborted or, begun again, passed", end.Verdict, end.Reason)
	}
	if !end.Restored {
		t.Error("the run says that it was not restored; /proc says that it was")
	}
	wantStatus := map[string]int{"aborted": 5, "passed": 0}[end.Verdict]
	if got := d.cmd.ProcessState.ExitCode(); got != wantStatus {
		t.Errorf("the demo ended with status %d after a run that was %s, want %d", got, end.Verdict, wantStatus)
	}
	return found
}

// "... and of an agent at 5 (2 in CI)": the watchdog ends the fault.
func TestAgentSIGKILL(t *testing.T) {
	rng := rand.New(rand.NewPCG(seed, 5))
	for _, state := range pick([]string{"Injecting", "Holding"}, []string{"Baseline", "Injecting", "Holding", "Reverting", "FailingBack"}) {
		t.Run(state, func(t *testing.T) {
			kind := []string{"kill", "pause"}[rng.IntN(2)]
			d := newRig(t).demo(append(short, "--set", "fault="+kind)...)
			s := d.serving()
			pid := s.Agents["eu-west"].PID
			d.reach(s, state)
			_ = openPID(t, pid).gone(time.Duration(rng.Int64N(int64(moments[state]) + 1)))
			d.rig.kill(pid)
			if state != "Baseline" { // there the fault is still to come
				d.noFault(time.Now().Add(lease + time.Second))
			}
			if !d.endWithin(150 * time.Second) {
				t.Fatal("the demo did not end within 150 s after the kill")
			}
			records := d.verify()
			end := closed(t, records)
			early := endedEarly(t, records)
			t.Logf("fault %s: %s (%s), restored %t, %d targets ended by the watchdog or a lease during the fault", kind, end.Verdict, end.Reason, end.Restored, early)
			if early > 0 && end.Verdict == "passed" {
				t.Errorf("verdict passed, but the fault ended early on %d targets: the hold was not what was approved", early)
			}
			if !end.Restored {
				t.Errorf("the run says that it was not restored; /proc says that it was")
			}
			if end.Verdict == "dirty" {
				t.Errorf("verdict dirty (%s) though every fault has ended", end.Reason)
			}
		})
	}
}

// endedEarly counts targets whose fault ended before the run withdrew it.
func endedEarly(t *testing.T, records []evidence.Record) (n int) {
	t.Helper()
	reverting := entered(t, records, "Reverting")
	for _, r := range records {
		if r.Kind != string(record.FaultEnded) {
			continue
		}
		rep := payload[fault.Report](t, r)
		if rep.EndedBy != fault.ByRevert && (reverting.IsZero() || rep.After.Before(reverting)) {
			n++
		}
	}
	return n
}

// "server-kill: the server is started again only after the fault was seen to end without it, within lease + 1 s."
func TestServerKill(t *testing.T) {
	d := newRig(t).demo(append(short, "--scenario", "server-kill")...)
	s := d.serving()
	server := openPID(t, s.Server.PID)
	o := d.observe("--rate", "payments=100", "--after", "4s")
	if !server.gone(60 * time.Second) {
		t.Fatal("the server was not killed")
	}
	death := time.Now()
	if left := d.faulty(); len(left) != len(euWest) {
		t.Errorf("when the server died, the fault was on %d of %d processes", len(left), len(euWest))
	}
	d.noFault(death.Add(lease + time.Second))
	ended := time.Now()
	t.Logf("the fault ended %.2f s after the server's death (lease %v)", ended.Sub(death).Seconds(), lease)
	var next int
	d.rig.await(30*time.Second, "the next server", func() bool {
		for _, p := range d.marked() {
			if len(p.args) > 1 && p.args[1] == "server" && p.pid != s.Server.PID {
				next = p.pid
			}
		}
		return next != 0
	})
	lived := began(t, next)
	t.Logf("the server was started again %.2f s after its death", lived.Sub(death).Seconds())
	if !lived.After(ended) {
		t.Errorf("the server was started again %.3f s before the fault was seen to end", ended.Sub(lived).Seconds())
	}
	o.result()
	served, failed := 0, 0
	for _, x := range o.shots("payments") {
		if x.Intended.After(death) && x.Intended.Before(lived) {
			if served++; x.Class != "ok" && x.Class != "retriedOk" {
				failed++
			}
		}
	}
	t.Logf("without a server: %d requests, %d failed", served, failed)
	if served < 400 || failed > 0 {
		t.Errorf("without a server %d requests were sent and %d failed, want at least 400 and none", served, failed)
	}
	d.exit(100*time.Second, 0) // aborted is what the scenario declares
	if end := closed(t, d.verify()); end.Verdict != "aborted" || !end.Restored {
		t.Errorf("run closed as %s (%s), restored %t; want aborted, restored", end.Verdict, end.Reason, end.Restored)
	}
}

// "Ctrl-C in any state restores, cleans up and exits 130."
func TestInterrupt(t *testing.T) {
	for _, state := range []string{"Baseline", "Holding"} {
		t.Run(state, func(t *testing.T) {
			d := newRig(t).demo(short...)
			d.serving()
			if !d.watch().entered(state, 60*time.Second) {
				t.Fatalf("the run did not reach %s", state)
			}
			d.signal(syscall.SIGINT)
			if state == "Holding" {
				d.noFault(time.Now().Add(lease + time.Second))
			}
			d.exit(60*time.Second, 130)
			if end := closed(t, d.verify()); end.Verdict != "aborted" || !end.Restored {
				t.Errorf("run closed as %s (%s), restored %t; want aborted, restored", end.Verdict, end.Reason, end.Restored)
			}
			if !strings.Contains(d.text("err"), "interrupted") {
				t.Error("the demo does not say that it was interrupted")
			}
		})
	}
}

// "A SIGKILLed demo leaves nothing running", stopped processes neither.
func TestSIGKILLedDemoLeavesNothing(t *testing.T) {
	for _, fault := range []string{"pause", "kill"} {
		t.Run(fault, func(t *testing.T) {
			d := newRig(t).demo(append(short, "--set", "fault="+fault)...)
			d.serving()
			if !d.watch().entered("Holding", 60*time.Second) {
				t.Fatal("the run did not reach Holding")
			}
			d.rig.kill(d.cmd.Process.Pid)
			var left []string
			for _, p := range d.leftovers(lease + 10*time.Second) {
				left = append(left, fmt.Sprintf("%d %c %s", p.pid, p.state, p.command))
			}
			if len(left) > 0 {
				t.Errorf("%d processes outlive a killed demo:\n%s", len(left), strings.Join(left, "\n"))
			}
		})
	}
}
