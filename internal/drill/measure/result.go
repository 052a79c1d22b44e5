package measure

import (
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// Input is everything that a measurement reads.
type Input struct {
	Proposal   record.Proposal
	Records    []evidence.Record   // by index; those of other runs and of no run are skipped
	Chunks     []sample.Chunk      // any order
	Executions map[string][]string // per workload: the request ids that its application wrote
}

// Results of a service.
const (
	Absorbed     = "absorbed"      // no bad window: RTA 0
	Recovered    = "recovered"     // good again before the end of the hold
	NotRecovered = "not-recovered" // still bad at the end of the hold
	NotMeasured  = "not-measured"  // no data; never a pass
)

// Verdicts of a run and of an objective.
const (
	Passed       = "passed"
	Failed       = "failed"
	Inconclusive = "inconclusive"

	Pass = "pass" // of one objective; Fail and Inconclusive beside it
	Fail = "fail"
)

// Result is what a run measured.
type Result struct {
	Run      string
	Verdict  string // Failed before Inconclusive before Passed
	Reason   string
	Services []Service // in scope first, in the drill's order
	Faults   []Fault   // one per target that reported
	Blast    Blast
	Span     Span
	// MaxOffset is the largest clock offset of any node that took part.
	MaxOffset time.Duration
	// Revert is from the stop order or the end of a lease to the last proof; absent if a proof is missing.
	Revert *time.Duration
}

// Span is the time line of the run; zero where a state was not reached.
type Span struct {
	Baseline, Inject, Hold, Revert, Verify, End time.Time
}

// Mark is one moment with its uncertainty and where it comes from.
type Mark struct {
	At          time.Time
	Uncertainty time.Duration
	Source      string // "record 17" or "sample <request id>"
	Record      int64  // index, -1 for a sample
}

// Marks of one service; nil where one does not apply.
type Marks struct {
	TI, TX, TE, TD, TC, TP, TR, TV, TF, TB *Mark
}

// Phase names.
const (
	Detect    = "detect"
	Decide    = "decide"
	Propagate = "propagate"
	Settle    = "settle"
)

// Phase is one part of a recovery or of a switch.
type Phase struct {
	Name string
	Took time.Duration
}

// Service is what the run measured of one service.
type Service struct {
	Name    api.ServiceID
	Pattern string // "ActivePassive", "ActiveActive" or ""
	Reflex  bool
	InScope bool
	Probed  bool

	Result  string
	Why     string // of NotMeasured
	RTA     time.Duration
	Epsilon time.Duration
	Window  time.Duration
	Marks   Marks

	Phases       []Phase // add up to the RTA exactly; none if users did not wait for the switch
	SwitchPhases []Phase // detect, decide, propagate: add up to Switch
	Switch       *time.Duration
	LateAck      time.Duration // the last acknowledgement after users had recovered
	ReflexLead   time.Duration // users recovered so long before the switch
	ReflexServed int
	SinceDecided *time.Duration // tR - tC
	Propagation  *Propagation

	Objectives []Objective
	Account    Account
	ServedBy   map[api.SiteID]int
	Failback   *time.Duration
	Downtime   Downtime
	Budget     *float64 // share of the error budget that the run consumed; 1 = all of it
	Hurt       Account  // the account of [tI, tR), or of [tI, end of hold) if not recovered
	Outside    Account  // the account of everything else
	Series     Series
	Notes      []string

	// HurtSpan is how long users were hurt: tR - tI, or from tI to the end of the hold if they did not recover.
	HurtSpan         time.Duration
	hurtFrom, hurtTo time.Time
}

// Propagation is how long the proxies took to acknowledge the first table that left the site.
type Propagation struct {
	Epoch         uint64
	P50, P99, Max time.Duration
	Acked         int
	Slowest       api.NodeID
	Silent        []api.NodeID
}

// Objective is one promise and what became of it. Unit is "s" or "ratio".
type Objective struct {
	Name        string
	Unit        string
	Limit       float64
	Measured    bool
	Actual      float64
	Uncertainty float64
	Verdict     string // Pass, Fail or Inconclusive
	Why         string
}

// Account counts samples by class; each sample is in exactly one.
type Account struct {
	Sent, OK, RetriedOK, Slow, Shed, Unknown     int
	Refused, Reset, Timeout, Status, WrongAnswer int
	// ExecutedTwice counts request ids that were executed more than once; only meaningful if Counted.
	ExecutedTwice int
	Counted       int // workloads whose list of executions was read
}

// Failed is the sum of the failed classes.
func (a Account) Failed() int { return a.Refused + a.Reset + a.Timeout + a.Status + a.WrongAnswer }

// Admitted are the samples that were not shed.
func (a Account) Admitted() int { return a.Sent - a.Shed }

// Answered are the samples that count as successes.
func (a Account) Answered() int { return a.OK + a.RetriedOK + a.Slow }

// Downtime is the time in windows that missed an objective.
type Downtime struct{ Total, Longest time.Duration }

// Fault is one target.
type Fault struct {
	ID           string
	Kind         fault.Kind
	Target       string
	Service      api.ServiceID
	Site         api.SiteID
	Lease        time.Duration
	Applied      *Mark
	Ended        *Mark
	EndedBy      string
	Proof        string
	Proven       bool
	Failed       bool
	AppliedProof string
	Reason       string
}

// Blast is the predicted and the actual blast radius.
type Blast struct {
	Predicted, Actual, MaxTargets int // processes
	ErrorBudget                   map[api.ServiceID]float64
	FailedShare                   map[api.ServiceID]float64
}

// Series is the run per bucket of 100 ms, for charts: column by column, one number per bucket.
type Series struct {
	Start  time.Time
	Width  time.Duration
	Sites  map[api.SiteID][]int // answered well at the first attempt, by site
	Retry  []int                // retried-ok
	Slow   []int
	Failed []int
	Shed   []int
	// P50 and P99 of the successes, in microseconds; -1 where there is none.
	P50, P99 []int64
}
