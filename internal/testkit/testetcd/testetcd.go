// Package testetcd gives a test a real etcd: in this process, or on loopback behind links that the test can cut.
//
// Open is all that most tests need: a store in a directory of the test's own. Start runs an etcd with a listener, for tests
// about two stores on one etcd; each Link to it can hold back what passes, or break.
//
// Errors: whatever fails in setting up ends the test.
// Concurrency: Server and Link are safe from any goroutine; everything ends with the test.
package testetcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/livefire-mesh/livefire/internal/server/store"
)

// startLimit bounds the start of an etcd, also on a busy machine.
const startLimit = time.Minute

// Open is a store of its own for the test, embedded in a temporary directory; with endpoints, one that is connected to them.
func Open(t testing.TB, endpoints ...string) *store.Store {
	t.Helper()
	return OpenConfig(t, store.Config{Endpoints: endpoints})
}

// OpenConfig is Open with more said. It fills in the logger, and a directory when there are no endpoints.
func OpenConfig(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Dir == "" && len(cfg.Endpoints) == 0 {
		cfg.Dir = filepath.Join(t.TempDir(), "store")
	}
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	s, err := store.Open(ctx, cfg)
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return s
}

// Server is an etcd with a listener on loopback.
type Server struct {
	// Set once.
	dir    string
	scheme string

	mu    sync.Mutex
	etcd  *embed.Etcd // guarded by mu; nil while crashed
	links []*Link     // guarded by mu
}

// Start starts an etcd that ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	return start(t, "http")
}

// StartTLS is Start with TLS, and what a client needs to accept the server.
func StartTLS(t testing.TB) (*Server, *tls.Config) {
	t.Helper()
	s := start(t, "https")
	// Where etcd keeps the certificate that it makes for itself.
	b, err := os.ReadFile(filepath.Join(s.dir, "fixtures", "client", "cert.pem"))
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(b) {
		t.Fatalf("the certificate of etcd: %v", err)
	}
	return s, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
}

func start(t testing.TB, scheme string) *Server {
	t.Helper()
	s := &Server{dir: filepath.Join(t.TempDir(), "etcd"), scheme: scheme}
	s.Restart(t)
	t.Cleanup(s.Crash)
	return s
}

// Restart starts it again on the data that it had when it crashed, at another address; links follow.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = s.dir
	cfg.ListenClientUrls = []url.URL{{Scheme: s.scheme, Host: "127.0.0.1:0"}}
	cfg.ClientAutoTLS = s.scheme == "https"
	cfg.ListenPeerUrls = nil
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatalf("start etcd: %v", err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		t.Fatalf("etcd stopped while starting: %v", err)
	case <-time.After(startLimit):
		t.Fatalf("etcd was not ready within %v", startLimit)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.etcd = e
}

// Crash stops it without any farewell. It keeps its data.
func (s *Server) Crash() {
	s.mu.Lock()
	e, links := s.etcd, s.links
	s.etcd = nil
	s.mu.Unlock()
	if e == nil {
		return
	}
	e.Server.HardStop()
	for _, l := range links {
		l.drop() // else Close would wait seconds for their streams
	}
	e.Close()
}

// Endpoint is its present address, "" while crashed.
func (s *Server) Endpoint() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.etcd == nil {
		return ""
	}
	return s.etcd.Clients[0].Addr().String()
}
