package xdsclient

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	deltav3 "github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// counter is go-control-plane's callbacks: it counts what the client says.
type counter struct {
	requests, nacks int
}

func (c *counter) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }
func (c *counter) OnDeltaStreamClosed(int64, *corev3.Node)                {}
func (c *counter) OnStreamDeltaRequest(_ int64, req *discoveryv3.DeltaDiscoveryRequest) error {
	c.requests++
	if req.GetErrorDetail() != nil {
		c.nacks++
	}
	return nil
}

func (c *counter) OnStreamDeltaResponse(int64, *discoveryv3.DeltaDiscoveryRequest, *discoveryv3.DeltaDiscoveryResponse) {
}

// snapshot is a table as go-control-plane serves it, with versions of its own making.
func snapshot(t *testing.T, version string, r xds.Resources) *cachev3.Snapshot {
	t.Helper()
	items := map[string][]types.Resource{}
	for url, rs := range r {
		for _, x := range rs {
			m, err := x.Body.UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			items[url] = append(items[url], m)
		}
	}
	s, err := cachev3.NewSnapshot(version, items)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The server of this test is go-control-plane's: its order of types and its versions are not ours.
func TestFollowsGoControlPlane(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		cache, counted := cachev3.NewSnapshotCache(true, cachev3.IDHash{}, nil), &counter{}
		server := deltav3.NewServer(ctx, cache, counted)
		h, out := &host{t: t}, &sink{}
		h.start("one", &fake{serve: func(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
			return server.DeltaStreamHandler(g, "")
		}})
		set := func(version string, table route.Table) {
			t.Helper()
			if err := cache.SetSnapshot(ctx, string(testNode.ID), snapshot(t, version, render(t, table))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		set("1", testTable(1, "a", "b"))
		run(t, h, Config{Table: out.take})
		synctest.Wait()
		equal(t, "first", out.got(), []route.Table{testTable(1, "a", "b")})

		next := testTable(2, "a", "b", "c")
		next.Services[0].Sites[1].Endpoints[0].Registered = false
		next.Services[1].Limits.Requests++
		set("2", next)
		equal(t, "epochs", out.epochs(), []route.Epoch{1, 2})
		equal(t, "second", out.got()[1], next)
		set("3", testTable(3, "c"))
		equal(t, "epochs", out.epochs(), []route.Epoch{1, 2, 3})
		equal(t, "third", out.got()[2], testTable(3, "c"))

		if counted.nacks > 0 {
			t.Errorf("NACKs = %d, want none", counted.nacks)
		}
		before := counted.requests
		time.Sleep(time.Minute)
		synctest.Wait()
		if counted.requests != before {
			t.Errorf("requests in an idle minute = %d, want none", counted.requests-before)
		}
		set("4", testTable(2, "a"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if counted.nacks != 1 {
			t.Errorf("NACKs of an older epoch = %d, want 1", counted.nacks)
		}
		equal(t, "epochs", out.epochs(), []route.Epoch{1, 2, 3})
	})
}
