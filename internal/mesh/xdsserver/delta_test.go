package xdsserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

func equal(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// start subscribes a client to clusters and listeners and brings it up to date.
func (r *rig) start(node *corev3.Node) *client {
	c := r.connect(node)
	c.subscribe(xds.TypeCluster, "*")
	c.subscribe(xds.TypeListener, "*")
	c.settle()
	return c
}

func TestTableIsSentInOrderOfUseAndAcknowledgedWhole(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(3, "orders"))
		c := r.connect(builtinNode("web-1"))
		c.subscribe(xds.TypeCluster, "*")
		c.subscribe(xds.TypeListener, "*")
		first := c.all()
		equal(t, "first", shorts(first), []string{"CDS orders", "LDS livefire:epoch outbound"})
		c.subscribe(xds.TypeEndpoint, "orders")
		c.subscribe(xds.TypeRoute, "outbound")
		second := c.all()
		equal(t, "second", shorts(second), []string{"EDS orders", "RDS outbound"})
		for i, m := range append(first, second...) {
			equal(t, "events before the last ACK", r.events(), nil)
			c.ack(m)
			synctest.Wait()
			if i < 3 {
				continue
			}
			equal(t, "events", r.events(), []string{"acked web-1 3"})
		}
		c.asked = map[string][]string{xds.TypeEndpoint: {"orders"}, xds.TypeRoute: {"outbound"}}
		next := testTable(4, "orders", "payments")
		next.Services[0].Limits.Pending++
		next.Services[0].Timeouts.Request++
		next.Services[0].Sites[0].Endpoints[0].Version = "v2"
		r.srv.SetTable(next)
		equal(t, "next", shorts(c.settle()), []string{
			"CDS orders payments", "EDS orders", "LDS livefire:epoch", "RDS outbound", "EDS payments",
		})
		equal(t, "events", r.events(), []string{"acked web-1 4"})
		if n := r.srv.Nodes(); len(n) != 1 || n[0].Epoch != 4 || !n[0].Connected || n[0].Nack != nil {
			t.Errorf("Nodes = %+v", n)
		}
	})
}

func TestNewEpochAloneSendsOnlyTheCarrier(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "orders"))
		c, e := r.start(builtinNode("web-1")), r.start(envoyNode("web-2"))
		r.srv.SetTable(testTable(2, "orders"))
		equal(t, "builtin", shorts(c.settle()), []string{"LDS livefire:epoch"})
		equal(t, "envoy", shorts(e.settle()), []string{"CDS livefire:epoch"})
		got := r.events()
		slices.Sort(got)
		equal(t, "events", got, []string{"acked web-1 1", "acked web-1 2", "acked web-2 1", "acked web-2 2"})
	})
}

func TestSilenceBeforeTheFirstTable(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		c := r.connect(builtinNode("web-1"))
		c.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: xds.TypeCluster, ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: map[string]string{"orders": "x"},
		})
		c.subscribe(xds.TypeEndpoint, "orders")
		equal(t, "sent", shorts(c.all()), []string{})
	})
}

func TestRefusedResponseIsSentAgainOneByOneAndTheBadOneHeld(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "a", "b", "c"))
		c := r.connect(builtinNode("web-1"))
		c.subscribe(xds.TypeCluster, "*")
		answer := func() (sent []string) {
			for {
				ms := c.all()
				if len(ms) == 0 {
					return sent
				}
				for _, m := range ms {
					sent = append(sent, short(m))
					if strings.Contains(short(m), "b") {
						c.nack(m, "b is bad")
					} else {
						c.ack(m)
					}
				}
			}
		}
		equal(t, "sent", answer(), []string{"CDS a b c", "CDS a", "CDS b", "CDS c"})
		equal(t, "events", r.events(), []string{"nacked web-1 [a b c] b is bad", "nacked web-1 [b] b is bad"})
		time.Sleep(time.Minute)
		equal(t, "a minute later", answer(), nil)

		next := testTable(2, "a", "b", "c")
		next.Services[0].Limits.Pending++
		r.srv.SetTable(next)
		equal(t, "another changes", answer(), []string{"CDS a"})
		next = testTable(3, "a", "b", "c")
		next.Services[0].Limits.Pending++
		next.Services[1].Limits.Pending++
		r.srv.SetTable(next)
		equal(t, "the bad one changes", answer(), []string{"CDS b"})
		if n := r.srv.Nodes()[0].Nack; n == nil || n.Message != "b is bad" || n.Type != xds.TypeCluster {
			t.Errorf("Nack = %+v", n)
		}
		if e := r.srv.Nodes()[0].Epoch; e != 0 {
			t.Errorf("acknowledged epoch = %d, want none", e)
		}
	})
}

func TestReconnectGetsOnlyWhatDiffers(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "a", "b"))
		c := r.connect(builtinNode("web-1"))
		c.subscribe(xds.TypeCluster, "*")
		versions := map[string]string{"gone": "1"}
		for _, x := range c.all()[0].GetResources() {
			versions[x.GetName()] = x.GetVersion()
		}
		c.cancel()
		synctest.Wait()
		versions["b"] = "another"
		c = r.connect(builtinNode("web-1"))
		c.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: xds.TypeCluster, ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: versions,
		})
		equal(t, "sent", shorts(c.all()), []string{"CDS b -gone"})
	})
}

func TestNamesThatDoNotExistAreAnsweredAtOnce(t *testing.T) {
	inBubble(t, Config{Extra: func(route.Node) []xds.Resource {
		x, err := xds.NewResource(xds.SecretLeaf, &tlsv3.Secret{Name: xds.SecretLeaf})
		if err != nil {
			panic(err)
		}
		return []xds.Resource{x}
	}}, func(r *rig) {
		c := r.connect(envoyNode("web-1"))
		c.subscribe(xds.TypeSecret, xds.SecretLeaf, "other")
		c.subscribe(xds.TypeRuntime, "fault0", "fault1")
		got := shorts(c.all())
		equal(t, "without a table", got, []string{"SDS leaf", "SDS -other", "RTDS -fault0 -fault1"})
		r.srv.SetTable(testTable(1, "a"))
		c.subscribe(xds.TypeEndpoint, "a", "b")
		equal(t, "endpoints", shorts(c.all()), []string{"EDS a", "EDS -b"})
		time.Sleep(time.Minute)
		equal(t, "later", shorts(c.all()), []string{})
		// A name that is asked for again is answered again.
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: xds.TypeEndpoint, ResourceNamesUnsubscribe: []string{"a"}})
		c.subscribe(xds.TypeEndpoint, "a", "b")
		equal(t, "again", shorts(c.all()), []string{"EDS a", "EDS -b"})
		r.srv.SetTable(testTable(2, "a", "b"))
		equal(t, "it exists now", shorts(c.all()), []string{"EDS b"})
	})
}

func TestEnvoyLosesAClusterOnlyAfterItsRoutes(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "a", "b"))
		c := r.start(envoyNode("web-1"))
		r.srv.SetTable(testTable(2, "a"))
		ms := c.all()
		equal(t, "first", shorts(ms), []string{"CDS livefire:epoch", "RDS outbound"})
		c.ack(ms[0])
		equal(t, "routes not acknowledged", shorts(c.all()), []string{})
		c.ack(ms[1])
		equal(t, "routes acknowledged", shorts(c.settle()), []string{"EDS -b", "CDS -b"})
		equal(t, "events", r.events(), []string{"acked web-1 1", "acked web-1 2"})
	})
}

func TestEnvoyGetsRoutesAfterItsNewClustersButNotMuchLater(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "a"))
		c := r.start(envoyNode("web-1"))
		next := testTable(2, "a", "b")
		next.Services[0].Limits.Pending++
		r.srv.SetTable(next)
		// a's endpoints are sent again with it: Envoy warms it anew and does not ask for them.
		equal(t, "at once", shorts(c.all()), []string{"CDS a b livefire:epoch", "EDS a"})
		time.Sleep(250*time.Millisecond - 1)
		equal(t, "just before the limit", shorts(c.all()), []string{})
		time.Sleep(time.Nanosecond)
		equal(t, "at the limit", shorts(c.all()), []string{"RDS outbound"})

		next = testTable(3, "a", "b", "c")
		next.Services[0].Limits.Pending++
		r.srv.SetTable(next)
		equal(t, "warming clusters hold nothing back for long", shorts(c.all()), []string{"CDS c livefire:epoch"})
	})
}

func TestNewerTableReplacesTheWaitingOne(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "a"))
		c := r.start(builtinNode("web-1"))
		for e := route.Epoch(2); e <= 100; e++ {
			next := testTable(e, "a")
			next.Services[0].Sites[0].Endpoints[0].Version = fmt.Sprint(e)
			r.srv.SetTable(next)
			synctest.Wait()
		}
		ms := c.all()
		equal(t, "sent", shorts(ms), []string{"EDS a", "LDS livefire:epoch"})
		c.ack(ms[0])
		c.ack(ms[1])
		equal(t, "sent next", shorts(c.settle()), []string{"EDS a", "LDS livefire:epoch"})
		equal(t, "events", r.events(), []string{"acked web-1 1", "acked web-1 2", "acked web-1 100"})
	})
}

func TestClientThatDoesNotReadIsDisconnected(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var names []api.ServiceID
		for i := range 120 {
			names = append(names, api.ServiceID("s"+string(rune('a'+i/26%26))+string(rune('a'+i%26))+strings.Repeat("x", i/676)))
		}
		names = slices.Compact(names)
		r.srv.SetTable(testTable(1, names...))
		err = stream.Send(&discoveryv3.DeltaDiscoveryRequest{Node: builtinNode("web-1"), TypeUrl: xds.TypeCluster, ResourceNamesSubscribe: []string{"*"}})
		if err != nil {
			t.Fatal(err)
		}
		// gRPC takes what fits its window and a little more; then a send waits for the reader.
		for e := route.Epoch(2); e < 7; e++ {
			synctest.Wait()
			next := testTable(e, names...)
			for i := range next.Services {
				next.Services[i].Limits.Pending += int(e)
			}
			r.srv.SetTable(next)
			time.Sleep(250 * time.Millisecond)
		}
		synctest.Wait()
		if !r.srv.Nodes()[0].Connected {
			t.Fatal("disconnected before the limit")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if r.srv.Nodes()[0].Connected {
			t.Fatal("still connected after the limit")
		}
	})
}

func TestUnknownClientIsShownTheDoor(t *testing.T) {
	inBubble(t, Config{Identify: func(context.Context, *corev3.Node) (route.Node, route.Capabilities, error) {
		return route.Node{}, route.Capabilities{}, errors.New("its certificate is for another site")
	}}, func(r *rig) {
		c := r.connect(builtinNode("web-1"))
		c.subscribe(xds.TypeCluster, "*")
		err := <-c.err
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "another site") {
			t.Errorf("error = %v", err)
		}
	})
}

func TestSecondStreamOfANodeEndsTheFirst(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "a"))
		old := r.start(builtinNode("web-1"))
		fresh := r.start(builtinNode("web-1"))
		if err := <-old.err; status.Code(err) != codes.Aborted {
			t.Errorf("error = %v, want Aborted", err)
		}
		r.srv.SetTable(testTable(2, "a"))
		equal(t, "sent", shorts(fresh.all()), []string{"LDS livefire:epoch"})
		if n := r.srv.Nodes(); len(n) != 1 || !n[0].Connected {
			t.Errorf("Nodes = %+v", n)
		}
	})
}

func TestServiceThatCannotBeRenderedStaysAsItWas(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.srv.SetTable(testTable(1, "a", "b"))
		c := r.start(builtinNode("web-1"))
		bad := testTable(2, "a", "b")
		bad.Services[0].Health.Interval = 0
		bad.Services[1].Limits.Pending++
		r.srv.SetTable(bad)
		equal(t, "sent", shorts(c.settle()), []string{"CDS b", "LDS livefire:epoch", "RDS outbound"})
		bad = testTable(3, "a", "b")
		bad.Services[0].Sites[0].Endpoints[0].Identity = ""
		bad.Services[1].Limits.Pending++
		r.srv.SetTable(bad)
		equal(t, "sent", shorts(c.settle()), []string{"LDS livefire:epoch"})
		equal(t, "events", r.events(), []string{
			"acked web-1 1",
			"refused web-1 2 it stays as it was: health check without interval or timeout", "acked web-1 2",
			"refused web-1 3 it stays as it was: workload a-1 at eu: no identity", "acked web-1 3",
		})
	})
}

func TestClientMayLeaveInOrder(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		c := r.connect(builtinNode("web-1"))
		c.subscribe(xds.TypeCluster, "*")
		synctest.Wait()
		if err := c.stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if err := <-c.err; !errors.Is(err, io.EOF) {
			t.Errorf("stream ended with %v, want no error", err)
		}
		synctest.Wait()
		if r.srv.Nodes()[0].Connected {
			t.Error("still connected")
		}
	})
}
