package drill

import (
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// EventKind says what happened. The fields of Event that it uses stand beside it.
type EventKind string

const (
	Rendered         EventKind = "rendered"          // SHA256: the proposal's bytes; other bytes than before void all approvals
	Approve          EventKind = "approved"          // Approval
	Reject           EventKind = "rejected"          // Approval, Reason
	Start            EventKind = "start"             // By
	Prechecked       EventKind = "prechecked"        // Rules, Targets
	Tick             EventKind = "tick"              //
	ProbesRunning    EventKind = "probes-running"    // every ordered probe has sent samples
	ProbeStalled     EventKind = "probe-stalled"     // Service, Reason
	FaultReported    EventKind = "fault-report"      // Report
	NoFault          EventKind = "no-fault"          // Order: its agent, asked after the withdrawal, holds no such order
	LeaseLost        EventKind = "lease-lost"        // Order: a renewal was missed; the order is dead
	GuardrailTripped EventKind = "guardrail-tripped" // Service, Rule, Reason
	LeverEngaged     EventKind = "lever-engaged"     // By, Reason
	AbortRequested   EventKind = "abort-requested"   // By, Reason
	FailedOver       EventKind = "failed-over"       // Services: a switch away from the original shares was ordered
	FailedBack       EventKind = "failed-back"       // Service: its original shares are restored
	Healthy          EventKind = "healthy"           // each tick while Verifying: every service in scope is as before
	Unhealthy        EventKind = "unhealthy"         // Reason
	Restarted        EventKind = "restarted"         // Gap: a server took the run over
	Counted          EventKind = "counted"           // executions counted and the last chunks stored
	Measured         EventKind = "measured"          // Verdict, Reason
	DeadlineReached  EventKind = "deadline-reached"  // same as a Tick past the deadline
)

// Event is one thing that happened, at a time of the server's clock.
type Event struct {
	Kind     EventKind       `json:"kind"`
	At       time.Time       `json:"at"`
	SHA256   string          `json:"sha256,omitempty"`
	Approval *Approval       `json:"approval,omitempty"`
	By       string          `json:"by,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Rule     string          `json:"rule,omitempty"`
	Rules    []record.Rule   `json:"rules,omitempty"`
	Targets  []string        `json:"targets,omitempty"` // names of the processes that the faults would hit now
	Report   *fault.Report   `json:"report,omitempty"`
	Order    string          `json:"order,omitempty"`
	Service  api.ServiceID   `json:"service,omitempty"`
	Services []api.ServiceID `json:"services,omitempty"`
	Gap      time.Duration   `json:"gap,omitempty"`
	Verdict  Verdict         `json:"verdict,omitempty"`
}

// Approval is one stakeholder's signed word, its signature already checked.
type Approval struct {
	Group          string    `json:"group"`
	By             string    `json:"by"`
	At             time.Time `json:"at"` // as signed
	Key            string    `json:"key"`
	PublicKey      []byte    `json:"publicKey,omitempty"`
	SHA256         string    `json:"sha256"` // of the proposal that was signed
	EnvelopeSHA256 string    `json:"envelopeSha256,omitempty"`
}

// ActionKind says what to do. The fields of Action that it uses stand beside it.
type ActionKind string

const (
	ActRecord        ActionKind = "record"         // Record, Payload, Actor: append before any other action of the step
	ActRefuse        ActionKind = "refuse"         // Err: tell whoever sent the event
	ActRerender      ActionKind = "rerender"       // render the proposal, answer Rendered
	ActPrecheck      ActionKind = "precheck"       // check the rules, answer Prechecked
	ActStartProbe    ActionKind = "start-probe"    // Probe; keep its lease until stop-probe
	ActStopProbe     ActionKind = "stop-probe"     // ID
	ActPublishFault  ActionKind = "publish-fault"  // Fault; its Fence is filled in by whoever publishes it
	ActRenewFaults   ActionKind = "renew-faults"   // IDs: one heartbeat for each
	ActWithdrawFault ActionKind = "withdraw-fault" // ID
	ActAllowFailback ActionKind = "allow-failback" // Service: the pattern may fail back by itself
	ActWaitFailback  ActionKind = "wait-failback"  // Service: ask an operator to fail it back
	ActCount         ActionKind = "count"          // wait for the last chunks, collect executions, answer Counted
	ActMeasure       ActionKind = "measure"        // run drill/measure, answer Measured
	ActFinish        ActionKind = "finish"         // the run is Done: write the bundle
)

// Action is one thing to do.
type Action struct {
	Kind    ActionKind    `json:"kind"`
	Step    string        `json:"step,omitempty"` // "<run>/<nn>-<name>", for effects
	ID      string        `json:"id,omitempty"`
	IDs     []string      `json:"ids,omitempty"`
	Service api.ServiceID `json:"service,omitempty"`
	Fault   *fault.Order  `json:"fault,omitempty"`
	Probe   *sample.Order `json:"probe,omitempty"`
	Record  record.Kind   `json:"record,omitempty"`
	Payload any           `json:"payload,omitempty"` // the record package's type for the kind
	Actor   string        `json:"actor,omitempty"`   // account whose act is recorded; empty: the server's own
	Err     error         `json:"-"`
}
