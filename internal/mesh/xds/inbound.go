package xds

import (
	"math"
	"net/netip"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// inboundName is the listener that other sidecars call, and its route configuration.
const inboundName = "inbound"

const (
	filterRBAC      = "envoy.filters.http.rbac"
	filterRateLimit = "envoy.filters.http.local_ratelimit"
)

// inbound renders the way into the local application: mutual TLS, who may call, shedding, the application's cluster.
func inbound(s route.Service, n route.Node, caps route.Capabilities) ([]named, error) {
	app, err := listenAddress(caps.App)
	if err != nil {
		return nil, err
	}
	l, err := inboundListener(s, n, caps)
	if err != nil {
		return nil, err
	}
	c := edsCluster(appCluster)
	c.CircuitBreakers = circuitBreakers(s)
	c.TypedExtensionProtocolOptions = httpOptions(s)
	out := []named{{appCluster, c}, {appCluster, appAssignment(app)}, {inboundName, l}}
	if s.Protocol != "tcp" {
		out = append(out, named{inboundName, inboundRoutes(s, n)})
	}
	return out, nil
}

func appAssignment(app netip.AddrPort) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: appCluster,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LoadBalancingWeight: u32(route.Whole),
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
				Endpoint: &endpointv3.Endpoint{Address: socketAddress(app)},
			}}},
		}},
	}
}

func inboundListener(s route.Service, n route.Node, caps route.Capabilities) (*listenerv3.Listener, error) {
	filters := []*listenerv3.Filter{networkFilter("envoy.filters.network.http_connection_manager", inboundManager())}
	if s.Protocol == "tcp" {
		filters = []*listenerv3.Filter{
			networkFilter("envoy.filters.network.rbac", networkRBAC(s)),
			networkFilter("envoy.filters.network.tcp_proxy", &tcpv3.TcpProxy{
				StatPrefix: inboundName, ClusterSpecifier: &tcpv3.TcpProxy_Cluster{Cluster: appCluster},
			}),
		}
	}
	l, err := listener(inboundName, caps.Inbound, corev3.TrafficDirection_INBOUND, filters...)
	if err != nil {
		return nil, err
	}
	l.FilterChains[0].TransportSocket = &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&tlsv3.DownstreamTlsContext{
			CommonTlsContext:         tlsContext(&tlsv3.CertificateValidationContext{}, alpn(s.Protocol)),
			RequireClientCertificate: wrapperspb.Bool(true),
		})},
	}
	return l, nil
}

// inboundManager refuses everything by itself: who may call stands in the routes, so that a change of callers
// replaces routes and closes no connection.
func inboundManager() *hcmv3.HttpConnectionManager {
	m := connectionManager(inboundName, inboundName)
	m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
	m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true}
	// Paths are compared with rules, so they must have one spelling.
	m.NormalizePath = wrapperspb.Bool(true)
	m.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_REJECT_REQUEST
	m.HttpFilters = append([]*hcmv3.HttpFilter{
		httpFilter(filterRBAC, denyAll()),
		httpFilter(filterRateLimit, &ratelimitv3.LocalRateLimit{StatPrefix: inboundName}),
	}, m.HttpFilters...)
	return m
}

func inboundRoutes(s route.Service, n route.Node) *routev3.RouteConfiguration {
	action := func() *routev3.Route_Route {
		a := &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: appCluster},
			Timeout:          durationpb.New(0), // the caller's sidecar has it
		}
		if s.Timeouts.Idle > 0 {
			a.IdleTimeout = durationpb.New(s.Timeouts.Idle.D())
		}
		return &routev3.Route_Route{Route: a}
	}
	health := &routev3.Route{
		Name:   "health", // never shed: an overloaded workload is not a lost one
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: healthPath(s)}},
		Action: action(),
	}
	rest := &routev3.Route{Name: "app", Match: prefix("/"), Action: action()}
	if limit := admitted(s, n); limit > 0 {
		rest.TypedPerFilterConfig = map[string]*anypb.Any{filterRateLimit: pack(rateLimit(limit))}
	}
	return &routev3.RouteConfiguration{
		Name: inboundName,
		VirtualHosts: []*routev3.VirtualHost{{
			Name:                    inboundName,
			Domains:                 []string{"*"},
			Routes:                  []*routev3.Route{health, rest},
			TypedPerFilterConfig:    map[string]*anypb.Any{filterRBAC: pack(callersRBAC(s, n))},
			RequestHeadersToRemove:  []string{headerWorkload},
			ResponseHeadersToRemove: []string{headerWorkload, headerShed, headerFlags},
			ResponseHeadersToAdd:    []*corev3.HeaderValueOption{header(headerWorkload, escapeFormat(workloadHeader(s, n)))},
		}},
	}
}

// workloadHeader says who answered: "<site>/<workload>@<version>".
func workloadHeader(s route.Service, n route.Node) string {
	version := ""
	if e, ok := ownEndpoint(s, n); ok {
		version = e.Version
	}
	return string(n.Site) + "/" + n.Workload + "@" + version
}

// escapeFormat makes a text safe as a header value, where '%' begins a command.
func escapeFormat(s string) string { return strings.ReplaceAll(s, "%", "%%") }

func ownEndpoint(s route.Service, n route.Node) (route.Endpoint, bool) {
	for _, site := range s.Sites {
		for _, e := range site.Endpoints {
			if site.Name == api.SiteID(n.Site) && e.Workload == n.Workload {
				return e, true
			}
		}
	}
	return route.Endpoint{}, false
}

// admitted is how many requests per second the workload takes; 0 = no limit.
func admitted(s route.Service, n route.Node) float64 {
	e, ok := ownEndpoint(s, n)
	if !ok {
		return 0
	}
	return s.Shed * e.Capacity
}

// rateLimit sheds what is over the limit with a mark that callers do not retry. The bucket holds one second.
func rateLimit(perSecond float64) *ratelimitv3.LocalRateLimit {
	const refills = 10 // per second
	perFill := uint32(min(math.Ceil(perSecond/refills), math.MaxUint32/refills))
	all := &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{Numerator: 100}}
	return &ratelimitv3.LocalRateLimit{
		StatPrefix: inboundName,
		Status:     &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		TokenBucket: &typev3.TokenBucket{
			MaxTokens: perFill * refills, TokensPerFill: u32(perFill), FillInterval: durationpb.New(time.Second / refills),
		},
		FilterEnabled:  all,
		FilterEnforced: all,
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{
			header(headerShed, "1"), header("retry-after", "1"), header("x-envoy-ratelimited", "true"),
		},
	}
}
