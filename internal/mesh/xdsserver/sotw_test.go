package xdsserver

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// world is a state-of-the-world client that says exactly what a test tells it to.
type world struct {
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	got    chan *discoveryv3.DiscoveryResponse
	t      *testing.T
}

func (r *rig) world() *world {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r.t.Cleanup(cancel)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(r.conn).StreamAggregatedResources(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	w := &world{stream: stream, t: r.t, got: make(chan *discoveryv3.DiscoveryResponse, 100)}
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			w.got <- m
		}
	}()
	return w
}

func grpcNode() *corev3.Node {
	return xds.NodeMessage(route.Node{ID: "app-1", Site: "eu", Service: "web"}, route.Capabilities{Kind: xds.KindGRPC})
}

func (w *world) ask(url string, names ...string) {
	w.say(&discoveryv3.DiscoveryRequest{Node: grpcNode(), TypeUrl: url, ResourceNames: names})
}

func (w *world) say(req *discoveryv3.DiscoveryRequest) {
	w.t.Helper()
	if err := w.stream.Send(req); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ack(m *discoveryv3.DiscoveryResponse, names ...string) {
	w.say(&discoveryv3.DiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResourceNames: names, VersionInfo: m.GetVersionInfo(), ResponseNonce: m.GetNonce()})
}

func (w *world) nack(m *discoveryv3.DiscoveryResponse, names ...string) {
	w.say(&discoveryv3.DiscoveryRequest{
		TypeUrl: m.GetTypeUrl(), ResourceNames: names, ResponseNonce: m.GetNonce(), ErrorDetail: &status.Status{Code: 3, Message: "bad"},
	})
}

// next is the only response that has come, nil if none has.
func (w *world) next() *discoveryv3.DiscoveryResponse {
	w.t.Helper()
	synctest.Wait()
	var m *discoveryv3.DiscoveryResponse
	select {
	case m = <-w.got:
	default:
	}
	if n := len(w.got); n > 0 {
		w.t.Fatalf("%d more responses than expected", n)
	}
	return m
}

func TestProxylessClientIsServedByName(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "orders", "payments"))
		w := r.world()
		const target = "orders.mesh:80"
		for _, step := range []struct{ url, name string }{
			{xds.TypeListener, target}, {xds.TypeRoute, "port/orders"}, {xds.TypeCluster, "orders"}, {xds.TypeEndpoint, "orders"},
		} {
			w.ask(step.url, step.name)
			m := w.next()
			if m.GetTypeUrl() != step.url || len(m.GetResources()) != 1 {
				t.Fatalf("%s: got %v", step.name, m)
			}
			w.ack(m, step.name)
		}
		if m := w.next(); m != nil {
			t.Errorf("after the last ACK: %v", m)
		}
		next := testTable(2, "orders", "payments")
		next.Services[0].Sites[0].Endpoints[0].Registered = false
		r.srv.SetTable(next)
		m := w.next()
		if m.GetTypeUrl() != xds.TypeEndpoint {
			t.Fatalf("next: %v, want endpoints", m)
		}
		w.ack(m, "orders")
		synctest.Wait()
		if e := r.srv.Nodes()[0].Epoch; e != 2 {
			t.Errorf("acknowledged epoch = %d, want 2", e)
		}
	})
}

// go-control-plane's snapshot cache answers each NACK with the same snapshot at once: 24,792 NACKs in 2 s.
func TestRefusedStateIsHeldUntilItChanges(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "orders"))
		w := r.world()
		w.ask(xds.TypeCluster, "orders")
		w.nack(w.next(), "orders")
		time.Sleep(time.Minute)
		if m := w.next(); m != nil {
			t.Fatalf("after the NACK: %v", m)
		}
		equal(t, "events", r.events(), []string{"nacked app-1 [orders] bad"})
		next := testTable(2, "orders")
		r.srv.SetTable(next)
		if m := w.next(); m != nil {
			t.Fatalf("after a new epoch alone: %v", m)
		}
		next = testTable(3, "orders")
		next.Services[0].Limits.Requests++
		r.srv.SetTable(next)
		if m := w.next(); m == nil {
			t.Fatal("the changed cluster was not sent")
		}
	})
}

func TestProxylessClientLosesAClusterOnlyAfterItsRoutes(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "a", "b"))
		w := r.world()
		w.ask(xds.TypeCluster, "a", "b")
		w.ack(w.next(), "a", "b")
		w.ask(xds.TypeRoute, "port/a", "port/b")
		w.ack(w.next(), "port/a", "port/b")
		r.srv.SetTable(testTable(2, "a"))
		m := w.next()
		if m.GetTypeUrl() != xds.TypeRoute || len(m.GetResources()) != 1 {
			t.Fatalf("first: %v, want routes without b", m)
		}
		w.ack(m, "port/a", "port/b")
		m = w.next()
		if m.GetTypeUrl() != xds.TypeCluster || len(m.GetResources()) != 1 {
			t.Fatalf("then: %v, want clusters without b", m)
		}
	})
}

func TestLoadReportsNameServiceAndSite(t *testing.T) {
	loads := make(chan []nodeapi.Load, 1)
	inBubble(t, Config{Events: Events{Load: func(n api.NodeID, l []nodeapi.Load) { loads <- l }}}, func(r *rig) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream, err := loadv3.NewLoadReportingServiceClient(r.conn).StreamLoadStats(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&loadv3.LoadStatsRequest{Node: envoyNode("web-1")}); err != nil {
			t.Fatal(err)
		}
		m, err := stream.Recv()
		if err != nil || !m.GetSendAllClusters() || m.GetLoadReportingInterval().AsDuration() != time.Second {
			t.Fatalf("first response = %v, %v", m, err)
		}
		stats := func(cluster, site string, good, failed uint64) *endpointv3.ClusterStats {
			return &endpointv3.ClusterStats{
				ClusterName: cluster, LoadReportInterval: durationpb.New(time.Second),
				UpstreamLocalityStats: []*endpointv3.UpstreamLocalityStats{{
					Locality: &corev3.Locality{SubZone: site}, TotalSuccessfulRequests: good, TotalErrorRequests: failed,
				}},
			}
		}
		err = stream.Send(&loadv3.LoadStatsRequest{ClusterStats: []*endpointv3.ClusterStats{
			stats("orders", "eu", 9, 1), stats("payments|us", "us", 5, 0), stats("livefire:app", "", 7, 0), stats("idle", "eu", 0, 0),
		}})
		if err != nil {
			t.Fatal(err)
		}
		want := []nodeapi.Load{
			{Service: "orders", Site: "eu", Requests: 10, Failed: 1, Span: time.Second},
			{Service: "payments", Site: "us", Requests: 5, Span: time.Second},
		}
		synctest.Wait()
		if diff := cmp.Diff(want, <-loads); diff != "" {
			t.Errorf("load (-want +got):\n%s", diff)
		}
	})
}
