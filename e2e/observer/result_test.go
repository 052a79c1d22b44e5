package main

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

var epoch = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func at(s float64) time.Time { return epoch.Add(time.Duration(s * float64(time.Second))) }

// stream makes samples at a rate over a span; the ones due in [from, to) fail.
func stream(rate, span, from, to float64) []sample {
	var out []sample
	for i := range int(rate * span) {
		due := float64(i) / rate
		s := sample{ID: fmt.Sprint(i), Intended: at(due), Class: classOK, Site: "a"}
		if due >= from && due < to {
			s.Class, s.Site = classStatus, ""
		}
		out = append(out, s)
	}
	return out
}

func TestWindowIsTheLongestOfThreeAndAtMostTenSeconds(t *testing.T) {
	for _, c := range []struct {
		rate, objective float64
		want            time.Duration
	}{
		{200, 0.99, time.Second},
		{100, 0.99, time.Second},
		{50, 0.99, 2 * time.Second},
		{5, 0.5, 2 * time.Second},
		{1000, 0.999, time.Second},
		{100, 0.9999, 10 * time.Second},
		{100, 1, 10 * time.Second},
	} {
		if got := window(c.rate, c.objective); got != c.want {
			t.Errorf("window(%g/s, %g) = %v, want %v", c.rate, c.objective, got, c.want)
		}
	}
}

func TestRecoveryEndsWhereEveryLaterWindowIsGood(t *testing.T) {
	fault := bracket{at(2), at(2.002)}
	for _, c := range []struct {
		name       string
		samples    []sample
		want       string
		tX, tR     float64
		wantSample int
	}{
		{"nothing failed", stream(100, 8, 0, 0), "absorbed", 0, 0, 800},
		{"one of a hundred is within the objective", stream(100, 8, 3, 3.01), "absorbed", 0, 0, 800},
		// One failed sample may stay in the first good window: 99 of 100.
		{"an outage of a second", stream(100, 8, 2.1, 3.1), "recovered", 2.1, 3.1, 800},
		{"until the end of the hold", stream(100, 8, 2.1, 8), "not-recovered", 2.1, 0, 800},
		{"no sample in the hold", stream(100, 2, 0, 0), "not-measured", 0, 0, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := measure("s", c.samples, 100, 0.99, fault, at(6))
			if r.Result != c.want || r.Sent != c.wantSample {
				t.Fatalf("measure = %s of %d samples, want %s of %d", r.Result, r.Sent, c.want, c.wantSample)
			}
			check := func(name string, got *time.Time, want float64) {
				if want == 0 != (got == nil) || got != nil && !got.Equal(at(want)) {
					t.Errorf("%s = %v, want %v", name, got, at(want))
				}
			}
			check("tX", r.TX, c.tX)
			check("tR", r.TR, c.tR)
			sum := 0
			for _, n := range r.Classes {
				sum += n
			}
			if sum != r.Sent {
				t.Errorf("classes add up to %d of %d", sum, r.Sent)
			}
		})
	}
}

func TestHoldShorterThanTheWindowIsNotMeasured(t *testing.T) {
	if r := measure("s", stream(100, 8, 2, 3), 100, 0.99, bracket{at(2), at(2)}, at(2.9)); r.Result != "not-measured" {
		t.Errorf("measure = %s, want not-measured", r.Result)
	}
}

func TestUncertaintyIsTheIntervalAndTheBracket(t *testing.T) {
	r := measure("s", stream(100, 8, 2.1, 3.1), 100, 0.99, bracket{at(2), at(2.004)}, at(6))
	if got, want := r.Epsilon, 0.014; got < want-1e-9 || got > want+1e-9 {
		t.Errorf("uncertainty = %g s, want %g s", got, want)
	}
	if got, want := r.RTA, 1.1; got < want-1e-9 || got > want+1e-9 {
		t.Errorf("RTA = %g s, want %g s", got, want)
	}
}

// naive is the sentence of the definition, word by word: the first sample after tX that is itself good and from which
// every window up to the end of the hold meets the objective.
func naive(samples []sample, rate, objective float64, tI, holdEnd time.Time) (name string, x, r int) {
	w := window(rate, objective)
	good := func(from time.Time) bool {
		ok, all := 0, 0
		for _, s := range samples {
			if !s.Intended.Before(from) && s.Intended.Before(from.Add(w)) && s.Class != classShed {
				all++
				if s.good() {
					ok++
				}
			}
		}
		return ok > 0 && float64(ok) >= objective*float64(all)-1e-9
	}
	allGood := func(from time.Time) bool {
		for _, s := range samples {
			if !s.Intended.Before(from) && !s.Intended.Add(w).After(holdEnd) && !good(s.Intended) {
				return false
			}
		}
		return good(holdEnd.Add(-w))
	}
	if allGood(tI) {
		return "absorbed", -1, -1
	}
	x = -1
	for i, s := range samples {
		if s.Intended.Before(tI) || !s.Intended.Before(holdEnd) {
			continue
		}
		if x < 0 && s.failed() {
			x = i
		}
		if x >= 0 && i > x && s.good() && !s.Intended.Add(w).After(holdEnd) && allGood(s.Intended) {
			return "recovered", x, i
		}
	}
	if x < 0 {
		return "not-measured", -1, -1
	}
	return "not-recovered", x, -1
}

func TestMeasureAgreesWithTheSentenceWordByWord(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	seen := map[string]int{}
	for n := range 150 {
		rate := []float64{20, 50}[rng.IntN(2)]
		objective := []float64{0.9, 0.95, 0.99}[rng.IntN(3)]
		samples := stream(rate, 12, 2+rng.Float64(), 2+rng.Float64()*6)
		for range rng.IntN(4) {
			samples[rng.IntN(len(samples))].Class = []string{classTimeout, classShed, classOK, classRetried}[rng.IntN(4)]
		}
		tI, holdEnd := at(2+rng.Float64()/10), at(8+rng.Float64()*2)
		r := measure("s", samples, rate, objective, bracket{tI, tI}, holdEnd)
		name, x, i := naive(samples, rate, objective, tI, holdEnd)
		seen[name]++
		if r.Result != name {
			t.Fatalf("case %d: %s, word by word %s", n, r.Result, name)
		}
		if x >= 0 && !r.TX.Equal(samples[x].Intended) || i >= 0 && !r.TR.Equal(samples[i].Intended) {
			t.Fatalf("case %d: tX %v tR %v, word by word samples %d and %d", n, r.TX, r.TR, x, i)
		}
	}
	for _, name := range []string{"absorbed", "recovered", "not-recovered"} {
		if seen[name] == 0 {
			t.Errorf("no case was %s: %v", name, seen)
		}
	}
}
