package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// direct sends one raw request to a workload's inbound listener as an identity and reads the answer.
func direct(t *testing.T, m *mesh, w *workload, id, request string) (*http.Response, error) {
	t.Helper()
	cfg := m.ca.clientTLS(m.ca.issue(id, time.Hour))(w.id)
	c, err := tls.Dial("tcp", w.gate.addr, cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(c), nil)
}

// architecture.md: "An inbound listener refuses every identity that no AuthorizationPolicy allows, with one exception:
// GET of the service's health path by any identity of the trust domain."
func TestNobodyCallsWithoutARule(t *testing.T) {
	m := newMesh(t)
	w := m.workload("payments", "eu", "p-1")
	shop, other := identityOf("client", "shop"), identityOf("client", "other")
	rules := []api.AllowRule{
		{Identity: shop, Methods: []string{"GET", "POST"}, Paths: []string{"/pay", "/public/*"}},
		{Identity: identityOf("client", "admin")},
		{Identity: domain + "/site/us/service/*"},
	}
	m.apply(table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{w}}}, func(s *route.Service) { s.Callers = rules }), w.proxy)
	for _, tt := range []struct {
		name, id, line string
		status         int
	}{
		{"exact path", shop, "GET /pay", 200}, {"query aside", shop, "GET /pay?x=1", 200}, {"prefix", shop, "POST /public/a/b", 200},
		{"any service of a site", identityOf("us", "shop"), "GET /pay", 200}, {"but not below it", identityOf("us", "shop") + "/x", "GET /pay", 403}, {"rule without methods and paths", identityOf("client", "admin"), "DELETE /x//../y", 200},
		{"health by anybody", other, "GET /healthz", 200},
		{"unknown identity", other, "GET /pay", 403}, {"identity with a longer path", shop + "/x", "GET /pay", 403},
		{"other method", shop, "DELETE /pay", 403}, {"lower case method", shop, "get /pay", 403},
		{"other path", shop, "GET /pay/more", 403}, {"prefix of a path", shop, "GET /public", 403},
		{"dot segments", shop, "GET /public/../admin", 403}, {"escaped dot segments", shop, "GET /public/%2e%2e/admin", 403},
		{"escaped slash", shop, "GET /public/..%2fadmin", 403}, {"twice escaped", shop, "GET /public/%252e%252e/admin", 403},
		{"empty segment", shop, "GET /public//admin", 403}, {"backslash", shop, "GET /public/..%5cadmin", 403},
		{"health by another method", other, "POST /healthz", 403}, {"below the health path", other, "GET /healthz/x", 403},
		{"health path written otherwise", other, "GET /health%7a", 403},
	} {
		before := w.bytes.Load()
		resp, err := direct(t, m, w, tt.id, tt.line+" HTTP/1.1\r\nHost: payments.mesh\r\nContent-Length: 0\r\n\r\n")
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if resp.StatusCode != tt.status {
			t.Errorf("%s: %d, want %d", tt.name, resp.StatusCode, tt.status)
		}
		if tt.status == 403 && (w.bytes.Load() != before || resp.Header.Get(headerFlags) != "RBAC") {
			t.Errorf("%s: the application received %d bytes, flags %q; want 0 and RBAC", tt.name, w.bytes.Load()-before, resp.Header.Get(headerFlags))
		}
		if got := resp.Header.Get(headerWorkload); got != "eu/p-1@v1" {
			t.Errorf("%s: %s = %q", tt.name, headerWorkload, got)
		}
	}
	var denied bool
	for _, e := range w.log.entries(t) {
		denied = denied || e.Status == 403 && e.Flags == "RBAC" && e.Peer == other && e.Reason == "no rule allows "+other && e.Direction == "in"
	}
	if !denied {
		t.Error("the access log does not say who was refused, and why")
	}
}

func TestInboundRefusesWhatIsNotMutualTLS(t *testing.T) {
	m, _, w := pair(t)
	t.Run("plaintext", func(t *testing.T) {
		if resp, err := raw(t, w.gate.addr, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"); err == nil {
			t.Errorf("answered %d, want no HTTP at all", resp.StatusCode)
		}
	})
	t.Run("no certificate", func(t *testing.T) {
		c, err := tls.Dial("tcp", w.gate.addr, &tls.Config{InsecureSkipVerify: true})
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
			_, err = c.Read(make([]byte, 1))
			c.Close()
		}
		if err == nil {
			t.Error("a caller without a certificate was answered")
		}
	})
	t.Run("another authority", func(t *testing.T) {
		if _, err := direct(t, &mesh{t, newAuthorityLike(t, m.ca)}, w, identityOf("client", "caller"), "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err == nil {
			t.Error("a caller of another trust domain was answered")
		}
	})
	t.Run("TLS 1.2", func(t *testing.T) {
		cfg := m.ca.clientTLS(m.ca.issue(identityOf("client", "caller"), time.Hour))(w.id)
		cfg.MaxVersion = tls.VersionTLS12
		if c, err := tls.Dial("tcp", w.gate.addr, cfg); err == nil {
			c.Close()
			t.Error("TLS 1.2 was accepted")
		}
	})
	if w.hits.Load() != 0 {
		t.Errorf("the application saw %d requests, want 0", w.hits.Load())
	}
}

// newAuthorityLike is another authority whose callers trust the first one's servers.
func newAuthorityLike(t *testing.T, trusted *authority) *authority {
	a := newAuthority(t)
	a.pool = trusted.pool
	return a
}

// architecture.md: "A connection is closed when its peer's certificate ends (TLS does not re-check)."
func TestConnectionEndsWithThePeersCertificate(t *testing.T) {
	m, _, w := pair(t)
	cfg := m.ca.clientTLS(m.ca.issue(identityOf("client", "caller"), 2*time.Second))(w.id)
	c, err := tls.Dial("tcp", w.gate.addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("before the end: %v", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	start := time.Now()
	if _, err := r.ReadByte(); err == nil {
		t.Error("bytes without a request")
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Errorf("the connection is still open %v after its certificate should have ended", time.Since(start))
	}
}

func TestDeadApplicationIsUnhealthyAndSaysSo(t *testing.T) {
	m, c, w := pair(t)
	w.app.CloseClientConnections()
	w.app.Close()
	if a := c.do("POST", "payments.mesh", "/", nil); a.status != 503 || !strings.Contains(a.header.Get(headerFlags), "UF") {
		t.Errorf("%d %q, want 503 UF", a.status, a.header.Get(headerFlags))
	}
	resp, err := direct(t, m, w, identityOf("client", "anybody"), "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
	if err != nil || resp.StatusCode != 503 {
		t.Errorf("health of a dead application: %v %v, want 503", resp, err)
	}
	eventually(t, "the caller sees it", 10*time.Second, func() bool { return usable(c.proxy, "payments", "eu") == 0 })
	for _, o := range c.proxy.Health().Observations {
		if len(o.Endpoints) != 1 || o.Endpoints[0].Healthy || o.Endpoints[0].Reason == "" {
			t.Errorf("observation %+v, want one unhealthy endpoint with a reason", o)
		}
	}
}

// dataplane.md, strictness: net/http lets half of these pass. Both listeners have the same guard.
func TestStrictFramingOverRealSockets(t *testing.T) {
	m, c, w := pair(t)
	for _, tt := range []struct {
		name, request string
		status        int
	}{
		{"both lengths", "POST / HTTP/1.1\r\nHost: payments.mesh\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"repeated length", "POST / HTTP/1.1\r\nHost: payments.mesh\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400},
		{"bare LF", "GET / HTTP/1.1\nHost: payments.mesh\n\n", 400},
		{"folded line", "GET / HTTP/1.1\r\nHost: payments.mesh\r\nX: y\r\n z\r\n\r\n", 400},
		{"repeated Host", "GET / HTTP/1.1\r\nHost: payments.mesh\r\nHost: payments.mesh\r\n\r\n", 400},
		{"other authority", "GET http://orders.mesh/ HTTP/1.1\r\nHost: payments.mesh\r\n\r\n", 400},
		{"unknown coding", "POST / HTTP/1.1\r\nHost: payments.mesh\r\nTransfer-Encoding: gzip\r\n\r\n", 400},
		{"chunk with a sign", "PUT / HTTP/1.1\r\nHost: payments.mesh\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n", 400},
		{"long target", "GET /" + strings.Repeat("a", 9<<10) + " HTTP/1.1\r\nHost: payments.mesh\r\n\r\n", 414},
		{"large head", "GET / HTTP/1.1\r\nHost: payments.mesh\r\nX: " + strings.Repeat("a", 70<<10) + "\r\n\r\n", 431},
		{"CONNECT", "CONNECT payments.mesh:80 HTTP/1.1\r\nHost: payments.mesh:80\r\n\r\n", 405},
		{"absolute form", "GET http://payments.mesh/ HTTP/1.1\r\nHost: payments.mesh\r\n\r\n", 200},
		{"chunks", "PUT / HTTP/1.1\r\nHost: payments.mesh\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 200},
		{"HTTP/1.0", "GET / HTTP/1.0\r\nHost: payments.mesh\r\n\r\n", 200},
	} {
		before := w.hits.Load()
		out, err := raw(t, c.base, tt.request)
		if err != nil || out.StatusCode != tt.status {
			t.Errorf("%s, outbound: %v %v, want %d", tt.name, status(out), err, tt.status)
		}
		in, err := direct(t, m, w, identityOf("client", "caller"), tt.request)
		if err != nil || in.StatusCode != tt.status {
			t.Errorf("%s, inbound: %v %v, want %d", tt.name, status(in), err, tt.status)
		}
		if tt.status == 400 || tt.status == 414 || tt.status == 431 {
			if out != nil && (!out.Close || out.Header.Get(headerFlags) != "DPE") {
				t.Errorf("%s: connection kept or flags %q, want it closed with DPE", tt.name, out.Header.Get(headerFlags))
			}
			if got := w.hits.Load() - before; got != 0 && !strings.Contains(tt.name, "chunk") {
				t.Errorf("%s: the application saw %d requests, want 0", tt.name, got)
			}
		}
	}
}

func status(r *http.Response) int {
	if r == nil {
		return 0
	}
	return r.StatusCode
}
