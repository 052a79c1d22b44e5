// Package outlier judges one endpoint from its checks and its answers: whether it may be used, and if not, until when.
//
// A Tracker takes the outcome of each active check and of each attempt, and says what changed. Active failures in a row
// make the endpoint unhealthy until successes in a row. Passive failures eject it at once: a refused or failed
// connection, a hang, or two resets or gateway errors in a row. An ejection lasts base x times ejected, up to max, and
// ends earlier when active checks succeed in a row.
//
// Units: spans are time.Duration; an ejection lasts Base x times ejected, at most Max.
// Errors: none.
// Concurrency: a Tracker belongs to one goroutine at a time; its owner locks.
// Sources: gRFC A50 (github.com/grpc/proposal). Differs from A50: consecutive errors instead of success rate, no limit of
// ejected endpoints (a whole site may be lost), and active checks end an ejection.
package outlier

import "time"

// State of an endpoint.
type State uint8

const (
	Unknown State = iota // never checked, never failed: used when its site has nothing better
	Usable
	Unusable // unhealthy by checks, ejected, or without registration
)

// Cause of an ejection. It decides what becomes of the requests in flight: see Silent.
type Cause string

const (
	Refused Cause = "refused" // no connection: refused, timeout, TLS
	Reset   Cause = "reset"   // connections that ended without a response, in a row
	Status  Cause = "status"  // gateway errors, in a row
	Hang    Cause = "hang"    // requests without progress, and a probe without an answer
	Checks  Cause = "checks"  // active checks that brought an answer, but a bad one
	Silence Cause = "silence" // active checks without an answer
)

// Silent says that nothing will end the endpoint's requests in flight by itself. Otherwise the endpoint, or the kernel
// of its host, still answers: a request ends by itself, and one that must not be repeated is better left to do so.
func (c Cause) Silent() bool { return c == Hang || c == Silence }

// Config of a Tracker. Zero fields mean the defaults in brackets.
type Config struct {
	Failures    int           // checks in a row until unhealthy [3]
	Successes   int           // checks in a row until healthy [2]
	Consecutive int           // resets or gateway errors in a row until ejected [2]
	Base        time.Duration // of an ejection [5 s]
	Max         time.Duration // of an ejection [300 s]
}

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.Failures, 3)
	def(&c.Successes, 2)
	def(&c.Consecutive, 2)
	if c.Base <= 0 {
		c.Base = 5 * time.Second
	}
	if c.Max <= 0 {
		c.Max = 300 * time.Second
	}
	return c
}

// Tracker is what is known of one endpoint.
type Tracker struct {
	cfg Config

	checked   bool // at least one check has ended
	answered  bool // at least one request was answered in order
	healthy   bool // by active checks
	successes int  // in a row
	failures  int  // in a row
	reason    string

	row      int // resets or gateway errors in a row
	ejected  Cause
	until    time.Time
	times    int       // ejections, less what has been forgotten
	returned time.Time // end of the last ejection
	wanted   int       // successful checks in a row that end the ejection
	streak   int       // successful checks in a row since the ejection
}

// New makes a tracker of an endpoint of which nothing is known.
func New(cfg Config) *Tracker { return &Tracker{cfg: cfg.withDefaults()} }

// Configure changes the thresholds; what is known stays.
func (t *Tracker) Configure(cfg Config) { t.cfg = cfg.withDefaults() }

// State at a time. An ejection that has lasted its time is over.
func (t *Tracker) State(now time.Time) State {
	switch {
	case t.Ejected(now) != "":
		return Unusable
	case t.checked && t.healthy:
		return Usable
	case t.checked:
		return Unusable
	}
	return Unknown
}

// Ejected is the cause of the ejection in force, empty if there is none.
func (t *Tracker) Ejected(now time.Time) Cause {
	if t.ejected == "" || !now.Before(t.until) {
		return ""
	}
	return t.ejected
}

// Checked says whether an active check has ended.
func (t *Tracker) Checked() bool { return t.checked }

// Reason is why the endpoint is not usable, empty if it is.
func (t *Tracker) Reason(now time.Time) string {
	if c := t.Ejected(now); c != "" {
		return "ejected: " + string(c)
	}
	if t.checked && !t.healthy {
		return t.reason
	}
	return ""
}

// Check takes the outcome of an active check: silent says that it brought no answer at all. The first check decides
// alone. It returns the cause if the endpoint has just become unhealthy.
func (t *Tracker) Check(ok, silent bool, reason string, now time.Time) (lost Cause) {
	first := !t.checked
	t.checked = true
	if first && t.answered {
		first, t.healthy = false, true // requests have shown it already; one late check does not outweigh them
	}
	if ok {
		t.failures = 0
		t.successes++
		t.streak++
		if first || t.successes >= t.cfg.Successes {
			t.healthy = true
		}
		if t.ejected != "" && t.streak >= t.wanted {
			t.end(now)
		}
		return ""
	}
	t.successes, t.streak = 0, 0
	t.failures++
	t.reason = reason
	if first || t.healthy && t.failures >= t.cfg.Failures {
		t.healthy = false
		if silent {
			return Silence
		}
		return Checks
	}
	return ""
}

// Answer takes a response that is no gateway error: the row of errors is broken.
func (t *Tracker) Answer() { t.row, t.answered = 0, true }

// Error takes a reset or a gateway error and says whether the endpoint was ejected for it.
func (t *Tracker) Error(c Cause, now time.Time) (ejected bool) {
	if t.row++; t.row < t.cfg.Consecutive {
		return false
	}
	return t.Eject(c, now)
}

// Eject ejects the endpoint at once; false if it was ejected already.
func (t *Tracker) Eject(c Cause, now time.Time) bool {
	if t.Ejected(now) != "" {
		return false
	}
	if t.ejected != "" {
		t.end(t.until)
	}
	if !t.returned.IsZero() { // one ejection is forgotten for each base span without one
		t.times = max(0, t.times-int(now.Sub(t.returned)/t.cfg.Base))
	}
	t.times++
	t.row, t.streak = 0, 0
	t.ejected = c
	t.until = now.Add(min(t.cfg.Max, t.cfg.Base*time.Duration(min(t.times, int(t.cfg.Max/t.cfg.Base)+1))))
	// Checks that succeed prove a connection at once; of an endpoint that answers its checks and fails its requests
	// they prove less each time.
	t.wanted = t.cfg.Successes
	if c == Status {
		t.wanted *= t.times
	}
	return true
}

func (t *Tracker) end(at time.Time) {
	t.ejected = ""
	t.returned = at
	t.row = 0
}
