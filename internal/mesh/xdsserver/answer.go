package xdsserver

import (
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
)

// sendOrders sends what is due of the node's orders.
func (d *delta) sendOrders() (time.Time, error) {
	listens := func(o xds.Order) bool {
		ts := d.types[o.TypeURL]
		return ts != nil && ts.wants(o.Name)
	}
	has := func(o xds.Order, version string) bool { return d.types[o.TypeURL].initial[o.Name] == version }
	work := d.srv.orders(d.stream, listens, has)
	for _, s := range work.sends {
		if err := d.sendOrder(s); err != nil {
			return time.Time{}, err
		}
	}
	for name, reason := range work.lost {
		d.reportLost(name, reason)
	}
	return work.next, nil
}

// sendOrder looks at the clock once more: the sends before it may have taken a while.
func (d *delta) sendOrder(s orderSend) error {
	o := s.order
	ts := d.types[o.TypeURL]
	m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: o.TypeURL}
	if s.drop {
		m.RemovedResources = []string{o.Name}
	} else {
		if !d.srv.stillAlive(s.lease) {
			return nil // the next look buries it
		}
		x := &discoveryv3.Resource{Name: o.Name, Version: s.version, Ttl: durationpb.New(o.TTL)}
		if !s.heartbeat {
			x.Resource = o.Body
		}
		m.Resources = []*discoveryv3.Resource{x}
	}
	ts.greeted = true
	ts.absent[o.Name] = false
	return d.transmit(m, &response{typeURL: o.TypeURL, orders: []orderSend{s}})
}

// answerAbsent answers names that were asked for and do not exist. Silence would hold back the start of an Envoy.
// Names of a table are not answered before there is a table.
func (d *delta) answerAbsent() error {
	for url, ts := range d.types {
		if d.from == nil && slices.Contains(xds.TableTypes(), url) {
			continue
		}
		var removed []string
		for name, waiting := range ts.absent {
			if waiting && !d.exists(url, name) {
				removed = append(removed, name)
			}
		}
		if len(removed) == 0 {
			continue
		}
		slices.Sort(removed)
		for _, name := range removed {
			ts.absent[name] = false
			delete(ts.held, name)
		}
		ts.greeted = true
		m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, RemovedResources: removed}
		if err := d.transmit(m, &response{typeURL: url}); err != nil {
			return err
		}
	}
	return nil
}

func (d *delta) exists(url, name string) bool {
	_, ok := d.snap.Find(url, name)
	return ok
}
