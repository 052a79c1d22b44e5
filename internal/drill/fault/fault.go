// Package fault is the order for a fault: kind, target, lease; and what came of it. Values only.
//
// An order has an owner and an end from the moment it exists. Whoever applies it counts the lease on its own
// monotonic clock from receipt and needs no network to end it.
//
// Units: spans are time.Duration. Concurrency: values.
package fault

import (
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// Kind of a fault.
type Kind string

const (
	Kill       Kind = "kill"        // SIGKILL, held down until revert or lease end, then started again
	Pause      Kind = "pause"       // SIGSTOP, SIGCONT at revert or lease end
	ServerKill Kind = "server-kill" // SIGKILL of the server; no undo: its supervisor starts it again
)

// Order asks the agent of a site for one fault on a set of targets. ID is "<run>/<nn>-<step>".
type Order struct {
	ID          string          `json:"id"`
	Run         string          `json:"run"`
	Kind        Kind            `json:"kind"`
	Site        api.SiteID      `json:"site"`       // whose agent applies it
	Services    []api.ServiceID `json:"services"`   // targets: workloads of these services at Site and their sidecars
	MaxTargets  int             `json:"maxTargets"` // more processes than this: refused whole
	Lease       time.Duration   `json:"lease"`
	MaxDuration time.Duration   `json:"maxDuration"` // hard cap, whatever is renewed
	Fence       int64           `json:"fence"`       // the leader's; a lower one than the last seen is refused
}

// Phase of a fault on one target.
type Phase string

const (
	Applied  Phase = "applied"
	Reverted Phase = "reverted"
	Refused  Phase = "refused" // nothing was done; Reason says why
	Failed   Phase = "failed"  // state unknown or not restored
)

// Ended by whom.
const (
	ByRevert   = "revert"   // the order was withdrawn
	ByLease    = "lease"    // no renewal arrived in time
	ByWatchdog = "watchdog" // the agent died
	ByNone     = "none"     // kinds without undo (server-kill)
)

// Report is what happened to one order on one target. ID is "<order>/<target>".
type Report struct {
	Order   string        `json:"order"`
	Target  string        `json:"target"` // "payments-1" or "payments-1/sidecar" or "server"
	Service api.ServiceID `json:"service,omitempty"`
	Phase   Phase         `json:"phase"`
	// Before and After bracket the moment: the last local check without the new state, the first with it.
	// Wall clock of the agent; ClockOffset was its estimate of (agent - server) then.
	Before      time.Time     `json:"before"`
	After       time.Time     `json:"after"`
	ClockOffset time.Duration `json:"clockOffset"`
	ClockError  time.Duration `json:"clockError"` // half the round trip of that estimate
	EndedBy     string        `json:"endedBy,omitempty"`
	Proof       string        `json:"proof,omitempty"` // "pid 4711 gone (pidfd)", "state T", "pid 4800 started, ready"
	PID         int           `json:"pid,omitempty"`
	Reason      string        `json:"reason,omitempty"`
}
