package xds

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// grpcCluster makes a cluster what grpc-go honours: passive health by failure percentage (A50), the rest of Envoy's
// fields would be ignored. Its credentials come from its own bootstrap.
func grpcCluster(m *clusterv3.Cluster) {
	m.OutlierDetection = &clusterv3.OutlierDetection{
		Interval:                       durationpb.New(500 * time.Millisecond),
		BaseEjectionTime:               durationpb.New(5 * time.Second),
		MaxEjectionPercent:             u32(100),
		EnforcingSuccessRate:           u32(0),
		EnforcingFailurePercentage:     u32(100),
		FailurePercentageThreshold:     u32(50),
		FailurePercentageMinimumHosts:  u32(1),
		FailurePercentageRequestVolume: u32(5),
	}
}

// grpcListeners are what "xds:///<host>" and "xds:///<host>:<port>" ask for, each with its routes.
func grpcListeners(s route.Service) []named {
	name := portName(s.Name)
	vhost := virtualHost(s, []string{"*"})
	vhost.Metadata = nil
	out := []named{{name, &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{vhost}}}}
	for _, target := range domains(s) {
		m := connectionManager(name, name)
		m.UpgradeConfigs = nil
		out = append(out, named{target, &listenerv3.Listener{
			Name:        target,
			ApiListener: &listenerv3.ApiListener{ApiListener: pack(m)},
		}})
	}
	return out
}
