// Package sidecar is the whole sidecar process: membership, xDS client and proxy, wired.
//
// Run joins (or goes on with what is on disk), serves the last good table within milliseconds, then follows the server.
// It needs no server to start again.
//
// Errors: *api.Error for what an operator must change.
// Concurrency: Run blocks until its context ends, drains, and owns every goroutine.
package sidecar

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/mesh/membership"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/mesh/xdsclient"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Config of a sidecar. Dir, Name and Service are required; Token for the first start only.
type Config struct {
	Dir      string // 0700: identity, last good table
	Token    string
	Name     api.NodeID // also the workload's name
	Service  api.ServiceID
	Version  string
	Capacity float64 // requests/s that the workload can serve; 0 = unknown

	App      string // host:port of the local application; empty = the workload only calls
	Inbound  string // host:port of the mutual TLS listener; default 127.0.0.1:0 with App
	Outbound string // host:port of the shared port that routes by Host
	Ports    map[api.ServiceID]string
	Metrics  string // host:port for Prometheus; empty = none

	AccessLog io.Writer // one JSON line per request; nil = none
	Logger    *slog.Logger
	Seed      uint64        // 0 = random, logged
	Drain     time.Duration // longest wait for requests in flight at the end; default 5s
	Joined    func()        // called once the identity is on disk; nil = not
}

// Run is a sidecar from start to end.
func Run(ctx context.Context, cfg Config) error {
	if cfg.App != "" && cfg.Inbound == "" {
		cfg.Inbound = "127.0.0.1:0"
	}
	if cfg.Drain == 0 {
		cfg.Drain = 5 * time.Second
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	cfg.Logger.Info("sidecar starts", "node", cfg.Name, "service", cfg.Service, "seed", cfg.Seed)
	workload := &nodeapi.Workload{Name: string(cfg.Name), Service: cfg.Service, Version: cfg.Version, Capacity: cfg.Capacity}
	m, err := membership.Open(ctx, membership.Config{Dir: cfg.Dir, Token: cfg.Token, Node: cfg.Name, Workload: workload, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	defer m.Client.Close()
	if cfg.Joined != nil {
		cfg.Joined()
	}
	registry := prometheus.NewRegistry()
	node := route.Node{ID: m.Node, Site: m.Site, Service: cfg.Service, Identity: m.Identity(), Workload: string(cfg.Name)}
	p, err := proxy.New(proxyConfig(cfg, node, m, registry))
	if err != nil {
		return err
	}
	var inbound string
	_, _, inbound = p.Addresses()
	workload.Address = inbound
	client, err := xdsClient(cfg, node, m, p)
	if err != nil {
		return err
	}
	return serve(ctx, cfg, m, p, client, workload, registry)
}

func proxyConfig(cfg Config, node route.Node, m *membership.Member, registry *prometheus.Registry) proxy.Config {
	return proxy.Config{
		Node: node, Version: cfg.Version, Outbound: cfg.Outbound, Ports: cfg.Ports, Inbound: cfg.Inbound, App: cfg.App,
		ClientTLS: func(expected string) *tls.Config {
			id, err := identity.ParseID(expected)
			if err != nil {
				// A peer without a valid id cannot prove it: every handshake with it fails.
				return identity.ClientTLS(m.Source, func(identity.ID) error { return fmt.Errorf("expected %q: %w", expected, err) })
			}
			return identity.ClientTLS(m.Source, identity.Exactly(id))
		},
		ServerTLS: identity.ServerTLS(m.Source, nil, "http/1.1"),
		PeerID: func(cs tls.ConnectionState) (string, error) {
			id, err := identity.PeerID(cs)
			return id.String(), err
		},
		AccessLog: cfg.AccessLog, Logger: cfg.Logger, Registerer: registry, Seed: cfg.Seed,
	}
}

func xdsClient(cfg Config, node route.Node, m *membership.Member, p *proxy.Proxy) (*xdsclient.Client, error) {
	outbound, ports, inbound := p.Addresses()
	caps := route.Capabilities{Kind: "builtin", Inbound: inbound, App: cfg.App, Outbound: outbound, ServicePorts: ports}
	server := identity.ClientTLS(m.Source, identity.Exactly(identity.Server(m.TrustDomain)))
	server.NextProtos = []string{"h2"}
	return xdsclient.New(xdsclient.Config{
		Servers: m.XDS, TLS: func() *tls.Config { return server }, Node: xds.NodeMessage(node, caps),
		Table: func(t route.Table, _ route.Capabilities) error { return p.Apply(t) },
		Dir:   filepath.Join(cfg.Dir, "xds"), Logger: cfg.Logger,
	})
}

// serve runs the parts until ctx ends, then drains the proxy before it stops.
func serve(ctx context.Context, cfg Config, m *membership.Member, p *proxy.Proxy, client *xdsclient.Client,
	workload *nodeapi.Workload, registry *prometheus.Registry) error {
	// The proxy outlives the others by its drain.
	proxyCtx, stopProxy := context.WithCancel(context.WithoutCancel(ctx))
	defer stopProxy()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.Run(proxyCtx) })
	group.Go(func() error { return client.Run(ctx) })
	group.Go(func() error { return m.Run(ctx) })
	group.Go(func() error { return reportHealth(ctx, m, p, cfg.Logger) })
	beats := make(chan struct{})
	group.Go(func() error {
		defer close(beats)
		return m.Client.Heartbeats(ctx, m.Clock, cfg.Logger, nil, func(h *nodeapi.Heartbeat) {
			h.Workload, h.Epoch, h.PID = workload, uint64(p.Epoch()), os.Getpid()
		}, nil)
	})
	group.Go(func() error { return tidy(ctx) })
	if cfg.Metrics != "" {
		group.Go(func() error { return serveMetrics(ctx, cfg.Metrics, registry) })
	}
	group.Go(func() error {
		<-ctx.Done()
		<-beats // none may follow the farewell
		leave(ctx, m, cfg)
		grace, cancel := context.WithTimeout(proxyCtx, cfg.Drain)
		defer cancel()
		if left := p.Drain(grace); left > 0 {
			cfg.Logger.Warn("requests cut off at the end of the drain", "requests", left)
		}
		stopProxy()
		return ctx.Err()
	})
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// tidy keeps a sidecar small: there are many of them. It collects twice as often as Go does by default, and gives back
// once what the start needed (a process that speaks protobuf touches a lot of memory that it never needs again).
func tidy(ctx context.Context) error {
	debug.SetGCPercent(50)
	timer := time.NewTimer(3 * time.Second)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
		debug.FreeOSMemory()
		dropBinaryPages()
	}
	return nil
}

const (
	leaveWithin = time.Second
	// leaveHeard is how long callers get to hear of the farewell before this proxy stops to accept their connections.
	leaveHeard = 200 * time.Millisecond
)

// leave takes the workload out of every table before its requests end. Without a server callers find out by themselves.
func leave(ctx context.Context, m *membership.Member, cfg Config) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
	defer cancel()
	if err := m.Client.Leave(ctx); err != nil {
		cfg.Logger.Warn("left without saying so", "err", err)
		return
	}
	if cfg.App == "" {
		return // nobody calls it
	}
	heard := time.NewTimer(leaveHeard)
	defer heard.Stop()
	select {
	case <-heard.C:
	case <-ctx.Done():
	}
}

// reportHealth sends the proxy's view at each change and each second.
func reportHealth(ctx context.Context, m *membership.Member, p *proxy.Proxy, log *slog.Logger) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-p.Changed():
		}
		send, cancel := context.WithTimeout(ctx, time.Second)
		err := m.Client.Health(send, p.Health())
		cancel()
		if (err != nil) != failing && ctx.Err() == nil {
			failing = err != nil
			log.Info("health reports", "answered", !failing, "err", err)
		}
	}
}

func serveMetrics(ctx context.Context, addr string, registry *prometheus.Registry) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return api.Errorf(api.Unavailable, addr, "metrics: %v", err).WithHint("--metrics HOST:PORT")
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() }) // nothing is lost with a scrape
	defer stop()
	if err := srv.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
