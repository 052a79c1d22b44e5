package drill

import (
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
)

// Name of a state of a run.
type Name string

const (
	Draft       Name = "Draft"       // the proposal is being rendered
	Proposed    Name = "Proposed"    // waits for approvals
	Approved    Name = "Approved"    // waits for its start
	Scheduled   Name = "Scheduled"   // started: the proposal is rendered again and the rules are checked
	PrecheckOK  Name = "Prechecked"  // probes are being started
	Baseline    Name = "Baseline"    // what normal looks like
	Injecting   Name = "Injecting"   // faults ordered, not all of them applied
	Holding     Name = "Holding"     // all faults applied
	Reverting   Name = "Reverting"   // faults withdrawn, not all of them proven gone
	FailingBack Name = "FailingBack" // original shares being restored
	Verifying   Name = "Verifying"   // as before? then executions are counted and the run is measured
	Done        Name = "Done"
)

// Verdict of a run; the first that applies of dirty, aborted, failed, inconclusive, passed.
type Verdict string

const (
	Dirty        Verdict = "dirty" // a target whose fault cannot be proven gone
	Aborted      Verdict = "aborted"
	Failed       Verdict = "failed"
	Inconclusive Verdict = "inconclusive"
	Passed       Verdict = "passed"
)

// Reasons of the machine itself.
const (
	ServerLost    = "server-lost"
	DeadlineOver  = "deadline"
	LeaseExpired  = "lease-lost"
	FaultRefused  = "fault-refused"
	FaultFailed   = "fault-failed"
	InjectTimeout = "inject-timeout"
	LeverReason   = "lever"
)

// State is everything of a run that changes. It is stored as JSON after every step.
type State struct {
	State     Name       `json:"state"`
	Since     time.Time  `json:"since"`
	SHA256    string     `json:"sha256,omitempty"` // of the proposal
	Approvals []Approval `json:"approvals,omitempty"`
	StartedAt time.Time  `json:"startedAt,omitzero"`
	StartedBy string     `json:"startedBy,omitempty"`
	Deadline  time.Time  `json:"deadline,omitzero"`
	// Attempt counts starts of the probes: after a restart they begin anew, under new ids.
	Attempt    int             `json:"attempt,omitempty"`
	Rerendered bool            `json:"rerendered,omitempty"` // since Scheduled, and equal
	Rules      bool            `json:"rules,omitempty"`      // since Scheduled, all hold
	Targets    []string        `json:"targets,omitempty"`
	Injected   []Injection     `json:"injected,omitempty"`
	RenewedAt  time.Time       `json:"renewedAt,omitzero"`
	RevertedAt time.Time       `json:"revertedAt,omitzero"` // withdrawal ordered
	FailedOver []api.ServiceID `json:"failedOver,omitempty"`
	FailedBack []api.ServiceID `json:"failedBack,omitempty"`
	Stage      Stage           `json:"stage,omitempty"`
	StageAt    time.Time       `json:"stageAt,omitzero"`
	HealthyAt  time.Time       `json:"healthyAt,omitzero"`
	Aborting   bool            `json:"aborting,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	Verdict    Verdict         `json:"verdict,omitempty"`
	Restored   bool            `json:"restored,omitempty"`
	Deviations []string        `json:"deviations,omitempty"`
	EndedAt    time.Time       `json:"endedAt,omitzero"`
}

// Stage within Verifying.
type Stage string

const (
	Observing Stage = "observing"
	Counting  Stage = "counting"
	Measuring Stage = "measuring"
)

// Injection is one order for which an intent is on record. It is never removed from the state.
type Injection struct {
	Order    fault.Order `json:"order"`
	Index    int         `json:"index"` // in Config.Faults
	IntentAt time.Time   `json:"intentAt"`
	LeaseAt  time.Time   `json:"leaseAt"` // last renewal ordered
	Expected []string    `json:"expected,omitempty"`
	Targets  []Target    `json:"targets,omitempty"` // that reported, sorted by name
	Applied  bool        `json:"applied,omitempty"`
	Refused  bool        `json:"refused,omitempty"` // whole
	Absent   bool        `json:"absent,omitempty"`  // its agent holds no such order, asked after the withdrawal
	Lost     bool        `json:"lost,omitempty"`    // its lease was lost: never renewed again
}

// Target of an injection, as reported.
type Target struct {
	Name    string `json:"name"`
	Applied bool   `json:"applied,omitempty"`
	Refused bool   `json:"refused,omitempty"`
	Failed  bool   `json:"failed,omitempty"`
	Proven  bool   `json:"proven,omitempty"` // gone, by a local check
}

// gone says whether the injection is proven to be over on every target.
func (in Injection) gone() bool {
	if !in.Order.Kind.HasUndo() || in.Refused {
		return true
	}
	seen := map[string]bool{}
	for _, t := range in.Targets {
		seen[t.Name] = true
		if !t.Proven && !t.Refused {
			return false
		}
	}
	for _, name := range in.Expected {
		if !seen[name] && !in.Absent {
			return false
		}
	}
	return len(in.Targets) > 0 || in.Absent
}

// complete says whether every target that was expected has the fault.
func (in Injection) complete() bool {
	applied := map[string]bool{}
	for _, t := range in.Targets {
		if t.Applied {
			applied[t.Name] = true
		}
	}
	for _, name := range in.Expected {
		if !applied[name] {
			return false
		}
	}
	return len(applied) > 0
}

func (in Injection) leaseEnd() time.Time { return in.LeaseAt.Add(in.Order.Lease) }

func (n Name) active() bool {
	switch n {
	case Scheduled, PrecheckOK, Baseline, Injecting, Holding:
		return true
	}
	return false
}

// ending says whether the faults are on their way out.
func (n Name) ending() bool { return n == Reverting || n == FailingBack || n == Verifying }
