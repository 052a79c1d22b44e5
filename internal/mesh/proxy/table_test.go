package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

func TestTableIsInForceWhenApplyReturns(t *testing.T) {
	m := newMesh(t)
	a, b := m.workload("payments", "eu", "p-1"), m.workload("payments", "us", "p-2")
	c := m.caller()
	sites := []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{a}}, {name: "us", priority: 1, workloads: []*workload{b}}}
	m.apply(table(1, "payments", sites), c.proxy, a.proxy, b.proxy)
	c.healthy(t, "payments", 2)
	for epoch := route.Epoch(2); epoch < 40; epoch++ {
		sites[0].share, sites[1].share = sites[1].share, sites[0].share
		m.apply(table(epoch, "payments", sites), c.proxy)
		want := "eu/p-1"
		if sites[1].share > 0 {
			want = "us/p-2"
		}
		if got := c.get("payments.mesh", "/"); got.body != want {
			t.Fatalf("epoch %d: served by %q, want %q", epoch, got.body, want)
		}
		if c.proxy.Epoch() != epoch {
			t.Fatalf("Epoch = %d, want %d", c.proxy.Epoch(), epoch)
		}
	}
}

// dataplane.md: "planned failover, fail-back: 0 failed".
func TestSwapUnderLoadFailsNothing(t *testing.T) {
	m, c, eu, us := primaryAndStandby(t)
	l := c.load("payments.mesh", hangRate)
	sites := []siteSpec{{name: "eu", share: route.Whole, workloads: eu}, {name: "us", priority: 1, workloads: us}}
	for epoch := route.Epoch(2); epoch < 12; epoch++ {
		at := l.count()
		eventually(t, "traffic between swaps", 10*time.Second, func() bool { return l.count() >= at+hangRate/10 })
		sites[0].share, sites[1].share = sites[1].share, sites[0].share
		sites[0].workloads = eu[:1+int(epoch)%2] // an endpoint leaves and returns
		m.apply(table(epoch, "payments", sites), c.proxy)
	}
	as := l.stop()
	if n, first := failures(as); n > 0 {
		t.Errorf("%d of %d requests failed, want 0; first: %s", n, len(as), first)
	}
}

// withProblem says that something is wrong with a service that the table does not contain.
func withProblem(tbl route.Table, name api.ServiceID, gone bool) route.Table {
	tbl.Problems = append(tbl.Problems, route.Problem{Service: name, Code: "LF0001", Gone: gone})
	return tbl
}

func TestTablesThatMustNotComeIntoForce(t *testing.T) {
	m, c, w := pair(t)
	sites := []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{w}}}
	m.apply(table(5, "payments", sites), c.proxy)
	for _, tt := range []struct {
		name string
		tbl  route.Table
		ok   bool
	}{
		{"older", table(4, "payments", sites), false},
		{"the same again", table(5, "payments", sites), true},
		{"without any endpoint", table(6, "payments", []siteSpec{{name: "eu", share: route.Whole}}), false},
		{"without any site", table(6, "payments", nil), false},
		{"empty", route.Table{Epoch: 6}, false},
		{"service has a problem", route.Table{Epoch: 6, Problems: []route.Problem{{Service: "payments", Code: "LF0001"}}}, true},
		{"newer", table(7, "payments", sites), true},
		{"another there, this one with a problem", withProblem(table(7, "orders", sites), "payments", false), true},
		{"service deleted, another there", withProblem(table(8, "orders", sites), "payments", true), true},
	} {
		before := c.proxy.Epoch()
		err := c.proxy.Apply(tt.tbl)
		if (err == nil) != tt.ok {
			t.Errorf("%s: Apply = %v, want ok %t", tt.name, err, tt.ok)
		}
		if err != nil && (api.KindOf(err) != api.Conflict || c.proxy.Epoch() != before) {
			t.Errorf("%s: kind %s, epoch %d; want Conflict and %d kept", tt.name, api.KindOf(err), c.proxy.Epoch(), before)
		}
		want := 200
		if tt.tbl.Epoch == 8 {
			want = 404
		}
		if a := c.get("payments.mesh", "/"); a.status != want {
			t.Errorf("%s: then %d, want %d", tt.name, a.status, want)
		}
	}
}

func TestEndpointsThatStayKeepConnectionsAndHealth(t *testing.T) {
	m, c, eu, us := primaryAndStandby(t)
	c.get("payments.mesh", "/")
	v := c.proxy.current.Load()
	old := v.byName["payments"].sites[0].endpoints
	sites := []siteSpec{{name: "eu", share: 5000, workloads: eu[:1]}, {name: "us", share: 5000, workloads: us}}
	m.apply(table(2, "payments", sites), c.proxy)
	now := c.proxy.current.Load().byName["payments"].sites[0].endpoints
	if len(now) != 1 || now[0] != old[0] {
		t.Error("the endpoint that stays was made anew")
	}
	if !now[0].usable() || !old[0].tracker.Checked() {
		t.Error("the endpoint that stays lost its health")
	}
	// Its site lost share: what lives long must move, so idle connections are closed.
	if n := old[0].pool.Open() + old[1].pool.Open(); n != 0 {
		t.Errorf("%d connections stay open to a site that lost share", n)
	}
}

// A restarted sidecar serves at once: no check has ended yet.
func TestUnknownEndpointsServeWhenNothingIsKnown(t *testing.T) {
	m := newMesh(t)
	w := m.workload("payments", "eu", "p-1")
	tbl := table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{w}}})
	m.apply(tbl, w.proxy)
	c := m.caller()
	m.apply(tbl, c.proxy)
	if a := c.get("payments.mesh", "/"); a.status != 200 {
		t.Errorf("first request: %d %q, want 200", a.status, a.body)
	}
}

func TestUnregisteredEndpointsAreNotUsedButChecked(t *testing.T) {
	m := newMesh(t)
	a, b := m.workload("payments", "eu", "p-1"), m.workload("payments", "eu", "p-2")
	c := m.caller()
	m.apply(table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{a, b}}}, func(s *route.Service) { s.Sites[0].Endpoints[0].Registered = false }), c.proxy, a.proxy, b.proxy)
	c.healthy(t, "payments", 2)
	for range 20 {
		if got := c.get("payments.mesh", "/"); got.body != "eu/p-2" {
			t.Errorf("served by %q, want the registered one", got.body)
		}
	}
}

func TestHealthReportsLoadAndAbstention(t *testing.T) {
	_, c, eu, _ := primaryAndStandby(t)
	c.proxy.Health()
	for range 10 {
		c.get("payments.mesh", "/")
	}
	h := c.proxy.Health()
	if len(h.Load) != 1 || h.Load[0].Requests != 10 || h.Load[0].Failed != 0 || h.Load[0].Site != "eu" || h.Load[0].Span <= 0 {
		t.Errorf("Load = %+v, want 10 requests at eu", h.Load)
	}
	if again := c.proxy.Health(); len(again.Load) != 0 {
		t.Errorf("Load was told twice: %+v", again.Load)
	}
	if len(h.Observations) != 2 || h.Observations[0].Site != "eu" || len(h.Observations[0].Endpoints) != 2 || h.Observations[0].Endpoints[0].Workload != "payments-1" {
		t.Fatalf("Observations = %+v, want eu and us with two endpoints each", h.Observations)
	}
	e := c.proxy.current.Load().services[0].sites[0].endpoints[0]
	c.proxy.checked(e, outcome{reason: "timeout", silent: true, late: true}, true)
	if o := c.proxy.Health().Observations[0]; !o.Abstains || !o.Endpoints[0].Healthy {
		t.Errorf("after a check that came late: %+v, want it to abstain and to keep its view", o)
	}
	in := eu[0].proxy.Health()
	if n := len(in.Observations); n != 2 || len(in.Observations[0].Endpoints) != 1 {
		t.Errorf("a workload's sidecar observes %+v, want its peer and the other site but not itself", in.Observations)
	}
}

func TestChangeIsSignalledAtOnce(t *testing.T) {
	_, c, w := pair(t)
	select {
	case <-c.proxy.Changed():
	default:
	}
	w.gate.kill()
	c.get("payments.mesh", "/")
	select {
	case <-c.proxy.Changed():
	case <-time.After(5 * time.Second):
		t.Fatal("no signal after an endpoint was lost")
	}
	if o := c.proxy.Health().Observations; len(o) != 1 || o[0].Endpoints[0].Healthy || o[0].Endpoints[0].Reason != "ejected: refused" {
		t.Errorf("Observations = %+v, want it ejected: refused", o)
	}
}

// pain 14 of the meshes before us: requests hit what is closing.
func TestDrainFinishesWhatIsInFlight(t *testing.T) {
	m, c, w := pair(t)
	in, release := make(chan struct{}), make(chan struct{})
	w.handle(func(rw http.ResponseWriter, _ *http.Request) { close(in); <-release; _, _ = io.WriteString(rw, "done") })
	first := make(chan answer, 1)
	go func() { first <- c.do("POST", "payments.mesh", "/", nil) }()
	<-in
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if n := w.proxy.Drain(short); n != 1 {
		t.Errorf("Drain with a request in flight = %d, want 1", n)
	}
	if _, err := direct(t, m, w, identityOf("client", "caller"), "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"); err == nil {
		t.Error("a draining sidecar accepts connections")
	}
	drained := make(chan int, 1)
	go func() { drained <- w.proxy.Drain(t.Context()) }()
	c.get("payments.mesh", "/") // refused, which ejects the endpoint and must not end the POST
	close(release)
	if a := <-first; a.status != 200 || a.body != "done" {
		t.Errorf("the request in flight: %d %q %v, want 200 done", a.status, a.body, a.err)
	}
	if n := <-drained; n != 0 {
		t.Errorf("Drain = %d, want 0", n)
	}
}

func TestConfigIsRefusedWithItsReason(t *testing.T) {
	m := newMesh(t)
	cert := m.ca.issue(identityOf("eu", "payments"), time.Hour)
	good := Config{Node: route.Node{ID: "n", Site: "eu", Service: "payments"}, Inbound: "127.0.0.1:0", App: "127.0.0.1:1", Outbound: "127.0.0.1:0",
		ClientTLS: m.ca.clientTLS(cert), ServerTLS: m.ca.serverTLS(cert), PeerID: peerID}
	for name, edit := range map[string]func(*Config){
		"no node":               func(c *Config) { c.Node = route.Node{} },
		"plaintext for all":     func(c *Config) { c.Outbound = "0.0.0.0:0" },
		"port for all":          func(c *Config) { c.Ports = map[api.ServiceID]string{"x": "10.0.0.1:80"} },
		"no client TLS":         func(c *Config) { c.ClientTLS = nil },
		"no server TLS":         func(c *Config) { c.ServerTLS = nil },
		"anonymous callers":     func(c *Config) { c.ServerTLS = c.ServerTLS.Clone(); c.ServerTLS.ClientAuth = 0 },
		"no application":        func(c *Config) { c.App = "" },
		"callers without names": func(c *Config) { c.PeerID = nil },
	} {
		cfg := good
		edit(&cfg)
		if _, err := New(cfg); api.KindOf(err) != api.Invalid || err == nil {
			t.Errorf("%s: New = %v, want Invalid", name, err)
		}
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := good
	cfg.Inbound = taken.Addr().String()
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "listen on") {
		t.Errorf("New on a port that is taken = %v", err)
	}
}

func TestRunLeavesNothingBehind(t *testing.T) {
	m := newMesh(t)
	w := m.workload("payments", "eu", "p-1")
	reg := prometheus.NewRegistry()
	id := identityOf("client", "caller")
	p, err := New(Config{Node: route.Node{ID: "c", Site: "client", Service: "caller", Identity: id}, Outbound: "127.0.0.1:0", ClientTLS: m.ca.clientTLS(m.ca.issue(id, time.Hour)), Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	m.apply(table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{w}}}), p, w.proxy)
	base := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	out, _, _ := p.Addresses()
	resp, err := raw(t, out, "GET / HTTP/1.1\r\nHost: payments.mesh\r\n\r\n")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("request: %v %v", resp, err)
	}
	eventually(t, "a check", 10*time.Second, func() bool { return len(p.Health().Observations) == 1 })
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	eventually(t, "the goroutines of the proxy to end", 5*time.Second, func() bool { return runtime.NumGoroutine() <= base+4 }) // the workload's side of two connections ends a moment later
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range families {
		seen[f.GetName()] = true
	}
	for _, name := range []string{"livefire_proxy_requests_total", "livefire_proxy_request_seconds", "livefire_proxy_checks_total", "livefire_proxy_table_epoch"} {
		if !seen[name] {
			t.Errorf("metric %s is missing", name)
		}
	}
}
