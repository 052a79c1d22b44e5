package probe

import "time"

// pace says when samples are due: sample n at n/rate after the start. It is a value without a clock.
type pace struct{ rate float64 }

// offset is when sample n is due, after the start. It is the formula of sample.Due.
func (p pace) offset(n int64) time.Duration {
	return time.Duration(float64(n) / p.rate * float64(time.Second))
}

// due is how many samples are due at a moment: those before this number.
func (p pace) due(elapsed time.Duration) int64 {
	if elapsed < 0 {
		return 0
	}
	n := max(int64(elapsed.Seconds()*p.rate)-1, 0) // a guess from below; rounding is settled by offset itself
	for p.offset(n) <= elapsed {
		n++
	}
	return n
}

// second is the chunk that sample n belongs to.
func (p pace) second(n int64) int64 { return int64(p.offset(n) / time.Second) }

// first is the first sample of chunk k; for a rate below 1 it may belong to a later one.
func (p pace) first(k int64) int64 {
	if k <= 0 {
		return 0
	}
	return p.due(time.Duration(k)*time.Second - 1)
}
