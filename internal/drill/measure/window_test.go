package measure

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// "W = max(1 s, 10 probes, 1/(1 - success objective) probes), at most 10 s"
func TestWindow(t *testing.T) {
	ratio := func(x float64) *float64 { return &x }
	for _, tc := range []struct {
		interval time.Duration
		success  *float64
		want     time.Duration
	}{
		{5 * time.Millisecond, nil, time.Second},
		{5 * time.Millisecond, ratio(0.99), time.Second},
		{10 * time.Millisecond, ratio(0.99), time.Second},
		{20 * time.Millisecond, ratio(0.99), 2 * time.Second},
		{10 * time.Millisecond, ratio(0.999), 10 * time.Second},
		{5 * time.Millisecond, ratio(0.999), 5 * time.Second},
		{time.Millisecond, ratio(0.99999), 10 * time.Second},
		{500 * time.Millisecond, ratio(0.9), 5 * time.Second},
		{2 * time.Second, nil, 10 * time.Second},
		{10 * time.Millisecond, ratio(1), 10 * time.Second},
	} {
		if got := windowOf(tc.interval, tc.success); got != tc.want {
			t.Errorf("windowOf(%v, %v) = %v, want %v", tc.interval, tc.success, got, tc.want)
		}
	}
}

func TestRank99(t *testing.T) {
	for n, want := range map[int]int{1: 1, 10: 10, 99: 99, 100: 99, 101: 100, 200: 198, 1000: 990} {
		if got := rank99(n); got != want {
			t.Errorf("rank99(%d) = %d, want %d", n, got, want)
		}
	}
}

// dumbMeets is meets word by word: the samples due in the window, one after the other.
func dumbMeets(st *stream, success float64, latency bool, from time.Time, w time.Duration) bool {
	var good, slowOnes, bad, n int
	for _, p := range st.points {
		if p.at.Before(from) || !p.at.Before(from.Add(w)) {
			continue
		}
		n++
		switch {
		case p.class == shed:
		case p.class.good():
			good++
		case p.class == slow:
			good++
			slowOnes++
		default:
			bad++
		}
	}
	bad += max(0, int(w/st.interval)-1-n)
	if good == 0 || float64(good)/float64(good+bad) < success-1e-12 {
		return false
	}
	// 99 % of the answers must be within the objective.
	return !latency || 100*(good-slowOnes) >= 99*good
}

// dumbRecover is the definition of tX and tR, tried out sample by sample.
func dumbRecover(st *stream, success float64, latency bool, from, to time.Time, w time.Duration) (result string, x, r int) {
	fine := func(start time.Time) bool { // every window from start to the end of the hold
		for _, p := range st.points {
			if !p.at.Before(start) && !p.at.Add(w).After(to) && !dumbMeets(st, success, latency, p.at, w) {
				return false
			}
		}
		return dumbMeets(st, success, latency, to.Add(-w), w)
	}
	inside := func(p point) bool { return !p.at.Before(from) && p.at.Before(to) }
	if to.Sub(from) < w || !slices.ContainsFunc(st.points, inside) {
		return NotMeasured, -1, -1
	}
	if fine(from) {
		return Absorbed, -1, -1
	}
	x = slices.IndexFunc(st.points, func(p point) bool { return inside(p) && p.class.bad() })
	if x < 0 {
		return NotMeasured, -1, -1
	}
	for i, p := range st.points {
		if i > x && p.class.good() && !p.at.Add(w).After(to) && fine(p.at) {
			return Recovered, x, i
		}
	}
	return NotRecovered, x, -1
}

func TestRecoveryEqualsTheDumbOne(t *testing.T) {
	results := map[string]int{}
	for seed := range uint64(3000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		st := &stream{interval: 100 * time.Millisecond}
		n := 30 + rng.IntN(60)
		outage, length := rng.IntN(n), rng.IntN(25)
		noise := []float64{0, 0.01, 0.05, 0.3}[rng.IntN(4)]
		for i := range n {
			p := point{at: t0.Add(time.Duration(i) * st.interval), class: ok}
			switch {
			case noise > 0 && rng.Float64() < noise:
				p.class = class(rng.IntN(int(ok) + 1))
			case i >= outage && i < outage+length:
				p.class = []class{refused, status, slow, unknown, shed}[int(seed)%5]
			}
			if rng.IntN(200) == 0 {
				continue // a sample that is missing
			}
			st.points = append(st.points, p)
		}
		success := []float64{1, 0.95, 0.9, 0.5}[rng.IntN(4)]
		latency := rng.IntN(2) == 0
		w := time.Duration(5+rng.IntN(15)) * st.interval
		from := t0.Add(time.Duration(rng.IntN(10)) * 70 * time.Millisecond)
		to := t0.Add(time.Duration(n-rng.IntN(12)) * st.interval)
		got := newTally(st, &success, latency).recover(from, to, w)
		result, x, r := dumbRecover(st, success, latency, from, to, w)
		if got.result != result || got.r != r || result != Absorbed && result != NotMeasured && got.x != x {
			t.Fatalf("seed %d: %s tX %d tR %d, want %s %d %d", seed, got.result, got.x, got.r, result, x, r)
		}
		results[result]++
	}
	for _, want := range []string{Absorbed, Recovered, NotRecovered, NotMeasured} {
		if results[want] < 20 {
			t.Errorf("only %d of the random runs were %s: %v", results[want], want, results)
		}
	}
}

func TestOneBadSampleOfAHundredIsAbsorbed(t *testing.T) {
	success := 0.99
	st := &stream{interval: 10 * time.Millisecond}
	for i := range 1000 {
		st.points = append(st.points, point{at: t0.Add(time.Duration(i) * st.interval), class: ok})
	}
	st.points[500].class = reset
	r := newTally(st, &success, false).recover(t0.Add(4*time.Second), t0.Add(9*time.Second), windowOf(st.interval, &success))
	if r.result != Absorbed {
		t.Errorf("one failure in a window of 100 with an objective of 99 %%: %s, want absorbed", r.result)
	}
	st.points[550].class = reset
	r = newTally(st, &success, false).recover(t0.Add(4*time.Second), t0.Add(9*time.Second), windowOf(st.interval, &success))
	if r.result != Recovered || r.x != 500 || r.r != 501 {
		t.Errorf("two failures in a window: %+v, want recovered, tX 500, tR 501: from there each window holds one", r)
	}
}

func TestDowntimeAddsUpBadWindows(t *testing.T) {
	success := 0.9
	st := &stream{interval: 100 * time.Millisecond}
	for i := range 100 {
		c := ok
		if i >= 20 && i < 40 || i >= 60 && i < 70 {
			c = refused
		}
		st.points = append(st.points, point{at: t0.Add(time.Duration(i) * st.interval), class: c})
	}
	d := newTally(st, &success, false).downtime(t0, t0.Add(10*time.Second), time.Second)
	if d.Total != 3*time.Second || d.Longest != 2*time.Second {
		t.Errorf("downtime %v, longest %v; want 3s, 2s", d.Total, d.Longest)
	}
}
