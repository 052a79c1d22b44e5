package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"testing"
	"time"
)

const (
	domain = "mesh.test"
	// limit bounds every wait of these tests; none of them depends on how long it is.
	limit = time.Minute
)

var (
	payments = Service(domain, "eu-west", "payments")
	orders   = Service(domain, "eu-west", "orders")
)

func newCA(t testing.TB, trustDomain string, now time.Time) *CA {
	t.Helper()
	ca, err := OpenCA(t.TempDir(), trustDomain, now)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newKey(t testing.TB) (Key, []byte) {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := key.CSR()
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

func issueAt(t testing.TB, ca *CA, id ID, now time.Time, ttl time.Duration) *SVID {
	t.Helper()
	key, csr := newKey(t)
	chain, err := ca.Sign(csr, id, now, SignOptions{TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewSVID(key, chain, ca.Roots())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func issue(t testing.TB, ca *CA, id ID) *SVID {
	t.Helper()
	return issueAt(t, ca, id, time.Now(), time.Hour)
}

// odd is a certificate that Sign never makes: signed by ca, for the URIs.
func odd(t *testing.T, ca *CA, uris ...string) *tls.Certificate {
	t.Helper()
	key, _ := newKey(t)
	serial, err := newSerial()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	return sign(t, template, ca.root, key.private, ca.key)
}

func sign(t *testing.T, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *tls.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// handshake connects two configurations and returns what each side says, and what the server learned. The client reads once:
// with TLS 1.3 it hears of a refusal only then.
func handshake(t *testing.T, client, server *tls.Config) (cs tls.ConnectionState, clientErr, serverErr error) {
	t.Helper()
	a, b := connected(t)
	defer a.Close()
	for _, c := range []net.Conn{a, b} {
		if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer b.Close()
		conn := tls.Server(b, server)
		if serverErr = conn.Handshake(); serverErr != nil {
			return
		}
		cs = conn.ConnectionState()
		_, serverErr = conn.Write([]byte{1})
	}()
	conn := tls.Client(a, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		_, clientErr = conn.Read(make([]byte, 1))
	}
	_ = a.Close() // ends a server that still waits
	<-done
	return cs, clientErr, serverErr
}

// connected is a connection over loopback. Not a net.Pipe: that has no buffer, and a refusal, which one side writes while the
// other still writes its own part of the handshake, would stop both.
func connected(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

func parsed(t *testing.T, v *SVID) []*x509.Certificate {
	t.Helper()
	certs, err := parseCertificates(v.ChainPEM())
	if err != nil {
		t.Fatal(err)
	}
	return certs
}
