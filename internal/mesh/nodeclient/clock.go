package nodeclient

import (
	"sync"
	"time"
)

// window is how many exchanges the estimate looks back: the one with the smallest round trip is the best.
const window = 16

// Clock estimates (node clock - server clock) from heartbeat exchanges. The zero value knows nothing.
type Clock struct {
	mu    sync.Mutex
	last  [window]exchange // guarded by mu
	count int              // guarded by mu
}

type exchange struct {
	offset time.Duration
	spread time.Duration // half of the round trip without the server's part
}

// Add takes one exchange: sent and arrived by the node's clock, received and replied by the server's.
//
// The four-timestamp estimate of NTP (RFC 5905, section 8) with the sign turned: node minus server.
func (c *Clock) Add(sent, received, replied, arrived time.Time) {
	trip := arrived.Sub(sent) - replied.Sub(received)
	e := exchange{
		offset: (sent.Sub(received) + arrived.Sub(replied)) / 2,
		spread: max(trip, 0) / 2,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last[c.count%window] = e
	c.count++
}

// Offset is the estimate and its error; known is false before the first exchange.
func (c *Clock) Offset() (offset, spread time.Duration, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(c.count, window)
	if n == 0 {
		return 0, 0, false
	}
	best := c.last[0]
	for _, e := range c.last[1:n] {
		if e.spread < best.spread {
			best = e
		}
	}
	return best.offset, best.spread, true
}
