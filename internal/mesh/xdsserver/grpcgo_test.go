//go:build e2e

package xdsserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	grpcxds "google.golang.org/grpc/xds"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

func serveGRPC(t *testing.T, register func(*grpc.Server)) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(ServerOptions()...)
	register(g)
	go func() { _ = g.Serve(l) }() // ends with Stop
	t.Cleanup(g.Stop)
	return l.Addr().String(), g.Stop
}

// TestGRPCGo has grpc-go's own xDS client as the other half. No shipped program contains it.
func TestGRPCGo(t *testing.T) {
	backend := func() (string, func()) {
		return serveGRPC(t, func(g *grpc.Server) { healthv1.RegisterHealthServer(g, health.NewServer()) })
	}
	eu, stopEU := backend()
	us, _ := backend()
	var acked atomic.Uint64
	srv := New(Config{
		Identify: func(_ context.Context, m *corev3.Node) (route.Node, route.Capabilities, error) {
			return route.Node{ID: api.NodeID(m.GetId()), Site: "eu", Service: "web", Identity: identity("eu", "web")},
				route.Capabilities{Kind: xds.KindGRPC}, nil
		},
		Events: Events{
			Acked:  func(_ api.NodeID, e route.Epoch, _ time.Time) { acked.Store(uint64(e)) },
			Nacked: func(_ api.NodeID, url string, names []string, m string) { t.Errorf("NACK of %s %v: %s", url, names, m) },
		},
	})
	addr, _ := serveGRPC(t, func(g *grpc.Server) { srv.Register(g) })
	for i, reflex := range []bool{false, true} {
		name := api.ServiceID(fmt.Sprintf("quotes-%v", reflex))
		table := func(epoch route.Epoch, euShare route.Weight) route.Table {
			s := testService(name, reflex)
			s.Protocol = "grpc"
			s.Sites[0].Endpoints[0].Address, s.Sites[1].Endpoints[0].Address = netip.MustParseAddrPort(eu), netip.MustParseAddrPort(us)
			s.Sites[0].Share, s.Sites[1].Share = euShare, route.Whole-euShare
			return route.Table{Epoch: epoch, Services: []route.Service{s}}
		}
		first := route.Epoch(10 * (i + 1))
		srv.SetTable(table(first, route.Whole))
		call := caller(t, addr, name)
		if got := call(); got != eu {
			t.Errorf("first call went to %s, want %s", got, eu)
		}
		await(t, "the acknowledgement", func() bool { return acked.Load() == uint64(first) })
		if reflex {
			stopEU()
			await(t, "the other site by reflex", func() bool { return call() == us })
			continue
		}
		srv.SetTable(table(first+1, 0))
		await(t, "the other site by decision", func() bool { return call() == us })
		await(t, "the acknowledgement", func() bool { return acked.Load() == uint64(first)+1 })
	}
}

// caller makes a proxyless client of a service. A call says who answered.
func caller(t *testing.T, server string, name api.ServiceID) func() string {
	t.Helper()
	boot := fmt.Sprintf(`{"xds_servers":[{"server_uri":%q,"channel_creds":[{"type":"insecure"}],"server_features":["xds_v3"]}],"node":{"id":"app-%s"}}`, server, name)
	resolver, err := grpcxds.NewXDSResolverWithConfigForTesting([]byte(boot))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("xds:///"+string(name)+".mesh:80", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithResolvers(resolver))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the test has ended
	return func() string {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var p peer.Peer
		if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&p)); err != nil {
			return err.Error() // of a connection that broke under the call
		}
		return p.Addr.String()
	}
}
