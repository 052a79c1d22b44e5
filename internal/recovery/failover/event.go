package failover

import (
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
)

// Event is something that happened: Observed, Tick, Ordered, Committed, Acked, Drill, Configured or Restarted.
// At is the moment on one clock that never goes back.
type Event interface{ when() time.Time }

// SiteFacts is what is known of the service at one site.
type SiteFacts = audit.Facts

// Observed is everything that is known of the service now. A site that is missing is Unknown.
type Observed struct {
	At          time.Time
	Sites       map[api.SiteID]SiteFacts
	Demand      float64 // requests/s, see Demand
	DemandKnown bool
	// Objectives of the service as its callers see them now; not known is neither met nor missed.
	ObjectivesKnown bool
	ObjectivesMet   bool
	// Reflexed: some proxy has left the active site by itself and is not back.
	Reflexed bool
	// Left names the sites of an ActiveActive that some proxy has left by itself and is not back at.
	Left []api.SiteID
}

// Tick says only that time has passed; Next tells when one is needed.
type Tick struct{ At time.Time }

// Verb of an order.
type Verb string

const (
	VerbFailover    Verb = "failover"     // move to To now; empty To = the next site that may take it
	VerbFailback    Verb = "failback"     // return to the preferred site as soon as it has been ready for long enough
	VerbApprove     Verb = "approve"      // the word that an approved decision waits for
	VerbDeclareLost Verb = "declare-lost" // To is lost, whatever its observers say, until a failback is ordered
)

// Ordered is what a person, or a drill, asks for.
type Ordered struct {
	At       time.Time
	Actor    string
	Verb     Verb
	To       api.SiteID
	Planned  bool // both sites must answer
	Reason   string
	Override []string // codes of rules that the actor overrides
	// DryRun: Step returns the machine unchanged and the actions that would follow.
	DryRun bool
}

// Committed says that the table with the shares of Publish number Number is stored. Number zero is the one that is
// pending. Epoch is the table's, new or not.
type Committed struct {
	At     time.Time
	Number uint64
	Epoch  uint64
}

// Acked says how far the proxies are. Repeating it is harmless.
type Acked struct {
	At           time.Time
	Epoch        uint64
	AllReachable bool // every proxy that is reachable has acknowledged Epoch, or a later one
	Silent       []api.NodeID
}

// Drill says that a drill run which includes this service begins or ends. Site is what the run takes away.
type Drill struct {
	At    time.Time
	Run   string
	Begin bool
	Site  api.SiteID
}

// Configured says that the operator changed the pattern, the service or its sites.
type Configured struct {
	At     time.Time
	Config Config
}

// Restarted is the first event of a machine that was read from the store. It gives again what was not confirmed.
type Restarted struct{ At time.Time }

func (e Observed) when() time.Time   { return e.At }
func (e Tick) when() time.Time       { return e.At }
func (e Ordered) when() time.Time    { return e.At }
func (e Committed) when() time.Time  { return e.At }
func (e Acked) when() time.Time      { return e.At }
func (e Drill) when() time.Time      { return e.At }
func (e Configured) when() time.Time { return e.At }
func (e Restarted) when() time.Time  { return e.At }
