package api

// Site is a failure domain that can be lost as a whole.
type Site struct {
	Type     `json:",inline"`
	Metadata Metadata `json:"metadata"`
	Spec     SiteSpec `json:"spec"`
}

type SiteSpec struct {
	Region       string `json:"region,omitempty"`       // locality: region
	Zone         string `json:"zone,omitempty"`         // locality: zone
	Jurisdiction string `json:"jurisdiction,omitempty"` // for residency rules, for example "EU"
}

// Service is a named workload with its objectives and the rules for calling it.
type Service struct {
	Type     `json:",inline"`
	Metadata Metadata    `json:"metadata"`
	Spec     ServiceSpec `json:"spec"`
}

type ServiceSpec struct {
	Protocol   string      `json:"protocol,omitempty"` // http | grpc | tcp; default http
	Port       int         `json:"port,omitempty"`     // the port that callers use; default 80
	Hosts      []string    `json:"hosts,omitempty"`    // names that callers use; default <name>.mesh
	Data       string      `json:"data"`               // stateless | stateful; required
	Objectives Objectives  `json:"objectives,omitzero"`
	Health     HealthCheck `json:"health,omitzero"`
	Timeouts   Timeouts    `json:"timeouts,omitzero"`
	Retries    Retries     `json:"retries,omitzero"`
	Limits     Limits      `json:"limits,omitzero"`
	Residency  []string    `json:"residency,omitempty"` // jurisdictions that may serve; empty = anywhere
	DependsOn  []ServiceID `json:"dependsOn,omitempty"` // services that it calls
	Owner      string      `json:"owner,omitempty"`     // team that answers for it
}

// Objectives are what the service promises; a nil or zero field was not written and is not judged.
type Objectives struct {
	RTO          *Duration     `json:"rto,omitempty"`     // recovery time objective
	RPO          *Duration     `json:"rpo,omitempty"`     // recovery point objective; only with data: stateful
	Success      *float64      `json:"success,omitempty"` // ratio of requests that succeed
	Latency      *Latency      `json:"latency,omitempty"`
	Availability *Availability `json:"availability,omitempty"`
}

type Latency struct {
	P99 Duration `json:"p99"` // 99 of 100 requests are faster
}

type Availability struct {
	Target float64  `json:"target"`           // ratio
	Window Duration `json:"window,omitempty"` // default 30d
}

// HealthCheck is the active check that sidecars make of every endpoint.
type HealthCheck struct {
	Path      string   `json:"path,omitempty"`      // default /healthz
	Interval  Duration `json:"interval,omitempty"`  // default 500ms
	Timeout   Duration `json:"timeout,omitempty"`   // default 300ms
	Failures  int      `json:"failures,omitempty"`  // in a row until unhealthy; default 3
	Successes int      `json:"successes,omitempty"` // in a row until healthy; default 2
}

type Timeouts struct {
	Request Duration `json:"request,omitempty"` // default 15s
	Try     Duration `json:"try,omitempty"`     // default 0: no fixed limit, the proxy judges by progress
	Idle    Duration `json:"idle,omitempty"`    // default 5m
}

type Retries struct {
	On         []string `json:"on,omitempty"`         // connect, reset, refused, 502, 503, 504
	Attempts   int      `json:"attempts,omitempty"`   // in all; default 3
	Budget     float64  `json:"budget,omitempty"`     // retries per request over time; default 0.2
	Idempotent bool     `json:"idempotent,omitempty"` // every method may be tried again, not only the safe ones
}

type Limits struct {
	Connections int `json:"connections,omitempty"` // default 1024
	Pending     int `json:"pending,omitempty"`     // default 1024
	Requests    int `json:"requests,omitempty"`    // default 1024
}

// Workload is one instance of a service at a site: registered by its sidecar under a lease, or written by hand.
type Workload struct {
	Type     `json:",inline"`
	Metadata Metadata        `json:"metadata"`
	Spec     WorkloadSpec    `json:"spec"`
	Status   *WorkloadStatus `json:"status,omitempty"`
}

type WorkloadSpec struct {
	Service  ServiceID `json:"service"`
	Site     SiteID    `json:"site"`
	Address  string    `json:"address"`            // host:port of its sidecar's inbound listener
	Version  string    `json:"version,omitempty"`  // of the program, for example v1
	Capacity float64   `json:"capacity,omitempty"` // requests/s that it can serve; 0 = unknown
	Identity string    `json:"identity,omitempty"` // SPIFFE id that it must show; default the service's at its site
}

// WorkloadStatus is written by the server: whether the registration lease lives.
type WorkloadStatus struct {
	Node       NodeID `json:"node,omitempty"` // the sidecar that registered it; empty if written by hand
	Registered bool   `json:"registered"`     // its lease lives (always true if written by hand)
	LostAt     string `json:"lostAt,omitempty"`
}

// ActivePassive places a service at exactly one active site of an ordered list.
type ActivePassive struct {
	Type     `json:",inline"`
	Metadata Metadata          `json:"metadata"`
	Spec     ActivePassiveSpec `json:"spec"`
	Status   *PlacementStatus  `json:"status,omitempty"`
}

type ActivePassiveSpec struct {
	Service  ServiceID `json:"service"`
	Order    []SiteID  `json:"order"`            // preferred first
	Reflex   *bool     `json:"reflex,omitempty"` // default: true if stateless; true is refused if stateful
	Failover Failover  `json:"failover,omitzero"`
	Require  Require   `json:"require,omitzero"`
	Failback Failback  `json:"failback,omitzero"`
}

// Modes of a failover or fail-back.
const (
	Automatic = "automatic"
	Approved  = "approved"
	Manual    = "manual"
)

type Failover struct {
	Mode        string      `json:"mode,omitempty"`      // automatic | approved | manual; default automatic if stateless, else approved
	After       Duration    `json:"after,omitempty"`     // dwell of "lost"; default 5s
	Observers   int         `json:"observers,omitempty"` // at least 2; default 2
	MaxSwitches MaxSwitches `json:"maxSwitches,omitzero"`
}

type MaxSwitches struct {
	Count int      `json:"count,omitempty"` // default 2
	Per   Duration `json:"per,omitempty"`   // default 1h
}

// Require is what a target must have before traffic is sent to it.
type Require struct {
	Ready    *bool    `json:"ready,omitempty"`    // default true
	Capacity *float64 `json:"capacity,omitempty"` // target's ready capacity / observed demand; default 1.0
}

type Failback struct {
	Mode  string   `json:"mode,omitempty"`  // default approved
	After Duration `json:"after,omitempty"` // preferred site ready for so long without a break; default 5m
	Ramp  Ramp     `json:"ramp,omitzero"`
}

type Ramp struct {
	Shares []float64 `json:"shares,omitempty"` // default 0.1, 0.5, 1
	Every  Duration  `json:"every,omitempty"`  // default 60s (30s for ActiveActive)
}

// ActiveActive spreads a service over sites by weight.
type ActiveActive struct {
	Type     `json:",inline"`
	Metadata Metadata         `json:"metadata"`
	Spec     ActiveActiveSpec `json:"spec"`
	Status   *PlacementStatus `json:"status,omitempty"`
}

type ActiveActiveSpec struct {
	Service  ServiceID          `json:"service"`
	Weights  map[SiteID]float64 `json:"weights"`
	Evacuate Evacuate           `json:"evacuate,omitzero"`
	Shed     Shed               `json:"shed,omitzero"`
	Return   Return             `json:"return,omitzero"`
}

type Evacuate struct {
	Mode      string   `json:"mode,omitempty"`      // default automatic
	After     Duration `json:"after,omitempty"`     // default 5s
	Observers int      `json:"observers,omitempty"` // default 2
}

type Shed struct {
	Capacity float64 `json:"capacity,omitempty"` // share of the declared capacity that is admitted; default 1.0
}

type Return struct {
	After Duration `json:"after,omitempty"` // default 1m
	Ramp  Ramp     `json:"ramp,omitzero"`
}

// PlacementStatus is where a service is served from. Written by the failover loop only.
type PlacementStatus struct {
	ActiveSite SiteID             `json:"activeSite,omitempty"` // ActivePassive only
	Shares     map[SiteID]float64 `json:"shares,omitempty"`
	Epoch      uint64             `json:"epoch,omitempty"` // table epoch that carries the shares
	Phase      string             `json:"phase,omitempty"` // Steady, Suspect, Lost, Switching, FailingBack
	Reason     string             `json:"reason,omitempty"`
	Since      string             `json:"since,omitempty"` // RFC 3339
	Conditions []Condition        `json:"conditions,omitempty"`
}

// Condition is one fact about an object in Kubernetes' form.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"` // True | False | Unknown
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}

// AuthorizationPolicy says who may call a service. Without one, nobody may.
type AuthorizationPolicy struct {
	Type     `json:",inline"`
	Metadata Metadata                `json:"metadata"`
	Spec     AuthorizationPolicySpec `json:"spec"`
}

type AuthorizationPolicySpec struct {
	Service ServiceID   `json:"service"`
	Allow   []AllowRule `json:"allow"`
}

type AllowRule struct {
	Identity string   `json:"identity"`          // SPIFFE id; a last path element "*" matches any one element
	Methods  []string `json:"methods,omitempty"` // empty = any
	Paths    []string `json:"paths,omitempty"`   // exact, or prefix when it ends in "*"; empty = any
}

// Scenario is a named disaster with parameters.
type Scenario struct {
	Type     `json:",inline"`
	Metadata Metadata     `json:"metadata"`
	Spec     ScenarioSpec `json:"spec"`
}

type ScenarioSpec struct {
	Description string               `json:"description,omitempty"`
	Parameters  map[string]Parameter `json:"parameters,omitempty"`
	Faults      []FaultTemplate      `json:"faults"`
	Expect      Expect               `json:"expect,omitzero"`
}

type Parameter struct {
	Enum        []string `json:"enum,omitempty"`
	Default     string   `json:"default,omitempty"`
	Description string   `json:"description,omitempty"`
}

// FaultTemplate is a fault with "{parameter}" placeholders; {site} is the drill's scope.site.
type FaultTemplate struct {
	Kind   string      `json:"kind"` // kill | pause | server-kill, or "{fault}"
	Target FaultTarget `json:"target"`
	After  Duration    `json:"after,omitempty"` // after the first fault of the scenario; default 0
}

type FaultTarget struct {
	Site   string `json:"site,omitempty"`   // every workload of the drill's services, and its sidecar, at this site
	Server bool   `json:"server,omitempty"` // the server process itself
}

type Expect struct {
	Verdict string `json:"verdict,omitempty"` // passed (default) | failed | aborted
}

// Drill is the declared exercise.
type Drill struct {
	Type     `json:",inline"`
	Metadata Metadata  `json:"metadata"`
	Spec     DrillSpec `json:"spec"`
}

type DrillSpec struct {
	Scenario   string            `json:"scenario"`
	Parameters map[string]string `json:"parameters,omitempty"`
	Scope      DrillScope        `json:"scope"`
	Probes     []Probe           `json:"probes"`
	Baseline   Duration          `json:"baseline,omitempty"` // default 30s
	Hold       Duration          `json:"hold,omitempty"`     // default 60s
	Verify     Duration          `json:"verify,omitempty"`   // default 30s
	Lease      Duration          `json:"lease,omitempty"`    // default 15s
	Guardrails []Guardrail       `json:"guardrails,omitempty"`
	Approvals  []string          `json:"approvals,omitempty"` // groups; default development, operations, security
	Deadline   Duration          `json:"deadline,omitempty"`  // default 15m
}

type DrillScope struct {
	Site       SiteID      `json:"site"`
	Services   []ServiceID `json:"services"`
	MaxTargets int         `json:"maxTargets,omitempty"` // processes, sidecars included; default 10
}

type Probe struct {
	Service ServiceID `json:"service"`
	From    SiteID    `json:"from"`              // site whose agent sends it, through that site's sidecar
	Rate    float64   `json:"rate"`              // requests/s, open loop
	Timeout Duration  `json:"timeout,omitempty"` // default 2s
	Method  string    `json:"method,omitempty"`  // default GET
	Path    string    `json:"path,omitempty"`    // default /
}

type Guardrail struct {
	Service ServiceID        `json:"service"`
	Success GuardrailSuccess `json:"success"`
	Over    Duration         `json:"over,omitempty"` // default 10s
}

type GuardrailSuccess struct {
	Min float64 `json:"min"` // ratio; below it the drill is aborted
}
