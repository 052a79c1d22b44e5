// Package health is what was observed of endpoints, by whom and when: a value.
//
// Each observer (a sidecar, or the server for expired leases) says, per service and site, how it sees every
// endpoint. Judge turns a Snapshot into one Verdict per service and site: lost needs at least two observers,
// none of them in that site, who agree on every endpoint there at the same moment.
//
// Units: times are UTC wall times of the server's receipt; Fresh is a span.
// Errors: none; what cannot be judged is Unknown, with the reason.
// Concurrency: values; With and Prune return a new Snapshot and leave the old one as it is.
// Sources: ARCHITECTURE.md, decision 4 (one observer is not a disaster).
package health

import (
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// ServerObserver is the observer id of the server itself: it sees registration leases end.
const ServerObserver api.NodeID = "server"

// Observation is one observer's latest view of one service at one site.
type Observation struct {
	Observer     api.NodeID     `json:"observer"`
	ObserverSite api.SiteID     `json:"observerSite"` // empty for the server
	Service      api.ServiceID  `json:"service"`
	Site         api.SiteID     `json:"site"`
	Endpoints    []EndpointView `json:"endpoints"`          // sorted by Workload
	At           time.Time      `json:"at"`                 // receipt by the server
	Abstains     bool           `json:"abstains,omitempty"` // its own loop was late by over half an interval
}

// EndpointView is how one observer sees one endpoint.
type EndpointView struct {
	Workload string `json:"workload"`
	Healthy  bool   `json:"healthy"`
	Reason   string `json:"reason,omitempty"` // "connect: refused", "timeout", "status 503", "lease ended", ...
}

// Snapshot is everything that is known now.
type Snapshot struct {
	At           time.Time     `json:"at"`
	Observations []Observation `json:"observations"` // sorted by service, site, observer
}

// State of a service at a site.
type State string

const (
	Unknown  State = "unknown"  // nobody can say
	Ready    State = "ready"    // every observer sees every endpoint healthy
	Degraded State = "degraded" // some endpoints are healthy
	Suspect  State = "suspect"  // all endpoints bad for some observers, but not enough of them agree
	Lost     State = "lost"     // enough observers outside the site agree that every endpoint is gone
)

// Verdict is the judgement on one service at one site.
type Verdict struct {
	Service   api.ServiceID `json:"service"`
	Site      api.SiteID    `json:"site"`
	State     State         `json:"state"`
	Agree     []api.NodeID  `json:"agree,omitempty"`    // observers outside the site that see every endpoint bad
	Disagree  []api.NodeID  `json:"disagree,omitempty"` // observers outside the site that see a healthy one
	Endpoints int           `json:"endpoints"`
	Healthy   int           `json:"healthy"` // endpoints that at least half of the observers see healthy
	Reason    string        `json:"reason,omitempty"`
}
