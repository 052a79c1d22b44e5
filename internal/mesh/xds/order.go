package xds

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
	livefirev1alpha1 "github.com/livefire-mesh/livefire/proto/livefire/v1alpha1"
)

// Type URLs of orders.
const (
	TypeFaultOrder = "type.googleapis.com/livefire.v1alpha1.FaultOrder"
	TypeProbeOrder = "type.googleapis.com/livefire.v1alpha1.ProbeOrder"
	TypeCountOrder = "type.googleapis.com/livefire.v1alpha1.CountOrder"
)

// OrderTypes are the types that are sent under a lease.
func OrderTypes() []string { return []string{TypeFaultOrder, TypeProbeOrder, TypeCountOrder} }

// Order is a resource under a lease: it is in force for TTL after the last time that the client heard of it.
type Order struct {
	Name    string
	TypeURL string
	Body    *anypb.Any
	TTL     time.Duration
	// Until is when the sender's own lease on the order ends, on its monotonic clock (a time from time.Now, not one
	// that was read from somewhere). Nothing is sent from then on, ever.
	Until time.Time
	// Heard says that a client may have had this order from another server. Then only heartbeats are sent, which
	// can prolong it and cannot start it again.
	Heard bool
}

// Version of the order: a hash of its content, the same on every server.
func (o Order) Version() string { return ContentVersion(o.Body) }

// Count asks an agent for the request ids that its workloads executed during a run.
type Count struct {
	ID     string // "<run>/count"
	Run    string
	Prefix string // of the request ids to list
	Lease  time.Duration
}

// FaultOrder packs a fault's order, in force until the time given.
func FaultOrder(o fault.Order, until time.Time) Order {
	services := make([]string, len(o.Services))
	for i, s := range o.Services {
		services[i] = string(s)
	}
	return newOrder(o.ID, o.Lease, until, &livefirev1alpha1.FaultOrder{
		Id: o.ID, Run: o.Run, Kind: string(o.Kind), Site: string(o.Site), Services: services,
		MaxTargets: uint32(max(o.MaxTargets, 0)), Lease: durationpb.New(o.Lease),
		MaxDuration: durationpb.New(o.MaxDuration), Fence: o.Fence,
	})
}

// ProbeOrder packs a probe's order, in force until the time given.
func ProbeOrder(o sample.Order, until time.Time) Order {
	return newOrder(o.ID, o.Lease, until, &livefirev1alpha1.ProbeOrder{
		Id: o.ID, Run: o.Run, Service: string(o.Service), From: string(o.From), Rate: o.Rate,
		Timeout: durationpb.New(o.Timeout), Method: o.Method, Path: o.Path, Lease: durationpb.New(o.Lease),
	})
}

// CountOrder packs the order to list executed requests, in force until the time given.
func CountOrder(c Count, until time.Time) Order {
	return newOrder(c.ID, c.Lease, until, &livefirev1alpha1.CountOrder{
		Id: c.ID, Run: c.Run, Prefix: c.Prefix, Lease: durationpb.New(c.Lease),
	})
}

func newOrder(name string, ttl time.Duration, until time.Time, m proto.Message) Order {
	body := pack(m)
	return Order{Name: name, TypeURL: body.GetTypeUrl(), Body: body, TTL: ttl, Until: until}
}

// ReadFaultOrder is the inverse of FaultOrder.
func ReadFaultOrder(body *anypb.Any) (fault.Order, error) {
	var m livefirev1alpha1.FaultOrder
	if err := unpack(body, &m); err != nil {
		return fault.Order{}, err
	}
	o := fault.Order{
		ID: m.GetId(), Run: m.GetRun(), Kind: fault.Kind(m.GetKind()), Site: api.SiteID(m.GetSite()),
		MaxTargets: int(m.GetMaxTargets()), Lease: m.GetLease().AsDuration(),
		MaxDuration: m.GetMaxDuration().AsDuration(), Fence: m.GetFence(),
	}
	for _, s := range m.GetServices() {
		o.Services = append(o.Services, api.ServiceID(s))
	}
	return o, nil
}

// ReadProbeOrder is the inverse of ProbeOrder.
func ReadProbeOrder(body *anypb.Any) (sample.Order, error) {
	var m livefirev1alpha1.ProbeOrder
	if err := unpack(body, &m); err != nil {
		return sample.Order{}, err
	}
	return sample.Order{
		ID: m.GetId(), Run: m.GetRun(), Service: api.ServiceID(m.GetService()), From: api.SiteID(m.GetFrom()),
		Rate: m.GetRate(), Timeout: m.GetTimeout().AsDuration(), Method: m.GetMethod(), Path: m.GetPath(),
		Lease: m.GetLease().AsDuration(),
	}, nil
}

// ReadCountOrder is the inverse of CountOrder.
func ReadCountOrder(body *anypb.Any) (Count, error) {
	var m livefirev1alpha1.CountOrder
	if err := unpack(body, &m); err != nil {
		return Count{}, err
	}
	return Count{ID: m.GetId(), Run: m.GetRun(), Prefix: m.GetPrefix(), Lease: m.GetLease().AsDuration()}, nil
}

func unpack(body *anypb.Any, m proto.Message) error {
	if err := body.UnmarshalTo(m); err != nil {
		return fmt.Errorf("read order: %w", err)
	}
	return nil
}
