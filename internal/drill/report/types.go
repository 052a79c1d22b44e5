package report

import (
	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

// Kind of the document; its apiVersion is api.Version.
const Kind = "DrillReport"

// Report is report.json. Everything in it follows from the records, the samples, the proposal and the checkpoint.
type Report struct {
	APIVersion  string        `json:"apiVersion"`
	Kind        string        `json:"kind"`
	Run         Run           `json:"run"`
	Services    []Service     `json:"services"`
	Approvals   []Approval    `json:"approvals"`
	Findings    []Finding     `json:"findings"`
	Safety      Safety        `json:"safety"`
	Prechecks   []record.Rule `json:"prechecks"`
	Timeline    []Event       `json:"timeline"`
	Environment Environment   `json:"environment"`
	Log         Log           `json:"log"`
}

// Run is what was run and how it ended.
type Run struct {
	ID         string            `json:"id"`
	Drill      string            `json:"drill"`
	Scenario   string            `json:"scenario"`
	Parameters map[string]string `json:"parameters,omitempty"`
	Site       api.SiteID        `json:"site"`
	By         string            `json:"by"`
	Verdict    string            `json:"verdict"`
	Reason     string            `json:"reason"`
	Measured   string            `json:"measured"` // the verdict of the measurement alone
	Expected   string            `json:"expected"` // what the scenario declares
	Restored   bool              `json:"restored"`
	ProposedAt string            `json:"proposedAt"` // first record
	StartedAt  string            `json:"startedAt"`  // the start was asked for, or the first record
	EndedAt    string            `json:"endedAt"`    // last record
	Seconds    float64           `json:"seconds"`    // from the start to the end
	InjectedAt string            `json:"injectedAt,omitempty"`
	Deviations []string          `json:"deviations,omitempty"`
}

// Service is what was measured of one service.
type Service struct {
	Service  api.ServiceID `json:"service"`
	Pattern  string        `json:"pattern"`
	Reflex   Reflex        `json:"reflex"`
	InScope  bool          `json:"inScope"`
	Result   string        `json:"result"` // absorbed | recovered | not-recovered | not-measured
	Why      string        `json:"why,omitempty"`
	RTA      *float64      `json:"rtaSeconds,omitempty"` // a lower bound if not recovered
	Epsilon  float64       `json:"uncertaintySeconds"`
	Window   float64       `json:"windowSeconds"`
	By       string        `json:"recoveredBy,omitempty"` // reflex | switch
	Verdicts []Objective   `json:"objectives"`
	Marks    Marks         `json:"marks"`
	Phases   []Phase       `json:"phases"`       // add up to the RTA
	Switch   []Phase       `json:"switchPhases"` // add up to switchSeconds

	SwitchSeconds       *float64           `json:"switchSeconds,omitempty"`
	SinceDecidedSeconds *float64           `json:"sinceDecidedSeconds,omitempty"` // tR - tC
	LateAckSeconds      *float64           `json:"lateAckSeconds,omitempty"`
	BeforeSwitchSeconds *float64           `json:"beforeSwitchSeconds,omitempty"` // recovered by reflex so long before
	FailbackSeconds     *float64           `json:"failbackSeconds,omitempty"`
	HurtSeconds         *float64           `json:"hurtSeconds,omitempty"` // from tI, the span that the RTO judges
	Downtime            Downtime           `json:"downtime"`
	BudgetConsumed      *float64           `json:"errorBudgetConsumed,omitempty"`
	Propagation         *Propagation       `json:"propagation,omitempty"`
	Account             Account            `json:"account"`
	Hurt                Account            `json:"accountHurt"`    // of [tI, tR)
	Outside             Account            `json:"accountOutside"` // of the rest
	ServedBy            map[api.SiteID]int `json:"servedBy"`
	Series              Series             `json:"series"`
	Notes               []string           `json:"notes,omitempty"`
}

// Reflex says whether proxies may leave a site by themselves, and how many samples another site answered between
// tI and tC.
type Reflex struct {
	Allowed bool `json:"allowed"`
	Served  int  `json:"served"`
}

// Objective is one promise, in texts that carry their unit.
type Objective struct {
	Name        string `json:"name"`
	Objective   string `json:"objective"`
	Actual      string `json:"actual"` // empty if it was not measured
	Uncertainty string `json:"uncertainty"`
	Verdict     string `json:"verdict"` // pass | fail | inconclusive
	Why         string `json:"why,omitempty"`
}

// Mark is one moment.
type Mark struct {
	At          string `json:"at"` // RFC 3339 with ns
	Uncertainty string `json:"uncertainty"`
	Source      string `json:"source"`
}

// Marks of one service; absent where one does not apply.
type Marks struct {
	TI *Mark `json:"tI,omitempty"`
	TX *Mark `json:"tX,omitempty"`
	TE *Mark `json:"tE,omitempty"`
	TD *Mark `json:"tD,omitempty"`
	TC *Mark `json:"tC,omitempty"`
	TP *Mark `json:"tP,omitempty"`
	TR *Mark `json:"tR,omitempty"`
	TV *Mark `json:"tV,omitempty"`
	TF *Mark `json:"tF,omitempty"`
	TB *Mark `json:"tB,omitempty"`
}

// Phase of a recovery or a switch.
type Phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// Downtime is the time in windows that missed an objective.
type Downtime struct {
	Total   float64 `json:"totalSeconds"`
	Longest float64 `json:"longestSeconds"`
}

// Propagation of the table that left the site.
type Propagation struct {
	Epoch   uint64       `json:"epoch"`
	P50     float64      `json:"p50Seconds"`
	P99     float64      `json:"p99Seconds"`
	Max     float64      `json:"maxSeconds"`
	Acked   int          `json:"acknowledged"`
	Slowest api.NodeID   `json:"slowest,omitempty"`
	Silent  []api.NodeID `json:"silent"`
}

// Account of samples; the classes add up to Sent.
type Account struct {
	Sent          int    `json:"sent"`
	OK            int    `json:"ok"`
	RetriedOK     int    `json:"retriedOk"`
	Slow          int    `json:"slow"`
	Shed          int    `json:"shed"`
	Unknown       int    `json:"unknown"`
	Failed        Failed `json:"failed"`
	ExecutedTwice int    `json:"executedTwice"`
	// Counted is how many workloads handed over what they executed; 0: executedTwice is not known.
	Counted int `json:"executionsCounted"`
}

// Failed samples by class.
type Failed struct {
	Refused     int `json:"refused"`
	Reset       int `json:"reset"`
	Timeout     int `json:"timeout"`
	Status      int `json:"status"`
	WrongAnswer int `json:"wrongAnswer"`
}

// Sum of the failed classes.
func (f Failed) Sum() int { return f.Refused + f.Reset + f.Timeout + f.Status + f.WrongAnswer }

// Series is the run in buckets, for charts. P50 and P99 are microseconds, -1 where there was no answer.
type Series struct {
	Start   string               `json:"start"`
	Seconds float64              `json:"bucketSeconds"`
	Sites   map[api.SiteID][]int `json:"sites"`
	Retried []int                `json:"retriedOk"`
	Slow    []int                `json:"slow"`
	Failed  []int                `json:"failed"`
	Shed    []int                `json:"shed"`
	P50     []int64              `json:"p50Micros"`
	P99     []int64              `json:"p99Micros"`
}

// Approval of one group.
type Approval struct {
	Group    string `json:"group"`
	By       string `json:"by"`
	Key      string `json:"key"`
	At       string `json:"at"`
	Digest   string `json:"digest"` // sha256:... of the proposal
	Decision string `json:"decision"`
}

// Finding is one gap.
type Finding struct {
	ID        string        `json:"id"` // F-<run>-<n>
	Service   api.ServiceID `json:"service,omitempty"`
	Severity  string        `json:"severity"`
	Code      string        `json:"code"`
	What      string        `json:"what"`
	Evidence  []int64       `json:"evidence"`
	Change    *api.Change   `json:"change,omitempty"`
	Predicted string        `json:"predicted,omitempty"`
	Status    string        `json:"status"`
}

// Safety is what was done to the system and how it ended.
type Safety struct {
	Faults        []Fault  `json:"faults"`
	RevertSeconds *float64 `json:"revertSeconds,omitempty"` // from the stop order to the last proof
	Guardrails    []string `json:"guardrails"`
	Restarts      []string `json:"restarts"`
	Blast         Blast    `json:"blastRadius"`
}

// Fault on one target.
type Fault struct {
	ID        string        `json:"id"`
	Kind      string        `json:"kind"`
	Target    string        `json:"target"`
	Service   api.ServiceID `json:"service,omitempty"`
	Site      api.SiteID    `json:"site"`
	Lease     float64       `json:"leaseSeconds"`
	AppliedAt string        `json:"appliedAt,omitempty"`
	EndedAt   string        `json:"endedAt,omitempty"`
	EndedBy   string        `json:"endedBy,omitempty"` // revert | lease | watchdog | none
	Proof     string        `json:"proof,omitempty"`   // record that proves the end
	Check     string        `json:"check,omitempty"`   // what the local check saw
	Proven    bool          `json:"proven"`
	Reason    string        `json:"reason,omitempty"`
}

// Blast is the predicted and the actual blast radius.
type Blast struct {
	Predicted       int                       `json:"predictedProcesses"`
	Actual          int                       `json:"actualProcesses"`
	MaxTargets      int                       `json:"maxTargets"`
	PredictedFailed map[api.ServiceID]float64 `json:"predictedFailedShare,omitempty"`
	ActualFailed    map[api.ServiceID]float64 `json:"actualFailedShare"`
}

// Event is one line of the timeline.
type Event struct {
	At     string   `json:"at"`
	Offset *float64 `json:"offsetSeconds,omitempty"` // from tI
	Actor  string   `json:"actor"`
	What   string   `json:"what"`
	Record int64    `json:"record"`
}

// Environment in which the run took place.
type Environment struct {
	Software       string   `json:"software"`
	MaxClockOffset float64  `json:"maxClockOffsetSeconds"`
	Timezone       string   `json:"timezone"` // of every time here: UTC
	Digests        []Digest `json:"configuration"`
	Records        int      `json:"records"`
	Chunks         int      `json:"sampleChunks"`
}

// Digest of one resource as it was approved.
type Digest struct {
	Resource string `json:"resource"`
	SHA256   string `json:"sha256"`
}

// Log is the head of the log that covers the run.
type Log struct {
	Size       int64  `json:"size"`
	Checkpoint string `json:"checkpoint"`
	First      int64  `json:"firstRecord"`
	Last       int64  `json:"lastRecord"`
	Key        string `json:"key"` // name of the key that signed it
}
