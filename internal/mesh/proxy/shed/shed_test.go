package shed

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// offer sends requests at an even pace and counts those that were admitted.
func offer(b *Bucket, from time.Time, perSecond, rate float64, span time.Duration) (admitted, sent int) {
	step := time.Duration(float64(time.Second) / perSecond)
	for at := time.Duration(0); at < span; at += step {
		sent++
		if b.Admit(from.Add(at), rate) {
			admitted++
		}
	}
	return admitted, sent
}

// "admits its workload's capacity (token bucket)": 100 ms worth at once, at least 1, and the rate from then on.
func TestBucketAdmitsTheRateAndABurst(t *testing.T) {
	for _, tt := range []struct {
		rule            string
		perSecond, rate float64
		span            time.Duration
		admitted        int
	}{
		{rule: "an even load at the rate is never refused", perSecond: 300, rate: 300, span: 10 * time.Second, admitted: 3000},
		{rule: "half of twice the rate, and the burst", perSecond: 600, rate: 300, span: 10 * time.Second, admitted: 3030},
		{rule: "all at once: 100 ms worth", perSecond: 1e6, rate: 300, span: time.Millisecond, admitted: 30},
		{rule: "a small capacity has at least one", perSecond: 1e6, rate: 3, span: time.Millisecond, admitted: 1},
		{rule: "less than one per second", perSecond: 10, rate: 0.5, span: 20 * time.Second, admitted: 10},
		{rule: "no rate is no limit", perSecond: 1000, rate: 0, span: time.Second, admitted: 1000},
		{rule: "nor is a negative one", perSecond: 1000, rate: -1, span: time.Second, admitted: 1000},
		{rule: "nor one that is no number", perSecond: 1000, rate: math.NaN(), span: time.Second, admitted: 1000},
	} {
		got, sent := offer(new(Bucket), start, tt.perSecond, tt.rate, tt.span)
		if got < tt.admitted-1 || got > tt.admitted+1 {
			t.Errorf("%s: %d of %d admitted, want %d", tt.rule, got, sent, tt.admitted)
		}
	}
}

func TestBucketFillsWithTimeUpToItsSize(t *testing.T) {
	var b Bucket
	take := func(at time.Duration) (n int) {
		for b.Admit(start.Add(at), 100) {
			n++
		}
		return n
	}
	for _, tt := range []struct {
		at   time.Duration
		want int
	}{
		{0, 10}, {0, 0}, {10 * time.Millisecond, 1}, {60 * time.Millisecond, 5}, {time.Hour, 10},
		{30 * time.Minute, 0}, // a request that was measured earlier and came later
		{time.Hour + 100*time.Millisecond, 10},
	} {
		if got := take(tt.at); got != tt.want {
			t.Errorf("at %v: %d admitted, want %d", tt.at, got, tt.want)
		}
	}
}

func TestNewRateKeepsWhatTheBucketHolds(t *testing.T) {
	var b Bucket
	for range 10 {
		b.Admit(start, 100)
	}
	if b.Admit(start, 1000) {
		t.Error("a new capacity filled the bucket")
	}
	if got, _ := offer(&b, start.Add(time.Hour), 1e6, 1000, time.Millisecond); got != 100 {
		t.Errorf("after an hour at the new rate: %d at once, want 100", got)
	}
	b.Admit(start.Add(2*time.Hour), 1000)
	if got, _ := offer(&b, start.Add(2*time.Hour), 1e6, 20, time.Millisecond); got != 2 {
		t.Errorf("after the capacity fell: %d at once, want 2", got)
	}
}

func TestBucketIsExactFromManyGoroutines(t *testing.T) {
	var b Bucket
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if b.Admit(start, 500) {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if admitted.Load() != 50 {
		t.Errorf("%d of 800 at one moment, want 50", admitted.Load())
	}
}
