package xdsserver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

const testDomain = "spiffe://demo.test"

func identity(site api.SiteID, s api.ServiceID) string {
	return fmt.Sprintf("%s/site/%s/service/%s", testDomain, site, s)
}

// testService has one endpoint at each of two sites and may be called by web.
func testService(name api.ServiceID, reflex bool) route.Service {
	s := route.Service{
		Name: name, Protocol: "http", Port: 80, Hosts: []string{string(name) + ".mesh"}, Reflex: reflex,
		Health:   api.HealthCheck{Path: "/healthz", Interval: api.Duration(500 * time.Millisecond), Timeout: api.Duration(300 * time.Millisecond), Failures: 3, Successes: 2},
		Timeouts: api.Timeouts{Request: api.Duration(15 * time.Second)},
		Retries:  api.Retries{On: []string{"connect", "503"}, Attempts: 3},
		Limits:   api.Limits{Connections: 1024, Pending: 1024, Requests: 1024},
		Callers:  []api.AllowRule{{Identity: identity("eu", "web")}},
	}
	for i, site := range []api.SiteID{"eu", "us"} {
		share := route.Whole
		if i > 0 {
			share = 0
		}
		s.Sites = append(s.Sites, route.Site{Name: site, Share: share, Priority: i, Endpoints: []route.Endpoint{{
			Workload: string(name) + "-1", Address: netip.MustParseAddrPort(fmt.Sprintf("127.0.%d.1:9001", i)),
			Identity: identity(site, name), Registered: true,
		}}})
	}
	return s
}

func testTable(epoch route.Epoch, names ...api.ServiceID) route.Table {
	t := route.Table{Epoch: epoch}
	slices.Sort(names)
	for _, name := range names {
		t.Services = append(t.Services, testService(name, true))
	}
	return t
}

// rig is a server and a connection to it, in memory.
type rig struct {
	t    *testing.T
	srv  *Server
	conn *grpc.ClientConn
	log  []string
	// events are those since the last call, in order
	events func() []string
}

// inBubble runs a test with a fake clock.
func inBubble(t *testing.T, cfg Config, test func(*rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, cfg)
		test(r)
	})
}

func newRig(t *testing.T, cfg Config) *rig {
	t.Helper()
	r := &rig{t: t}
	if cfg.Identify == nil {
		cfg.Identify = func(_ context.Context, m *corev3.Node) (route.Node, route.Capabilities, error) {
			n, caps, err := xds.ReadNode(m)
			n.Identity = identity(n.Site, n.Service)
			return n, caps, err
		}
	}
	events := make(chan string, 1000)
	note := func(format string, args ...any) { events <- fmt.Sprintf(format, args...) }
	cfg.Events.Acked = func(n api.NodeID, e route.Epoch, _ time.Time) { note("acked %s %d", n, e) }
	cfg.Events.Nacked = func(n api.NodeID, _ string, names []string, m string) { note("nacked %s %v %s", n, names, m) }
	cfg.Events.OrderLost = func(n api.NodeID, name, why string) { note("lost %s %s: %s", n, name, why) }
	cfg.Events.OrderAcked = func(n api.NodeID, name string) { note("received %s %s", n, name) }
	cfg.Events.Refused = func(n api.NodeID, e route.Epoch, ps []route.Problem) { note("refused %s %d %v", n, e, ps[0].Message) }
	r.srv = New(cfg)
	l := bufconn.Listen(1 << 16)
	g := grpc.NewServer(ServerOptions()...)
	r.srv.Register(g)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///server", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(1<<16), grpc.WithStaticConnWindowSize(1<<16),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	r.conn = conn
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	drain := func() []string {
		for {
			select {
			case e := <-events:
				r.log = append(r.log, e)
			default:
				out := r.log
				r.log = nil
				return out
			}
		}
	}
	r.events = drain
	return r
}

// client is a delta client that says exactly what a test tells it to.
type client struct {
	r      *rig
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	got    chan *discoveryv3.DeltaDiscoveryResponse
	err    chan error
	cancel context.CancelFunc
	node   *corev3.Node
	known  xds.Resources
	asked  map[string][]string
}

func builtinNode(id api.NodeID) *corev3.Node {
	return xds.NodeMessage(route.Node{ID: id, Site: "eu", Service: "web"},
		route.Capabilities{Kind: xds.KindBuiltin, Inbound: "127.0.0.1:1", App: "127.0.0.1:2", Outbound: "127.0.0.1:3"})
}

func envoyNode(id api.NodeID) *corev3.Node {
	return xds.NodeMessage(route.Node{ID: id, Site: "eu", Service: "web"},
		route.Capabilities{Kind: xds.KindEnvoy, Inbound: "127.0.0.1:1", App: "127.0.0.1:2", Outbound: "127.0.0.1:3"})
}

func (r *rig) connect(node *corev3.Node) *client {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	c := &client{r: r, stream: stream, cancel: cancel, node: node, known: xds.Resources{}, asked: map[string][]string{}, got: make(chan *discoveryv3.DeltaDiscoveryResponse, 100), err: make(chan error, 1)}
	r.t.Cleanup(cancel)
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				c.err <- err
				return
			}
			c.got <- m
		}
	}()
	return c
}

func (c *client) send(req *discoveryv3.DeltaDiscoveryRequest) {
	c.r.t.Helper()
	req.Node, c.node = c.node, nil
	if err := c.stream.Send(req); err != nil {
		c.r.t.Fatalf("send: %v", err)
	}
}

func (c *client) subscribe(url string, names ...string) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: names})
}

func (c *client) ack(m *discoveryv3.DeltaDiscoveryResponse) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce()})
}

func (c *client) nack(m *discoveryv3.DeltaDiscoveryResponse, why string) {
	c.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: m.GetTypeUrl(), ResponseNonce: m.GetNonce(), ErrorDetail: &status.Status{Code: 3, Message: why},
	})
}

// all is everything that has arrived once nothing moves any more.
func (c *client) all() []*discoveryv3.DeltaDiscoveryResponse {
	synctest.Wait()
	var out []*discoveryv3.DeltaDiscoveryResponse
	for {
		select {
		case m := <-c.got:
			out = append(out, m)
		default:
			return out
		}
	}
}

// settle acknowledges everything, and subscribes to endpoints and routes as Envoy does, until nothing more comes.
func (c *client) settle() []*discoveryv3.DeltaDiscoveryResponse {
	var out []*discoveryv3.DeltaDiscoveryResponse
	for {
		ms := c.all()
		if len(ms) == 0 {
			return out
		}
		out = append(out, ms...)
		for _, m := range ms {
			for _, x := range m.GetResources() {
				if x.GetResource() != nil {
					c.known.Add(xds.Resource{Name: x.GetName(), Body: x.GetResource()})
				}
			}
			c.ack(m)
		}
		for _, url := range []string{xds.TypeEndpoint, xds.TypeRoute} {
			var fresh []string
			for _, name := range xds.References(c.known, url) {
				if !slices.Contains(c.asked[url], name) {
					fresh = append(fresh, name)
				}
			}
			if len(fresh) > 0 {
				c.asked[url] = append(c.asked[url], fresh...)
				c.subscribe(url, fresh...)
			}
		}
	}
}

// short names a response: type, resources, removals.
func short(m *discoveryv3.DeltaDiscoveryResponse) string {
	names := map[string]string{
		xds.TypeCluster: "CDS", xds.TypeEndpoint: "EDS", xds.TypeListener: "LDS", xds.TypeRoute: "RDS",
		xds.TypeFaultOrder: "fault", xds.TypeProbeOrder: "probe", xds.TypeSecret: "SDS", xds.TypeRuntime: "RTDS",
	}
	out := names[m.GetTypeUrl()]
	for _, x := range m.GetResources() {
		out += " " + x.GetName()
		if x.GetResource() == nil {
			out += "(heartbeat)"
		}
	}
	for _, name := range m.GetRemovedResources() {
		out += " -" + name
	}
	return out
}

func shorts(ms []*discoveryv3.DeltaDiscoveryResponse) []string {
	out := []string{}
	for _, m := range ms {
		out = append(out, short(m))
	}
	return out
}
