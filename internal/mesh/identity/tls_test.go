package identity

import (
	"crypto/tls"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// showing is a client or server that shows any certificate and checks nothing.
func showing(cert *tls.Certificate) *tls.Config {
	return &tls.Config{
		InsecureSkipVerify:   true, // the other side is under test
		ClientAuth:           tls.RequestClientCert,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil },
	}
}

// Each refusal beside a twin that differs in that one thing and is accepted.
func TestPeersAreRefusedWithAReason(t *testing.T) {
	now := time.Now()
	ca, stranger, foreign := newCA(t, domain, now.Add(-48*time.Hour)), newCA(t, domain, now), newCA(t, "other.test", now)
	of := func(v *SVID) *tls.Certificate { return &v.cert }
	any := func(ID) error { return nil }
	isOrders := Exactly(orders)
	for _, tt := range []struct {
		name   string
		cert   *tls.Certificate
		accept func(ID) error
		want   Reason // "" for accepted
	}{
		{"of our authority", of(issue(t, ca, orders)), any, ""},
		{"of another authority with our name", of(issue(t, stranger, orders)), any, UnknownAuthority},
		{"in force", of(issueAt(t, ca, orders, now.Add(-time.Hour), 2*time.Hour)), any, ""},
		{"ended", of(issueAt(t, ca, orders, now.Add(-time.Hour), time.Hour-time.Second)), any, Expired},
		{"begun within the back-dating", of(issueAt(t, ca, orders, now.Add(Backdate/2), time.Hour)), any, ""},
		{"not begun", of(issueAt(t, ca, orders, now.Add(2*Backdate), time.Hour)), any, Expired},
		{"of our trust domain", of(issue(t, ca, orders)), nil, ""},
		{"of another trust domain", of(issue(t, foreign, Service("other.test", "eu-west", "orders"))), nil, OtherTrustDomain},
		{"of another trust domain, signed by us", odd(t, ca, "spiffe://other.test/server"), nil, OtherTrustDomain},
		{"exactly the expected", of(issue(t, ca, orders)), isOrders, ""},
		{"another service", of(issue(t, ca, payments)), isOrders, WrongIdentity},
		{"another site", of(issue(t, ca, Service(domain, "us-east", "orders"))), isOrders, WrongIdentity},
		{"another role", of(issue(t, ca, Agent(domain, "eu-west"))), isOrders, WrongIdentity},
		{"one URI", odd(t, ca, orders.String()), isOrders, ""},
		{"no URI", odd(t, ca), any, NotSPIFFE},
		{"two URIs", odd(t, ca, orders.String(), payments.String()), any, NotSPIFFE},
		{"a URI of no role of ours", odd(t, ca, "spiffe://"+domain+"/cluster/x"), any, NotSPIFFE},
		{"a web address", odd(t, ca, "https://"+domain+"/server"), any, NotSPIFFE},
		{"the authority itself", &tls.Certificate{Certificate: [][]byte{ca.root.Raw}, PrivateKey: ca.key}, any, NotSPIFFE},
	} {
		t.Run(tt.name, func(t *testing.T) {
			self := NewSource(issue(t, ca, payments))
			cs, _, asServer := handshake(t, showing(tt.cert), ServerTLS(self, tt.accept))
			check(t, "the server", asServer, tt.want)
			if id, err := PeerID(cs); tt.want == "" && (err != nil || id != orders) {
				t.Errorf("PeerID = %s, %v, want %s", id, err, orders)
			}
			_, _, asServer = handshake(t, showing(tt.cert), OptionalTLS(self, tt.accept))
			check(t, "the server with optional certificates", asServer, tt.want)

			var expect []func(ID) error
			if tt.accept != nil {
				expect = append(expect, tt.accept)
			}
			_, asClient, _ := handshake(t, ClientTLS(self, expect...), showing(tt.cert))
			check(t, "the client", asClient, tt.want)
			bare, err := RootsTLS(domain, ca.Roots(), expect...)
			if err != nil {
				t.Fatal(err)
			}
			_, asClient, _ = handshake(t, bare, showing(tt.cert))
			check(t, "the client without a certificate", asClient, tt.want)
		})
	}
}

func check(t *testing.T, who string, err error, want Reason) {
	t.Helper()
	if got := ReasonOf(err); got != want || (err == nil) != (want == "") {
		t.Errorf("%s says %q (%v), want %q", who, got, err, want)
	}
}

func TestClientCertificateIsRequiredOrOptional(t *testing.T) {
	ca := newCA(t, domain, time.Now())
	self := NewSource(issue(t, ca, Server(domain)))
	bare, err := RootsTLS(domain, ca.Roots(), HasRole(RoleServer))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = handshake(t, bare, ServerTLS(self, nil))
	check(t, "the server", err, NoCertificate)
	cs, clientErr, err := handshake(t, bare, OptionalTLS(self, nil))
	if clientErr != nil || err != nil {
		t.Errorf("handshake without a certificate = %v, %v", clientErr, err)
	}
	if _, err := PeerID(cs); ReasonOf(err) != NoCertificate {
		t.Errorf("PeerID = %v, want %s", err, NoCertificate)
	}
}

func TestBothSidesProveThemselves(t *testing.T) {
	ca := newCA(t, domain, time.Now())
	client, server := NewSource(issue(t, ca, payments)), NewSource(issue(t, ca, orders))
	cs, clientErr, serverErr := handshake(t, ClientTLS(client, Exactly(orders)), ServerTLS(server, Exactly(payments)))
	if clientErr != nil || serverErr != nil {
		t.Fatalf("handshake = %v, %v", clientErr, serverErr)
	}
	if cs.Version != tls.VersionTLS13 {
		t.Errorf("version = %s, want TLS 1.3", tls.VersionName(cs.Version))
	}
	old := ClientTLS(client)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, clientErr, serverErr := handshake(t, old, ServerTLS(server, nil)); clientErr == nil || serverErr == nil {
		t.Errorf("TLS 1.2 handshake = %v, %v, want both refused", clientErr, serverErr)
	}
}

// The first contact of a joining node is authenticated by the hash in its token alone.
func TestFingerprintNamesTheServersAuthority(t *testing.T) {
	now := time.Now()
	ca, stranger := newCA(t, domain, now.Add(-time.Hour)), newCA(t, domain, now)
	server, impostor := issue(t, ca, Server(domain)), issue(t, stranger, Server(domain))
	borrowed := impostor.cert // an impostor may send the real root after its own leaf: it is public
	borrowed.Certificate = [][]byte{impostor.cert.Certificate[0], ca.root.Raw}
	service := issue(t, ca, orders).cert
	service.Certificate = append(service.Certificate[:1:1], ca.root.Raw)
	alone := server.cert
	alone.Certificate = alone.Certificate[:1]
	expired := issueAt(t, ca, Server(domain), now.Add(-time.Hour), time.Minute).cert
	for _, tt := range []struct {
		name string
		cert *tls.Certificate
		want Reason
	}{
		{"the server", &server.cert, ""},
		{"a server of another authority", &impostor.cert, UnknownAuthority},
		{"another authority's leaf with our root", &borrowed, UnknownAuthority},
		{"a service instead of a server", &service, WrongIdentity},
		{"a chain without the root", &alone, UnknownAuthority},
		{"an expired server", &expired, Expired},
	} {
		cfg, err := FingerprintTLS(ca.Fingerprint())
		if err != nil {
			t.Fatal(err)
		}
		_, clientErr, _ := handshake(t, cfg, showing(tt.cert))
		check(t, tt.name+": the client", clientErr, tt.want)
	}
	for _, bad := range []string{"", "00", strings.ToUpper(ca.Fingerprint()), ca.Fingerprint() + "00", strings.Repeat("x", 64)} {
		if _, err := FingerprintTLS(bad); api.KindOf(err) != api.Invalid {
			t.Errorf("FingerprintTLS(%q) = %v, want Invalid", bad, err)
		}
	}
}

func TestRefusalSaysWhoAndWhy(t *testing.T) {
	cause := errors.New("expected orders")
	err := error(&Refusal{WrongIdentity, payments.String(), cause})
	if want := "peer spiffe://mesh.test/site/eu-west/service/payments refused: wrong-identity: expected orders"; err.Error() != want {
		t.Errorf("Error() = %q, want %q", err, want)
	}
	if !errors.Is(err, cause) || ReasonOf(cause) != "" || ReasonOf(nil) != "" {
		t.Errorf("the chain of a refusal is broken")
	}
}
