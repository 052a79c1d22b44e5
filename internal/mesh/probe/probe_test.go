package probe

import (
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// No coordinated omission: a service that stands still for a second shows in every sample that was due meanwhile, each
// counted from the moment at which it was due.
func TestStallShowsInEverySampleDueMeanwhile(t *testing.T) {
	const rate, stall = 200, time.Second
	var gate sync.RWMutex
	seen := newIDs()
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen.add(r)
		gate.RLock()
		defer gate.RUnlock()
	})
	s := newSink(t)
	p, _ := begin(t, Config{Target: target, Upload: s.upload})
	if err := p.Start(order(rate, time.Minute)); err != nil {
		t.Fatal(err)
	}
	seen.until(t, rate/2)
	gate.Lock()
	from := time.Now()
	wait(t, stall)
	to := time.Now()
	gate.Unlock()
	seen.until(t, len(seen.count())+rate/2)
	p.Stop(order(rate, 0).ID)

	all := s.all()
	inside := find(all, func(x sample.Sample) bool { return x.Intended.After(from) && x.Intended.Before(to) })
	want := to.Sub(from).Seconds() * rate
	if n := float64(len(inside)); n < want-1 || n > want+1 {
		t.Errorf("%v samples were due during a stall of %v, want %v", n, to.Sub(from), want)
	}
	for _, x := range inside {
		if end := x.Intended.Add(x.End); end.Before(to) {
			t.Errorf("sample %d, due %v before the end of the stall, took only %v", x.Seq, to.Sub(x.Intended), x.End)
		}
	}
	if got := classes(all); got[sample.OK] != len(all) {
		t.Errorf("classes = %v, want all ok", got)
	}
	if n := len(seen.count()); n != len(all) {
		t.Errorf("server saw %d requests, probe sent %d", n, len(all))
	}
}

func TestSampleBeyondTheCapIsRecordedNotSkipped(t *testing.T) {
	target := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := newSink(t)
	p, _ := begin(t, Config{Target: target, Upload: s.upload, MaxInFlight: 2})
	o := order(50, 400*time.Millisecond)
	o.Timeout = 300 * time.Millisecond
	if err := p.Start(o); err != nil {
		t.Fatal(err)
	}
	all := s.all()
	if want := int((o.Lease-headStart).Seconds()*o.Rate) + 1; len(all) != want {
		t.Errorf("%d samples, want %d", len(all), want)
	}
	waited := 0
	for _, x := range all {
		if x.Class != sample.Timeout || x.End < o.Timeout {
			t.Errorf("sample %d: %s after %v, want a timeout after at least %v", x.Seq, x.Class, x.End, o.Timeout)
		}
		if x.Start > o.Timeout/2 { // a slot is free only when an earlier request has timed out
			waited++
		}
	}
	if want := len(all) - 3; waited < want {
		t.Errorf("%d samples were held back by the cap, want at least %d", waited, want)
	}
}

func TestProbeEndsWithItsLeaseAndStaysEnded(t *testing.T) {
	target := serve(t, func(http.ResponseWriter, *http.Request) {})
	s := newSink(t)
	dir := t.TempDir()
	p, stop := begin(t, Config{Dir: dir, Target: target, Upload: s.upload})
	o := order(100, 1200*time.Millisecond)
	ordered := time.Now()
	if err := p.Start(o); err != nil {
		t.Fatal(err)
	}
	if err := p.Start(o); err != nil {
		t.Errorf("the same order again: %v, want nil", err)
	}
	if d := cmp.Diff([]string{o.ID}, p.Active()); d != "" {
		t.Errorf("active (-want +got):\n%s", d)
	}
	wait(t, 600*time.Millisecond)
	if err := p.Renew(o.ID); err != nil {
		t.Fatal(err)
	}
	renewed := time.Now()
	all := s.all()
	last := all[len(all)-1].Intended
	if end := renewed.Add(o.Lease); last.After(end) || last.Before(end.Add(-100*time.Millisecond)) {
		t.Errorf("last sample due %v after the order, want just before %v", last.Sub(ordered), end.Sub(ordered))
	}
	if len(p.Active()) != 0 {
		t.Errorf("active = %v, want none", p.Active())
	}
	for name, err := range map[string]error{"Renew": p.Renew(o.ID), "Start": p.Start(o)} {
		if api.KindOf(err) != api.Conflict {
			t.Errorf("%s after the end: %v, want Conflict", name, err)
		}
	}
	if got := api.KindOf(p.Renew("other/payments")); got != api.NotFound {
		t.Errorf("Renew of an unknown probe = %q, want NotFound", got)
	}
	stop()
	again, err := New(Config{Dir: dir, Target: target, Upload: s.upload})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Start(o); api.KindOf(err) != api.Conflict {
		t.Errorf("Start in the next process: %v, want Conflict", err)
	}
}

func TestUploadIsRetriedInOrderUntilItSucceeds(t *testing.T) {
	target := serve(t, func(http.ResponseWriter, *http.Request) {})
	s := newSink(t)
	s.fail = func(chunk int64, attempt int) (error, bool) {
		switch {
		case chunk == 0 && attempt <= 3:
			return api.Errorf(api.Unavailable, "server", "down"), false
		case chunk == 1 && attempt == 1:
			return errors.New("the answer got lost"), true
		}
		return nil, true
	}
	dir := t.TempDir()
	p, stop := begin(t, Config{Dir: dir, Target: target, Upload: s.upload})
	if err := p.Start(order(20, 2300*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	s.all()
	stop()
	if s.attempts[0] != 4 || s.attempts[1] != 2 {
		t.Errorf("attempts = %v, want 4 for chunk 0 and 2 for chunk 1", s.attempts)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*", "*"+suffix)); err != nil || len(left) != 0 {
		t.Errorf("the spool still holds %v, %v", left, err)
	}
}

func TestRefusedChunkDoesNotHoldUpTheOthers(t *testing.T) {
	target := serve(t, func(http.ResponseWriter, *http.Request) {})
	s := newSink(t)
	s.fail = func(chunk int64, _ int) (error, bool) {
		if chunk == 0 {
			return api.Errorf(api.Conflict, "chunk 0", "other bytes are there"), false
		}
		return nil, true
	}
	dir := t.TempDir()
	p, stop := begin(t, Config{Dir: dir, Target: target, Upload: s.upload})
	if err := p.Start(order(20, 1300*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	<-s.last
	stop()
	if left, err := filepath.Glob(filepath.Join(dir, "*", refusedPrefix+"*")); err != nil || len(left) != 1 {
		t.Errorf("refused chunks = %v, %v; want one, put aside", left, err)
	}
}

// The prober is killed while requests hang. What had ended is kept, what hung is unknown, and every request that the
// server has seen is in the account.
func TestKilledProberLeavesNoSampleUnaccounted(t *testing.T) {
	seen := newIDs()
	const hangFrom = 60 // rate is 50/s: in the second chunk
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if seen.add(r) > hangFrom {
			<-r.Context().Done()
		}
	})
	url, _ := target("")
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], dir, url)
	cmd.Env = append(os.Environ(), roleEnv+"=prober")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	seen.until(t, hangFrom+30)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()

	s := newSink(t)
	p, _ := begin(t, Config{Dir: dir, Target: target, Upload: s.upload})
	p.Stop(order(1, 1).ID) // the drill is over when the next agent comes
	all := s.all()
	byID := map[string]sample.Class{}
	for _, x := range all {
		byID[x.Request] = x.Class
	}
	got := classes(all)
	if got[sample.OK] != hangFrom || got[sample.OK]+got[sample.Unknown] != len(all) {
		t.Errorf("classes = %v, want %d ok and the rest unknown", got, hangFrom)
	}
	requests := seen.count()
	for id := range requests {
		if byID[id] == "" {
			t.Errorf("the server saw %s, no sample says so", id)
		}
	}
	// The spool looks ahead, and the server may be behind.
	if extra := len(all) - len(requests); extra < 0 || extra > 50 {
		t.Errorf("%d samples for %d requests", len(all), len(requests))
	}
}

func TestProbeGoesOnAfterARestartWithinItsLease(t *testing.T) {
	seen := newIDs()
	target := serve(t, func(w http.ResponseWriter, r *http.Request) { seen.add(r) })
	s := newSink(t)
	dir := t.TempDir()
	o := order(50, 30*time.Second)
	p, stop := begin(t, Config{Dir: dir, Target: target, Upload: s.upload})
	if err := p.Start(o); err != nil {
		t.Fatal(err)
	}
	seen.until(t, 70)
	stop()
	away := time.Now()
	wait(t, 700*time.Millisecond)
	again, _ := begin(t, Config{Dir: dir, Target: target, Upload: s.upload})
	if got := again.Active(); len(got) != 0 {
		t.Errorf("active before it is ordered again = %v, want none", got)
	}
	back := time.Now()
	if err := again.Start(o); err != nil {
		t.Fatal(err)
	}
	other := o
	other.Rate = 1
	if err := again.Start(other); api.KindOf(err) != api.Conflict {
		t.Errorf("another order under the same id: %v, want Conflict", err)
	}
	seen.until(t, len(seen.count())+60)
	again.Stop(o.ID)
	all := s.all()
	for _, x := range all {
		if x.Intended.After(away) && x.Intended.Before(back) && x.Class != sample.Unknown {
			t.Errorf("sample %d, due while nobody was there, is %s", x.Seq, x.Class)
		}
		if (x.Intended.Before(away.Add(-500*time.Millisecond)) || x.Intended.After(back.Add(500*time.Millisecond))) && x.Class != sample.OK {
			t.Errorf("sample %d is %s, want ok", x.Seq, x.Class)
		}
	}
	gap := find(all, func(x sample.Sample) bool { return x.Class == sample.Unknown })
	if len(gap) < 30 {
		t.Errorf("%d samples are unknown, want those of %v", len(gap), back.Sub(away))
	}
}

func TestInterruptedProbeIsClosedWhenItsLeaseEnds(t *testing.T) {
	target := serve(t, func(http.ResponseWriter, *http.Request) {})
	s := newSink(t)
	dir := t.TempDir()
	o := order(50, 1500*time.Millisecond)
	p, stop := begin(t, Config{Dir: dir, Target: target, Upload: s.upload})
	if err := p.Start(o); err != nil {
		t.Fatal(err)
	}
	ordered := time.Now()
	wait(t, 300*time.Millisecond)
	stop()
	begin(t, Config{Dir: dir, Target: target, Upload: s.upload})
	all := s.all()
	if took := time.Since(ordered); took < o.Lease-100*time.Millisecond {
		t.Errorf("closed after %v, want not before its lease of %v", took, o.Lease)
	}
	if n := len(all); n < 10 || n > 50 {
		t.Errorf("%d samples, want those of the 300 ms in which it ran", n)
	}
}

func TestHeadersOfAChunkCarryTheClock(t *testing.T) {
	target := serve(t, func(http.ResponseWriter, *http.Request) {})
	s := newSink(t)
	p, _ := begin(t, Config{Target: target, Upload: s.upload,
		Offset: func() (time.Duration, time.Duration) { return -3 * time.Millisecond, time.Millisecond }})
	if err := p.Start(order(7.5, 200*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	s.all()
	want := sample.Header{
		Format: sample.Format, Order: "pay-20260101-1/payments", Service: "payments", From: "eu", Rate: 7.5,
		Offset: -3 * time.Millisecond, OffsetError: time.Millisecond, Last: true,
	}
	if d := cmp.Diff(want, s.chunks[0].Header); d != "" {
		t.Errorf("header (-want +got):\n%s", d)
	}
}

func TestStartRefusesWhatCannotBeProbed(t *testing.T) {
	p, err := New(Config{Dir: t.TempDir(), Target: serve(t, nil), Upload: newSink(t).upload})
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*sample.Order){
		"no id":           func(o *sample.Order) { o.ID = "" },
		"id is a path":    func(o *sample.Order) { o.ID = ".." },
		"no service":      func(o *sample.Order) { o.Service = "" },
		"no rate":         func(o *sample.Order) { o.Rate = 0 },
		"rate too high":   func(o *sample.Order) { o.Rate = MaxRate + 1 },
		"no timeout":      func(o *sample.Order) { o.Timeout = 0 },
		"no lease":        func(o *sample.Order) { o.Lease = 0 },
		"unknown method":  func(o *sample.Order) { o.Method = "GRAB" },
		"path is missing": func(o *sample.Order) { o.Path = "x" },
	} {
		o := order(1, time.Second)
		spoil(&o)
		if got := api.KindOf(p.Start(o)); got != api.Invalid {
			t.Errorf("%s: %q, want Invalid", name, got)
		}
	}
}
