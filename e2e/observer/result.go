package main

import (
	"math"
	"slices"
	"time"
)

// Classes of a sample.
const (
	classOK      = "ok"
	classRetried = "retriedOk"
	classShed    = "shed"
	classRefused = "refused"
	classReset   = "reset"
	classTimeout = "timeout"
	classStatus  = "status"
	classWrong   = "wrongAnswer"
)

// sample is one request and what came of it.
type sample struct {
	ID       string    `json:"id"`
	Service  string    `json:"service"`
	Intended time.Time `json:"intended"`
	Sent     time.Time `json:"sent"`
	Ended    time.Time `json:"ended"`
	Class    string    `json:"class"`
	Status   int       `json:"status,omitempty"`
	Site     string    `json:"site,omitempty"`
	Instance string    `json:"instance,omitempty"`
	Attempts string    `json:"attempts,omitempty"`
	Error    string    `json:"error,omitempty"`
}

func (s sample) good() bool   { return s.Class == classOK || s.Class == classRetried }
func (s sample) failed() bool { return !s.good() && s.Class != classShed }

// bracket is a moment that lies between two looks.
type bracket struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// result of one service.
type result struct {
	Service  string         `json:"service"`
	Rate     float64        `json:"rate"`
	Window   float64        `json:"windowSeconds"`
	Result   string         `json:"result"` // absorbed | recovered | not-recovered | not-measured
	TX       *time.Time     `json:"tX,omitempty"`
	TR       *time.Time     `json:"tR,omitempty"`
	RTA      float64        `json:"rtaSeconds"`
	Epsilon  float64        `json:"uncertaintySeconds"`
	Sent     int            `json:"sent"`
	Classes  map[string]int `json:"classes"` // adds up to sent
	ServedBy map[string]int `json:"servedBy"`
}

// window is W = max(1 s, 10 probes, 1/(1 - objective) probes), at most 10 s.
func window(rate, objective float64) time.Duration {
	probes := 10.0
	if objective < 1 {
		probes = max(probes, math.Ceil(1/(1-objective)-1e-9))
	} else {
		probes = math.Inf(1)
	}
	return time.Duration(min(max(1, probes/rate), 10) * float64(time.Second))
}

// measure computes a service's recovery from its samples. tI is the start of its bracket: nothing that the fault did lies
// before it.
func measure(service string, samples []sample, rate, objective float64, fault bracket, holdEnd time.Time) result {
	r := result{Service: service, Rate: rate, Sent: len(samples), Classes: map[string]int{}, ServedBy: map[string]int{}}
	for _, s := range samples {
		r.Classes[s.Class]++
		if s.good() {
			r.ServedBy[s.Site]++
		}
	}
	samples = slices.Clone(samples)
	slices.SortStableFunc(samples, func(a, b sample) int { return a.Intended.Compare(b.Intended) })
	w := window(rate, objective)
	r.Window = w.Seconds()
	r.Epsilon = 1/rate + fault.To.Sub(fault.From).Seconds()
	r.Result = "not-measured"
	if fault.From.IsZero() || holdEnd.IsZero() || holdEnd.Sub(fault.From) < w {
		return r
	}
	first, last := between(samples, fault.From, holdEnd)
	if first == last {
		return r
	}
	bad := badWindows(samples, first, last, w, holdEnd, objective)
	final := meets(samples, holdEnd.Add(-w), holdEnd, objective)
	if final && !slices.Contains(bad, true) {
		r.Result = "absorbed"
		return r
	}
	x := slices.IndexFunc(samples[first:last], sample.failed)
	if x < 0 {
		return r
	}
	x += first
	r.TX = &samples[x].Intended
	r.Result = "not-recovered"
	if !final {
		return r
	}
	// From the end: the earliest good sample after tX behind the last bad window.
	for i := last - 1; i > x; i-- {
		if samples[i].Intended.Add(w).After(holdEnd) {
			continue
		}
		if bad[i-first] {
			break
		}
		if samples[i].good() {
			r.Result, r.TR = "recovered", &samples[i].Intended
		}
	}
	if r.TR != nil {
		r.RTA = r.TR.Sub(fault.From).Seconds()
	}
	return r
}

// between gives the indexes of the samples due in [from, to).
func between(samples []sample, from, to time.Time) (first, last int) {
	at := func(t time.Time) int {
		i, _ := slices.BinarySearchFunc(samples, t, func(s sample, t time.Time) int { return s.Intended.Compare(t) })
		return i
	}
	return at(from), at(to)
}

// badWindows says for each sample of [first, last) whether the window that begins at it misses the objective; one that
// would reach beyond the hold is not judged.
func badWindows(samples []sample, first, last int, w time.Duration, holdEnd time.Time, objective float64) []bool {
	bad := make([]bool, last-first)
	for i := first; i < last; i++ {
		from := samples[i].Intended
		if !from.Add(w).After(holdEnd) {
			bad[i-first] = !meets(samples, from, from.Add(w), objective)
		}
	}
	return bad
}

// meets says whether the samples due in [from, to) meet the objective. No sample is no success; what was shed is not judged.
func meets(samples []sample, from, to time.Time, objective float64) bool {
	i, j := between(samples, from, to)
	good, failed := 0, 0
	for _, s := range samples[i:j] {
		switch {
		case s.good():
			good++
		case s.failed():
			failed++
		}
	}
	return good > 0 && float64(good)/float64(good+failed) >= objective-1e-12
}
