package xdsserver

import (
	"errors"
	"io"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	loadv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

type lrs struct {
	loadv3.UnimplementedLoadReportingServiceServer
	s *Server
}

// StreamLoadStats takes the load reports of clients that speak only xDS.
func (l lrs) StreamLoadStats(g loadv3.LoadReportingService_StreamLoadStatsServer) error {
	first, err := g.Recv()
	if err != nil {
		return err
	}
	if first.GetNode() == nil {
		return status.Error(codes.InvalidArgument, errNoNode.Error())
	}
	node, _, err := l.s.cfg.Identify(g.Context(), first.GetNode())
	if err != nil {
		return status.Errorf(codes.PermissionDenied, "identify node %q: %v", first.GetNode().GetId(), err)
	}
	err = g.Send(&loadv3.LoadStatsResponse{
		SendAllClusters:       true,
		LoadReportingInterval: durationpb.New(l.s.cfg.LoadInterval),
	})
	if err != nil {
		return err
	}
	for {
		req, err := g.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if load := loadOf(req.GetClusterStats()); len(load) > 0 && l.s.cfg.Events.Load != nil {
			l.s.cfg.Events.Load(node.ID, load)
		}
	}
}

// loadOf reads what a client sent to each site of each service. Clusters that are no service's are left out.
func loadOf(stats []*endpointv3.ClusterStats) []nodeapi.Load {
	var out []nodeapi.Load
	for _, c := range stats {
		service, site := xds.ClusterName(c.GetClusterName())
		if !xds.IsServiceCluster(c.GetClusterName()) {
			continue
		}
		for _, l := range c.GetUpstreamLocalityStats() {
			at := site
			if sub := l.GetLocality().GetSubZone(); sub != "" {
				at = api.SiteID(sub)
			}
			done := l.GetTotalSuccessfulRequests() + l.GetTotalErrorRequests()
			if done == 0 {
				continue
			}
			out = append(out, nodeapi.Load{
				Service: service, Site: at, Requests: int64(done), Failed: int64(l.GetTotalErrorRequests()),
				Span: c.GetLoadReportInterval().AsDuration(),
			})
		}
	}
	return out
}
