package retry

import (
	"sync"
	"time"
)

const (
	// Window is the span over which retries are compared with requests.
	Window = 10 * time.Second
	// Floor is how many retries per second are free, so that a service with few requests can retry at all.
	Floor = 10

	slots    = 10
	slotSpan = Window / slots
)

// Budget bounds the retries of one service to a ratio of its requests. The zero value allows the floor only.
type Budget struct {
	mu       sync.Mutex // guards all
	start    time.Time
	slot     int64 // number of the newest slot since start
	requests [slots]int64
	retries  [slots]int64
}

// Request counts one request.
func (b *Budget) Request(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.requests[b.advance(now)]++
}

// Retry asks for one retry at the given ratio; forced ones are counted but never refused.
func (b *Budget) Retry(ratio float64, forced bool, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := b.advance(now)
	var requests, retries int64
	for s := range slots {
		requests += b.requests[s]
		retries += b.retries[s]
	}
	if !forced && float64(retries+1) > ratio*float64(requests)+Floor*Window.Seconds() {
		return false
	}
	b.retries[i]++
	return true
}

// advance clears the slots that time has passed over and gives the current one.
func (b *Budget) advance(now time.Time) int {
	if b.start.IsZero() {
		b.start = now
	}
	n := max(b.slot, int64(now.Sub(b.start)/slotSpan))
	for s := max(b.slot+1, n-slots+1); s <= n; s++ {
		b.requests[s%slots], b.retries[s%slots] = 0, 0
	}
	b.slot = n
	return int(n % slots)
}
