// Package nodeapi is the JSON messages between a node (sidecar or agent) and the server: values.
//
// docs/spec/channels.md lists every message, who sends it, when, and what happens when it is lost.
//
// Units: times UTC, RFC 3339 with nanoseconds; spans are integers of nanoseconds.
// Concurrency: values.
package nodeapi

import (
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
)

// JoinRequest exchanges a one-time token and a certificate request for a certificate. POST /v1alpha1/join.
// It is the only call without a client certificate.
type JoinRequest struct {
	Token    string     `json:"token"`
	Node     api.NodeID `json:"node"`
	CSR      []byte     `json:"csr"`                // DER; only its public key is used
	Workload *Workload  `json:"workload,omitempty"` // a sidecar registers this; nil for an agent
}

// Workload is what a sidecar says of itself.
type Workload struct {
	Name     string        `json:"name"`
	Service  api.ServiceID `json:"service"`
	Address  string        `json:"address"` // host:port of its inbound listener; empty if it only calls
	Version  string        `json:"version,omitempty"`
	Capacity float64       `json:"capacity,omitempty"`
}

// JoinResponse carries the node's first certificate and where to go next.
type JoinResponse struct {
	Identity    string     `json:"identity"`    // SPIFFE id
	Certificate []byte     `json:"certificate"` // PEM chain, leaf first
	Roots       []byte     `json:"roots"`       // PEM, all roots of the trust domain
	TrustDomain string     `json:"trustDomain"`
	Site        api.SiteID `json:"site"`
	API         string     `json:"api"` // https://host:port
	XDS         []string   `json:"xds"` // host:port of each server's gRPC port
}

// RenewRequest asks for the next certificate. POST /v1alpha1/nodes/{node}/renew.
type RenewRequest struct {
	CSR []byte `json:"csr"`
}

// RenewResponse is the next certificate and the roots now in force.
type RenewResponse struct {
	Certificate []byte `json:"certificate"`
	Roots       []byte `json:"roots"`
}

// Heartbeat renews the registration lease and estimates the clock offset. POST /v1alpha1/nodes/{node}/heartbeat, each second.
type Heartbeat struct {
	Sent     time.Time `json:"sent"`               // node's clock
	Workload *Workload `json:"workload,omitempty"` // a sidecar repeats it, so that a server that lost it has it again
	Agent    *Agent    `json:"agent,omitempty"`
	Epoch    uint64    `json:"epoch"` // table epoch in force
	// The node's own estimate of (node clock - server clock), smallest round trip of the last 16 exchanges.
	ClockOffset time.Duration `json:"clockOffset"`
	ClockError  time.Duration `json:"clockError"`
	PID         int           `json:"pid"`
}

// Agent is what an agent says of its host.
type Agent struct {
	Site      api.SiteID      `json:"site"`
	Kinds     []fault.Kind    `json:"kinds"` // fault kinds that it can apply, and undo
	Processes []Process       `json:"processes"`
	Probes    []string        `json:"probes,omitempty"`   // ids of probe orders in force
	CanProbe  []api.ServiceID `json:"canProbe,omitempty"` // services that its client sidecar has a port for
	Faults    []string        `json:"faults,omitempty"`   // ids of fault orders in force
}

// Process is one supervised process.
type Process struct {
	Name     string        `json:"name"` // "payments-1", "payments-1/sidecar"
	Service  api.ServiceID `json:"service"`
	Workload string        `json:"workload"`
	Sidecar  bool          `json:"sidecar,omitempty"`
	Counts   bool          `json:"counts,omitempty"` // the agent can list the request ids that it executed
	PID      int           `json:"pid"`
	State    string        `json:"state"` // running | held | starting | stopped | failed
	Restarts int           `json:"restarts"`
	Address  string        `json:"address,omitempty"` // of the application or of the inbound listener
}

// HeartbeatResponse gives the server's two times for the offset: offset = ((received-sent) + (replied-arrived)) / 2.
type HeartbeatResponse struct {
	Received time.Time `json:"received"`
	Replied  time.Time `json:"replied"`
	Lever    bool      `json:"lever,omitempty"` // the safety lever is engaged: end every drill fault
}

// Health is a sidecar's view of the endpoints that it checks; sent on every change at once, and each second whole.
// POST /v1alpha1/nodes/{node}/health.
type Health struct {
	Site         api.SiteID           `json:"site"`
	Observations []health.Observation `json:"observations"` // Observer, ObserverSite and At are set by the server
	Reflex       []Reflex             `json:"reflex,omitempty"`
	Load         []Load               `json:"load,omitempty"`
}

// Reflex says that this proxy left a site by itself, or came back.
type Reflex struct {
	Service api.ServiceID `json:"service"`
	From    api.SiteID    `json:"from"`
	To      api.SiteID    `json:"to"`
	At      time.Time     `json:"at"` // node's clock
}

// Load is one second of a service as its inbound sidecar counted it (Demand) or as a caller sent it.
type Load struct {
	Service  api.ServiceID `json:"service"`
	Site     api.SiteID    `json:"site"` // where it was served
	Requests int64         `json:"requests"`
	Failed   int64         `json:"failed"`
	Inbound  bool          `json:"inbound,omitempty"` // counted where it was served, not where it was sent
	Span     time.Duration `json:"span"`
}

// Leave says that a node ends in an orderly way. POST /v1alpha1/nodes/{node}/leave. Repeating it is harmless.
type Leave struct {
	Sent time.Time `json:"sent"` // node's clock; a heartbeat that was sent before it comes too late
}

// Faults reports what became of fault orders. POST /v1alpha1/nodes/{node}/faults. Repeating a report is harmless.
type Faults struct {
	Reports []fault.Report `json:"reports"`
}

// Samples announces one chunk; the body of POST /v1alpha1/nodes/{node}/samples?order=&chunk=&sha256= is the chunk's bytes.
// Repeating it is harmless; other bytes under the same number are refused (Conflict).
type Samples struct {
	Order  string `json:"order"`
	Chunk  int64  `json:"chunk"`
	SHA256 string `json:"sha256"`
}

// Executions announces the request ids that one workload executed; the body has one id per line.
// POST /v1alpha1/nodes/{node}/executions?order=&workload=&service=&sha256=. Repeating it is harmless.
type Executions struct {
	Order    string        `json:"order"`
	Workload string        `json:"workload"`
	Service  api.ServiceID `json:"service"`
	SHA256   string        `json:"sha256"`
}

// TokenRequest asks for a one-time join token. POST /v1alpha1/tokens (role operator, or an agent for services of its own site).
type TokenRequest struct {
	Site    api.SiteID    `json:"site"`
	Service api.ServiceID `json:"service,omitempty"` // for a sidecar of this service
	Agent   bool          `json:"agent,omitempty"`   // for the agent of the site
	TTL     time.Duration `json:"ttl,omitempty"`     // default 10m
}

// TokenResponse carries the token: "lf1.<id>.<secret>.<sha-256 of the CA, hex>.<api url, base64url>".
type TokenResponse struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}
