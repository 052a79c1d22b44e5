package fault

import (
	"fmt"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// Limits of a lease.
const (
	MinLease = time.Second
	MaxLease = 10 * time.Minute
)

// Kinds are all fault kinds that this version knows.
func Kinds() []Kind { return []Kind{Kill, Pause, ServerKill} }

// HasUndo says whether the end of the fault is ours: a killed server is started again by its own supervisor.
func (k Kind) HasUndo() bool { return k != ServerKill }

// Known says whether this version knows the kind.
func (k Kind) Known() bool {
	switch k {
	case Kill, Pause, ServerKill:
		return true
	}
	return false
}

// Validate checks an order where it enters an agent. It returns *api.Error (Invalid).
func (o Order) Validate() error {
	bad := func(format string, args ...any) error {
		return api.Errorf(api.Invalid, "fault order "+o.ID, format, args...)
	}
	switch {
	case o.ID == "" || o.Run == "" || !strings.HasPrefix(o.ID, o.Run+"/"):
		return bad("id must be %q and a step", o.Run+"/")
	case !o.Kind.Known():
		return bad("unknown kind %q", o.Kind)
	case o.Site == "":
		return bad("no site")
	case o.Kind != ServerKill && len(o.Services) == 0:
		return bad("no service: the fault would have no target")
	case o.MaxTargets < 1:
		return bad("maxTargets is %d; at least 1 is needed", o.MaxTargets)
	case o.Lease < MinLease || o.Lease > MaxLease:
		return bad("lease %v is not between %v and %v", o.Lease, MinLease, MaxLease)
	case o.MaxDuration < o.Lease:
		return bad("maxDuration %v is shorter than the lease %v", o.MaxDuration, o.Lease)
	}
	return nil
}

// ID of a report: "<order>/<target>".
func (r Report) ID() string { return r.Order + "/" + r.Target }

// Proven says that the report shows the target free of the fault, by a local check.
func (r Report) Proven() bool { return r.Phase == Reverted && r.Proof != "" }

// Bracket is the moment of the report on the server's clock: between from and to, each known up to err.
func (r Report) Bracket() (from, to time.Time, err time.Duration) {
	return r.Before.Add(-r.ClockOffset), r.After.Add(-r.ClockOffset), r.ClockError
}

// String names the order for people: "kill of payments, orders at eu-west".
func (o Order) String() string {
	if o.Kind == ServerKill {
		return fmt.Sprintf("%s at %s", o.Kind, o.Site)
	}
	names := make([]string, len(o.Services))
	for i, s := range o.Services {
		names[i] = string(s)
	}
	return fmt.Sprintf("%s of %s at %s", o.Kind, strings.Join(names, ", "), o.Site)
}
