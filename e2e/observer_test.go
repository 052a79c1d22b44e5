//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/report"
)

// observed is what the observer writes.
type observed struct {
	*proc
	Target    string
	How       string
	TI        *span
	HoldEnd   *time.Time
	Sightings []struct {
		Target, How string
		PID         int
		Seen        span
		Back        *span
	}
	Services []struct {
		Service            string
		Rate               float64
		Result             string
		TR                 *time.Time
		RTASeconds         float64
		UncertaintySeconds float64
		Sent               int
		Classes            map[string]int
	}
}

type span struct{ From, To time.Time }

// shot is one sample of the observer's own log.
type shot struct {
	ID, Service, Class, Site, Error string
	Intended, Sent, Ended           time.Time
}

// observe starts the observer beside the demo.
func (d *demoRun) observe(args ...string) *observed {
	d.t.Helper()
	return &observed{proc: d.rig.start("observer", built.observer, append([]string{"--demo", filepath.Join(d.home, "demo.json"), "--timeout", "100s",
		"--out", filepath.Join(d.dir, "observed.json"), "--log", filepath.Join(d.dir, "observed.jsonl")}, args...)...)}
}

// result waits for the observer's end and reads what it saw.
func (o *observed) result() {
	t := o.r.t
	t.Helper()
	o.exit(110*time.Second, 0)
	b, err := os.ReadFile(filepath.Join(o.r.dir, "observed.json"))
	if err == nil {
		err = json.Unmarshal(b, o)
	}
	if err != nil {
		t.Fatal(err)
	}
	if o.TI == nil || o.HoldEnd == nil {
		t.Fatalf("the observer saw no fault or not its end: %s", b)
	}
	for _, s := range o.Services {
		sum := 0
		for _, n := range s.Classes {
			sum += n
		}
		if sum != s.Sent {
			t.Errorf("observer: classes of %s add up to %d of %d sent", s.Service, sum, s.Sent)
		}
	}
}

func (o *observed) shots(service string) (out []shot) {
	f, err := os.Open(filepath.Join(o.r.dir, "observed.jsonl"))
	if err != nil {
		o.r.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var s shot
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			o.r.t.Fatal(err)
		}
		if s.Service == service {
			out = append(out, s)
		}
	}
	return out
}

// "|RTA(livefire) - RTA(observer, same definition)| is at most 10 ms + both probe intervals"; "a stated uncertainty over 50 ms
// fails"; "the account adds up exactly, unknown is 0, and ids executed twice are counted from the services' own files".
func TestObserverAgrees(t *testing.T) {
	for _, fault := range pick([]string{"kill"}, []string{"kill", "kill", "kill", "kill", "kill", "pause", "pause", "pause", "pause", "pause"}) {
		t.Run(fault, func(t *testing.T) {
			d := newRig(t).demo(append(short, "--set", "fault="+fault)...)
			o := d.observe("--rate", "payments=100,orders=70")
			o.result()
			d.exit(100*time.Second, 0)
			d.verify()
			rep := d.report()
			for _, s := range o.Services {
				d.agrees(rep, s.Service, s.Result, s.RTASeconds, time.Duration(float64(time.Second)/s.Rate))
			}
			orders := serviceOf(t, rep, "orders")
			if orders.RTA == nil || *orders.RTA < 1 {
				t.Errorf("orders: RTA %v, want more than 1 s: only the decision may move it", orders.RTA)
			}
			keepBundle(d)
		})
	}
}

func (d *demoRun) agrees(rep report.Report, service, result string, rta float64, interval time.Duration) {
	t := d.t
	s := serviceOf(t, rep, service)
	own := probeInterval[service]
	if s.RTA == nil {
		t.Errorf("%s: no RTA (%s %s)", service, s.Result, s.Why)
		return
	}
	tolerance := (10*time.Millisecond + own + interval).Seconds()
	diff := math.Abs(*s.RTA - rta)
	t.Logf("%s: livefire %s %.4f s ± %.4f s, observer %s %.4f s, apart %.4f s (at most %.4f s)", service, s.Result, *s.RTA, s.Epsilon, result, rta, diff, tolerance)
	if diff > tolerance || s.Result != result {
		t.Errorf("%s: livefire says %s after %.4f s, the observer %s after %.4f s", service, s.Result, *s.RTA, result, rta)
	}
	if s.Epsilon > 0.05 {
		t.Errorf("%s: stated uncertainty %.4f s, at most 0.05 s", service, s.Epsilon)
	}
	d.accounted(rep, s)
}

// accounted checks the account's sum, and counts executions from the services' own files.
func (d *demoRun) accounted(rep report.Report, s report.Service) {
	t := d.t
	t.Helper()
	a := s.Account
	if sum := a.OK + a.RetriedOK + a.Slow + a.Shed + a.Unknown + a.Failed.Sum(); sum != a.Sent || a.Sent == 0 {
		t.Errorf("%s: the classes add up to %d of %d sent", s.Service, sum, a.Sent)
	}
	if a.Unknown != 0 {
		t.Errorf("%s: %d samples unknown", s.Service, a.Unknown)
	}
	times := map[string]int{}
	for _, site := range []string{"eu-west", "us-east"} {
		for id, n := range d.executed(site, string(s.Service)) {
			times[id] += n
		}
	}
	twice, seen := 0, 0
	for id, n := range times {
		if len(id) > 4 && id[:4] != "obs-" && id[:min(len(id), len(rep.Run.ID))] == rep.Run.ID {
			seen++
			if n > 1 {
				twice++
			}
		}
	}
	if twice != a.ExecutedTwice {
		t.Errorf("%s: the services' files have %d ids twice, the report says %d", s.Service, twice, a.ExecutedTwice)
	}
	if answered := a.OK + a.RetriedOK + a.Slow; seen < answered {
		t.Errorf("%s: the services' files have %d ids of the run, %d were answered", s.Service, seen, answered)
	}
}

var probeInterval = map[string]time.Duration{"payments": 5 * time.Millisecond, "orders": 10 * time.Millisecond}

// pick is the short list, or the long one in a soak.
func pick[T any](few, many T) T {
	if soak {
		return many
	}
	return few
}

// "Site loss, payments, 500 requests/s GET with ?delay=20ms: 0 failed".
func TestSiteLossLosesNothing(t *testing.T) {
	for range pick([]int{1}, []int{1, 2, 3, 4, 5}) {
		t.Run("run", func(t *testing.T) {
			d := newRig(t).demo(append(short, "--set", "rate.payments=100")...)
			o := d.observe("--rate", "payments=500", "--path", "payments=/?delay=20ms")
			o.result()
			d.exit(150*time.Second, 0)
			shots := o.shots("payments")
			d.nothingLost(o, shots)
			d.undrained(o)
			d.answeredByStandby(o, shots)
		})
	}
}

func (d *demoRun) nothingLost(o *observed, shots []shot) {
	t := d.t
	failed, inFlight, late := 0, 0, time.Duration(0)
	for _, s := range shots {
		late = max(late, s.Sent.Sub(s.Intended)) // of the observer itself: says how busy the machine was
		if s.Class != "ok" && s.Class != "retriedOk" {
			if failed++; failed <= 10 {
				t.Errorf("%s due %s (fault %+.3f s): %s %s", s.ID, s.Intended.Format(time.RFC3339Nano), s.Intended.Sub(o.TI.From).Seconds(), s.Class, s.Error)
			}
		}
		if s.Sent.Before(o.TI.From) && s.Ended.After(o.TI.To) {
			inFlight++
		}
	}
	t.Logf("%d sent (at most %v late), %d failed, %d in flight when the first target died", len(shots), late, failed, inFlight)
	if failed > 0 {
		t.Errorf("%d of %d requests failed", failed, len(shots))
	}
	if inFlight == 0 {
		t.Error("no request was in flight at the kill: this run shows nothing")
	}
	var first, last time.Time
	for _, s := range o.Sightings {
		if s.How != "gone" {
			t.Errorf("%s was %s, want gone", s.Target, s.How)
		}
		if first.IsZero() || s.Seen.To.Before(first) {
			first = s.Seen.To
		}
		if s.Seen.To.After(last) {
			last = s.Seen.To
		}
	}
	t.Logf("%d targets gone within %v", len(o.Sightings), last.Sub(first))
	if len(o.Sightings) != len(euWest) || last.Sub(first) > 50*time.Millisecond {
		t.Errorf("%d targets gone within %v, want %d within 50 ms", len(o.Sightings), last.Sub(first), len(euWest))
	}
}

// undrained: nothing prepared the site for its loss.
func (d *demoRun) undrained(o *observed) {
	records := d.verify()
	baseline := entered(d.t, records, "Baseline")
	if baseline.IsZero() || !baseline.Before(o.TI.From) {
		d.t.Fatalf("baseline at %v, fault at %v", baseline, o.TI.From)
	}
	for _, r := range records {
		if r.Kind == string(record.TableCommitted) && r.At.After(baseline) && r.At.Before(o.TI.To) {
			tbl := payload[record.Table](d.t, r)
			d.t.Errorf("record %d: table epoch %d (%s) between baseline and kill", r.Index, tbl.Epoch, tbl.Reason)
		}
	}
}

func (d *demoRun) answeredByStandby(o *observed, shots []shot) {
	t := d.t
	standby := d.executed("us-east", "payments")
	before, after := 0, 0
	for _, s := range shots {
		if s.Site != "us-east" {
			continue
		}
		if s.Ended.Before(o.TI.From) {
			before++
		} else {
			after++
		}
		if standby[s.ID] == 0 {
			t.Errorf("%s says us-east, but no file there has it", s.ID)
		}
	}
	if before > 0 || after == 0 {
		t.Errorf("us-east answered %d before the fault and %d after it, want 0 and some", before, after)
	}
}

// "Site pause: /proc/PID/stat says T for all; good again within 3 s."
func TestSitePause(t *testing.T) {
	// A longer hold than the others': orders need up to 3.5 s on a busy machine, and a window of good requests after that.
	d := newRig(t).demo(append(short, "--set", "fault=pause", "--set", "hold=6s")...)
	state := d.serving()
	o := d.observe("--rate", "payments=100,orders=70")
	watch := d.watch()
	if !watch.entered("Holding", 60*time.Second) {
		t.Fatal("the run did not reach Holding within 60 s")
	}
	for _, i := range state.Sites["eu-west"] {
		for _, pid := range []int{i.PID, i.SidecarPID} {
			if s, _, ok := stat(pid); !ok || s != 'T' {
				t.Errorf("%s: /proc/%d/stat says %c during the hold, want T", i.Name, pid, s)
			}
		}
	}
	o.result()
	d.noFault(time.Now().Add(time.Second))
	for _, i := range state.Sites["eu-west"] {
		if _, _, ok := stat(i.PID); !ok {
			t.Errorf("%s: pid %d is gone after a pause", i.Name, i.PID)
		}
	}
	if len(o.Sightings) != len(euWest) {
		t.Errorf("the observer saw %d targets, want %d", len(o.Sightings), len(euWest))
	}
	for _, s := range o.Sightings {
		if s.How != "stopped" {
			t.Errorf("%s was %s, want stopped", s.Target, s.How)
		}
	}
	for _, s := range o.Services {
		t.Logf("%s: %s after %.3f s ± %.3f s, %v", s.Service, s.Result, s.RTASeconds, s.UncertaintySeconds, s.Classes)
		if s.Service == "payments" && (s.Result != "absorbed" && s.Result != "recovered" || s.RTASeconds > 3) {
			t.Errorf("payments: %s after %.3f s, want good again within 3 s", s.Result, s.RTASeconds)
		}
	}
	d.exit(100*time.Second, 0)
	d.verify()
}
