// Package shed decides which requests a workload takes when more come than it can carry.
//
// A Bucket holds tokens: one request takes one, and they come back at the admitted rate. It holds 100 ms of them, so that
// an even load at the rate is never refused and a burst never becomes a queue.
//
// Units: rates are requests per second. Errors: none.
// Concurrency: a Bucket is safe from any goroutine.
// Sources: token bucket as in RFC 2697; the time comes from the caller.
package shed

import (
	"sync"
	"time"
)

// burst is how much of a second's admission may come at once.
const burst = 100 * time.Millisecond

// whole is one token less what rounding may have cost.
const whole = 1 - 1e-9

// Bucket admits requests at a rate. The zero value is full.
type Bucket struct {
	mu     sync.Mutex // guards all
	begun  bool
	tokens float64
	at     time.Time // when tokens was counted
}

// Admit takes a token if there is one. A rate of zero or less is no limit, and costs nothing. The rate may change at any
// time: what the bucket holds stays, up to the new size.
func (b *Bucket) Admit(now time.Time, rate float64) bool {
	if !(rate > 0) {
		return true
	}
	size := max(rate*burst.Seconds(), 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.begun {
		b.begun, b.tokens, b.at = true, size, now
	}
	if past := now.Sub(b.at); past > 0 { // a request that was slow to get here brings no time back
		b.tokens += past.Seconds() * rate
		b.at = now
	}
	b.tokens = min(b.tokens, size)
	if b.tokens < whole {
		return false
	}
	b.tokens--
	return true
}
