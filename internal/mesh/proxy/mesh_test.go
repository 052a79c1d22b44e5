package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// authority is a small CA of one trust domain.
// gate is a TCP hop in front of a sidecar that can be killed (refuses, resets) and paused (accepts, says nothing), as
// the kernel does for a process that was killed or stopped.
// lead makes new connections go to another target.
// kill closes the listener and resets every connection.
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
// raw sends bytes over a plain connection and reads one response.
