package proxy

import (
	"sync"
	"time"
)

// lateness remembers when this process itself was held up: by a stopped clock, a paused host or a lack of processors.
// Silence of an endpoint during such a moment says nothing of the endpoint.
type lateness struct {
	mu   sync.Mutex // guards all
	gaps [64]gap    // the latest
	n    int
}

type gap struct {
	end time.Time
	by  time.Duration
}

// note takes how late a tick came.
func (l *lateness) note(now time.Time, by time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gaps[l.n%len(l.gaps)] = gap{now, by}
	l.n++
}

// since is by how much the process was late in all since t.
func (l *lateness) since(t time.Time) (sum time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.gaps {
		if g.end.After(t) {
			sum += min(g.by, g.end.Sub(t))
		}
	}
	return sum
}
