package xds

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// carrierMetadata is what the carrier carries. The epoch is a text: a number of a Struct is a float64.
type carrierMetadata struct {
	Epoch        string             `json:"epoch"`
	Digest       string             `json:"digest"`
	Capabilities route.Capabilities `json:"capabilities"`
	Problems     []route.Problem    `json:"problems,omitempty"`
}

type carrier struct {
	epoch    route.Epoch
	digest   string
	caps     route.Capabilities
	problems []route.Problem
}

// addCarrier comes last: its digest covers everything else. The carrier of our own proxy is an API listener, which
// has no socket; it names the shared routes, which hold what every service is, even if there is no outbound listener.
func addCarrier(out Resources, c carrier) error {
	var m proto.Message
	md := carrierMetadata{Epoch: strconv.FormatUint(uint64(c.epoch), 10), Digest: digest(out), Capabilities: c.caps, Problems: c.problems}
	switch c.caps.Kind {
	case KindGRPC: // asks for its targets by name and would never ask for the carrier
		return nil
	case KindEnvoy:
		m = &clusterv3.Cluster{
			Name:                 Carrier,
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
			LoadAssignment:       &endpointv3.ClusterLoadAssignment{ClusterName: Carrier},
			ConnectTimeout:       durationpb.New(time.Second),
			Metadata:             metadata(md),
		}
	default:
		m = &listenerv3.Listener{
			Name:        Carrier,
			ApiListener: &listenerv3.ApiListener{ApiListener: pack(connectionManager(outboundName, outboundName))},
			Metadata:    metadata(md),
		}
	}
	return addAll(out, []named{{Carrier, m}})
}

func readCarrier(r Resources) (carrier, error) {
	x, ok := carrierOf(r)
	if !ok {
		return carrier{}, fmt.Errorf("no resource %s", Carrier)
	}
	m, err := x.Body.UnmarshalNew()
	if err != nil {
		return carrier{}, fmt.Errorf("open %s: %w", Carrier, err)
	}
	has, ok := m.(interface{ GetMetadata() *corev3.Metadata })
	if !ok {
		return carrier{}, fmt.Errorf("%s is a %T", Carrier, m)
	}
	var md carrierMetadata
	if err := readMetadata(has.GetMetadata(), &md); err != nil {
		return carrier{}, fmt.Errorf("read %s: %w", Carrier, err)
	}
	epoch, err := strconv.ParseUint(md.Epoch, 10, 64)
	if err != nil {
		return carrier{}, fmt.Errorf("read epoch of %s: %w", Carrier, err)
	}
	return carrier{route.Epoch(epoch), md.Digest, md.Capabilities, md.Problems}, nil
}

// References are the names of a type that the resources of r refer to: endpoints of clusters, routes of
// listeners; sorted. A resource that cannot be read refers to nothing.
func References(r Resources, typeURL string) []string {
	var names []string
	switch typeURL {
	case TypeEndpoint:
		for _, x := range r[TypeCluster] {
			names = append(names, endpointsOf(x.Body)...)
		}
	case TypeRoute:
		for _, x := range r[TypeListener] {
			names = append(names, routesOf(x.Body)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func endpointsOf(body *anypb.Any) []string {
	var c clusterv3.Cluster
	if body.UnmarshalTo(&c) != nil || c.GetType() != clusterv3.Cluster_EDS {
		return nil
	}
	if name := c.GetEdsClusterConfig().GetServiceName(); name != "" {
		return []string{name}
	}
	return []string{c.GetName()}
}

func routesOf(body *anypb.Any) []string {
	var l listenerv3.Listener
	if body.UnmarshalTo(&l) != nil {
		return nil
	}
	configs := []*anypb.Any{l.GetApiListener().GetApiListener()}
	for _, chain := range l.GetFilterChains() {
		for _, f := range chain.GetFilters() {
			configs = append(configs, f.GetTypedConfig())
		}
	}
	var names []string
	for _, config := range configs {
		var m hcmv3.HttpConnectionManager
		if config.MessageIs(&m) && config.UnmarshalTo(&m) == nil && m.GetRds().GetRouteConfigName() != "" {
			names = append(names, m.GetRds().GetRouteConfigName())
		}
	}
	return names
}

// Seal makes the carrier of r fit the other resources after one of them was changed by hand, for a rehearsal of a bad
// configuration.
func Seal(r Resources) error {
	c, err := readCarrier(r)
	if err != nil {
		return err
	}
	return addCarrier(r, c) // replaces it
}
