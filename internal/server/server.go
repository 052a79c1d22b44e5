// Package server wires one server process: store, ledger, authority, API, xDS and the leader's loop.
//
// Run is the whole process. What it keeps is in its data directory (0700): ca/, etcd/, evidence.key, samples/, reports/
// and context.yaml for the administrator on this machine.
//
// Errors: Run returns *api.Error for what an operator must change (address in use, data directory of another mesh).
// Concurrency: Run blocks until its context ends and owns every goroutine.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/mesh/xdsserver"
	"github.com/livefire-mesh/livefire/internal/server/httpapi"
	"github.com/livefire-mesh/livefire/internal/server/ledger"
	"github.com/livefire-mesh/livefire/internal/server/reconcile"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// Config of a server. DataDir, TrustDomain and Version are required.
type Config struct {
	DataDir     string
	TrustDomain string
	Listen      string   // API; default 127.0.0.1:7443
	ListenXDS   string   // gRPC; default 127.0.0.1:7444
	Advertise   string   // host that nodes and people use; default the one of Listen
	Etcd        []string // endpoints of an external etcd; empty = embedded
	Version     string
	Logger      *slog.Logger
	// Ready is called once, when both ports are open.
	Ready func(Addresses)
}

// Addresses that a server listens on.
type Addresses struct {
	API string // https://host:port
	XDS string // host:port
}

const (
	leaderTTL = 3 * time.Second
	adminName = "admin"
	adminTTL  = 90 * 24 * time.Hour
)

// server is what the parts share.
type server struct {
	cfg       Config
	clock     func() time.Time
	ca        *identity.CA
	source    *identity.Source
	store     *store.Store
	ledger    *ledger.Ledger
	signer    *evidence.Signer
	xds       *xdsserver.Server
	api       *httpapi.Server
	addresses Addresses
	term      atomic.Pointer[term] // of this server; nil while it does not lead
	last      atomic.Pointer[store.Fence]
}

// term is one leadership of this server.
type term struct{ loop *reconcile.Loop }

// Run is a server from start to end.
func Run(ctx context.Context, cfg Config) error {
	s := &server{cfg: withDefaults(cfg), clock: steadyClock()}
	if err := os.MkdirAll(s.cfg.DataDir, 0o700); err != nil {
		return api.Errorf(api.Invalid, cfg.DataDir, "data directory: %v", err)
	}
	if err := s.openIdentity(); err != nil {
		return err
	}
	if err := s.openState(ctx); err != nil {
		return err
	}
	defer func() {
		if err := s.store.Close(); err != nil {
			s.cfg.Logger.Warn("store not closed cleanly", "err", err)
		}
	}()
	apiListener, xdsListener, err := s.listen(ctx)
	if err != nil {
		return err
	}
	defer func() { // both are closed by their servers too; a second close is harmless
		_ = apiListener.Close()
		_ = xdsListener.Close()
	}()
	if err := s.wire(); err != nil {
		return err
	}
	return s.serve(ctx, apiListener, xdsListener)
}

func withDefaults(c Config) Config {
	if c.Listen == "" {
		c.Listen = "127.0.0.1:7443"
	}
	if c.ListenXDS == "" {
		c.ListenXDS = "127.0.0.1:7444"
	}
	return c
}

// steadyClock is UTC wall time that never goes back: it runs on the monotonic clock from the wall time at its start.
func steadyClock() func() time.Time {
	base := time.Now()
	return func() time.Time { return base.Add(time.Since(base)).Round(0).UTC() }
}

// openIdentity loads or makes the authority, the server's own certificate and the key that signs evidence.
func (s *server) openIdentity() error {
	ca, err := identity.OpenCA(filepath.Join(s.cfg.DataDir, "ca"), s.cfg.TrustDomain, time.Now())
	if err != nil {
		return err
	}
	s.ca = ca
	svid, err := s.ownCertificate()
	if err != nil {
		return err
	}
	s.source = identity.NewSource(svid)
	s.signer, err = openSigner(filepath.Join(s.cfg.DataDir, "evidence"), s.cfg.TrustDomain)
	return err
}

// ownCertificate is a fresh one: the authority is at hand, so nothing needs to be kept.
func (s *server) ownCertificate() (*identity.SVID, error) {
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := key.CSR()
	if err != nil {
		return nil, err
	}
	chain, err := s.signOwn(csr)
	if err != nil {
		return nil, err
	}
	return identity.NewSVID(key, chain, s.ca.Roots())
}

func (s *server) signOwn(csr []byte) ([]byte, error) {
	options := identity.SignOptions{DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	if ip := net.ParseIP(s.cfg.Advertise); ip != nil {
		options.IPAddresses = append(options.IPAddresses, ip)
	} else if s.cfg.Advertise != "" {
		options.DNSNames = append(options.DNSNames, s.cfg.Advertise)
	}
	return s.ca.Sign(csr, identity.Server(s.ca.TrustDomain()), time.Now(), options)
}

// openSigner loads or makes the Ed25519 key that signs checkpoints and statements; its public half stands beside it.
func openSigner(base, trustDomain string) (*evidence.Signer, error) {
	signer, err := evidence.LoadSigner(base + ".key")
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return signer, err
	}
	private, public, err := evidence.NewKey(trustDomain + "/livefire")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(base+".key", []byte(private+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("save evidence key: %w", err)
	}
	if err := os.WriteFile(base+".pub", []byte(public+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("save evidence key: %w", err)
	}
	return evidence.LoadSigner(base + ".key")
}

func (s *server) openState(ctx context.Context) error {
	cfg := store.Config{Endpoints: s.cfg.Etcd, Logger: s.cfg.Logger}
	if len(s.cfg.Etcd) == 0 {
		cfg.Dir = filepath.Join(s.cfg.DataDir, "etcd")
	}
	var err error
	if s.store, err = store.Open(ctx, cfg); err != nil {
		return err
	}
	s.ledger, err = ledger.Open(ctx, ledger.Config{Store: s.store, Fence: s.fence, Signer: s.signer, Origin: s.signer.Name(), Logger: s.cfg.Logger})
	if err != nil {
		return errors.Join(err, s.store.Close())
	}
	return nil
}

// fence is that of the last term, so that a write which comes after its end is refused by the store. Before the first term
// nothing is written.
func (s *server) fence() store.Fence {
	if f := s.last.Load(); f != nil {
		return *f
	}
	return store.Fence{}
}

func (s *server) listen(ctx context.Context) (apiListener, xdsListener net.Listener, err error) {
	var lc net.ListenConfig
	if apiListener, err = lc.Listen(ctx, "tcp", s.cfg.Listen); err != nil {
		return nil, nil, api.Errorf(api.Unavailable, s.cfg.Listen, "API: %v", err).WithHint("--listen HOST:PORT")
	}
	if xdsListener, err = lc.Listen(ctx, "tcp", s.cfg.ListenXDS); err != nil {
		_ = apiListener.Close() // the error to report is the other one
		return nil, nil, api.Errorf(api.Unavailable, s.cfg.ListenXDS, "xDS: %v", err).WithHint("--listen-xds HOST:PORT")
	}
	s.addresses = Addresses{API: "https://" + s.reachable(apiListener), XDS: s.reachable(xdsListener)}
	return apiListener, xdsListener, nil
}

// reachable is the address that others use for a listener.
func (s *server) reachable(l net.Listener) string {
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil || s.cfg.Advertise == "" {
		return net.JoinHostPort(host, port)
	}
	return net.JoinHostPort(s.cfg.Advertise, port)
}

// serve runs everything until ctx ends, then drains.
func (s *server) serve(ctx context.Context, apiListener, xdsListener net.Listener) error {
	people := identity.OptionalTLS(s.source, nil, "http/1.1")
	nodes := identity.ServerTLS(s.source, identity.HasRole(identity.RoleService, identity.RoleAgent), "h2")
	httpServer := &http.Server{
		Handler: s.api, TLSConfig: people, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		// Streams end with the server, not with the patience of their readers.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	grpcServer := grpc.NewServer(append(xdsserver.ServerOptions(), grpc.Creds(credentials.NewTLS(nodes)))...)
	s.xds.Register(grpcServer)

	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return ignoreClosed(httpServer.ServeTLS(identity.Listener(apiListener), "", "")) })
	group.Go(func() error { return grpcServer.Serve(identity.Listener(xdsListener)) })
	group.Go(func() error { return s.rotate(ctx) })
	group.Go(func() error { return s.lead(ctx) })
	group.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		err := httpServer.Shutdown(grace)
		if err != nil {
			err = httpServer.Close()
		}
		grpcServer.Stop()
		return err
	})
	if s.cfg.Ready != nil {
		s.cfg.Ready(s.addresses)
	}
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// rotate renews the server's own certificate at half life.
func (s *server) rotate(ctx context.Context) error {
	return s.source.Rotate(ctx, s.cfg.Logger, filepath.Join(s.cfg.DataDir, "svid"), func(_ context.Context, csr []byte) (chain, roots []byte, err error) {
		chain, err = s.signOwn(csr)
		return chain, s.ca.Roots(), err
	})
}

// lead runs a loop for each term of this server.
func (s *server) lead(ctx context.Context) error {
	id, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name this server: %w", err)
	}
	return s.store.Lead(ctx, "server", id, leaderTTL, func(ctx context.Context, fence store.Fence) error {
		loop := reconcile.New(reconcile.Config{
			Store: s.store, Ledger: s.ledger, Signer: s.signer, XDS: s.xds, Fence: fence, TrustDomain: s.cfg.TrustDomain,
			Dir: s.cfg.DataDir, Software: s.cfg.Version, Clock: s.clock, Change: s.change, Logger: s.cfg.Logger,
		})
		s.last.Store(&fence)
		s.term.Store(&term{loop: loop})
		defer s.term.Store(nil)
		if err := s.ensureAdmin(ctx); err != nil {
			return err
		}
		err := loop.Run(ctx)
		if ctx.Err() == nil {
			s.cfg.Logger.Error("term ended", "err", err)
		}
		return err
	})
}
