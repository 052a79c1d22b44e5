package xdsclient

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// OrderEvent is what happened to one order.
type OrderEvent struct {
	TypeURL string
	Name    string
	Version string
	TTL     time.Duration
	Body    *anypb.Any // of a new order; nil for all other events
	// Received is when the message arrived; the lease is in force until Received + TTL on this process's monotonic clock.
	Received time.Time
	// Heartbeat prolongs the lease. Removed ends the order: the server has withdrawn it or, with Expired, no
	// heartbeat came in time.
	Heartbeat bool
	Removed   bool
	Expired   bool
}

// Config of a Client. Servers, Node and at least one callback are required.
type Config struct {
	Servers []string           // host:port, tried in turn
	TLS     func() *tls.Config // asked for each connection; nil means plaintext, which is for tests
	Node    *corev3.Node       // of the first message of a stream; see xds.NodeMessage
	// Types are subscribed to as a whole. Default: those of the callbacks that are set. The names of endpoints and
	// routes follow from clusters and listeners.
	Types []string
	// Table is called with a table that is complete and not older than the one in force. It returns nil when the table
	// is in force; an error is shown to the server, and the table before stays.
	Table func(route.Table, route.Capabilities) error
	// Order is called for each event of an order. An error refuses a new order or a heartbeat: it is then not in force.
	Order func(OrderEvent) error
	// Dir keeps the last good table; empty for none.
	Dir    string
	Logger *slog.Logger // default: none
	// Seed of the jitter of the back-off; default random.
	Seed uint64
	// Dial connects to a server; default TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Client is made with New and does its work in Run.
type Client struct {
	cfg       Config // set once
	connected atomic.Bool

	// owned by Run
	tables  *tables
	orders  *orders
	session *session // nil while there is none
}

// New checks the configuration. It does not connect.
func New(cfg Config) (*Client, error) {
	bad := func(format string, args ...any) (*Client, error) {
		return nil, api.Errorf(api.Invalid, "xds client", format, args...)
	}
	switch {
	case len(cfg.Servers) == 0:
		return bad("no server")
	case cfg.Node.GetId() == "":
		return bad("no node id")
	case cfg.Table == nil && cfg.Order == nil:
		return bad("neither Table nor Order: there would be nothing to do")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Types == nil {
		cfg.Types = defaultTypes(cfg)
	}
	for _, url := range cfg.Types {
		isTable, isOrder := slices.Contains(xds.TableTypes(), url), slices.Contains(xds.OrderTypes(), url)
		if (!isTable || cfg.Table == nil) && (!isOrder || cfg.Order == nil) {
			return bad("nothing takes the type %s", url)
		}
	}
	if cfg.Dial == nil {
		cfg.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr)
		}
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	c := &Client{cfg: cfg}
	c.tables = &tables{apply: cfg.Table, log: cfg.Logger, store: store{dir: cfg.Dir}}
	c.orders = &orders{apply: cfg.Order, log: cfg.Logger, live: map[string]*order{}, dead: map[string]bool{}}
	return c, nil
}

func defaultTypes(cfg Config) []string {
	var types []string
	if cfg.Table != nil {
		types = append(types, xds.TypeCluster, xds.TypeListener)
	}
	if cfg.Order != nil {
		types = append(types, xds.OrderTypes()...)
	}
	return types
}

// Connected says whether a server has answered on the present connection.
func (c *Client) Connected() bool { return c.connected.Load() }

// Run hands over the table from disk, then follows the servers until ctx ends. It is called once.
func (c *Client) Run(ctx context.Context) error {
	if c.cfg.Table != nil {
		c.tables.load()
	}
	c.cfg.Logger.Debug("xds client starts", "seed", c.cfg.Seed)
	g, ctx := errgroup.WithContext(ctx)
	events := make(chan event)
	g.Go(func() error {
		k := connector{cfg: c.cfg, events: events, rand: rand.New(rand.NewPCG(c.cfg.Seed, 0)), connected: &c.connected}
		return k.run(ctx)
	})
	g.Go(func() error { return c.follow(ctx, events) })
	return g.Wait()
}

// follow takes in what the servers say, and ends leases also while there is no server.
func (c *Client) follow(ctx context.Context, events <-chan event) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		if next := earlier(c.orders.nextEnd(), c.tables.overdue()); !next.IsZero() {
			timer.Reset(time.Until(next))
			due = timer.C
		}
		select {
		case e := <-events:
			c.handle(e)
		case <-due:
			now := time.Now()
			c.orders.expire(now)
			c.giveUp(now)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// giveUp begins the stream anew if the rest of a table does not come.
func (c *Client) giveUp(now time.Time) {
	if until := c.tables.overdue(); until.IsZero() || now.Before(until) || c.session == nil {
		return
	}
	if c.tables.complete() == nil {
		for _, req := range c.tables.settle() {
			c.session.request(req)
		}
		return
	}
	c.session.end(fmt.Errorf("table is incomplete: %w", c.tables.complete()))
	c.session = nil
	c.tables.begin()
}

// earlier is the earlier of two moments, where zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// event is something that happened to a connection.
type event struct {
	opened   *session
	closed   *session
	from     *session
	message  *discoveryv3.DeltaDiscoveryResponse
	received time.Time
}

func (c *Client) handle(e event) {
	switch {
	case e.opened != nil:
		c.session = e.opened
		c.subscribe()
	case e.closed != nil:
		if c.session == e.closed {
			c.session = nil
			c.tables.begin()
		}
	case e.from == c.session:
		c.take(e.message, e.received)
	}
}

// subscribe begins a stream: it says what is in force, so that only what differs is sent.
func (c *Client) subscribe() {
	c.tables.begin()
	for _, url := range c.cfg.Types {
		req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResourceNamesSubscribe: []string{"*"}}
		if slices.Contains(xds.OrderTypes(), url) {
			req.InitialResourceVersions = c.orders.versions(url, time.Now())
		} else {
			req.InitialResourceVersions = c.tables.versions(url)
		}
		c.session.request(req)
	}
	for _, req := range c.tables.follow() {
		c.session.request(req)
	}
}

// take handles one response.
func (c *Client) take(m *discoveryv3.DeltaDiscoveryResponse, received time.Time) {
	switch {
	case slices.Contains(xds.TableTypes(), m.GetTypeUrl()):
		for _, req := range c.tables.take(m) {
			c.session.request(req)
		}
	case slices.Contains(xds.OrderTypes(), m.GetTypeUrl()):
		c.session.request(answer(m.GetTypeUrl(), m.GetNonce(), c.orders.take(m, received)))
	default:
		c.session.request(answer(m.GetTypeUrl(), m.GetNonce(), errUnknownType))
	}
}
