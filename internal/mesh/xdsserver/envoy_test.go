//go:build e2e

package xdsserver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await polls until f says true; real processes give no event to wait for.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// envoyRig is an Envoy whose server is ours, one service at two sites that it may call, and the application beside it.
type envoyRig struct {
	t         *testing.T
	authority *ca
	eu, us    *httptest.Server
	srv       *Server
	caps      route.Capabilities
	dir       string
	acked     atomic.Uint64
	stop      func() // of the server
}

func newEnvoyRig(t *testing.T, binary string) *envoyRig {
	t.Helper()
	r := &envoyRig{t: t, authority: newCA(t), dir: t.TempDir()}
	r.eu = r.authority.peer(t, identity("eu", "orders"), "eu/orders-1@v1")
	r.us = r.authority.peer(t, identity("us", "orders"), "us/orders-1@v1")
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("x-livefire-workload", "forged")
		_, _ = io.WriteString(w, "app "+r.Header.Get("x-forwarded-client-cert"))
	}))
	t.Cleanup(app.Close)
	secrets := r.authority.secrets(t, identity("eu", "web"))
	r.srv = New(Config{
		Identify: func(_ context.Context, m *corev3.Node) (route.Node, route.Capabilities, error) {
			n, caps, err := xds.ReadNode(m)
			n.Identity = identity(n.Site, n.Service)
			return n, caps, err
		},
		Extra: func(route.Node) []xds.Resource { return secrets },
		Events: Events{
			Acked: func(_ api.NodeID, e route.Epoch, _ time.Time) { r.acked.Store(uint64(e)) },
			Nacked: func(_ api.NodeID, url string, names []string, m string) {
				t.Errorf("NACK of %s %v: %s", url, names, m)
			},
		},
	})
	r.caps = route.Capabilities{
		Kind: xds.KindEnvoy, Inbound: freePort(t), Outbound: freePort(t), App: app.Listener.Addr().String(),
		ServicePorts: map[api.ServiceID]string{"orders": freePort(t), "ledger": freePort(t)},
	}
	l, err := net.Listen("unix", filepath.Join(r.dir, "xds"))
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(ServerOptions()...)
	r.srv.Register(g)
	go func() { _ = g.Serve(l) }() // ends with Stop
	t.Cleanup(g.Stop)
	r.stop = g.Stop
	startEnvoy(t, binary, r.dir, route.Node{ID: "web-1", Site: "eu", Service: "web", Workload: "web-1"}, r.caps)
	return r
}

// table has a service of every protocol.
func (r *envoyRig) table(epoch route.Epoch) route.Table {
	ledger, orders, quotes, web := testService("ledger", false), testService("orders", true), testService("quotes", false), testService("web", true)
	orders.Sites[0].Endpoints[0].Address = netip.MustParseAddrPort(r.eu.Listener.Addr().String())
	orders.Sites[1].Endpoints[0].Address = netip.MustParseAddrPort(r.us.Listener.Addr().String())
	orders.Timeouts.Try = api.Duration(300 * time.Millisecond)
	web.Sites[0].Endpoints[0].Version, web.Sites[0].Endpoints[0].Capacity, web.Shed = "v1", 5, 1
	web.Callers = []api.AllowRule{{Identity: testDomain + "/site/us/service/*", Methods: []string{"GET"}, Paths: []string{"/api/*"}}}
	quotes.Protocol, ledger.Protocol = "grpc", "tcp"
	return route.Table{Epoch: epoch, Services: []route.Service{ledger, orders, quotes, web}}
}

func (r *envoyRig) set(t route.Table) {
	r.t.Helper()
	r.srv.SetTable(t)
	await(r.t, fmt.Sprintf("the ACK of epoch %d", t.Epoch), func() bool { return r.acked.Load() == uint64(t.Epoch) })
}

func (r *envoyRig) get(host string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "http://"+r.caps.Outbound+"/", nil)
	if err != nil {
		return nil, "", err
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// envoyBinary is the Envoy of scripts/install-test-tools, or the one that LIVEFIRE_ENVOY names.
func envoyBinary(t *testing.T) string {
	t.Helper()
	path := cmp.Or(os.Getenv("LIVEFIRE_ENVOY"), "../../../.tools/envoy/bin/envoy")
	path, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		t.Fatalf("no Envoy: %v; run scripts/install-test-tools", err)
	}
	return path
}

// TestRealEnvoy runs an Envoy 1.40 as a client of this server.
func TestRealEnvoy(t *testing.T) {
	r := newEnvoyRig(t, envoyBinary(t))
	r.set(r.table(1))
	await(t, "the site with the share", func() bool { _, body, err := r.get("orders.mesh"); return err == nil && body == "eu/orders-1@v1" })
	resp, _, err := r.get("orders.mesh:80")
	if err != nil || resp.Header.Get("x-envoy-attempt-count") != "1" {
		t.Errorf("attempt count: %v, %v", resp, err)
	}
	if resp, _, err := r.get("quotes.mesh"); err != nil || resp.Header.Get("x-livefire-flags") == "" || resp.StatusCode != 503 {
		t.Errorf("Envoy's own reply = %v, %v; want 503 with flags", resp, err)
	}
	conn := newKeptConnection(t, r.caps.Outbound)
	for epoch := route.Epoch(2); epoch < 8; epoch++ {
		r.set(r.table(epoch))
		conn.get("orders.mesh")
	}
	r.eu.CloseClientConnections()
	r.eu.Close()
	for i := range 50 {
		if resp, body, err := r.get("orders.mesh"); err != nil || body != "us/orders-1@v1" {
			t.Fatalf("request %d after the loss of a site: %v %q %v, want an answer of us", i, resp, body, err)
		}
	}
	testInbound(t, r.authority, r.caps.Inbound)

	small := r.table(8)
	small.Services = []route.Service{small.Services[1], small.Services[3]}
	r.set(small)
	r.set(r.table(9))
	r.testStatic()
	r.testDeadMansSwitch()
}

// runtime says whether Envoy holds a value for a runtime key.
func (r *envoyRig) runtime(value string) bool {
	return strings.Contains(r.admin("/runtime"), value)
}

// testDeadMansSwitch arms a runtime layer under a lease of 1 s: heartbeats hold it, without them it is gone, and
// the routes stay.
func (r *envoyRig) testDeadMansSwitch() {
	r.t.Helper()
	layer := func(i int, value string) xds.Order {
		x, err := xds.NewResource(xds.FaultLayer(i), &runtimev3.Runtime{Name: xds.FaultLayer(i), Layer: &structpb.Struct{
			Fields: map[string]*structpb.Value{"livefire.fault.test": structpb.NewStringValue(value)},
		}})
		if err != nil {
			r.t.Fatal(err)
		}
		return xds.Order{Name: x.Name, TypeURL: xds.TypeRuntime, Body: x.Body, TTL: time.Second, Until: time.Now().Add(time.Hour)}
	}
	put := func(o xds.Order) {
		if err := r.srv.PutOrder("web-1", o); err != nil {
			r.t.Fatal(err)
		}
	}
	put(layer(0, "armed-by-first"))
	await(r.t, "the first layer", func() bool { return r.runtime("armed-by-first") })
	held := time.Now()
	await(r.t, "three leases", func() bool {
		if !r.runtime("armed-by-first") {
			r.t.Fatalf("the layer was gone after %v, in spite of heartbeats", time.Since(held))
		}
		return time.Since(held) > 3*time.Second
	})
	r.srv.RemoveOrder("web-1", xds.FaultLayer(0))
	await(r.t, "the end of the first layer", func() bool { return !r.runtime("armed-by-first") })
	put(layer(0, "armed-by-second"))
	await(r.t, "the layer's next order", func() bool { return r.runtime("armed-by-second") })
	r.stop()
	stopped := time.Now()
	await(r.t, "the end of the lease", func() bool { return !r.runtime("armed-by-second") })
	if took := time.Since(stopped); took > 1500*time.Millisecond {
		r.t.Errorf("without a server the layer ended after %v, want 1s at most", took)
	}
	if _, body, err := r.get("orders.mesh"); err != nil || body != "us/orders-1@v1" {
		r.t.Errorf("routes without a server: %q, %v", body, err)
	}
}

func startEnvoy(t *testing.T, binary, dir string, node route.Node, caps route.Capabilities) {
	t.Helper()
	b, err := xds.Bootstrap(xds.BootstrapConfig{
		Node: node, Capabilities: caps, Servers: []string{filepath.Join(dir, "xds")}, Admin: filepath.Join(dir, "admin"), Load: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(binary, "-c", path, "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // "killed"
		if t.Failed() {
			t.Logf("Envoy says:\n%s", log.String())
		}
	})
}

// keptConnection is one HTTP/1.1 connection, which must never be closed.
type keptConnection struct {
	t      *testing.T
	client *http.Client
	addr   string
	dials  int
}

func newKeptConnection(t *testing.T, addr string) *keptConnection {
	k := &keptConnection{t: t, addr: addr}
	var d net.Dialer
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		k.dials++
		return d.DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	k.client = &http.Client{Transport: tr}
	return k
}

func (k *keptConnection) get(host string) {
	k.t.Helper()
	req, err := http.NewRequestWithContext(k.t.Context(), http.MethodGet, "http://"+k.addr+"/", nil)
	if err != nil {
		k.t.Fatal(err)
	}
	req.Host = host
	resp, err := k.client.Do(req)
	if err != nil {
		k.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.Close || k.dials != 1 {
		k.t.Errorf("connection was closed (dials %d): a new epoch alone must not drain", k.dials)
	}
}

// testInbound calls an Envoy's inbound listener as other sidecars do.
func testInbound(t *testing.T, authority *ca, addr string) {
	t.Helper()
	call := func(id, method, path string) (int, http.Header, string) {
		pair, _, _ := authority.leaf(t, id)
		tr := &http.Transport{TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"},
		}}
		defer tr.CloseIdleConnections()
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			return 0, nil, err.Error()
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header, string(b)
	}
	shop := testDomain + "/site/us/service/shop"
	await(t, "the inbound listener", func() bool { code, _, _ := call(shop, "GET", "/healthz"); return code == 200 })
	for _, c := range []struct {
		id, method, path string
		want             int
	}{
		{shop, "GET", "/api/x", 200},
		{shop, "POST", "/api/x", 403},
		{shop, "GET", "/admin", 403},
		{identity("eu", "web"), "GET", "/api/x", 403},
		{identity("us", "anything"), "GET", "/healthz", 200},
		{identity("eu", "anything"), "POST", "/healthz", 403},
		{"spiffe://other.test/site/us/service/shop", "GET", "/healthz", 403},
	} {
		code, h, body := call(c.id, c.method, c.path)
		if code != c.want {
			t.Errorf("%s %s by %s = %d %s, want %d", c.method, c.path, c.id, code, body, c.want)
		}
		if code == 200 && (h.Get("x-livefire-workload") != "eu/web-1@v1" || len(h.Values("x-livefire-workload")) != 1) {
			t.Errorf("x-livefire-workload = %q, want eu/web-1@v1", h.Values("x-livefire-workload"))
		}
		if code == 200 && !strings.Contains(body, "URI="+c.id) {
			t.Errorf("the application saw %q, want the caller's identity", body)
		}
	}
	shed := 0
	for range 40 {
		code, h, _ := call(shop, "GET", "/api/x")
		if code == 503 && h.Get("x-livefire-shed") != "" && h.Get("retry-after") != "" {
			shed++
		}
	}
	if shed == 0 {
		t.Error("none of 40 requests at once was shed, with a capacity of 5/s")
	}
	if code, _, body := call(shop, "GET", "/healthz"); code != 200 {
		t.Errorf("health check while shedding = %d %s, want 200", code, body)
	}
}

// testStatic reads from Envoy itself that it has no other static cluster than its server's.
func (r *envoyRig) testStatic() {
	r.t.Helper()
	dump := r.admin("/config_dump?resource=static_clusters")
	if n := strings.Count(dump, `"connect_timeout"`); n != 1 || !strings.Contains(dump, "livefire:server") {
		r.t.Errorf("static clusters: %s", dump)
	}
}

// admin is an answer of Envoy's admin socket.
func (r *envoyRig) admin(path string) string {
	r.t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(r.dir, "admin"))
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("http://admin" + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(b)
}
