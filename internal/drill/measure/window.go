package measure

import (
	"math"
	"sort"
	"time"
)

// Bounds of the window W.
const (
	minWindow  = time.Second
	maxWindow  = 10 * time.Second
	minSamples = 10
)

// windowOf is W = max(1 s, 10 probes, 1/(1 - success objective) probes), at most 10 s.
func windowOf(interval time.Duration, success *float64) time.Duration {
	w := max(minWindow, minSamples*interval)
	if success != nil {
		if *success >= 1 {
			return maxWindow
		}
		// 1e-9 takes out the noise of 1 - 0.99, so that 100 probes stay 100.
		probes := math.Ceil(1/(1-*success) - 1e-9)
		if probes > float64(maxWindow)/float64(interval) {
			return maxWindow
		}
		w = max(w, time.Duration(probes)*interval)
	}
	return min(w, maxWindow)
}

// tally counts samples so that any span of a stream is judged in constant time.
type tally struct {
	points                             []point
	success                            float64 // objective in force for windows
	latency                            bool    // whether slow samples are judged
	interval                           time.Duration
	shed, failed, unknown, slow, succs []int // sums of points[:i]
}

// newTally prepares the windows of a stream. Without a success objective a window is good without any failure.
func newTally(st *stream, success *float64, latency bool) *tally {
	n := len(st.points) + 1
	t := &tally{
		points: st.points, success: 1, latency: latency, interval: st.interval,
		shed: make([]int, n), failed: make([]int, n), unknown: make([]int, n), slow: make([]int, n), succs: make([]int, n),
	}
	if success != nil {
		t.success = *success
	}
	for i, p := range st.points {
		t.shed[i+1] = t.shed[i] + one(p.class == shed)
		t.failed[i+1] = t.failed[i] + one(p.class.failed())
		t.unknown[i+1] = t.unknown[i] + one(p.class == unknown)
		t.slow[i+1] = t.slow[i] + one(p.class == slow)
		t.succs[i+1] = t.succs[i] + one(p.class == slow || p.class.good())
	}
	return t
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// first is the index of the first point at or after a moment.
func (t *tally) first(when time.Time) int {
	return sort.Search(len(t.points), func(i int) bool { return !t.points[i].at.Before(when) })
}

// meets says whether the samples due in [from, from+w) meet every objective. A sample that should be there and is
// not counts as unknown, and an unknown one is no success: no data is not a pass.
func (t *tally) meets(from time.Time, w time.Duration) bool {
	i, j := t.first(from), t.first(from.Add(w))
	unknown := t.unknown[j] - t.unknown[i]
	if t.interval > 0 {
		unknown += max(0, int(w/t.interval)-1-(j-i)) // -1: a window may begin between two samples
	}
	succs := t.succs[j] - t.succs[i]
	judged := succs + (t.failed[j] - t.failed[i]) + unknown
	if judged == 0 || succs == 0 {
		return false
	}
	if float64(succs)/float64(judged) < t.success-1e-12 {
		return false
	}
	return !t.latency || t.slow[j]-t.slow[i] <= succs-rank99(succs)
}

// rank99 is the rank of the 99th percentile among n sorted values (nearest rank: ceil(0.99 n)).
func rank99(n int) int { return (99*n + 99) / 100 }

// worst looks at every window that begins at a sample in [from, to-w], and at the one that ends at to. It gives
// the index of the last sample whose window misses an objective (-1: none) and whether the final one does.
func (t *tally) worst(from, to time.Time, w time.Duration) (last int, final bool) {
	last = -1
	for i := t.first(from); i < len(t.points); i++ {
		start := t.points[i].at
		if start.Add(w).After(to) {
			break
		}
		if !t.meets(start, w) {
			last = i
		}
	}
	return last, !t.meets(to.Add(-w), w)
}

// recovery is tX and tR within [from, to): indexes of points, -1 where there is none.
type recovery struct {
	result string
	why    string
	x, r   int
	badTo  time.Time // start of the last bad window
}

// recover finds when users were hurt and when they were well again. from is tI, to the end of the hold.
func (t *tally) recover(from, to time.Time, w time.Duration) recovery {
	out := recovery{x: -1, r: -1}
	begin, end := t.first(from), t.first(to)
	switch {
	case to.Sub(from) < w:
		out.result, out.why = NotMeasured, "the hold was shorter than one window of "+w.String()
		return out
	case end == begin:
		out.result, out.why = NotMeasured, "no sample between the fault and the end of the hold"
		return out
	}
	last, final := t.worst(from, to, w)
	if last < 0 && !final {
		out.result = Absorbed
		return out
	}
	for i := begin; i < end; i++ {
		if t.points[i].class.bad() {
			out.x = i
			break
		}
	}
	if out.x < 0 {
		out.result, out.why = NotMeasured, "windows without enough answers, but no sample that failed"
		return out
	}
	out.badTo = to.Add(-w)
	if !final {
		out.badTo = t.points[last].at
		for i := max(last, out.x) + 1; i < end && !t.points[i].at.Add(w).After(to); i++ {
			if t.points[i].class.good() {
				out.result, out.r = Recovered, i
				return out
			}
		}
	}
	out.result = NotRecovered
	return out
}

// downtime adds up the windows, side by side from a moment on, that miss an objective.
func (t *tally) downtime(from, to time.Time, w time.Duration) Downtime {
	var d Downtime
	var run time.Duration
	for ; !from.Add(w).After(to); from = from.Add(w) {
		if t.meets(from, w) {
			run = 0
			continue
		}
		run += w
		d.Total += w
		d.Longest = max(d.Longest, run)
	}
	return d
}
