//go:build e2e

package envoy

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/pattern"
)

const (
	home    = "eu-west"
	standby = "us-east"
)

// TestEnvoyCallsTheBuiltInSidecars is the demo's story with an Envoy in the place of the caller's sidecar.
func TestEnvoyCallsTheBuiltInSidecars(t *testing.T) {
	r := newRig(t)
	r.startEnvoy()
	first := r.publish(nil)
	r.awaitAck(first.Epoch)
	// Until its first checks have ended, Envoy may take a busy machine for an unhealthy endpoint.
	for cluster, n := range map[string]uint64{"payments": 6, "orders|" + home: 2, "orders|" + standby: 2} {
		name := "cluster." + cluster + ".membership_healthy"
		eventually(t, "every endpoint of "+cluster+" healthy", func() bool { return r.stats(name)[name] == n })
	}
	c := newClient(t)
	for _, service := range []string{"payments", "orders"} {
		for _, addr := range []string{r.caps.Outbound, r.caps.ServicePorts[api.ServiceID(service)]} {
			for range 20 {
				if a := c.get(t.Context(), addr, service+".mesh"); a.status != http.StatusOK || a.site != home {
					t.Fatalf("%s at %s: %v, want 200 from %s", service, addr, a, home)
				}
			}
		}
	}
	r.checkIdentity()

	r.loseOneOfThree(c)
	r.loseUnderLoad("payments")
	r.loseWithoutReflex(c)
	r.checkNothingElseIsStatic()
	if refusals := r.refusals(); len(refusals) > 0 {
		t.Errorf("%d NACKs: %v", len(refusals), refusals)
	}
	types := 0
	for name, n := range r.stats("") {
		if !strings.HasSuffix(name, ".update_rejected") {
			continue
		}
		if types++; n > 0 {
			t.Errorf("%s = %d, want 0", name, n)
		}
	}
	if types < 5 { // clusters, endpoints, listeners, routes, secrets
		t.Errorf("%d counters of rejected updates, want one per type at least", types)
	}
}

// checkIdentity: the sidecars have seen nobody but the caller, by its certificate, and every instance was used.
func (r *rig) checkIdentity() {
	r.t.Helper()
	total := 0
	for _, service := range []api.ServiceID{"payments", "orders"} {
		for _, w := range r.of(service, home) {
			callers := w.log.callers(r.t)
			n := callers[r.node.Identity]
			if n == 0 || len(callers) != 1 {
				r.t.Errorf("%s was called by %v, want only by %s", w.node.ID, callers, r.node.Identity)
			}
			total += n
		}
	}
	if total < 80 {
		r.t.Errorf("%d requests in the logs of the sidecars, want the 80 that were answered", total)
	}
	for _, cluster := range []string{"payments", "orders|" + home} {
		if n := r.stats("cluster." + cluster + ".ssl.handshake"); n["cluster."+cluster+".ssl.handshake"] == 0 {
			r.t.Errorf("no TLS handshake with %s", cluster)
		}
	}
}

// loseOneOfThree kills one sidecar: as long as a site has an endpoint that answers, another one is not used.
func (r *rig) loseOneOfThree(c *client) {
	r.t.Helper()
	r.of("payments", home)[0].kill()
	const healthy = "cluster.payments.membership_healthy"
	eventually(r.t, "the loss of one endpoint", func() bool { return r.stats(healthy)[healthy] == 5 })
	for range 100 {
		if a := c.get(r.t.Context(), r.caps.Outbound, "payments.mesh"); a.status != http.StatusOK || a.site != home {
			r.t.Errorf("payments with two of three endpoints: %v, want 200 from %s", a, home)
		}
	}
}

// loseUnderLoad kills a site of a service with reflex while it is called: Envoy's priorities take over, and no GET fails.
func (r *rig) loseUnderLoad(service api.ServiceID) {
	r.t.Helper()
	ctx, stop := context.WithCancel(r.t.Context())
	defer stop()
	var mu sync.Mutex
	var answers []answer
	seen := func(site string) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, a := range answers {
			if a.site == site {
				n++
			}
		}
		return n
	}
	var callers sync.WaitGroup
	c := newClient(r.t)
	for range 4 {
		callers.Go(func() {
			for ctx.Err() == nil {
				a := c.get(r.t.Context(), r.caps.Outbound, string(service)+".mesh")
				mu.Lock()
				answers = append(answers, a)
				mu.Unlock()
			}
		})
	}
	eventually(r.t, "traffic before the loss", func() bool { return seen(home) >= 100 })
	killed := time.Now()
	r.lose(service, home)
	eventually(r.t, "traffic at the other site", func() bool { return seen(standby) >= 200 })
	stop()
	callers.Wait()
	failed, slowest := 0, time.Duration(0)
	for _, a := range answers {
		slowest = max(slowest, a.duration)
		if a.err != nil || a.status != http.StatusOK {
			if failed++; failed <= 5 {
				r.t.Errorf("a GET of %s failed: %v", service, a)
			}
		}
	}
	if last := answers[len(answers)-1]; last.site != standby {
		r.t.Errorf("the last answer is of %q, want %s", last.site, standby)
	}
	r.t.Logf("%s lost at %s: %d of %d GETs failed, %d answers from %s within %v, slowest %v",
		service, home, failed, len(answers), seen(standby), standby, time.Since(killed).Round(time.Millisecond), slowest.Round(time.Millisecond))
}

// loseWithoutReflex kills a site of a service that waits for a decision: fast refusals until a table moves it. The table
// drains no listener: the connection on which the refusals came is the one on which the answers come.
func (r *rig) loseWithoutReflex(c *client) {
	r.t.Helper()
	r.lose("orders", home)
	eventually(r.t, "the refusals", func() bool {
		return c.get(r.t.Context(), r.caps.Outbound, "orders.mesh").status == http.StatusServiceUnavailable
	})
	dials, slowest := c.connections(), time.Duration(0)
	for range 50 {
		a := c.get(r.t.Context(), r.caps.Outbound, "orders.mesh")
		if a.err != nil || a.status != http.StatusServiceUnavailable || a.duration > time.Second || a.header.Get("x-livefire-flags") == "" {
			r.t.Errorf("orders without a decision: %v, want 503 with flags within 1 s", a)
		}
		slowest = max(slowest, a.duration)
	}
	for i := range r.resources.Workloads {
		w := &r.resources.Workloads[i]
		if w.Spec.Service == "orders" && w.Spec.Site == home {
			w.Status = &api.WorkloadStatus{Registered: false}
		}
	}
	draining := r.stats("listener_manager.")
	decided := time.Now()
	table := r.publish(map[api.ServiceID]pattern.Placement{"orders": {Active: standby}})
	r.awaitAck(table.Epoch)
	acked := time.Since(decided)
	for range 50 {
		if a := c.get(r.t.Context(), r.caps.Outbound, "orders.mesh"); a.status != http.StatusOK || a.site != standby {
			r.t.Errorf("orders after the ACK of epoch %d: %v, want 200 from %s", table.Epoch, a, standby)
		}
	}
	if n := c.connections() - dials; n != 0 {
		r.t.Errorf("%d connections were made anew: an epoch must not drain the listener", n)
	}
	after := r.stats("listener_manager.")
	for _, name := range []string{"listener_modified", "listener_removed", "listener_stopped", "total_listeners_draining", "total_filter_chains_draining"} {
		was, known := draining["listener_manager."+name]
		if is := after["listener_manager."+name]; !known || is != was {
			r.t.Errorf("listener_manager.%s (known: %t) went from %d to %d with epoch %d", name, known, was, is, table.Epoch)
		}
	}
	if n := after["listener_manager.total_listeners_active"]; n != 3 {
		r.t.Errorf("%d listeners are active, want 3", n)
	}
	r.t.Logf("orders: 50 refusals, slowest %v; epoch %d acknowledged %v after it was decided, then 50 answers from %s",
		slowest.Round(time.Millisecond), table.Epoch, acked.Round(time.Millisecond), standby)
}

// checkNothingElseIsStatic reads from Envoy itself that it had nothing but the way to its server.
func (r *rig) checkNothingElseIsStatic() {
	r.t.Helper()
	var dump struct {
		Configs []struct {
			Type            string            `json:"@type"`
			StaticListeners []json.RawMessage `json:"static_listeners"`
			StaticRoutes    []json.RawMessage `json:"static_route_configs"`
			StaticSecrets   []json.RawMessage `json:"static_secrets"`
			StaticClusters  []struct {
				Cluster struct {
					Name string `json:"name"`
				} `json:"cluster"`
			} `json:"static_clusters"`
			DynamicClusters []json.RawMessage `json:"dynamic_active_clusters"`
			Bootstrap       struct {
				Resources map[string][]json.RawMessage `json:"static_resources"`
				Dynamic   struct {
					ADS struct {
						Services []struct {
							Envoy struct {
								Cluster string `json:"cluster_name"`
							} `json:"envoy_grpc"`
						} `json:"grpc_services"`
					} `json:"ads_config"`
				} `json:"dynamic_resources"`
			} `json:"bootstrap"`
		} `json:"configs"`
	}
	if err := json.Unmarshal(r.admin("/config_dump"), &dump); err != nil {
		r.t.Fatal(err)
	}
	var static []string
	ads, dynamic, bootstraps := "", 0, 0
	for _, c := range dump.Configs {
		for _, x := range c.StaticClusters {
			static = append(static, x.Cluster.Name)
		}
		dynamic += len(c.DynamicClusters)
		if n := len(c.StaticListeners) + len(c.StaticRoutes) + len(c.StaticSecrets); n > 0 {
			r.t.Errorf("%s: %d static listeners, routes or secrets, want 0", c.Type, n)
		}
		if c.Bootstrap.Resources != nil {
			bootstraps++
			if len(c.Bootstrap.Resources) != 1 || len(c.Bootstrap.Resources["clusters"]) != 1 {
				r.t.Errorf("static resources of the bootstrap: %v, want one cluster", c.Bootstrap.Resources)
			}
			for _, s := range c.Bootstrap.Dynamic.ADS.Services {
				ads = s.Envoy.Cluster
			}
		}
	}
	if bootstraps != 1 || len(static) != 1 || static[0] != ads {
		r.t.Errorf("static clusters %v in %d bootstraps, ADS from %q; want that one alone", static, bootstraps, ads)
	}
	if want := 1 + 2 + 1; dynamic != want { // payments, orders at two sites, the epoch's carrier
		r.t.Errorf("%d dynamic clusters, want %d", dynamic, want)
	}
}
