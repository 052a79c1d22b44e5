package api

import (
	"regexp"
	"strings"
)

// DrillRun is one execution of a drill. Written by the server only.
type DrillRun struct {
	Type     `json:",inline"`
	Metadata Metadata       `json:"metadata"`
	Spec     DrillRunSpec   `json:"spec"`
	Status   DrillRunStatus `json:"status"`
}

type DrillRunSpec struct {
	Drill    string `json:"drill"`
	RunBy    string `json:"runBy"` // account that asked for it
	RunByKey string `json:"runByKey,omitempty"`
}

type DrillRunStatus struct {
	State          string     `json:"state"` // see drill.State
	Verdict        string     `json:"verdict,omitempty"`
	Reason         string     `json:"reason,omitempty"`
	Restored       bool       `json:"restored"`
	ProposalSHA256 string     `json:"proposalSha256,omitempty"`
	Approvals      []Approval `json:"approvals,omitempty"`
	Findings       []string   `json:"findings,omitempty"`
	StartedAt      string     `json:"startedAt,omitempty"` // RFC 3339 with ns
	EndedAt        string     `json:"endedAt,omitempty"`
	Report         string     `json:"report,omitempty"` // directory of the bundle on the server
}

type Approval struct {
	Group  string `json:"group"`
	By     string `json:"by"`
	Key    string `json:"key"` // key id of the approver's public key
	At     string `json:"at"`
	Digest string `json:"digest"` // "sha256:..." of the proposal that was signed
}

// Finding is a gap with its evidence and the change that should close it.
type Finding struct {
	Type     `json:",inline"`
	Metadata Metadata    `json:"metadata"`
	Spec     FindingSpec `json:"spec"`
}

// Finding states.
const (
	FindingOpen      = "open"
	FindingApplied   = "applied"
	FindingClosed    = "closed"
	FindingNotHelped = "not-helped"
	FindingWaived    = "waived"
)

type FindingSpec struct {
	Run       string     `json:"run,omitempty"`
	Service   ServiceID  `json:"service,omitempty"`
	Code      string     `json:"code"`     // LFnnnn
	Severity  string     `json:"severity"` // high | medium | low | info
	What      string     `json:"what"`
	Evidence  []int64    `json:"evidence,omitempty"` // record numbers
	Change    *Change    `json:"change,omitempty"`
	Predicted *Predicted `json:"predicted,omitempty"`
	Status    string     `json:"status"`
	Retest    *Retest    `json:"retest,omitempty"`
	Reason    string     `json:"reason,omitempty"` // why it was closed or waived
}

// Change is a configuration change: a JSON patch (RFC 6902) of one resource.
type Change struct {
	Resource string    `json:"resource"` // "ActivePassive/orders"
	Patch    []PatchOp `json:"patch"`
}

type PatchOp struct {
	Op    string `json:"op"`   // replace | add | remove
	Path  string `json:"path"` // JSON pointer "/spec/failover/after"
	Value any    `json:"value,omitempty"`
	Old   any    `json:"old,omitempty"` // what was there, for the diff (not part of RFC 6902)
}

// Predicted is what the change should do to a quantity.
type Predicted struct {
	Quantity string  `json:"quantity"` // "rta"
	Before   float64 `json:"before"`   // seconds
	After    float64 `json:"after"`    // seconds
}

// Retest is what a later run measured after the change.
type Retest struct {
	Run         string  `json:"run"`
	Before      float64 `json:"before"` // seconds
	After       float64 `json:"after"`
	Uncertainty float64 `json:"uncertainty"`
	Missed      bool    `json:"missed"` // prediction missed by more than 30 %
	Outcome     string  `json:"outcome"`
}

func (o *DrillRun) TypeOf() Type    { return Type{Version, KindDrillRun} }
func (o *DrillRun) Meta() *Metadata { return &o.Metadata }
func (o *DrillRun) Default()        { setType(o) }

// Validate is for what the server wrote: a run's name ("<drill>-<yyyymmdd>-<n>") may be longer than a label.
func (o *DrillRun) Validate() []Problem {
	var c checker
	if !recordName.MatchString(o.Metadata.Name) {
		c.add(CodeName, "$.metadata.name", "<drill>-<yyyymmdd>-<n>", "%q is not the name of a run", o.Metadata.Name)
	}
	c.name("$.spec.drill", o.Spec.Drill)
	return c.problems
}

func (o *Finding) TypeOf() Type    { return Type{Version, KindFinding} }
func (o *Finding) Meta() *Metadata { return &o.Metadata }

func (o *Finding) Default() {
	setType(o)
	setZero(&o.Spec.Status, FindingOpen)
}

// recordName is the form of names that the server makes: of runs, and of findings ("F-<run>-<n>").
var recordName = regexp.MustCompile(`^(F-)?[a-z0-9][-a-z0-9]{0,120}$`)

var code = regexp.MustCompile(`^LF[0-9]{4}$`)

func (o *Finding) Validate() []Problem {
	var c checker
	if !recordName.MatchString(o.Metadata.Name) {
		c.add(CodeName, "$.metadata.name", "F-<run>-<n>", "%q is not the name of a finding", o.Metadata.Name)
	}
	s := o.Spec
	if !code.MatchString(s.Code) {
		c.add(CodeValue, "$.spec.code", "for example LF2107", "%q is not a code", s.Code)
	}
	c.oneOf("$.spec.severity", s.Severity, "high", "medium", "low", "info")
	c.oneOf("$.spec.status", s.Status, FindingOpen, FindingApplied, FindingClosed, FindingNotHelped, FindingWaived)
	if s.Change != nil {
		if kind, name, ok := strings.Cut(s.Change.Resource, "/"); !ok || rankOfKind(Kind(kind)) < 0 || !label.MatchString(name) {
			c.add(CodeValue, "$.spec.change.resource", "for example ActivePassive/orders", "%q does not name a resource", s.Change.Resource)
		}
		for i, op := range s.Change.Patch {
			path := index("$.spec.change.patch", i)
			c.oneOf(path+".op", op.Op, "replace", "add", "remove")
			if !strings.HasPrefix(op.Path, "/") {
				c.add(CodeValue, path+".path", "for example /spec/failover/after", "%q is not a JSON pointer", op.Path)
			}
		}
	}
	return c.problems
}
