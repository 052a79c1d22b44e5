package xdsclient

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// order is one in force.
type order struct {
	url     string
	version string
	ttl     time.Duration
	ends    time.Time // on the monotonic clock
}

// orders are the leases of this process. An order whose lease has ended is dead: no server can start it again.
type orders struct {
	apply func(OrderEvent) error
	log   *slog.Logger
	live  map[string]*order
	dead  map[string]bool // by name; names are never used twice
}

// versions are the orders in force, for the first request of a type.
func (o *orders) versions(url string, now time.Time) map[string]string {
	o.expire(now)
	out := map[string]string{}
	for name, x := range o.live {
		if x.url == url {
			out[name] = x.version
		}
	}
	return out
}

// nextEnd is when the first lease ends; zero if there is none.
func (o *orders) nextEnd() time.Time {
	var next time.Time
	for _, x := range o.live {
		if next.IsZero() || x.ends.Before(next) {
			next = x.ends
		}
	}
	return next
}

// expire ends the leases that are over.
func (o *orders) expire(now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(o.live)) {
		x := o.live[name]
		if now.Before(x.ends) {
			continue
		}
		o.drop(name)
		o.log.Warn("lease of order has ended", "order", name)
		o.tell(OrderEvent{TypeURL: x.url, Name: name, Version: x.version, TTL: x.ttl, Received: now, Removed: true, Expired: true})
	}
}

func (o *orders) drop(name string) {
	delete(o.live, name)
	o.dead[name] = true
}

// tell passes on an event that cannot be refused.
func (o *orders) tell(e OrderEvent) {
	if err := o.apply(e); err != nil {
		o.log.Error("end of order was not carried out", "order", e.Name, "err", err)
	}
}

// take handles one response. The error is for the server: it names the orders that are not in force.
func (o *orders) take(m *discoveryv3.DeltaDiscoveryResponse, received time.Time) error {
	o.expire(received)
	var bad []error
	for _, r := range m.GetResources() {
		if err := o.one(m.GetTypeUrl(), r, received); err != nil {
			o.log.Warn("order was refused", "order", r.GetName(), "err", err)
			bad = append(bad, fmt.Errorf("order %s: %w", r.GetName(), err))
		}
	}
	for _, name := range m.GetRemovedResources() {
		x := o.live[name]
		if x == nil {
			continue
		}
		o.drop(name)
		o.tell(OrderEvent{TypeURL: x.url, Name: name, Version: x.version, TTL: x.ttl, Received: received, Removed: true})
	}
	return errors.Join(bad...)
}

func (o *orders) one(url string, r *discoveryv3.Resource, received time.Time) error {
	ttl := r.GetTtl().AsDuration()
	if ttl <= 0 {
		return errors.New("it has no lease")
	}
	name, x := r.GetName(), o.live[r.GetName()]
	e := OrderEvent{TypeURL: url, Name: name, Version: r.GetVersion(), TTL: ttl, Received: received}
	switch {
	case r.GetResource() == nil && x == nil:
		return errors.New("it is not in force")
	case x != nil && (x.version != r.GetVersion() || x.url != url):
		return errors.New("it is in force with another content")
	case x == nil && o.dead[name]:
		return errors.New("its lease has ended")
	case x == nil:
		e.Body = r.GetResource()
		if e.Body.GetTypeUrl() != url {
			return fmt.Errorf("is a %q", e.Body.GetTypeUrl())
		}
	default:
		e.Heartbeat = true
	}
	if err := o.apply(e); err != nil {
		if x != nil {
			o.drop(name)
		}
		return err
	}
	o.live[name] = &order{url: url, version: r.GetVersion(), ttl: ttl, ends: received.Add(ttl)}
	return nil
}
