package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// pair is one workload and a caller that may call it.
func pair(t *testing.T, edit ...func(*route.Service)) (*mesh, *caller, *workload) {
	m := newMesh(t)
	w := m.workload("payments", "eu", "payments-1")
	c := m.caller("payments")
	m.apply(table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{w}}}, edit...), c.proxy, w.proxy)
	c.healthy(t, "payments", 1)
	return m, c, w
}

func TestRequestsAreRoutedByHostAndByPort(t *testing.T) {
	_, c, _ := pair(t)
	for _, tt := range []struct {
		host   string
		status int
		flags  string
	}{
		{"payments.mesh", 200, ""}, {"payments.mesh:80", 200, ""}, {"PAYMENTS.mesh", 200, ""}, {"payments.mesh.", 200, ""},
		{"orders.mesh", 404, "NR"}, {"payments", 404, "NR"}, {"mesh", 404, "NR"},
	} {
		a := c.get(tt.host, "/")
		if a.err != nil || a.status != tt.status || a.header.Get(headerFlags) != tt.flags {
			t.Errorf("Host %q: %d flags %q err %v, want %d %q", tt.host, a.status, a.header.Get(headerFlags), a.err, tt.status, tt.flags)
		}
	}
	resp, err := c.client.Get("http://" + c.ports["payments"] + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(b) != "eu/payments-1" {
		t.Errorf("port of payments: %d %q, want 200 eu/payments-1", resp.StatusCode, b)
	}
}

func TestAnswerNamesWorkloadAndAttempts(t *testing.T) {
	_, c, w := pair(t)
	w.handle(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set(headerWorkload, "us/forged@v9")
		rw.Header().Set(headerShed, "1")
		rw.Header().Set(headerAttempts, "99")
		rw.Header().Set("Connection", "x-private")
		rw.Header().Set("X-Private", "1")
	})
	a := c.get("payments.mesh", "/")
	for name, want := range map[string]string{headerWorkload: "eu/payments-1@v1", headerAttempts: "1", headerShed: "", "X-Private": ""} {
		if got := strings.Join(a.header.Values(name), ","); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestRequestCarriesWhoAndWhence(t *testing.T) {
	_, c, w := pair(t)
	var got http.Header
	var host string
	w.handle(func(_ http.ResponseWriter, r *http.Request) { got, host = r.Header.Clone(), r.Host })
	r, _ := http.NewRequest("GET", "http://"+c.base+"/a%2Fb?q=1", nil)
	r.Host = "payments.mesh"
	for name, v := range map[string]string{"Connection": "x-drop, x-forwarded-client-cert", "X-Drop": "1", "Te": "gzip", "Proxy-Authorization": "secret",
		headerPeer: "URI=spiffe://forged", headerWorkload: "forged", "X-Livefire-Anything": "1", "Traceparent": "00-1-2-01", headerRequestID: "id-7", headerAttempts: "9"} {
		r.Header.Set(name, v)
	}
	resp, err := c.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for name, want := range map[string]string{"X-Drop": "", "Te": "", "Proxy-Authorization": "", headerWorkload: "", "X-Livefire-Anything": "", "Traceparent": "00-1-2-01", headerRequestID: "id-7",
		headerPeer: "By=" + w.id + ";URI=" + identityOf("client", "caller"), headerProto: "http", headerFor: "127.0.0.1, 127.0.0.1", headerAttempts: ""} {
		if v := strings.Join(got.Values(name), ","); v != want {
			t.Errorf("%s = %q, want %q", name, v, want)
		}
	}
	if host != "payments.mesh" {
		t.Errorf("Host = %q, want payments.mesh", host)
	}
	if a := c.get("payments.mesh", "/"); a.err != nil || len(got.Get(headerRequestID)) != 36 {
		t.Errorf("request id made = %q, want a UUID", got.Get(headerRequestID))
	}
}

func TestSharesAreKept(t *testing.T) {
	m := newMesh(t)
	eu, us := m.workload("payments", "eu", "p-1"), m.workload("payments", "us", "p-2")
	c := m.caller()
	m.apply(table(1, "payments", []siteSpec{{name: "eu", share: 8000, workloads: []*workload{eu}}, {name: "us", share: 2000, workloads: []*workload{us}}}), c.proxy, eu.proxy, us.proxy)
	c.healthy(t, "payments", 2)
	for range 500 {
		if a := c.get("payments.mesh", "/"); a.err != nil || a.status != 200 {
			t.Fatalf("%d %v", a.status, a.err)
		}
	}
	if n := eu.hits.Load(); n < 360 || n > 440 || n+us.hits.Load() != 500 {
		t.Errorf("eu served %d, us %d of 500; want about 400 and 100", n, us.hits.Load())
	}
}

// architecture.md: "when the preferred site returns, proxies wait for the server's share".
func TestReflexStaysUntilTheTableSpeaks(t *testing.T) {
	m, c, eu, us := primaryAndStandby(t)
	c.proxy.Health() // what happened before does not count
	for _, w := range eu {
		w.gate.kill()
	}
	if a := c.get("payments.mesh", "/"); a.status != 200 || !strings.HasPrefix(a.body, "us/") {
		t.Fatalf("after the kill: %d %q %v, want the standby", a.status, a.body, a.err)
	}
	if a := c.get("payments.mesh", "/"); a.status != 200 || !strings.HasPrefix(a.body, "us/") {
		t.Fatalf("after the kill: %d %q %v, want the standby", a.status, a.body, a.err)
	}
	h := c.proxy.Health()
	if len(h.Reflex) != 1 || h.Reflex[0].From != "eu" || h.Reflex[0].To != "us" || h.Reflex[0].Service != "payments" {
		t.Errorf("Reflex = %+v, want one from eu to us", h.Reflex)
	}
	for _, w := range eu {
		w.gate.open(t)
	}
	c.healthy(t, "payments", 4)
	if a := c.get("payments.mesh", "/"); !strings.HasPrefix(a.body, "us/") {
		t.Errorf("after the return: %q, want the standby until the table speaks", a.body)
	}
	sites := []siteSpec{{name: "eu", share: route.Whole, workloads: eu}, {name: "us", priority: 1, workloads: us}}
	m.apply(table(2, "payments", sites), c.proxy)
	if a := c.get("payments.mesh", "/"); !strings.HasPrefix(a.body, "us/") {
		t.Errorf("after a table that says the same: %q, want the standby", a.body)
	}
	sites[0].share, sites[1].share, sites[1].priority = 9999, 1, 0
	m.apply(table(3, "payments", sites), c.proxy)
	if a := c.get("payments.mesh", "/"); !strings.HasPrefix(a.body, "eu/") {
		t.Errorf("after the table gave the share back: %q, want eu", a.body)
	}
}

// architecture.md, decision 12: a service without reflex moves by the table only.
func TestWithoutReflexTheSiteIsNotLeft(t *testing.T) {
	m := newMesh(t)
	eu, us := m.workload("ledger", "eu", "l-1"), m.workload("ledger", "us", "l-2")
	c := m.caller()
	m.apply(table(1, "ledger", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{eu}}, {name: "us", priority: 1, workloads: []*workload{us}}},
		func(s *route.Service) { s.Reflex, s.Stateful = false, true }), c.proxy, eu.proxy, us.proxy)
	c.healthy(t, "ledger", 2)
	eu.gate.kill()
	for range 3 {
		if a := c.get("ledger.mesh", "/"); a.status != 503 || !strings.Contains(a.header.Get(headerFlags), "U") {
			t.Errorf("%d flags %q, want 503 by the proxy", a.status, a.header.Get(headerFlags))
		}
	}
	a := c.get("ledger.mesh", "/")
	if a.header.Get(headerFlags) != "UH" || !strings.Contains(a.body, "no healthy endpoint") || a.duration > time.Second {
		t.Errorf("flags %q body %q after %v, want UH at once", a.header.Get(headerFlags), a.body, a.duration)
	}
	if us.hits.Load() != 0 {
		t.Errorf("the other site served %d requests, want 0", us.hits.Load())
	}
}

func TestExcludedSiteIsNeverCalled(t *testing.T) {
	m := newMesh(t)
	eu, us := m.workload("payments", "eu", "p-1"), m.workload("payments", "us", "p-2")
	c := m.caller()
	m.apply(table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{eu}}, {name: "us", priority: 1, excluded: true, workloads: []*workload{us}}}), c.proxy, eu.proxy, us.proxy)
	c.healthy(t, "payments", 1)
	eu.gate.kill()
	for range 5 {
		c.get("payments.mesh", "/")
	}
	if n := us.hits.Load() + us.bytes.Load(); n != 0 {
		t.Errorf("the excluded site saw %d requests and bytes, want 0, not even checks", n)
	}
}

// A connection that was refused has provably sent nothing, so even a POST goes elsewhere, body and all.
// A service with a single endpoint that is slow for a moment is not taken away from its callers: there is nowhere to go.
func TestStreamsAndTrailersPass(t *testing.T) {
	_, c, w := pair(t)
	next := make(chan struct{})
	w.handle(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "X-Sum")
		_, _ = io.WriteString(rw, "one")
		_ = http.NewResponseController(rw).Flush()
		<-next
		_, _ = io.WriteString(rw, "two")
		rw.Header().Set("X-Sum", "6")
	})
	r, _ := http.NewRequest("GET", "http://"+c.base+"/", nil)
	r.Host = "payments.mesh"
	resp, err := c.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 3)
	if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "one" {
		t.Fatalf("first piece %q %v; want it before the second is written", b, err)
	}
	close(next)
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(rest) != "two" || resp.Trailer.Get("X-Sum") != "6" {
		t.Errorf("rest %q trailer %q %v, want two and 6", rest, resp.Trailer.Get("X-Sum"), err)
	}
}

func TestBodiesPassBothWays(t *testing.T) {
	_, c, w := pair(t)
	w.handle(func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).EnableFullDuplex() // else net/http drops what was not read before the first write
		_, _ = io.Copy(rw, r.Body)
	})
	for _, size := range []int{0, 1, 4096, 64 << 10, 3 << 20} {
		want := strings.Repeat("x", size)
		if a := c.do("PUT", "payments.mesh", "/", strings.NewReader(want)); a.status != 200 || a.body != want {
			t.Errorf("%d bytes: %d, %d bytes back, %v", size, a.status, len(a.body), a.err)
		}
		if a := c.do("PUT", "payments.mesh", "/", io.MultiReader(strings.NewReader(want))); a.status != 200 || a.body != want {
			t.Errorf("%d bytes in chunks: %d, %d bytes back, %v", size, a.status, len(a.body), a.err)
		}
	}
	if a := c.do("HEAD", "payments.mesh", "/", nil); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %q %v", a.status, a.body, a.err)
	}
}

// An answer may come before the body has been sent.
func TestEarlyAnswerIsRelayed(t *testing.T) {
	_, c, w := pair(t)
	w.handle(func(rw http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(rw).EnableFullDuplex() // else net/http waits for the body before it answers
		rw.WriteHeader(413)
	})
	pr, pw := io.Pipe()
	defer pw.Close()
	go func() { _, _ = pw.Write(make([]byte, 1000)) }()
	if a := c.do("POST", "payments.mesh", "/", pr); a.status != 413 {
		t.Errorf("%d %v, want 413 while the body is still open", a.status, a.err)
	}
}

// An endpoint that shows another identity than the table says gets no request.
func TestWrongIdentityIsNotCalled(t *testing.T) {
	m := newMesh(t)
	w := m.workload("payments", "eu", "p-1")
	c := m.caller()
	tbl := table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{w}}})
	m.apply(tbl, w.proxy)
	tbl.Services[0].Sites[0].Endpoints[0].Identity = identityOf("us", "payments")
	m.apply(tbl, c.proxy)
	if a := c.get("payments.mesh", "/"); a.status != 503 {
		t.Errorf("%d, want 503", a.status)
	}
	if w.bytes.Load() != 0 {
		t.Errorf("the application saw %d bytes, want 0", w.bytes.Load())
	}
}

// A server outside the mesh on the endpoint's address gets nothing either.
func TestPlainServerIsNotCalled(t *testing.T) {
	m := newMesh(t)
	w := m.workload("payments", "eu", "p-1")
	var seen atomic.Int64
	plain := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	plain.Start()
	defer plain.Close()
	w.gate.lead(plain.Listener.Addr().String())
	c := m.caller()
	m.apply(table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{w}}}), c.proxy)
	if a := c.get("payments.mesh", "/"); a.status != 503 || seen.Load() != 0 {
		t.Errorf("%d with %d requests at the plain server, want 503 and 0", a.status, seen.Load())
	}
}
