package api

// Version is the apiVersion of every kind of this package.
const Version = "livefire.dev/v1alpha1"

// Own types for the names that must not be mixed up. Each is a DNS label (RFC 1123, at most 63 characters).
type (
	SiteID    string // name of a Site
	ServiceID string // name of a Service
	NodeID    string // name of a node: a sidecar or an agent; unique in the mesh
)

// Kind is the name of a resource kind.
type Kind string

const (
	KindSite                Kind = "Site"
	KindService             Kind = "Service"
	KindWorkload            Kind = "Workload"
	KindActivePassive       Kind = "ActivePassive"
	KindActiveActive        Kind = "ActiveActive"
	KindAuthorizationPolicy Kind = "AuthorizationPolicy"
	KindScenario            Kind = "Scenario"
	KindDrill               Kind = "Drill"
	KindDrillRun            Kind = "DrillRun"
	KindFinding             Kind = "Finding"
)

// Type names what a document is.
type Type struct {
	APIVersion string `json:"apiVersion"`
	Kind       Kind   `json:"kind"`
}

// Metadata names one object. Revision is the store's, set by the server only: on a write, zero means
// "whatever is there", any other value must equal the stored one (else Conflict).
type Metadata struct {
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels,omitempty"`
	Revision int64             `json:"revision,omitempty"`
}

// Object is one resource of any kind. Every kind of this package implements it with a pointer receiver.
type Object interface {
	// TypeOf is the object's apiVersion and kind.
	TypeOf() Type
	// Meta is the object's metadata, for reading and for setting Revision.
	Meta() *Metadata
	// Default writes the documented value into every field that was not written.
	Default()
	// Validate says everything that is wrong with the object alone; call after Default. Paths of the
	// problems are YAML paths as goccy/go-yaml writes them ("$.spec.failover.after").
	Validate() []Problem
}

// Problem is one thing that is wrong with a field.
type Problem struct {
	Path    string `json:"path"`           // "$.spec.retries.budget"
	Code    string `json:"code,omitempty"` // LFnnnn
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Ref names one object.
type Ref struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
}

func (r Ref) String() string { return string(r.Kind) + "/" + r.Name }

// RefOf is the reference to o.
func RefOf(o Object) Ref { return Ref{o.TypeOf().Kind, o.Meta().Name} }
