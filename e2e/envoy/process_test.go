//go:build e2e

package envoy

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
)

// binary is where scripts/install-test-tools puts Envoy.
const binary = "../../.tools/envoy/bin/envoy"

// secrets are the caller's certificate and the roots, as Envoy asks for them.
func (r *rig) secrets() (out []xds.Resource) {
	r.t.Helper()
	svid := r.source("client", "caller").Current()
	key, err := svid.KeyPEM()
	if err != nil {
		r.t.Fatal(err)
	}
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	for _, s := range []*tlsv3.Secret{
		{Name: xds.SecretLeaf, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(svid.ChainPEM()), PrivateKey: inline(key),
		}}},
		{Name: xds.SecretRoots, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(svid.RootsPEM()),
		}}},
	} {
		x, err := xds.NewResource(s.GetName(), s)
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, x)
	}
	return out
}

// startEnvoy starts the real Envoy with our bootstrap and nothing else. It ends with the test.
func (r *rig) startEnvoy() {
	r.t.Helper()
	path, err := filepath.Abs(binary)
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		r.t.Fatalf("no Envoy: %v; run scripts/install-test-tools", err)
	}
	b, err := xds.Bootstrap(xds.BootstrapConfig{
		Node: r.node, Capabilities: r.caps, Servers: []string{r.socket()}, Admin: filepath.Join(r.dir, "admin"), Load: true,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	text, err := protojson.Marshal(b)
	if err != nil {
		r.t.Fatal(err)
	}
	config := filepath.Join(r.dir, "bootstrap.json")
	if err := os.WriteFile(config, text, 0o600); err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", config, "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &log, &log, r.dir
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { _ = cmd.Wait(); close(gone) }() // how it ends is told by its pid
	r.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-gone:
		case <-time.After(limit):
			r.t.Errorf("Envoy did not end within %v of SIGTERM", limit)
			_ = cmd.Process.Kill()
			<-gone
		}
		if r.t.Failed() {
			r.t.Logf("Envoy says:\n%s", log.String())
		}
	})
}

// client keeps its connections, and counts them.
type client struct {
	http  *http.Client
	mu    sync.Mutex // guards dials
	dials int
}

func newClient(t *testing.T) *client {
	c := new(client)
	var d net.Dialer
	tr := &http.Transport{MaxIdleConnsPerHost: 16, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c.mu.Lock()
		c.dials++
		c.mu.Unlock()
		return d.DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	c.http = &http.Client{Transport: tr, Timeout: limit}
	return c
}

func (c *client) connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dials
}

// answer is what the caller's application sees of one request.
type answer struct {
	status   int
	site     string // of the workload that answered, as its sidecar says
	header   http.Header
	body     string
	err      error
	duration time.Duration
}

func (a answer) String() string {
	return fmt.Sprintf("%d %q %q %v after %v (flags %q)", a.status, a.site, strings.TrimSpace(a.body), a.err, a.duration, a.header.Get("x-livefire-flags"))
}

// get asks Envoy at an address for a service.
func (c *client) get(ctx context.Context, addr, host string) (a answer) {
	start := time.Now()
	defer func() { a.duration = time.Since(start) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/?delay=2ms", nil)
	if err != nil {
		return answer{err: err}
	}
	req.Host = host
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	site, _, _ := strings.Cut(resp.Header.Get("x-livefire-workload"), "/")
	return answer{status: resp.StatusCode, site: site, header: resp.Header, body: string(b), err: err}
}

// eventually polls; a real process gives no event to wait for.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// admin is an answer of Envoy's admin socket.
func (r *rig) admin(path string) []byte {
	r.t.Helper()
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(r.dir, "admin"))
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: limit}).Get("http://admin" + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("%s: %s %v", path, resp.Status, err)
	}
	return b
}

// stats are the counters and gauges of Envoy under a prefix.
func (r *rig) stats(prefix string) map[string]uint64 {
	r.t.Helper()
	var m struct {
		Stats []struct {
			Name  string          `json:"name"`
			Value json.RawMessage `json:"value"` // a number, or a text
		} `json:"stats"`
	}
	if err := json.Unmarshal(r.admin("/stats?format=json&type=All"), &m); err != nil {
		r.t.Fatal(err)
	}
	out := map[string]uint64{}
	for _, s := range m.Stats {
		if n, err := strconv.ParseUint(string(s.Value), 10, 64); err == nil && strings.HasPrefix(s.Name, prefix) {
			out[s.Name] = n
		}
	}
	return out
}

// accessLog is what a sidecar writes, one line per request.
type accessLog struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *accessLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

// callers counts the requests for "/" that got an answer, by who called.
func (l *accessLog) callers(t *testing.T) map[string]int {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]int{}
	for line := range bytes.Lines(l.b.Bytes()) {
		var e struct {
			Path, Peer, Direction string
			Status                int
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("access log line %q: %v", line, err)
		}
		if e.Path == "/" && e.Direction == "in" && e.Status == http.StatusOK {
			out[e.Peer]++
		}
	}
	return out
}
