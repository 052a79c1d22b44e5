// Package record is what the log says: the kinds of records and the payload of each. Values only.
//
// The server's loops write them while things happen; drill/measure and drill/report read nothing else
// (beside samples). docs/spec/evidence.md lists every kind with its payload.
//
// Units: times UTC; spans are integers of nanoseconds; shares 0 to 1.
// Concurrency: values.
package record

import (
	"encoding/json"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// Kind of a record. The payload type stands beside each.
type Kind string

const (
	RunProposed    Kind = "run.proposed"    // Proposed: first record of a run
	RunApproved    Kind = "run.approved"    // Approved
	RunState       Kind = "run.state"       // State
	RunPrecheck    Kind = "run.precheck"    // Precheck
	RunIntent      Kind = "run.intent"      // Intent: before an effect
	RunOutcome     Kind = "run.outcome"     // Outcome: after it
	RunGuardrail   Kind = "run.guardrail"   // Guardrail: one tripped
	RunRestarted   Kind = "run.restarted"   // Restarted: a server took the run over
	RunClosed      Kind = "run.closed"      // Closed: terminal record of a run
	FaultApplied   Kind = "fault.applied"   // fault.Report
	FaultEnded     Kind = "fault.ended"     // fault.Report
	SampleChunk    Kind = "sample.chunk"    // Chunk
	Executions     Kind = "sample.executed" // Executed
	SiteVerdict    Kind = "site.verdict"    // Verdict: lost (tD), ready again
	FailoverOrder  Kind = "failover.order"  // Order: the decision, with its actor
	FailoverRefuse Kind = "failover.refuse" // Refusal
	TableCommitted Kind = "table.committed" // Table (tC)
	TableAcked     Kind = "table.acked"     // Acks (tP)
	ReflexLeft     Kind = "reflex.left"     // Reflex (tE)
	FailbackBegun  Kind = "failback.begun"  // Failback (tF)
	FailbackStep   Kind = "failback.step"   // Failback
	FailbackDone   Kind = "failback.done"   // Failback: original shares restored
	Clocks         Kind = "clock.offsets"   // ClockOffsets
	LeverChanged   Kind = "lever"           // Lever
	Changed        Kind = "resource"        // Resource: an apply or delete
	Account        Kind = "account"         // AccountChange: users and tokens
	FindingChanged Kind = "finding"         // api.FindingSpec with its id as subject
)

// Proposed opens a run.
type Proposed struct {
	Drill          string          `json:"drill"`
	Scenario       string          `json:"scenario"`
	By             string          `json:"by"`
	ByKey          string          `json:"byKey,omitempty"`
	ProposalSHA256 string          `json:"proposalSha256"` // hex
	Groups         []string        `json:"groups"`         // that must approve
	Expect         string          `json:"expect"`         // verdict that the scenario declares
	Software       string          `json:"software"`       // version of livefire
	Proposal       json.RawMessage `json:"-"`
}

// Approved is one approval, with the public key that signed it (so that a verifier needs only the server's key).
type Approved struct {
	Group          string    `json:"group"`
	By             string    `json:"by"`
	At             time.Time `json:"at"`
	Key            string    `json:"key"`       // key id
	PublicKey      []byte    `json:"publicKey"` // Ed25519
	ProposalSHA256 string    `json:"proposalSha256"`
	EnvelopeSHA256 string    `json:"envelopeSha256"`
	Decision       string    `json:"decision"` // approve | reject
}

// State is a change of state of a run.
type State struct {
	From   string `json:"from"`
	To     string `json:"to"`
	Reason string `json:"reason,omitempty"`
}

// Precheck is the result of the rules before injection.
type Precheck struct {
	Rules []Rule `json:"rules"`
}

// Rule is one rule's answer.
type Rule struct {
	Code    string `json:"code"`
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"`
}

// Intent is written before an effect; Outcome after it. Step is "<run>/<nn>-<name>".
type Intent struct {
	Step  string        `json:"step"`
	What  string        `json:"what"` // inject | revert | probe-start | probe-stop | failback | verify
	Fault *fault.Order  `json:"fault,omitempty"`
	Probe *sample.Order `json:"probe,omitempty"`
	Lease time.Duration `json:"lease,omitempty"`
}

type Outcome struct {
	Step    string `json:"step"`
	OK      bool   `json:"ok"`
	Message string `json:"message,omitempty"`
}

// Guardrail that tripped.
type Guardrail struct {
	Service api.ServiceID `json:"service,omitempty"`
	Rule    string        `json:"rule"` // success | blast-radius | lever | deadline
	Message string        `json:"message"`
}

// Restarted says that a server took the run over, and for how long nobody had it.
type Restarted struct {
	Gap    time.Duration `json:"gap"`
	Found  string        `json:"found"` // state in which the run was found
	Decide string        `json:"decide"`
}

// Closed ends a run.
type Closed struct {
	Verdict  string    `json:"verdict"` // passed | failed | inconclusive | aborted | dirty
	Reason   string    `json:"reason,omitempty"`
	Restored bool      `json:"restored"`
	At       time.Time `json:"at"`
	// Deviations from the plan that did not decide the verdict, for example shares not restored by the deadline.
	Deviations []string `json:"deviations,omitempty"`
}

// Chunk of samples that the server has stored.
type Chunk struct {
	Order   string        `json:"order"`
	Service api.ServiceID `json:"service"`
	Chunk   int64         `json:"chunk"`
	SHA256  string        `json:"sha256"`
	Bytes   int64         `json:"bytes"`
	Samples int           `json:"samples"`
	Last    bool          `json:"last,omitempty"`
}

// Executed is the list of request ids that one workload executed during a run, as its application wrote them.
type Executed struct {
	Workload string        `json:"workload"`
	Service  api.ServiceID `json:"service"`
	Site     api.SiteID    `json:"site"`
	SHA256   string        `json:"sha256"`
	Bytes    int64         `json:"bytes"`
	IDs      int           `json:"ids"`
}

// Verdict is a change of the judgement on a service at a site.
type Verdict struct {
	Service   api.ServiceID `json:"service"`
	Site      api.SiteID    `json:"site"`
	State     string        `json:"state"` // health.State
	At        time.Time     `json:"at"`    // when it was judged
	Observers []api.NodeID  `json:"observers,omitempty"`
	Of        int           `json:"of,omitempty"`       // observers asked
	Declared  string        `json:"declared,omitempty"` // account that declared it, if a person did
}

// Order is the accepted order to move a service, with its actor.
type Order struct {
	Service  api.ServiceID `json:"service"`
	From     api.SiteID    `json:"from"`
	To       api.SiteID    `json:"to"`
	Cause    string        `json:"cause"` // lost | planned | unplanned | failback
	Actor    string        `json:"actor"` // "policy:ActivePassive/orders" or an account
	Reason   string        `json:"reason,omitempty"`
	Override []string      `json:"override,omitempty"`
	At       time.Time     `json:"at"`
}

// Refusal of an order.
type Refusal struct {
	Service api.ServiceID `json:"service"`
	To      api.SiteID    `json:"to"`
	Code    string        `json:"code"`
	Message string        `json:"message"`
	Actor   string        `json:"actor"`
}

// Table is the commit of a table epoch.
type Table struct {
	Epoch  uint64                                   `json:"epoch"`
	At     time.Time                                `json:"at"` // store commit, server clock
	Shares map[api.ServiceID]map[api.SiteID]float64 `json:"shares"`
	// Usable is what a proxy may use by reflex beside the shares: a wrong site is one in neither.
	Usable map[api.ServiceID][]api.SiteID `json:"usable"`
	Reason string                         `json:"reason,omitempty"`
}

// Acks of one epoch.
type Acks struct {
	Epoch  uint64       `json:"epoch"`
	Acks   []Ack        `json:"acks"`   // sorted by node
	Silent []api.NodeID `json:"silent"` // nodes that hold a table and did not answer
}

type Ack struct {
	Node api.NodeID `json:"node"`
	At   time.Time  `json:"at"` // server clock, receipt of the last ACK that completed the epoch
}

// Reflex is one proxy that left a site by itself.
type Reflex struct {
	Service    api.ServiceID `json:"service"`
	Node       api.NodeID    `json:"node"`
	From       api.SiteID    `json:"from"`
	To         api.SiteID    `json:"to"`
	At         time.Time     `json:"at"` // brought to the server's clock
	ClockError time.Duration `json:"clockError"`
}

// Failback of a service.
type Failback struct {
	Service api.ServiceID          `json:"service"`
	To      api.SiteID             `json:"to"`
	Shares  map[api.SiteID]float64 `json:"shares"`
	At      time.Time              `json:"at"`
	Actor   string                 `json:"actor,omitempty"`
	Message string                 `json:"message,omitempty"`
}

// ClockOffsets of all nodes at a moment: (node clock - server clock) and half the round trip.
type ClockOffsets struct {
	Nodes []ClockOffset `json:"nodes"`
}

type ClockOffset struct {
	Node   api.NodeID    `json:"node"`
	Offset time.Duration `json:"offset"`
	Error  time.Duration `json:"error"`
}

// Lever is the safety lever.
type Lever struct {
	Engaged bool   `json:"engaged"`
	By      string `json:"by"`
	Reason  string `json:"reason"`
}

// Resource is one change of configuration.
type Resource struct {
	Ref      string `json:"ref"`
	Action   string `json:"action"` // created | changed | deleted
	By       string `json:"by"`
	Revision int64  `json:"revision"`         // of what was replaced or deleted; 0 = created
	SHA256   string `json:"sha256,omitempty"` // of the stored JSON
	// More are the further changes of a request that made many: they were made together.
	More []Resource `json:"more,omitempty"`
}

// AccountChange is a change of users or tokens. It never holds a secret.
type AccountChange struct {
	Action string `json:"action"` // user.added | user.enrolled | token.created | token.used | token.refused | node.joined
	Name   string `json:"name"`
	Role   string `json:"role,omitempty"`
	Group  string `json:"group,omitempty"`
	Detail string `json:"detail,omitempty"`
	By     string `json:"by,omitempty"`
}

// Proposal is what is approved: rendered once at Proposed, stored as bytes, signed as bytes. It names
// selectors and a limit, never instances.
type Proposal struct {
	Run           string              `json:"run"`
	Drill         api.Drill           `json:"drill"`    // after defaults
	Scenario      api.Scenario        `json:"scenario"` // after defaults, parameters filled in
	Services      []api.Service       `json:"services"` // in scope and named by probes and guardrails; sorted by name
	ActivePassive []api.ActivePassive `json:"activePassive,omitempty"`
	ActiveActive  []api.ActiveActive  `json:"activeActive,omitempty"`
	Blast         BlastRadius         `json:"blastRadius"`
	Software      string              `json:"software"`
}

// BlastRadius is what the drill may touch, predicted before approval.
type BlastRadius struct {
	Site       api.SiteID      `json:"site"`
	Services   []api.ServiceID `json:"services"`
	Processes  int             `json:"processes"` // that the faults would hit now
	MaxTargets int             `json:"maxTargets"`
	// ErrorBudget is the predicted share of failed probe requests per service during the run.
	ErrorBudget map[api.ServiceID]float64 `json:"errorBudget,omitempty"`
	LeasePath   string                    `json:"leasePath"` // kept | cut
}
