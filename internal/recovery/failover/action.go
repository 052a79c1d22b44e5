package failover

import (
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Action is something to be done, in the order given: Record, Publish or Finding.
type Action interface{ action() }

// Causes of an order.
const (
	CauseLost      = "lost"
	CausePlanned   = "planned"
	CauseUnplanned = "unplanned"
	CauseFailback  = "failback"
	CauseReflex    = "reflex" // proxies left by themselves and are brought back
	CauseConfig    = "config" // the active site is no longer one of the pattern
)

// Publish orders a table with these shares. It is answered with Committed. Until then, Restarted gives it again
// with the same number, so doing it twice must be harmless.
type Publish struct {
	Number  uint64                      `json:"number"` // counts the machine's decisions, from 1
	Service api.ServiceID               `json:"service"`
	Active  api.SiteID                  `json:"active,omitempty"` // ActivePassive only
	Shares  map[api.SiteID]route.Weight `json:"shares"`
	// Renew: the table needs a new epoch even if its content is the old one, because a new table is what brings back
	// the proxies that left by reflex.
	Renew  bool   `json:"renew,omitempty"`
	Cause  string `json:"cause"`
	Actor  string `json:"actor"`
	Reason string `json:"reason,omitempty"`
	Drill  string `json:"drill,omitempty"` // run during which it was decided
}

// RecordKind is the kind of a record, as the log names it.
type RecordKind string

const (
	RecordVerdict       RecordKind = "site.verdict"    // Site, State, Observers, Declared
	RecordOrder         RecordKind = "failover.order"  // From, To, Cause, Actor, Reason, Override
	RecordRefusal       RecordKind = "failover.refuse" // To, Code, Message, Overridable, Fix, Actor
	RecordFailbackBegun RecordKind = "failback.begun"  // To, Shares, Cause, Actor
	RecordFailbackStep  RecordKind = "failback.step"   // To, Shares, Message
	RecordFailbackDone  RecordKind = "failback.done"   // To, Shares
)

// Record is a fact for the log. Which fields are set stands beside its kind.
type Record struct {
	Kind      RecordKind    `json:"kind"`
	At        time.Time     `json:"at"`
	Number    uint64        `json:"number,omitempty"` // of the Publish that it belongs to; a repeated one is the same fact
	Service   api.ServiceID `json:"service"`
	Site      api.SiteID    `json:"site,omitempty"`
	State     health.State  `json:"state,omitempty"`
	Observers []api.NodeID  `json:"observers,omitempty"`
	Declared  string        `json:"declared,omitempty"` // who declared it lost
	From      api.SiteID    `json:"from,omitempty"`
	To        api.SiteID    `json:"to,omitempty"`
	Cause     string        `json:"cause,omitempty"`
	Actor     string        `json:"actor,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	Override  []string      `json:"override,omitempty"` // rules that would have refused it
	Code      string        `json:"code,omitempty"`
	Message   string        `json:"message,omitempty"`
	// Overridable: the same order with Code in its Override would not be refused by this rule. Fix is what else to do.
	Overridable bool                        `json:"overridable,omitempty"`
	Fix         string                      `json:"fix,omitempty"`
	Shares      map[api.SiteID]route.Weight `json:"shares,omitempty"`
	Drill       string                      `json:"drill,omitempty"`
}

// Finding is something that a person should know or do.
type Finding struct {
	Code     string        `json:"code"`
	Severity string        `json:"severity"` // high | medium | low
	Service  api.ServiceID `json:"service"`
	Site     api.SiteID    `json:"site,omitempty"`
	What     string        `json:"what"`
	Fix      string        `json:"fix"`
}

func (Publish) action() {}
func (Record) action()  {}
func (Finding) action() {}
