package xds

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// FaultLayers is how many faults can be armed in one Envoy at the same time. One layer has one lease: a write for one
// order would renew its neighbours.
const FaultLayers = 8

// FaultLayer is the name of a runtime layer, from 0 to FaultLayers-1.
func FaultLayer(i int) string { return "fault" + strconv.Itoa(i) }

// BootstrapConfig is what an Envoy must know before its first answer.
type BootstrapConfig struct {
	Node         route.Node
	Capabilities route.Capabilities
	// Servers are where ADS is served: paths of Unix sockets ("/run/..." or "unix:/run/...") or "ip:port". With
	// several, the next one is tried when one fails.
	Servers []string
	// TLS of the connection to the servers; nil for plaintext, which is for Unix sockets only.
	TLS *corev3.TransportSocket
	// Admin is the path of the admin socket; empty for none.
	Admin string
	// Load asks for load reports to the same servers.
	Load bool
}

const serverCluster = "livefire:server"

// Bootstrap makes Envoy's bootstrap: one static cluster, that of its servers, and everything else from there. Write
// it to a file with protojson.
func Bootstrap(c BootstrapConfig) (*bootstrapv3.Bootstrap, error) {
	servers, err := serverAddresses(c.Servers)
	if err != nil {
		return nil, err
	}
	source := &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
	b := &bootstrapv3.Bootstrap{
		Node: NodeMessage(c.Node, c.Capabilities),
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters: []*clusterv3.Cluster{staticServers(servers, c.TLS)},
		},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: apiSource(corev3.ApiConfigSource_DELTA_GRPC), CdsConfig: source, LdsConfig: source,
		},
		LayeredRuntime: runtimeLayers(),
	}
	// The node is 61 KB, and every message would carry it.
	b.DynamicResources.AdsConfig.SetNodeOnFirstMessageOnly = true
	if c.Admin != "" {
		b.Admin = &bootstrapv3.Admin{Address: &corev3.Address{Address: &corev3.Address_Pipe{
			Pipe: &corev3.Pipe{Path: c.Admin, Mode: 0o600},
		}}}
	}
	if c.Load {
		b.ClusterManager = &bootstrapv3.ClusterManager{LoadStatsConfig: apiSource(corev3.ApiConfigSource_GRPC)}
	}
	if err := Validate(b); err != nil {
		return nil, err
	}
	return b, nil
}

func serverAddresses(servers []string) ([]*corev3.Address, error) {
	if len(servers) == 0 {
		return nil, fmt.Errorf("no server: Envoy would have nothing to serve")
	}
	var out []*corev3.Address
	for _, s := range servers {
		if path, ok := socketPath(s); ok {
			out = append(out, &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}})
			continue
		}
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, fmt.Errorf("server %q is neither ip:port nor the path of a socket: %w", s, err)
		}
		out = append(out, socketAddress(a))
	}
	return out, nil
}

func socketPath(s string) (string, bool) {
	const scheme = "unix:"
	switch {
	case len(s) > len(scheme) && s[:len(scheme)] == scheme:
		return s[len(scheme):], true
	case len(s) > 0 && s[0] == '/':
		return s, true
	}
	return "", false
}

// staticServers is one cluster with all servers: Envoy never fails over between two gRPC services.
func staticServers(servers []*corev3.Address, tls *corev3.TransportSocket) *clusterv3.Cluster {
	opts := httpProtocol("grpc")
	// Without a keepalive a stopped server is never left.
	opts.GetExplicitHttpConfig().GetHttp2ProtocolOptions().ConnectionKeepalive = &corev3.KeepaliveSettings{
		Interval: durationpb.New(500 * time.Millisecond), Timeout: durationpb.New(500 * time.Millisecond),
	}
	c := &clusterv3.Cluster{
		Name:                 serverCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		TransportSocket:      tls,
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(opts),
		},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: serverCluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{}},
		},
	}
	for _, a := range servers {
		c.LoadAssignment.Endpoints[0].LbEndpoints = append(c.LoadAssignment.Endpoints[0].LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}},
		})
	}
	return c
}

func apiSource(kind corev3.ApiConfigSource_ApiType) *corev3.ApiConfigSource {
	return &corev3.ApiConfigSource{
		ApiType:             kind,
		TransportApiVersion: corev3.ApiVersion_V3,
		GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
				ClusterName: serverCluster,
				// The default grows to 30 s.
				RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
					BaseInterval: durationpb.New(100 * time.Millisecond), MaxInterval: durationpb.New(time.Second),
				}},
			},
		}}},
	}
}

func runtimeLayers() *bootstrapv3.LayeredRuntime {
	out := &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name:           "base",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{}},
	}}}
	for i := range FaultLayers {
		source := ads()
		source.InitialFetchTimeout = durationpb.New(300 * time.Millisecond) // each would hold back the start for 15 s
		out.Layers = append(out.Layers, &bootstrapv3.RuntimeLayer{
			Name: FaultLayer(i),
			LayerSpecifier: &bootstrapv3.RuntimeLayer_RtdsLayer_{RtdsLayer: &bootstrapv3.RuntimeLayer_RtdsLayer{
				Name: FaultLayer(i), RtdsConfig: source,
			}},
		})
	}
	out.Layers = append(out.Layers, &bootstrapv3.RuntimeLayer{
		Name:           "admin",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_AdminLayer_{AdminLayer: &bootstrapv3.RuntimeLayer_AdminLayer{}},
	})
	return out
}
