// Package sample is one probe's order, its outcomes and the byte format of a chunk of them: values.
//
// A probe is open-loop: sample n is due at Start + n/Rate whatever happened to the others. A chunk holds the
// samples of one probe that were due within one second, as JSON lines; docs/spec/evidence.md gives its bytes.
//
// Units: times are UTC wall times of the probing agent; Offset is that agent's clock minus the server's.
// Concurrency: values.
package sample

import (
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// Order asks the agent of a site to probe a service until it is withdrawn or its lease ends.
// ID is "<run>/<service>". From is the site whose agent sends it, through that site's client sidecar.
type Order struct {
	ID      string        `json:"id"`
	Run     string        `json:"run"`
	Service api.ServiceID `json:"service"`
	From    api.SiteID    `json:"from"`
	Rate    float64       `json:"rate"` // requests per second
	Timeout time.Duration `json:"timeout"`
	Method  string        `json:"method"`
	Path    string        `json:"path"`
	Lease   time.Duration `json:"lease"`
}

// Class of an outcome as the probe saw it. Slow and wrongAnswer need the objectives and tables: measure judges them.
type Class string

const (
	OK      Class = "ok"
	Refused Class = "refused" // connection refused
	Reset   Class = "reset"   // connection broken, or any other transport error
	Timeout Class = "timeout"
	Status  Class = "status"  // status >= 400 without x-livefire-shed
	Shed    Class = "shed"    // 503 with x-livefire-shed
	Unknown Class = "unknown" // the probe died before it ended
)

// Sample is one request of a probe.
type Sample struct {
	Seq      int64         `json:"n"`  // from 0, no gaps
	Intended time.Time     `json:"at"` // when it was due
	Start    time.Duration `json:"s"`  // sent, after Intended
	End      time.Duration `json:"e"`  // last byte of the answer or the error, after Intended
	Class    Class         `json:"c"`
	Code     int           `json:"code,omitempty"` // HTTP status
	Attempts int           `json:"att,omitempty"`  // x-envoy-attempt-count; 0 = no header
	Site     api.SiteID    `json:"site,omitempty"` // from x-livefire-workload
	Workload string        `json:"wl,omitempty"`
	Version  string        `json:"v,omitempty"`
	Instance string        `json:"inst,omitempty"` // what the application said of itself (x-instance), as a check
	Request  string        `json:"id"`             // x-request-id: "<order id>/<seq>" with '/' as '.'
	Err      string        `json:"err,omitempty"`  // at most 120 characters
}

// Header is the first line of a chunk.
type Header struct {
	Format      string        `json:"format"` // "livefire-samples/1"
	Order       string        `json:"order"`
	Service     api.ServiceID `json:"service"`
	From        api.SiteID    `json:"from"`
	Rate        float64       `json:"rate"`
	Chunk       int64         `json:"chunk"`       // from 0, no gaps
	Offset      time.Duration `json:"clockOffset"` // agent clock - server clock, estimate in force
	OffsetError time.Duration `json:"clockError"`
	Last        bool          `json:"last,omitempty"` // the probe ended after this chunk, in order
}

// Chunk is one file of samples.
type Chunk struct {
	Header  Header
	Samples []Sample
}
