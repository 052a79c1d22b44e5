package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

const domain = "spiffe://test.livefire"

func identityOf(site api.SiteID, service api.ServiceID) string {
	return domain + "/site/" + string(site) + "/service/" + string(service)
}

// authority is a small CA of one trust domain.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	next atomic.Int64
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.key = newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *authority) issue(id string, life time.Duration) tls.Certificate {
	u, err := url.Parse(id)
	if err != nil {
		a.t.Fatal(err)
	}
	key := newKey(a.t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1 + a.next.Add(1)), URIs: []*url.URL{u}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func peerID(s tls.ConnectionState) (string, error) {
	if len(s.PeerCertificates) == 0 || len(s.PeerCertificates[0].URIs) != 1 {
		return "", errors.New("not exactly one URI")
	}
	return s.PeerCertificates[0].URIs[0].String(), nil
}

func (a *authority) clientTLS(cert tls.Certificate) func(string) *tls.Config {
	return func(expected string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true, // names are checked by URI below
			VerifyConnection: func(s tls.ConnectionState) error {
				if _, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: a.pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
					return err
				}
				if id, err := peerID(s); err != nil || id != expected {
					return errors.New("the peer is " + id + ", not " + expected)
				}
				return nil
			}}
	}
}

func (a *authority) serverTLS(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
}

// gate is a TCP hop in front of a sidecar that can be killed (refuses, resets) and paused (accepts, says nothing), as
// the kernel does for a process that was killed or stopped.
type gate struct {
	addr string // set once

	mu     sync.Mutex // guards what follows
	target string
	l      net.Listener
	conns  map[net.Conn]struct{}
	life   int           // times killed; a connection of an earlier life is closed
	paused chan struct{} // closed while running; waits while paused
	wg     sync.WaitGroup
}

func newGate(t testing.TB, target string) *gate {
	g := &gate{target: target, conns: map[net.Conn]struct{}{}, paused: make(chan struct{})}
	close(g.paused)
	g.addr = "127.0.0.1:0"
	g.open(t)
	t.Cleanup(func() {
		g.resume()
		g.kill()
		g.wg.Wait()
	})
	return g
}

func (g *gate) open(t testing.TB) {
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	g.addr, g.l = l.Addr().String(), l
	g.mu.Unlock()
	g.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.mu.Lock()
			life := g.life
			g.mu.Unlock()
			g.wg.Go(func() { g.serve(c, life) })
		}
	})
}

func (g *gate) wait() {
	g.mu.Lock()
	p := g.paused
	g.mu.Unlock()
	<-p
}

func (g *gate) track(c net.Conn, life int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns[c] = struct{}{}; life != g.life {
		_ = c.Close()
	}
}

func (g *gate) serve(c net.Conn, life int) {
	g.track(c, life)
	defer c.Close()
	g.wait()
	g.mu.Lock()
	target := g.target
	g.mu.Unlock()
	up, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	g.track(up, life)
	defer up.Close()
	done := make(chan struct{}, 2)
	pipe := func(dst, src net.Conn) {
		buf := make([]byte, 16<<10)
		for {
			n, err := src.Read(buf)
			g.wait()
			if n > 0 {
				if _, werr := dst.Write(buf[:n]); werr != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		done <- struct{}{}
	}
	g.wg.Go(func() { pipe(up, c) })
	g.wg.Go(func() { pipe(c, up) })
	<-done
}

// lead makes new connections go to another target.
func (g *gate) lead(target string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.target = target
}

// kill closes the listener and resets every connection.
func (g *gate) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.life++
	_ = g.l.Close()
	for c := range g.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	clear(g.conns)
}

func (g *gate) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = make(chan struct{})
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.paused:
	default:
		close(g.paused)
	}
}

// syncBuffer is an access log that can be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) entries(t testing.TB) (all []entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range bytes.Lines(s.b.Bytes()) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("access log line %q: %v", line, err)
		}
		all = append(all, e)
	}
	return all
}

// workload is an application with its sidecar.
type workload struct {
	name    string
	site    api.SiteID
	id      string
	app     *httptest.Server
	handler atomic.Pointer[http.HandlerFunc]
	hits    atomic.Int64
	bytes   atomic.Int64 // that reached the application's listener
	proxy   *Proxy
	gate    *gate
	log     *syncBuffer
}

// mesh is the sidecars of one test.
type mesh struct {
	t  testing.TB
	ca *authority
}

func newMesh(t testing.TB) *mesh { return &mesh{t, newAuthority(t)} }

// run starts a proxy and stops it with the test.
func (m *mesh) run(cfg Config) (*Proxy, func()) {
	m.t.Helper()
	p, err := New(cfg)
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				m.t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			m.t.Error("Run did not end within 20 s")
		}
	})
	m.t.Cleanup(stop)
	return p, stop
}

type countingListener struct {
	net.Listener
	n *atomic.Int64
}

type countingConn struct {
	net.Conn
	n *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c, l.n}, nil
}

func (c countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// workload starts an application with its sidecar. The default handler answers with its site.
func (m *mesh) workload(service api.ServiceID, site api.SiteID, name string) *workload {
	m.t.Helper()
	w := &workload{name: name, site: site, id: identityOf(site, service), log: &syncBuffer{}}
	w.handle(func(rw http.ResponseWriter, r *http.Request) {
		if r.Body != nil {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		_, _ = io.WriteString(rw, string(site)+"/"+name)
	})
	w.app = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			return
		}
		w.hits.Add(1)
		(*w.handler.Load())(rw, r)
	}))
	w.app.Listener = countingListener{w.app.Listener, &w.bytes}
	w.app.Start()
	m.t.Cleanup(func() {
		w.app.CloseClientConnections()
		w.app.Close()
	})
	cert := m.ca.issue(w.id, time.Hour)
	w.proxy, _ = m.run(Config{
		Node:    route.Node{ID: api.NodeID(name), Site: site, Service: service, Identity: w.id, Workload: name},
		Inbound: "127.0.0.1:0", App: w.app.Listener.Addr().String(),
		ClientTLS: m.ca.clientTLS(cert), ServerTLS: m.ca.serverTLS(cert), PeerID: peerID, AccessLog: w.log, Seed: 7,
	})
	_, _, inbound := w.proxy.Addresses()
	w.gate = newGate(m.t, inbound)
	return w
}

func (w *workload) handle(h http.HandlerFunc) { w.handler.Store(&h) }

func (w *workload) endpoint() route.Endpoint {
	return route.Endpoint{Workload: w.name, Address: netip.MustParseAddrPort(w.gate.addr), Version: "v1", Identity: w.id, Registered: true}
}

// caller is a sidecar that only calls.
type caller struct {
	proxy  *Proxy
	stop   func()
	base   string // of the shared listener
	ports  map[api.ServiceID]string
	client *http.Client
	log    *syncBuffer
}

func (m *mesh) caller(ports ...api.ServiceID) *caller {
	m.t.Helper()
	id := identityOf("client", "caller")
	cert := m.ca.issue(id, time.Hour)
	c := &caller{log: &syncBuffer{}}
	cfg := Config{Node: route.Node{ID: "caller", Site: "client", Service: "caller", Identity: id}, Outbound: "127.0.0.1:0",
		Ports: map[api.ServiceID]string{}, ClientTLS: m.ca.clientTLS(cert), AccessLog: c.log, Seed: 42}
	for _, p := range ports {
		cfg.Ports[p] = "127.0.0.1:0"
	}
	c.proxy, c.stop = m.run(cfg)
	c.base, c.ports, _ = c.proxy.Addresses()
	transport := &http.Transport{MaxIdleConnsPerHost: 512}
	c.client = &http.Client{Transport: transport, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	m.t.Cleanup(transport.CloseIdleConnections)
	return c
}

// answer is what a caller got.
type answer struct {
	status   int
	body     string
	header   http.Header
	err      error
	duration time.Duration
}

func (c *caller) do(method, host, path string, body io.Reader) answer {
	start := time.Now()
	r, err := http.NewRequest(method, "http://"+c.base+path, body)
	if err != nil {
		return answer{err: err}
	}
	r.Host = host
	resp, err := c.client.Do(r)
	if err != nil {
		return answer{err: err, duration: time.Since(start)}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(b), resp.Header, err, time.Since(start)}
}

func (c *caller) get(host, path string) answer { return c.do("GET", host, path, nil) }

// siteSpec is one site of a test's table.
type siteSpec struct {
	name      api.SiteID
	share     route.Weight
	priority  int
	excluded  bool
	workloads []*workload
}

// table makes a table of one service with the demo's defaults; edit changes it.
func table(epoch route.Epoch, name api.ServiceID, sites []siteSpec, edit ...func(*route.Service)) route.Table {
	s := route.Service{Name: name, Protocol: "http", Port: 80, Hosts: []string{string(name) + ".mesh"}, Reflex: true,
		Health:   api.HealthCheck{Path: "/healthz", Interval: api.Duration(500 * time.Millisecond), Timeout: api.Duration(300 * time.Millisecond), Failures: 3, Successes: 2},
		Timeouts: api.Timeouts{Request: api.Duration(15 * time.Second), Idle: api.Duration(5 * time.Minute)},
		Retries:  api.Retries{On: []string{"connect", "reset", "refused", "502", "503", "504"}, Attempts: 3, Budget: 0.2},
		Limits:   api.Limits{Connections: 1024, Pending: 1024, Requests: 1024},
		Callers:  []api.AllowRule{{Identity: identityOf("client", "caller")}},
	}
	for _, x := range sites {
		st := route.Site{Name: x.name, Share: x.share, Priority: x.priority, Excluded: x.excluded}
		for _, w := range x.workloads {
			st.Endpoints = append(st.Endpoints, w.endpoint())
		}
		s.Sites = append(s.Sites, st)
	}
	for _, e := range edit {
		e(&s)
	}
	slices.SortFunc(s.Sites, func(a, b route.Site) int {
		if a.Priority != b.Priority {
			return a.Priority - b.Priority
		}
		return strings.Compare(string(a.Name), string(b.Name))
	})
	return route.Table{Epoch: epoch, Services: []route.Service{s}}
}

func (m *mesh) apply(tbl route.Table, proxies ...*Proxy) {
	m.t.Helper()
	for _, p := range proxies {
		if err := p.Apply(tbl); err != nil {
			m.t.Fatal(err)
		}
	}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, limit time.Duration, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %v: %s", limit, what)
		case <-tick.C:
		}
	}
}

// healthy waits until the caller has seen every endpoint of a service answer.
func (c *caller) healthy(t testing.TB, service api.ServiceID, want int) {
	t.Helper()
	eventually(t, "every endpoint healthy", 10*time.Second, func() bool {
		n := 0
		for _, o := range c.proxy.Health().Observations {
			for _, e := range o.Endpoints {
				if o.Service == service && e.Healthy {
					n++
				}
			}
		}
		return n == want
	})
}

// usable says how many endpoints of a site the proxy would use.
func usable(p *Proxy, service api.ServiceID, name api.SiteID) (n int) {
	for _, st := range p.current.Load().service(service).sites {
		for _, e := range st.endpoints {
			if st.spec.Name == name && e.usable() {
				n++
			}
		}
	}
	return n
}

// load sends GETs at a rate, open loop, until stop is called, and gives every answer with the time it was due.
type load struct {
	mu      sync.Mutex
	answers []timed
	wg      sync.WaitGroup
	cancel  context.CancelFunc
}

type timed struct {
	due time.Time
	answer
}

func (c *caller) load(host string, rate int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	l.wg.Go(func() {
		start := time.Now()
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := 0; ; i++ {
			due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
			for time.Until(due) > 0 {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
			if ctx.Err() != nil {
				return
			}
			l.wg.Go(func() {
				a := c.get(host, "/")
				a.duration = time.Since(due)
				l.mu.Lock()
				l.answers = append(l.answers, timed{due, a})
				l.mu.Unlock()
			})
		}
	})
	return l
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answers)
}

func (l *load) stop() []timed {
	l.cancel()
	l.wg.Wait()
	return l.answers
}

func failures(as []timed) (n int, first string) {
	for _, a := range as {
		if a.err != nil || a.status >= 400 {
			if n++; first == "" {
				first = a.body
				if a.err != nil {
					first = a.err.Error()
				}
			}
		}
	}
	return n, first
}

// raw sends bytes over a plain connection and reads one response.
func raw(t testing.TB, addr, request string) (*http.Response, error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(c), nil)
}
