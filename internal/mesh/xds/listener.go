package xds

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Headers of ours; docs/spec/channels.md.
const (
	headerWorkload = "x-livefire-workload"
	headerFlags    = "x-livefire-flags"
	headerShed     = "x-livefire-shed"
)

// outboundListener takes plaintext HTTP from the local application.
func outboundListener(name, address, routes, kind string) (*listenerv3.Listener, error) {
	m := connectionManager(name, routes)
	m.LocalReplyConfig = &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
			ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{}, // any flag
		}},
		HeadersToAdd: []*corev3.HeaderValueOption{header(headerFlags, "%RESPONSE_FLAGS%")},
	}}}
	if kind == KindEnvoy {
		// A fault's route has its own configuration of this filter; without the filter it would have no effect.
		m.HttpFilters = append([]*hcmv3.HttpFilter{httpFilter("envoy.filters.http.fault", &faultv3.HTTPFault{})}, m.HttpFilters...)
	}
	return listener(name, address, corev3.TrafficDirection_OUTBOUND, networkFilter("envoy.filters.network.http_connection_manager", m))
}

// portListener is the listener of one service, whatever name the application calls it by.
func portListener(s route.Service, address, kind string) ([]named, error) {
	name := portName(s.Name)
	if s.Protocol == "tcp" {
		l, err := tcpListener(s, name, address)
		if err != nil {
			return nil, err
		}
		return []named{{name, l}}, nil
	}
	l, err := outboundListener(name, address, name, kind)
	if err != nil {
		return nil, err
	}
	vhost := virtualHost(s, []string{"*"})
	vhost.Metadata = nil // stands in the shared configuration
	return []named{{name, l}, {name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{vhost}}}}, nil
}

func tcpListener(s route.Service, name, address string) (*listenerv3.Listener, error) {
	p := &tcpv3.TcpProxy{StatPrefix: name}
	if s.Timeouts.Idle > 0 {
		p.IdleTimeout = durationpb.New(s.Timeouts.Idle.D())
	}
	shares := shared(s)
	switch {
	case s.Reflex || len(shares) == 0:
		p.ClusterSpecifier = &tcpv3.TcpProxy_Cluster{Cluster: string(s.Name)}
	default:
		w := &tcpv3.TcpProxy_WeightedCluster{}
		for _, site := range shares {
			w.Clusters = append(w.Clusters, &tcpv3.TcpProxy_WeightedCluster_ClusterWeight{
				Name: siteCluster(s.Name, site.Name), Weight: uint32(site.Share),
			})
		}
		p.ClusterSpecifier = &tcpv3.TcpProxy_WeightedClusters{WeightedClusters: w}
	}
	return listener(name, address, corev3.TrafficDirection_OUTBOUND, networkFilter("envoy.filters.network.tcp_proxy", p))
}

func connectionManager(name, routes string) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix: name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource: ads(), RouteConfigName: routes,
		}},
		HttpFilters: []*hcmv3.HttpFilter{httpFilter("envoy.filters.http.router", &routerv3.Router{})},
		// The first sidecar names a request, unless the caller has.
		GenerateRequestId:          wrapperspb.Bool(true),
		PreserveExternalRequestId:  true,
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,
		UpgradeConfigs:             []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		// A stream's idleness is judged by its route.
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_ALLOW},
	}
}

func httpFilter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(m)}}
}

func networkFilter(name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(m)}}
}

func listener(name, address string, direction corev3.TrafficDirection, filters ...*listenerv3.Filter) (*listenerv3.Listener, error) {
	a, err := listenAddress(address)
	if err != nil {
		return nil, err
	}
	return &listenerv3.Listener{
		Name:             name,
		Address:          socketAddress(a),
		TrafficDirection: direction,
		FilterChains:     []*listenerv3.FilterChain{{Filters: filters}},
	}, nil
}

// header overwrites: a value that came from elsewhere is never believed.
func header(key, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: key, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
