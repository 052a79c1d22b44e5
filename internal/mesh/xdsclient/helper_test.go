package xdsclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/test/bufconn"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

var (
	testNode = route.Node{ID: "web-1", Site: "eu", Service: "web", Identity: "spiffe://demo.test/site/eu/service/web", Workload: "web-1"}
	testCaps = route.Capabilities{Kind: xds.KindBuiltin, Outbound: "127.0.0.1:3"}
)

func testService(name api.ServiceID) route.Service {
	s := route.Service{
		Name: name, Protocol: "http", Port: 80, Hosts: []string{string(name) + ".mesh"}, Reflex: true,
		Health:   api.HealthCheck{Path: "/healthz", Interval: api.Duration(500 * time.Millisecond), Timeout: api.Duration(300 * time.Millisecond), Failures: 3, Successes: 2},
		Timeouts: api.Timeouts{Request: api.Duration(15 * time.Second)},
		Callers:  []api.AllowRule{{Identity: testNode.Identity}},
	}
	for i, site := range []api.SiteID{"eu", "us"} {
		share := route.Whole
		if i > 0 {
			share = 0
		}
		s.Sites = append(s.Sites, route.Site{Name: site, Share: share, Priority: i, Endpoints: []route.Endpoint{{
			Workload: string(name) + "-1", Address: netip.MustParseAddrPort(fmt.Sprintf("127.0.%d.1:9001", i)),
			Identity: fmt.Sprintf("spiffe://demo.test/site/%s/service/%s", site, name), Registered: true,
		}}})
	}
	return s
}

func testTable(epoch route.Epoch, names ...api.ServiceID) route.Table {
	t := route.Table{Epoch: epoch}
	for _, name := range names {
		t.Services = append(t.Services, testService(name))
	}
	return t
}

func render(t *testing.T, table route.Table) xds.Resources {
	t.Helper()
	r, problems := xds.Render(table, testNode, testCaps)
	if len(problems) > 0 {
		t.Fatalf("Render: %v", problems)
	}
	return r
}

// fake is a server that says exactly what a test tells it to.
type fake struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	streams chan *fakeStream
	serve   func(discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error // instead, if set
}

type fakeStream struct {
	t     *testing.T
	s     discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	reqs  chan *discoveryv3.DeltaDiscoveryRequest
	close chan error
	nonce int
}

func (f *fake) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if f.serve != nil {
		return f.serve(g)
	}
	s := &fakeStream{s: g, reqs: make(chan *discoveryv3.DeltaDiscoveryRequest, 1000), close: make(chan error, 1)}
	go func() {
		for {
			req, err := g.Recv()
			if err != nil {
				return
			}
			s.reqs <- req
		}
	}()
	f.streams <- s
	select {
	case err := <-s.close:
		return err
	case <-g.Context().Done():
		return g.Context().Err()
	}
}

// requests are all that have arrived once nothing moves any more.
func (s *fakeStream) requests() []*discoveryv3.DeltaDiscoveryRequest {
	synctest.Wait()
	var out []*discoveryv3.DeltaDiscoveryRequest
	for {
		select {
		case req := <-s.reqs:
			out = append(out, req)
		default:
			return out
		}
	}
}

// answers are the ACKs and NACKs among the requests that have arrived.
func (s *fakeStream) answers() []string {
	out := []string{}
	for _, req := range s.requests() {
		switch {
		case req.GetResponseNonce() == "":
		case req.GetErrorDetail() != nil:
			out = append(out, "NACK "+req.GetResponseNonce()+": "+req.GetErrorDetail().GetMessage())
		default:
			out = append(out, "ACK "+req.GetResponseNonce())
		}
	}
	return out
}

// send sends a response; its nonce is its number on this stream.
func (s *fakeStream) send(url string, removed []string, rs ...xds.Resource) {
	s.nonce++
	m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: url, Nonce: fmt.Sprint(s.nonce), RemovedResources: removed}
	for _, x := range rs {
		m.Resources = append(m.Resources, &discoveryv3.Resource{Name: x.Name, Version: x.Version, Resource: x.Body})
	}
	if err := s.s.Send(m); err != nil {
		s.t.Errorf("send: %v", err)
	}
}

// table sends everything of a table that the client does not have of another.
func (s *fakeStream) table(r, has xds.Resources) {
	for _, url := range xds.TableTypes() {
		var changed []xds.Resource
		for _, x := range r[url] {
			if old, ok := has.Find(url, x.Name); !ok || old.Version != x.Version {
				changed = append(changed, x)
			}
		}
		if len(changed) > 0 {
			s.send(url, nil, changed...)
		}
	}
}

// host is servers in memory, by address.
type host struct {
	t     *testing.T
	mu    sync.Mutex
	lists map[string]*bufconn.Listener
	dials []time.Time
	conns []*frozenConn
}

func (h *host) start(addr string, impl discoveryv3.AggregatedDiscoveryServiceServer) (stop func()) {
	h.t.Helper()
	l := bufconn.Listen(1 << 16)
	h.mu.Lock()
	if h.lists == nil {
		h.lists = map[string]*bufconn.Listener{}
	}
	h.lists[addr] = l
	h.mu.Unlock()
	g := grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 100 * time.Millisecond}))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, impl)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			h.mu.Lock()
			delete(h.lists, addr)
			h.mu.Unlock()
			g.Stop()
			if err := <-served; err != nil {
				h.t.Error(err)
			}
		})
	}
	h.t.Cleanup(stop)
	return stop
}

func (h *host) dial(ctx context.Context, addr string) (net.Conn, error) {
	h.mu.Lock()
	h.dials = append(h.dials, time.Now())
	l := h.lists[addr]
	h.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	c, err := l.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	f := &frozenConn{Conn: c, frozen: make(chan struct{}), closed: make(chan struct{})}
	h.mu.Lock()
	h.conns = append(h.conns, f)
	h.mu.Unlock()
	return f, nil
}

// frozenConn can stop to deliver anything, like one to a stopped process.
type frozenConn struct {
	net.Conn
	frozen, closed chan struct{}
	once           sync.Once
}

func (c *frozenConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	select {
	case <-c.frozen:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (c *frozenConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// run starts a client and ends it with the test.
func run(t *testing.T, h *host, cfg Config) *Client {
	t.Helper()
	if cfg.Servers == nil {
		cfg.Servers = []string{"one"}
	}
	cfg.Node = xds.NodeMessage(testNode, testCaps)
	cfg.Dial, cfg.Seed = h.dial, 1
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	over := errors.New("the test is over")
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel(over)
		if err := <-done; !errors.Is(err, over) {
			t.Errorf("Run = %v, want the cause of the end", err)
		}
	})
	return c
}

// sink collects tables; it refuses with err.
type sink struct {
	mu     sync.Mutex
	tables []route.Table
	err    error
	before func()
}

func (s *sink) take(t route.Table, _ route.Capabilities) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before != nil {
		s.before()
	}
	if s.err != nil {
		return s.err
	}
	s.tables = append(s.tables, t)
	return nil
}

func (s *sink) refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *sink) got() []route.Table {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tables)
}

func (s *sink) epochs() []route.Epoch {
	out := []route.Epoch{}
	for _, t := range s.got() {
		out = append(out, t.Epoch)
	}
	return out
}
