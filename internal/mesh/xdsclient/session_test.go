package xdsclient

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

func TestConfigurationIsChecked(t *testing.T) {
	node := xds.NodeMessage(testNode, testCaps)
	take := (&sink{}).take
	for name, cfg := range map[string]Config{
		"no server":              {Node: node, Table: take},
		"no node":                {Servers: []string{"a"}, Table: take},
		"no callback":            {Servers: []string{"a"}, Node: node},
		"orders without a taker": {Servers: []string{"a"}, Node: node, Table: take, Types: xds.OrderTypes()},
		"tables without a taker": {Servers: []string{"a"}, Node: node, Order: (&journal{}).take, Types: []string{xds.TypeCluster}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: New = nil, want an error", name)
		}
	}
}

func TestBackOffIsBetween50msAnd1s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{t: t}
		run(t, h, Config{Table: (&sink{}).take})
		time.Sleep(time.Minute)
		synctest.Wait()
		h.mu.Lock()
		defer h.mu.Unlock()
		if n := len(h.dials); n < 60 || n > 130 {
			t.Errorf("attempts in a minute = %d, want 60 to 130", n)
		}
		for i := 1; i < len(h.dials); i++ {
			gap := h.dials[i].Sub(h.dials[i-1])
			if least := 100 * time.Millisecond; gap < least || gap > time.Second {
				t.Errorf("attempt %d came after %v, want 100ms to 1s", i, gap)
			}
		}
	})
}

func TestServersAreTriedInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, out := &host{t: t}, &sink{}
		two := &fake{streams: make(chan *fakeStream, 10)}
		h.start("two", two)
		one := &fake{streams: make(chan *fakeStream, 10)}
		stop := h.start("one", one)
		c := run(t, h, Config{Table: out.take, Servers: []string{"one", "two"}})
		s := <-one.streams
		s.t = t
		r := render(t, testTable(1, "a"))
		s.table(r, nil)
		synctest.Wait()
		start := time.Now()
		stop()
		s = <-two.streams
		s.t = t
		if waited := time.Since(start); waited > 100*time.Millisecond {
			t.Errorf("second server after %v, want at once", waited)
		}
		synctest.Wait()
		if !c.Connected() {
			t.Error("Connected = false")
		}
		s.table(render(t, testTable(2, "a")), r)
		synctest.Wait()
		equal(t, "epochs", out.epochs(), []route.Epoch{1, 2})
	})
}

func TestStoppedServerIsLeftWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{t: t}
		f := &fake{streams: make(chan *fakeStream, 10)}
		h.start("one", f)
		c := run(t, h, Config{Table: (&sink{}).take})
		<-f.streams
		time.Sleep(time.Minute)
		synctest.Wait()
		h.mu.Lock()
		if n := len(h.dials); n != 1 || !c.Connected() {
			t.Fatalf("dials in an idle minute = %d, connected = %v; want 1, true", n, c.Connected())
		}
		conn := h.conns[0]
		h.mu.Unlock()
		close(conn.frozen)
		start := time.Now()
		<-f.streams
		if waited := time.Since(start); waited > 1250*time.Millisecond {
			t.Errorf("new stream after %v, want within 1s and the first back-off", waited)
		}
	})
}

func TestConnectionsAreMutualTLS(t *testing.T) {
	authority, key := issue(t, nil, nil, true)
	leaf := func() tls.Certificate {
		cert, leafKey := issue(t, authority, key, false)
		return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: leafKey}
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan int, 10)
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{leaf()}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
	})))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, &fake{serve: func(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
		p, _ := peer.FromContext(s.Context())
		seen <- len(p.AuthInfo.(credentials.TLSInfo).State.VerifiedChains)
		return errors.New("come again")
	}})
	go func() { _ = g.Serve(l) }() // ends with Stop
	t.Cleanup(g.Stop)
	var asked atomic.Int32
	mine := leaf()
	c, err := New(Config{
		Servers: []string{l.Addr().String()}, Node: xds.NodeMessage(testNode, testCaps), Table: (&sink{}).take,
		TLS: func() *tls.Config {
			asked.Add(1)
			return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{mine}, RootCAs: roots}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for range 2 {
		select {
		case chains := <-seen:
			if chains != 1 {
				t.Errorf("verified chains of the client = %d, want 1", chains)
			}
		case <-ctx.Done():
			t.Fatal("no connection")
		}
	}
	cancel()
	<-done
	if asked.Load() < 2 {
		t.Errorf("TLS was asked for %d times, want once for each connection", asked.Load())
	}
}

// issue makes a root, or a leaf for 127.0.0.1.
func issue(t *testing.T, parent *x509.Certificate, by *ecdsa.PrivateKey, root bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: root, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if root {
		parent, by, tmpl.KeyUsage = tmpl, key, x509.KeyUsageCertSign
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}
