package failover

import (
	"maps"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Phase is where a service stands, for its status.
type Phase string

const (
	Steady      Phase = "Steady"
	Suspect     Phase = "Suspect"     // its site may be lost
	Lost        Phase = "Lost"        // its site is lost: the dwell runs, or a person must speak
	Refused     Phase = "Refused"     // its site is lost and no automatic failover is allowed
	Switching   Phase = "Switching"   // decided, not yet in the table
	FailingBack Phase = "FailingBack" // on the ramp
)

// State is all that a machine remembers. Times are zero when the thing is not so.
//
//  1. Shares add up to route.Whole, or are empty when no site may serve.
//  2. Active is the one active site of an ActivePassive; during a ramp it is the site that is being left.
type State struct {
	At     time.Time `json:"at"` // of the last event
	Phase  Phase     `json:"phase"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"` // of the phase

	Active    api.SiteID                  `json:"active,omitempty"`
	Evacuated []api.SiteID                `json:"evacuated,omitempty"` // ActiveActive: sites out of service; sorted
	Shares    map[api.SiteID]route.Weight `json:"shares"`
	MovedAt   time.Time                   `json:"movedAt,omitzero"` // last switch: a fail-back without a person's word waits from here
	Held      bool                        `json:"held,omitempty"`   // a person chose this placement: only a person ends it

	Sites           map[api.SiteID]SiteState `json:"sites"`
	Demand          audit.Demand             `json:"demand"`
	ObjectivesKnown bool                     `json:"objectivesKnown,omitempty"`
	ObjectivesMet   bool                     `json:"objectivesMet,omitempty"`

	Number     uint64   `json:"number"`            // of the last Publish
	Pending    *Pending `json:"pending,omitempty"` // not confirmed
	AckedEpoch uint64   `json:"ackedEpoch"`        // by every reachable proxy
	Ramp       *Ramp    `json:"ramp,omitempty"`

	Switches []time.Time `json:"switches,omitempty"` // automatic ones that count against the limit
	Awaiting Verb        `json:"awaiting,omitempty"` // failover or failback: waits for a person's word
	Approved *Approval   `json:"approved,omitempty"` // fail-back that was approved before it can begin
	// What was last refused, so that it is said once.
	RefusedFailover string    `json:"refusedFailover,omitempty"`
	RefusedFailback string    `json:"refusedFailback,omitempty"`
	Drill           *DrillRun `json:"drill,omitempty"`
}

// SiteState is what the machine remembers of a site.
type SiteState struct {
	Facts      SiteFacts `json:"facts"`
	Declared   string    `json:"declared,omitempty"`  // who declared it lost
	LostSince  time.Time `json:"lostSince,omitzero"`  // lost without a break
	ReadySince time.Time `json:"readySince,omitzero"` // ready without a break
	LeftSince  time.Time `json:"leftSince,omitzero"`  // some proxy is away by reflex
	Recorded   bool      `json:"recorded,omitempty"`  // the log's last word on it is lost
	LastLoss   time.Time `json:"lastLoss,omitzero"`   // that no drill made
	Doublings  int       `json:"doublings,omitempty"` // losses that came within an hour of the one before
}

// Ramp is a fail-back on its way.
type Ramp struct {
	To    api.SiteID `json:"to"`
	From  api.SiteID `json:"from,omitempty"` // ActivePassive only
	Step  int        `json:"step"`           // index into Config.RampShares; -1 = stepped back to nothing
	Since time.Time  `json:"since,omitzero"` // commit of the step
	Epoch uint64     `json:"epoch"`          // that carries it
	Cause string     `json:"cause"`
	Actor string     `json:"actor"`
}

// Pending is a decision that is not confirmed, whole, to be given again after a restart.
type Pending struct {
	Publish Publish  `json:"publish"`
	Records []Record `json:"records"`
}

// Approval is a person's word.
type Approval struct {
	Actor  string `json:"actor"`
	Reason string `json:"reason,omitempty"`
}

// DrillRun is a run that includes this service.
type DrillRun struct {
	Run  string     `json:"run"`
	Site api.SiteID `json:"site"`
}

// clone copies whatever Step may write to.
func (s State) clone() State {
	s.Evacuated = slices.Clone(s.Evacuated)
	s.Shares = maps.Clone(s.Shares)
	s.Sites = maps.Clone(s.Sites)
	if s.Sites == nil {
		s.Sites = map[api.SiteID]SiteState{}
	}
	s.Switches = slices.Clone(s.Switches)
	if s.Ramp != nil {
		r := *s.Ramp
		s.Ramp = &r
	}
	return s // Pending, Approved and Drill are replaced, never written into
}

// normalise makes lists that became empty nil, as they are read back from JSON.
func (s *State) normalise() {
	if len(s.Evacuated) == 0 {
		s.Evacuated = nil
	}
	if len(s.Switches) == 0 {
		s.Switches = nil
	}
}

func (s SiteState) lost() bool  { return !s.LostSince.IsZero() }
func (s SiteState) ready() bool { return !s.ReadySince.IsZero() }

// state is the judgement with a person's declaration in it.
func (s SiteState) state() health.State {
	if s.Declared != "" {
		return health.Lost
	}
	if s.Facts.Verdict.State == "" {
		return health.Unknown
	}
	return s.Facts.Verdict.State
}
