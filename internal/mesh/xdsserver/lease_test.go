package xdsserver

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

const agent = api.NodeID("agent-eu")

func agentNode() *corev3.Node {
	return xds.NodeMessage(route.Node{ID: agent, Site: "eu"}, route.Capabilities{Kind: xds.KindBuiltin})
}

func testOrder(lease time.Duration, until time.Time) xds.Order {
	return xds.FaultOrder(fault.Order{
		ID: "run/01-kill", Run: "run", Kind: fault.Kill, Site: "eu", Services: []api.ServiceID{"orders"},
		MaxTargets: 2, Lease: lease, MaxDuration: time.Hour,
	}, until)
}

// agentWith connects an agent that says that it has these orders.
func (r *rig) agentWith(versions map[string]string) *client {
	c := r.connect(agentNode())
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: xds.TypeFaultOrder, ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: versions,
	})
	synctest.Wait()
	return c
}

// arrival is one message and when it came.
type arrival struct {
	At   time.Duration
	What string
}

// watch acknowledges everything for a while and says what came when.
func (c *client) watch(span time.Duration) []arrival {
	start := time.Now()
	end := time.After(span)
	var out []arrival
	for {
		select {
		case m := <-c.got:
			out = append(out, arrival{time.Since(start), short(m)})
			for _, x := range m.GetResources() {
				if x.GetTtl().AsDuration() != 3*time.Second {
					c.r.t.Errorf("%s has lease %v, want 3s", x.GetName(), x.GetTtl().AsDuration())
				}
			}
			c.ack(m)
		case <-end:
			synctest.Wait()
			return out
		}
	}
}

func (r *rig) put(o xds.Order) {
	r.t.Helper()
	if err := r.srv.PutOrder(agent, o); err != nil {
		r.t.Fatal(err)
	}
}

func same(t *testing.T, what string, got, want []arrival) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestHeartbeatsComeEachThirdOfTheLeaseAndEndWithIt(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		c := r.agentWith(nil)
		r.put(testOrder(3*time.Second, time.Now().Add(3500*time.Millisecond)))
		same(t, "not renewed", c.watch(time.Minute), []arrival{
			{0, "fault run/01-kill"},
			{1 * time.Second, "fault run/01-kill(heartbeat)"},
			{2 * time.Second, "fault run/01-kill(heartbeat)"},
			{3 * time.Second, "fault run/01-kill(heartbeat)"},
			{3500 * time.Millisecond, "fault -run/01-kill"},
		})
		equal(t, "events", r.events(), []string{"received agent-eu run/01-kill", "lost agent-eu run/01-kill: it was not renewed in time"})
	})
}

func TestOrderThatMissedItsLeaseOnceIsDeadForEver(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		c := r.agentWith(nil)
		o := testOrder(3*time.Second, time.Now().Add(time.Second))
		r.put(o)
		c.watch(time.Second + 1)
		later := time.Now().Add(time.Hour)
		if err := r.srv.Renew(agent, o.Name, later); !errors.Is(err, ErrOrderDead) {
			t.Errorf("Renew = %v, want ErrOrderDead", err)
		}
		o.Until = later
		if err := r.srv.PutOrder(agent, o); !errors.Is(err, ErrOrderDead) {
			t.Errorf("PutOrder of the same = %v, want ErrOrderDead", err)
		}
		other := testOrder(4*time.Second, later)
		if err := r.srv.PutOrder(agent, other); !errors.Is(err, ErrOrderDead) {
			t.Errorf("PutOrder of another version = %v, want ErrOrderDead", err)
		}
		same(t, "afterwards", c.watch(time.Minute), nil)
		c.cancel()
		synctest.Wait()
		c = r.agentWith(nil)
		same(t, "after a reconnect", c.watch(time.Minute), nil)
		c.cancel()
		synctest.Wait()
		c = r.agentWith(map[string]string{o.Name: o.Version()})
		same(t, "after a reconnect of a client that has it", c.watch(time.Minute), []arrival{{0, "fault -run/01-kill"}})
	})
}

func TestRenewedOrderGoesOn(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		c := r.agentWith(nil)
		o := testOrder(3*time.Second, time.Now().Add(3*time.Second))
		r.put(o)
		beats := 0
		for range 20 {
			for _, a := range c.watch(time.Second) {
				if a.What == "fault run/01-kill(heartbeat)" {
					beats++
				}
			}
			if err := r.srv.Renew(agent, o.Name, time.Now().Add(3*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if beats < 19 || beats > 20 {
			t.Errorf("heartbeats in 20 s = %d, want 19 or 20", beats)
		}
		c.watch(time.Millisecond)
		r.srv.RemoveOrder(agent, o.Name)
		same(t, "removed", c.watch(time.Minute), []arrival{{0, "fault -run/01-kill"}})
		if err := r.srv.Renew(agent, o.Name, time.Now().Add(time.Hour)); !errors.Is(err, ErrOrderDead) {
			t.Errorf("Renew = %v, want ErrOrderDead", err)
		}
		equal(t, "events", r.events(), []string{"received agent-eu run/01-kill"})
	})
}

func TestReconnectingClientGetsHeartbeatsOnly(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		c := r.agentWith(nil)
		o := testOrder(3*time.Second, time.Now().Add(time.Hour))
		r.put(o)
		c.watch(1500 * time.Millisecond)
		c.cancel()
		time.Sleep(1400 * time.Millisecond)
		c = r.agentWith(map[string]string{o.Name: o.Version()})
		same(t, "it has the order", c.watch(2500*time.Millisecond), []arrival{
			{0, "fault run/01-kill(heartbeat)"}, {time.Second, "fault run/01-kill(heartbeat)"}, {2 * time.Second, "fault run/01-kill(heartbeat)"},
		})
		r.events()
		c.cancel()
		synctest.Wait()
		c = r.agentWith(nil)
		same(t, "it no longer has it", c.watch(time.Minute), nil)
		equal(t, "events", r.events(), []string{"lost agent-eu run/01-kill: the client no longer has it"})
	})
}

func TestClientThatWasAwayForALeaseLosesTheOrder(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		c := r.agentWith(nil)
		o := testOrder(3*time.Second, time.Now().Add(time.Hour))
		r.put(o)
		c.watch(500 * time.Millisecond)
		c.cancel()
		time.Sleep(2500 * time.Millisecond) // 3 s after the last that it heard
		c = r.agentWith(map[string]string{o.Name: o.Version()})
		same(t, "sent", c.watch(time.Minute), []arrival{{0, "fault -run/01-kill"}})
		equal(t, "events", r.events(), []string{
			"received agent-eu run/01-kill", "lost agent-eu run/01-kill: no heartbeat reached the client in time",
		})
	})
}

func TestNewLeaderProlongsButNeverStarts(t *testing.T) {
	for _, heard := range []bool{true, false} {
		inBubble(t, Config{}, func(r *rig) {
			o := testOrder(3*time.Second, time.Now().Add(2500*time.Millisecond))
			o.Heard = heard
			c := r.agentWith(map[string]string{o.Name: o.Version()})
			r.put(o)
			same(t, "a client that has it", c.watch(2*time.Second), []arrival{
				{0, "fault run/01-kill(heartbeat)"}, {time.Second, "fault run/01-kill(heartbeat)"},
			})
		})
	}
	inBubble(t, Config{}, func(r *rig) {
		o := testOrder(3*time.Second, time.Now().Add(time.Hour))
		o.Heard = true
		r.put(o)
		c := r.agentWith(nil)
		same(t, "a client that does not have it", c.watch(time.Minute), nil)
		equal(t, "events", r.events(), []string{"lost agent-eu run/01-kill: the client no longer has it"})
	})
}

func TestRefusedHeartbeatEndsTheOrder(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		c := r.agentWith(nil)
		r.put(testOrder(3*time.Second, time.Now().Add(time.Hour)))
		c.watch(500 * time.Millisecond)
		m := <-c.got
		c.nack(m, "not in force")
		same(t, "afterwards", c.watch(time.Minute), []arrival{{0, "fault -run/01-kill"}})
		equal(t, "events", r.events(), []string{
			"received agent-eu run/01-kill", "nacked agent-eu [run/01-kill] not in force",
			"lost agent-eu run/01-kill: the client refused it: not in force",
		})
	})
}

func TestOrderWaitsForItsNodeWithinItsLease(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		r.put(testOrder(3*time.Second, time.Now().Add(2*time.Second)))
		time.Sleep(2*time.Second - 1)
		c := r.agentWith(nil)
		same(t, "just in time", c.watch(500*time.Millisecond), []arrival{{0, "fault run/01-kill"}, {1, "fault -run/01-kill"}})
	})
	inBubble(t, Config{}, func(r *rig) {
		r.put(testOrder(3*time.Second, time.Now().Add(2*time.Second)))
		time.Sleep(2 * time.Second)
		c := r.agentWith(nil)
		same(t, "too late", c.watch(time.Minute), nil)
	})
}

func TestRuntimeLayerIsUsedInTurnByOrders(t *testing.T) {
	inBubble(t, Config{}, func(r *rig) {
		layer := func(content string) xds.Order {
			o := testOrder(3*time.Second, time.Now().Add(time.Hour))
			x, err := xds.NewResource(content, &corev3.Node{Id: content})
			if err != nil {
				t.Fatal(err)
			}
			x.Body.TypeUrl = xds.TypeRuntime
			return xds.Order{Name: xds.FaultLayer(0), TypeURL: xds.TypeRuntime, Body: x.Body, TTL: o.TTL, Until: o.Until}
		}
		c := r.connect(agentNode())
		c.subscribe(xds.TypeRuntime, xds.FaultLayer(0))
		same(t, "empty", c.watch(time.Second), []arrival{{0, "RTDS -fault0"}})
		r.put(layer("one"))
		same(t, "armed", c.watch(time.Second), []arrival{{0, "RTDS fault0"}})
		if err := r.srv.PutOrder(agent, layer("two")); err == nil {
			t.Error("a layer in use was given to another order")
		}
		r.srv.RemoveOrder(agent, xds.FaultLayer(0))
		c.watch(time.Millisecond)
		if err := r.srv.PutOrder(agent, layer("one")); !errors.Is(err, ErrOrderDead) {
			t.Errorf("PutOrder of the dead one = %v, want ErrOrderDead", err)
		}
		r.put(layer("two"))
		same(t, "armed again", c.watch(500*time.Millisecond), []arrival{{0, "RTDS fault0"}})
	})
}

// A server that was stopped goes on where it was: its clock is looked at before every send.
func TestLeaseIsJudgedByTheClockAtTheMomentOfTheSend(t *testing.T) {
	now := time.Now()
	o := testOrder(3*time.Second, now.Add(time.Minute))
	for name, c := range map[string]struct {
		l    lease
		want bool
	}{
		"new":                                {lease{order: o, heard: now.Add(-time.Hour)}, true},
		"heard in time":                      {lease{order: o, sent: true, heard: now.Add(-3*time.Second + 1)}, true},
		"stopped for a lease":                {lease{order: o, sent: true, heard: now.Add(-3 * time.Second)}, false},
		"not renewed":                        {lease{order: testOrder(3*time.Second, now), sent: true, heard: now}, false},
		"dead, whatever was promised for it": {lease{order: o, sent: true, heard: now, dead: true}, false},
	} {
		if got, why := c.l.alive(now); got != c.want || (why == "") != got {
			t.Errorf("%s: alive = %v %q, want %v", name, got, why, c.want)
		}
	}
}
