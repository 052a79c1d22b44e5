//go:build e2e

package e2e

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/examples"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/mesh/freeport"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const demoDomain = "demo.livefire"

// bare is a server with the demo's resources and nothing else: no agents, no workloads.
type bare struct {
	*rig
	home  string
	admin *client.Client
	ca    *identity.CA
}

// port finds a free port; it is held until the next process is started.
func (r *rig) port() string {
	r.t.Helper()
	p, err := freeport.Reserve(r.mark)
	if err != nil {
		r.t.Fatal(err)
	}
	r.reserved = append(r.reserved, p)
	r.ports = append(r.ports, p.Address)
	return p.Address
}

func (r *rig) server() *bare {
	t := r.t
	t.Helper()
	b := &bare{rig: r, home: filepath.Join(r.dir, "server")}
	r.start("server", built.livefire, "server", "--data-dir", b.home, "--listen", r.port(), "--listen-xds", r.port(), "--trust-domain", demoDomain)
	r.await(30*time.Second, "the server", func() bool {
		if b.admin == nil {
			b.admin, _ = client.Load(filepath.Join(b.home, "context.yaml")) // not written yet
		}
		if b.admin == nil {
			return false
		}
		_, err := b.admin.Status(r.ctx(time.Second))
		return err == nil
	})
	t.Cleanup(b.admin.Close)
	docs, err := api.DecodeFS(examples.FS, examples.DemoResources()...)
	if err != nil {
		t.Fatal(err)
	}
	var objects []api.Object
	for _, d := range docs {
		objects = append(objects, d.Object)
	}
	if _, err := b.admin.ApplyObjects(r.ctx(10*time.Second), objects, false); err != nil {
		t.Fatalf("apply the demo's resources: %v", err)
	}
	if b.ca, err = identity.LoadCA(filepath.Join(b.home, "ca")); err != nil {
		t.Fatal(err)
	}
	return b
}

// token makes a join token and writes it to a file.
func tokenFile(r *rig, admin *client.Client, req nodeapi.TokenRequest) string {
	r.t.Helper()
	resp, err := admin.Token(r.ctx(10*time.Second), req)
	if err != nil {
		r.t.Fatalf("token: %v", err)
	}
	path := filepath.Join(r.dir, "token-"+rand.Text()[:8])
	if err := os.WriteFile(path, []byte(resp.Token), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// person makes an account with a key of its own.
func (b *bare) person(name, role, group string) *client.Client {
	b.t.Helper()
	created, err := b.admin.AddUser(b.ctx(10*time.Second), userapi.User{Name: name, Role: role, Group: group})
	if err != nil {
		b.t.Fatalf("add user %s: %v", name, err)
	}
	c, err := client.Enrol(b.ctx(10*time.Second), created.Code)
	if err != nil {
		b.t.Fatalf("enrol %s: %v", name, err)
	}
	if err := client.Save(b.contextOf(name), c); err != nil {
		b.t.Fatal(err)
	}
	out, err := client.New(c)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(out.Close)
	return out
}

func (b *bare) contextOf(name string) string { return filepath.Join(b.dir, name+".yaml") }

// certificate has an authority sign a new key, for an identity and a time.
func certificate(t *testing.T, ca *identity.CA, id identity.ID, now time.Time, ttl time.Duration) tls.Certificate {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := key.CSR()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Sign(csr, id, now, identity.SignOptions{TTL: ttl})
	if err != nil {
		t.Fatalf("sign for %s: %v", id, err)
	}
	svid, err := identity.NewSVID(key, chain, ca.Roots())
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err := svid.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(svid.ChainPEM(), keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func anyServer(certs ...tls.Certificate) *tls.Config {
	// The refusals are the server's; what the client thinks of it is not under test.
	return &tls.Config{InsecureSkipVerify: true, Certificates: slices.Clone(certs),
		VerifyPeerCertificate: func([][]byte, [][]*x509.Certificate) error { return nil }}
}

// application answers 200 and counts every byte that it receives.
type application struct {
	listener net.Listener
	received atomic.Int64
}

func newApplication(t *testing.T) *application {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &application{listener: l}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed: the test is over
			}
			go a.serve(c)
		}
	}()
	return a
}

func (a *application) serve(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		a.received.Add(int64(n))
		if err != nil {
			return
		}
		if _, err := c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")); err != nil {
			return
		}
	}
}
