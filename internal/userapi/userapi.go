// Package userapi is the JSON messages between people's programs (the command line, the demo) and the server: values.
//
// Resources themselves travel as package api has them; here is what stands around them. The OpenAPI document of
// server/httpapi describes each call.
//
// Units: times UTC, RFC 3339 with nanoseconds; durations as strings ("1.5s") unless the name says seconds.
// Concurrency: values.
package userapi

import (
	"encoding/json"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
)

// Roles, from least to most. Each may do what the ones before it may; approver is apart: it reads and approves.
const (
	Viewer   = "viewer"
	Approver = "approver"
	Operator = "operator"
	Admin    = "admin"
)

// Whoami is the caller as the server sees it. GET /v1alpha1/whoami.
type Whoami struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	Group    string `json:"group,omitempty"`
	Key      string `json:"key,omitempty"` // key id of the approver's key
	Identity string `json:"identity,omitempty"`
}

// User is an account. GET /v1alpha1/users, POST /v1alpha1/users (admin), DELETE /v1alpha1/users/{name}.
type User struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
	Group    string `json:"group,omitempty"` // development | operations | security
	Key      string `json:"key,omitempty"`   // id of the enrolled key; empty until the first login
	Enrolled bool   `json:"enrolled"`
}

// UserCreated carries the one-time enrolment code: "lfc1.<id>.<secret>.<sha-256 of the CA>.<api url, base64url>".
type UserCreated struct {
	User    User      `json:"user"`
	Code    string    `json:"code"`
	Expires time.Time `json:"expires"`
}

// EnrolRequest exchanges the code for a certificate; the Ed25519 key stays on the person's machine. POST /v1alpha1/enrol.
type EnrolRequest struct {
	Code string `json:"code"`
	CSR  []byte `json:"csr"` // DER, made with the Ed25519 key
}

type EnrolResponse struct {
	User        User   `json:"user"`
	Certificate []byte `json:"certificate"` // PEM chain
	Roots       []byte `json:"roots"`       // PEM
	API         string `json:"api"`
}

// BearerRequest asks for a bearer token of an account. POST /v1alpha1/users/{name}/tokens (admin, or the account itself).
type BearerRequest struct {
	TTL time.Duration `json:"ttl,omitempty"` // default 24h, at most 90 days
}

type BearerResponse struct {
	Token   string    `json:"token"` // "lfb1.<id>.<secret>"; the server keeps only its hash
	Expires time.Time `json:"expires"`
}

// ApplyRequest changes a set of resources, all or none. POST /v1alpha1/apply (operator).
type ApplyRequest struct {
	Objects []json.RawMessage `json:"objects"` // any kinds that an operator writes
	Delete  []api.Ref         `json:"delete,omitempty"`
	DryRun  bool              `json:"dryRun,omitempty"` // say what would change; nothing is written
	Reason  string            `json:"reason,omitempty"`
}

// ApplyResponse says what was done, in the order of the request.
type ApplyResponse struct {
	Changes  []Change `json:"changes"`
	Revision int64    `json:"revision"`
	Findings []Rule   `json:"findings,omitempty"` // audit findings that the change brings
}

// Change of one object.
type Change struct {
	Ref    api.Ref           `json:"ref"`
	Action string            `json:"action"` // created | changed | unchanged | deleted
	Fields []api.FieldChange `json:"fields,omitempty"`
}

// Rule is one audit or precheck answer.
type Rule struct {
	Code     string        `json:"code"`
	Name     string        `json:"name,omitempty"`
	Severity string        `json:"severity,omitempty"`
	Service  api.ServiceID `json:"service,omitempty"`
	Site     api.SiteID    `json:"site,omitempty"`
	OK       bool          `json:"ok"`
	Message  string        `json:"message,omitempty"`
	Fix      string        `json:"fix,omitempty"`
}

// WatchEvent is one line of GET /v1alpha1/watch?kind=K: first all objects with Type "object", then one line
// "synced", then changes.
type WatchEvent struct {
	Type     string          `json:"type"` // object | deleted | synced
	Ref      api.Ref         `json:"ref,omitzero"`
	Object   json.RawMessage `json:"object,omitempty"`
	Revision int64           `json:"revision"`
}

// Status is one screen. GET /v1alpha1/status; with ?watch=true one line per change.
type Status struct {
	At       time.Time       `json:"at"`
	Version  string          `json:"version"`
	Epoch    uint64          `json:"epoch"`
	Leader   bool            `json:"leader"`
	Lever    Lever           `json:"lever"`
	Services []ServiceStatus `json:"services"`
	Nodes    []NodeStatus    `json:"nodes"`
	Audit    []Rule          `json:"audit"`
	Runs     []RunSummary    `json:"runs"` // newest first, at most 10
}

// ServiceStatus is one row.
type ServiceStatus struct {
	Service    api.ServiceID          `json:"service"`
	Pattern    string                 `json:"pattern,omitempty"` // ActivePassive | ActiveActive | ""
	Reflex     bool                   `json:"reflex"`
	ActiveSite api.SiteID             `json:"activeSite,omitempty"`
	Shares     map[api.SiteID]float64 `json:"shares"`
	Phase      string                 `json:"phase,omitempty"` // failover.Machine's
	Reason     string                 `json:"reason,omitempty"`
	Sites      []SiteStatus           `json:"sites"`
	Demand     *float64               `json:"demand,omitempty"`  // requests/s; nil = unknown
	Success    *float64               `json:"success,omitempty"` // of the last 10 s; nil = no traffic
	LastRun    *RunSummary            `json:"lastRun,omitempty"`
	RTA        string                 `json:"rta,omitempty"`
	RTO        string                 `json:"rto,omitempty"`
}

// SiteStatus is one service at one site.
type SiteStatus struct {
	Site      api.SiteID   `json:"site"`
	State     string       `json:"state"` // health.State
	Healthy   int          `json:"healthy"`
	Endpoints int          `json:"endpoints"`
	Capacity  float64      `json:"capacity"`
	Agree     []api.NodeID `json:"agree,omitempty"`
}

// NodeStatus is one sidecar or agent.
type NodeStatus struct {
	Node       api.NodeID    `json:"node"`
	Site       api.SiteID    `json:"site"`
	Service    api.ServiceID `json:"service,omitempty"`
	Agent      bool          `json:"agent,omitempty"`
	Registered bool          `json:"registered"` // its lease lives
	Connected  bool          `json:"connected"`  // its xDS stream is open
	Acked      uint64        `json:"acked"`      // last epoch that it acknowledged
	Nack       string        `json:"nack,omitempty"`
	OffsetMS   float64       `json:"offsetMs"`
	ErrorMS    float64       `json:"errorMs"`
	PID        int           `json:"pid,omitempty"`
	Address    string        `json:"address,omitempty"`   // of its inbound listener
	Processes  []Process     `json:"processes,omitempty"` // of an agent
}

// Process is one supervised process of an agent.
type Process struct {
	Name     string        `json:"name"`
	Service  api.ServiceID `json:"service"`
	Workload string        `json:"workload"`
	Sidecar  bool          `json:"sidecar,omitempty"`
	PID      int           `json:"pid"`
	State    string        `json:"state"`
	Restarts int           `json:"restarts"`
	Address  string        `json:"address,omitempty"`
}

// Lever is the safety lever. GET and POST /v1alpha1/lever (operator to engage, admin to release).
type Lever struct {
	Engaged bool      `json:"engaged"`
	By      string    `json:"by,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	At      time.Time `json:"at,omitzero"`
}

// MoveRequest orders a failover or a fail-back. POST /v1alpha1/services/{service}/failover | failback (operator).
type MoveRequest struct {
	To        api.SiteID `json:"to,omitempty"` // failover only
	Unplanned bool       `json:"unplanned,omitempty"`
	Reason    string     `json:"reason"`
	Override  []string   `json:"override,omitempty"` // LFnnnn; needs role admin
	DryRun    bool       `json:"dryRun,omitempty"`
}

// MoveResponse says what was decided. Refused moves come back as an api.Error of kind Denied with the rule's code.
type MoveResponse struct {
	Service  api.ServiceID          `json:"service"`
	From     api.SiteID             `json:"from"`
	To       api.SiteID             `json:"to"`
	Shares   map[api.SiteID]float64 `json:"shares"`
	Epoch    uint64                 `json:"epoch,omitempty"` // table that carries it; 0 for a dry run or a ramp that has only begun
	Warnings []string               `json:"warnings,omitempty"`
	DryRun   bool                   `json:"dryRun,omitempty"`
}

// RunRequest starts a run of a drill: it is rendered and waits at Proposed. POST /v1alpha1/drills/{drill}/runs (operator).
type RunRequest struct {
	Parameters map[string]string `json:"parameters,omitempty"` // over the drill's own
	PlanOnly   bool              `json:"planOnly,omitempty"`   // render and return; no run is made
}

// Run is a run with what a person needs to see. GET /v1alpha1/runs/{run}; list GET /v1alpha1/runs.
type Run struct {
	Run      api.DrillRun    `json:"run"`
	Proposal json.RawMessage `json:"proposal,omitempty"`
	Missing  []string        `json:"missing,omitempty"` // groups that have not approved
	Expect   string          `json:"expect,omitempty"`
}

// RunSummary is one row of a list of runs.
type RunSummary struct {
	ID       string `json:"id"`
	Drill    string `json:"drill"`
	Scenario string `json:"scenario"`
	State    string `json:"state"`
	Verdict  string `json:"verdict,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Started  string `json:"started,omitempty"`
	Ended    string `json:"ended,omitempty"`
	Findings int    `json:"findings"`
}

// ApproveRequest carries a signed envelope. POST /v1alpha1/runs/{run}/approvals (approver, of the group that it signs for).
type ApproveRequest struct {
	Envelope []byte `json:"envelope"` // DSSE; evidence.SignApproval
}

// AbortRequest ends a run: it restores and closes as aborted. POST /v1alpha1/runs/{run}/abort (operator).
type AbortRequest struct {
	Reason string `json:"reason"`
}

// RunEvent is one line of GET /v1alpha1/runs/{run}/watch: all records so far, then new ones, live numbers each
// second, and a last line with Done.
type RunEvent struct {
	Record *evidence.Record `json:"record,omitempty"`
	State  string           `json:"state,omitempty"`
	Live   []Live           `json:"live,omitempty"`
	Done   *RunSummary      `json:"done,omitempty"`
}

// Live is one second of one service as its probe saw it.
type Live struct {
	Service   api.ServiceID        `json:"service"`
	At        time.Time            `json:"at"` // second, by intended time
	OK        map[api.SiteID]int64 `json:"ok"` // first-attempt answers by site
	RetriedOK int64                `json:"retriedOk"`
	Failed    int64                `json:"failed"`
	Shed      int64                `json:"shed"`
	P99       float64              `json:"p99"` // milliseconds, of the answered
}

// FindingRequest changes a finding. POST /v1alpha1/findings/{id}/apply | close (operator).
type FindingRequest struct {
	Reason string `json:"reason,omitempty"`
	DryRun bool   `json:"dryRun,omitempty"`
}

// FindingResponse shows the finding and, for apply, the change that was made.
type FindingResponse struct {
	Finding api.Finding `json:"finding"`
	Changes []Change    `json:"changes,omitempty"`
}

// Version of the server. GET /v1alpha1/version (no authentication needed beyond TLS).
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Key     string `json:"key"` // note verifier key that signs checkpoints and statements
}

// Context is a context file: which server, and as whom. It holds a private key: mode 0600.
type Context struct {
	Server      string `json:"server" yaml:"server"` // https://host:port
	User        string `json:"user" yaml:"user"`
	TrustDomain string `json:"trustDomain" yaml:"trustDomain"`
	Key         string `json:"key" yaml:"key"`                 // PEM, PKCS 8, Ed25519
	Certificate string `json:"certificate" yaml:"certificate"` // PEM chain
	Roots       string `json:"roots" yaml:"roots"`             // PEM
	// Token is a bearer token that is used instead of key and certificate.
	Token string `json:"token,omitempty" yaml:"token,omitempty"`
}
