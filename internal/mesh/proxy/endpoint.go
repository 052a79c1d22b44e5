package proxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/http1"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/outlier"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// errEjected ends the attempts of an endpoint that was ejected while they waited.
var errEjected = errors.New("the endpoint was ejected")

// errRemoved ends the attempts of an endpoint that left the table and had its time to finish.
var errRemoved = errors.New("the endpoint left the table")

// endpointKey tells endpoints apart across tables: what keeps it keeps connections and health.
type endpointKey struct {
	service  api.ServiceID
	site     api.SiteID
	workload string
	address  netip.AddrPort
	identity string
}

// endpoint is what this proxy knows of one instance, and its connections to it.
type endpoint struct {
	// set once
	key    endpointKey
	self   bool // the workload beside this proxy: not checked
	pool   *http1.Pool
	checks *http1.Pool // of active checks, so that they never wait for requests

	// atomic
	spec       atomic.Pointer[checkSpec]
	registered atomic.Bool
	state      atomic.Uint32 // outlier.State, as of the last event or sweep
	inFlight   atomic.Int64
	progress   atomic.Int64 // when the last bytes of a response came, Unix ns
	probing    atomic.Bool

	// guarded by mu
	mu        sync.Mutex
	tracker   *outlier.Tracker
	attempts  map[*attempt]struct{}
	latency   [128]time.Duration // to the response's head, of the last answers
	answers   int
	schedule  outlier.Schedule
	late      bool // the last check began or ended too late to be trusted
	probed    time.Time
	undecided int // probes in a row during which no other endpoint answered either
}

// checkSpec is how an endpoint is checked.
type checkSpec struct {
	host   string
	health api.HealthCheck
}

// attempt is one try of one request at an endpoint.
type attempt struct {
	start      time.Time
	repeatable bool // it may be made again elsewhere
	answered   atomic.Bool
	cancel     context.CancelCauseFunc
}

// configure takes what a new table says of the endpoint.
func (e *endpoint) configure(s route.Service, registered bool, now time.Time) {
	host := string(s.Name)
	if len(s.Hosts) > 0 {
		host = s.Hosts[0]
	}
	e.spec.Store(&checkSpec{host: host, health: s.Health})
	e.registered.Store(registered)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tracker.Configure(outlier.Config{Failures: s.Health.Failures, Successes: s.Health.Successes})
	e.state.Store(uint32(e.tracker.State(now)))
}

// rank orders endpoints for balance.PickEndpoint: known before unknown, untried before tried.
func (e *endpoint) rank(tried bool) int {
	if !e.registered.Load() {
		return -1
	}
	r := 0
	switch outlier.State(e.state.Load()) {
	case outlier.Unusable:
		return -1
	case outlier.Unknown:
		r = 1
	}
	if tried {
		r += 2
	}
	return r
}

// usable says whether a request may be sent to it.
func (e *endpoint) usable() bool { return e.rank(false) >= 0 }

// begin registers an attempt.
func (e *endpoint) begin(a *attempt) {
	e.inFlight.Add(1)
	e.mu.Lock()
	e.attempts[a] = struct{}{}
	e.mu.Unlock()
}

// finish takes an attempt out again.
func (e *endpoint) finish(a *attempt) {
	e.mu.Lock()
	delete(e.attempts, a)
	e.mu.Unlock()
	e.inFlight.Add(-1)
}

// observed is what an event changed.
type observed struct {
	changed bool          // usable became unusable or the reverse
	lost    outlier.Cause // the endpoint was just lost for this
	ended   int           // attempts that were ended for it
}

// observe feeds one event to the tracker. When the endpoint is lost by it, its attempts end: all of them if nothing else
// would end them, otherwise those that can be made elsewhere and have no answer yet.
func (e *endpoint) observe(now time.Time, event func(*outlier.Tracker) outlier.Cause) observed {
	e.mu.Lock()
	before := outlier.State(e.state.Load())
	o := observed{lost: event(e.tracker)}
	after := e.tracker.State(now)
	e.state.Store(uint32(after))
	o.changed = (before == outlier.Unusable) != (after == outlier.Unusable) || before == outlier.Unknown && after != before
	var ended []*attempt
	if o.lost != "" {
		for a := range e.attempts {
			if o.lost.Silent() || a.repeatable && !a.answered.Load() {
				ended = append(ended, a)
			}
		}
	}
	e.mu.Unlock()
	for _, a := range ended {
		a.cancel(errEjected)
	}
	o.ended = len(ended)
	return o
}

// cancelAll ends every attempt.
func (e *endpoint) cancelAll(cause error) {
	e.mu.Lock()
	all := make([]*attempt, 0, len(e.attempts))
	for a := range e.attempts {
		all = append(all, a)
	}
	e.mu.Unlock()
	for _, a := range all {
		a.cancel(cause)
	}
}

// answeredIn records how long an answer took.
func (e *endpoint) answeredIn(d time.Duration) {
	e.mu.Lock()
	e.latency[e.answers%len(e.latency)] = d
	e.answers++
	e.mu.Unlock()
}

// stalled says whether a request has waited suspiciously long while no byte came from the endpoint.
func (e *endpoint) stalled(now time.Time, floor time.Duration) bool {
	if e.inFlight.Load() == 0 {
		return false
	}
	quiet := now.Sub(time.Unix(0, e.progress.Load()))
	if quiet < floor {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var oldest time.Duration
	for a := range e.attempts {
		oldest = max(oldest, now.Sub(a.start))
	}
	if oldest < floor {
		return false
	}
	limit := max(floor, 4*e.p99())
	return oldest >= limit && quiet >= limit
}

// p99 of the last answers, zero without any. Called with mu held.
func (e *endpoint) p99() time.Duration {
	n := min(e.answers, len(e.latency))
	if n == 0 {
		return 0
	}
	s := slices.Clone(e.latency[:n])
	slices.Sort(s)
	return s[(n*99+99)/100-1]
}

// close gives up every connection.
func (e *endpoint) close() {
	e.pool.Close()
	e.checks.Close()
}
