package xds

import (
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

const (
	// appCluster is the local application's. Its endpoint comes by EDS as well: an Envoy's bootstrap has no other
	// static cluster than that of its server.
	appCluster = "livefire:app"

	// connectTimeout bounds TCP and TLS handshake together.
	connectTimeout = time.Second

	// fetchTimeout bounds how long a cluster or listener waits for its secrets and endpoints. One that waits holds
	// back Envoy's ACK of all clusters, by default for 15 s.
	fetchTimeout = 2 * time.Second
)

// Secret names that a node asks its own supervisor for.
const (
	SecretLeaf  = "leaf"
	SecretRoots = "roots"
)

func clusterMessage(s route.Service, c cluster, kind string) *clusterv3.Cluster {
	m := edsCluster(c.name)
	m.CircuitBreakers = circuitBreakers(s)
	if kind == KindGRPC {
		grpcCluster(m)
		return m
	}
	m.HealthChecks = []*corev3.HealthCheck{healthCheck(s)}
	m.OutlierDetection = outlierDetection()
	m.TransportSocket = upstreamTLS(identities(c), alpn(s.Protocol))
	m.TypedExtensionProtocolOptions = httpOptions(s)
	return m
}

// edsCluster has what decides how fast a lost site is left, whatever the service.
func edsCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: name},
		ConnectTimeout:       durationpb.New(connectTimeout),
		LbPolicy:             clusterv3.Cluster_LEAST_REQUEST,
		CommonLbConfig: &clusterv3.Cluster_CommonLbConfig{
			// With the default of 1 s the second ejection within a second is announced up to 1 s late.
			UpdateMergeWindow: durationpb.New(0),
			// Never send to endpoints that are known to be dead.
			HealthyPanicThreshold: &typev3.Percent{Value: 0},
			LocalityConfigSpecifier: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
				LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
			},
		},
		// Without it a removed endpoint that passes its checks keeps its traffic.
		IgnoreHealthOnHostRemoval: true,
	}
}

// healthCheck is made at the same pace whether there is traffic or not: an idle standby must be known.
func healthCheck(s route.Service) *corev3.HealthCheck {
	interval := durationpb.New(s.Health.Interval.D())
	hc := &corev3.HealthCheck{
		Timeout:                  durationpb.New(s.Health.Timeout.D()),
		Interval:                 interval,
		NoTrafficInterval:        interval,
		NoTrafficHealthyInterval: interval,
		UnhealthyThreshold:       u32(s.Health.Failures),
		HealthyThreshold:         u32(s.Health.Successes),
	}
	switch s.Protocol {
	case "tcp":
		hc.HealthChecker = &corev3.HealthCheck_TcpHealthCheck_{TcpHealthCheck: &corev3.HealthCheck_TcpHealthCheck{}}
	case "grpc":
		hc.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{}}
	default:
		// The default Host would be the cluster's name, which is not a host name for every cluster.
		hc.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: &corev3.HealthCheck_HttpHealthCheck{
			Host: s.Hosts[0], Path: healthPath(s),
		}}
	}
	return hc
}

func healthPath(s route.Service) string {
	if s.Health.Path == "" {
		return "/healthz"
	}
	return s.Health.Path
}

// outlierDetection takes every endpoint of a site out if need be: with Envoy's default of 10 % nobody is ejected
// from a small site.
func outlierDetection() *clusterv3.OutlierDetection {
	return &clusterv3.OutlierDetection{
		Consecutive_5Xx:                    u32(3),
		EnforcingConsecutive_5Xx:           u32(100),
		ConsecutiveGatewayFailure:          u32(3),
		EnforcingConsecutiveGatewayFailure: u32(100),
		EnforcingSuccessRate:               u32(100),
		MaxEjectionPercent:                 u32(100),
		BaseEjectionTime:                   durationpb.New(5 * time.Second),
		// A stopped process still completes TCP handshakes; split counts would be reset by each of them.
		SplitExternalLocalOriginErrors: false,
	}
}

func circuitBreakers(s route.Service) *clusterv3.CircuitBreakers {
	t := &clusterv3.CircuitBreakers_Thresholds{
		// Envoy's budget bounds concurrency, not rate; its default of 3 refuses retries exactly when a site is lost.
		MaxRetries: u32(1000),
	}
	if s.Limits.Connections > 0 {
		t.MaxConnections = u32(s.Limits.Connections)
	}
	if s.Limits.Pending > 0 {
		t.MaxPendingRequests = u32(s.Limits.Pending)
	}
	if s.Limits.Requests > 0 {
		t.MaxRequests = u32(s.Limits.Requests)
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{t}}
}

// identities are the SPIFFE ids that the endpoints of a cluster may show.
func identities(c cluster) []string {
	var ids []string
	for _, site := range c.sites {
		for _, e := range site.Endpoints {
			ids = append(ids, e.Identity)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func alpn(protocol string) []string {
	switch protocol {
	case "grpc":
		return []string{"h2"}
	case "tcp":
		return nil
	}
	return []string{"http/1.1"}
}

func httpOptions(s route.Service) map[string]*anypb.Any {
	if s.Protocol == "tcp" {
		return nil
	}
	opts := httpProtocol(s.Protocol)
	if s.Timeouts.Idle > 0 {
		opts.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(s.Timeouts.Idle.D())}
	}
	return map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(opts)}
}

func httpProtocol(protocol string) *httpv3.HttpProtocolOptions {
	explicit := &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		},
	}
	if protocol == "grpc" {
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			// A hung site is left after interval and timeout, 0.4 s, not after a request's timeout.
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{
				Interval: durationpb.New(200 * time.Millisecond), Timeout: durationpb.New(200 * time.Millisecond),
			}},
		}
	}
	return &httpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit},
	}
}

// upstreamTLS shows our leaf and accepts exactly these identities.
func upstreamTLS(ids []string, alpn []string) *corev3.TransportSocket {
	if len(ids) == 0 {
		ids = []string{"livefire:nobody"} // an empty list would accept every identity
	}
	var sans []*tlsv3.SubjectAltNameMatcher
	for _, id := range ids {
		sans = append(sans, &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: exact(id)})
	}
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(&tlsv3.UpstreamTlsContext{
			CommonTlsContext: tlsContext(&tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: sans}, alpn),
		})},
	}
}

func tlsContext(validation *tlsv3.CertificateValidationContext, alpn []string) *tlsv3.CommonTlsContext {
	return &tlsv3.CommonTlsContext{
		// Both: the maximum of Envoy's client side is TLS 1.2 unless said.
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		},
		AlpnProtocols:                  alpn,
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: SecretLeaf, SdsConfig: ads()}},
		ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         validation,
				ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: SecretRoots, SdsConfig: ads()},
			},
		},
	}
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(fetchTimeout),
	}
}

func exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

// localityMetadata is what a locality's fields cannot say without loss: a client sees ranks without gaps, and
// the weight of a locality must not be zero.
type localityMetadata struct {
	Share    route.Weight `json:"share"`
	Priority int          `json:"priority"`
}

// endpointMetadata is what an access log, and our own proxy, says of an endpoint.
type endpointMetadata struct {
	Workload string  `json:"workload"`
	Version  string  `json:"version,omitempty"`
	Capacity float64 `json:"capacity,omitempty"`
	Identity string  `json:"identity"`
}

func loadAssignment(c cluster) *endpointv3.ClusterLoadAssignment {
	m := &endpointv3.ClusterLoadAssignment{
		ClusterName: c.name,
		// Envoy's own 140 % sends a part elsewhere as soon as three in ten endpoints of a site are unhealthy. Shares are the
		// server's; a site is left when nobody there answers (one in a hundred is the least that this can say).
		Policy: &endpointv3.ClusterLoadAssignment_Policy{OverprovisioningFactor: u32(100 * 100)},
	}
	for _, site := range c.sites {
		weight := site.Share
		if weight == 0 {
			weight = route.Whole // alone in its priority; zero would switch it off for ever
		}
		l := &endpointv3.LocalityLbEndpoints{
			Locality:            &corev3.Locality{Region: site.Region, Zone: site.Zone, SubZone: string(site.Name)},
			Metadata:            metadata(localityMetadata{site.Share, site.Priority}),
			LoadBalancingWeight: u32(weight),
			Priority:            site.rank,
		}
		for _, e := range site.Endpoints {
			l.LbEndpoints = append(l.LbEndpoints, lbEndpoint(e))
		}
		m.Endpoints = append(m.Endpoints, l)
	}
	return m
}

func lbEndpoint(e route.Endpoint) *endpointv3.LbEndpoint {
	status := corev3.HealthStatus_UNKNOWN // the client's own checks decide
	if !e.Registered {
		status = corev3.HealthStatus_UNHEALTHY
	}
	return &endpointv3.LbEndpoint{
		HealthStatus: status,
		Metadata:     metadata(endpointMetadata{e.Workload, e.Version, e.Capacity, e.Identity}),
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
			Address: socketAddress(e.Address),
		}},
	}
}
