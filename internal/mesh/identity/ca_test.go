package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

func TestOpenCAKeepsItsAuthority(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "ca"), time.Now()
	made, err := OpenCA(dir, domain, now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenCA(dir, domain, now.Add(time.Hour))
	if err != nil || again.Fingerprint() != made.Fingerprint() || !bytes.Equal(again.Roots(), made.Roots()) || again.TrustDomain() != domain {
		t.Errorf("OpenCA again = %v, %v, want the same authority", again, err)
	}
	if life := made.root.NotAfter.Sub(now); life < 3650*24*time.Hour-time.Second || life > 3650*24*time.Hour {
		t.Errorf("life of the root = %v, want 3650 days", life)
	}
	for _, name := range []string{rootFile, rootKeyFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s = %v, %v, want 0600", name, info.Mode(), err)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("the directory holds %v, %v, want the certificate and the key", entries, err)
	}
}

func TestOpenCARefusesADamagedAuthority(t *testing.T) {
	for _, tt := range []struct {
		name   string
		domain string
		damage func(dir string) error
	}{
		{"another trust domain", "other.test", func(string) error { return nil }},
		{"not a trust domain", "Mesh Test", func(string) error { return nil }},
		{"key open to others", domain, func(dir string) error { return os.Chmod(filepath.Join(dir, rootKeyFile), 0o640) }},
		{"key gone", domain, func(dir string) error { return os.Remove(filepath.Join(dir, rootKeyFile)) }},
		{"key of another", domain, func(dir string) error {
			b, err := encodeKey(newCA(t, domain, time.Now()).key)
			return errors.Join(err, os.WriteFile(filepath.Join(dir, rootKeyFile), b, 0o600))
		}},
		{"key cut off", domain, func(dir string) error { return os.Truncate(filepath.Join(dir, rootKeyFile), 40) }},
		{"certificate cut off", domain, func(dir string) error { return os.Truncate(filepath.Join(dir, rootFile), 40) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := OpenCA(dir, domain, time.Now()); err != nil {
				t.Fatal(err)
			}
			if err := tt.damage(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenCA(dir, tt.domain, time.Now()); api.KindOf(err) != api.Invalid {
				t.Errorf("OpenCA = %v, want Invalid", err)
			}
		})
	}
}

// The certificate is written last: a crash before it leaves no authority, and the next start makes one.
func TestCrashWhileMakingAnAuthorityIsHarmless(t *testing.T) {
	dir := t.TempDir()
	if _, err := OpenCA(dir, domain, time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, rootFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadCA(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("LoadCA = %v, want fs.ErrNotExist", err)
	}
	if _, err := OpenCA(dir, domain, time.Now()); err != nil {
		t.Errorf("OpenCA = %v", err)
	}
	if _, err := LoadCA(dir); err != nil {
		t.Errorf("LoadCA = %v", err)
	}
}

func TestSignUsesOnlyThePublicKeyOfTheRequest(t *testing.T) {
	now := time.Now()
	ca := newCA(t, domain, now)
	key, _ := newKey(t)
	greedy := &x509.CertificateRequest{
		Subject:     pkix.Name{CommonName: "root", Organization: []string{"admins"}},
		DNSNames:    []string{"bank.example"},
		IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)},
		URIs:        []*url.URL{Server(domain).url()},
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, greedy, key.private)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Sign(csr, payments, now, SignOptions{})
	if err != nil {
		t.Fatal(err)
	}
	certs, err := parseCertificates(chain)
	if err != nil || len(certs) != 1 {
		t.Fatalf("chain = %d certificates, %v, want the leaf alone", len(certs), err)
	}
	leaf := certs[0]
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != payments.String() {
		t.Errorf("URIs = %v, want %s", leaf.URIs, payments)
	}
	if len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.Subject.Names) > 0 || leaf.IsCA {
		t.Errorf("names %v, addresses %v, subject %v, authority %t: want none of what was asked for", leaf.DNSNames, leaf.IPAddresses, leaf.Subject, leaf.IsCA)
	}
	if !key.private.PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("the certificate is for another key")
	}
	if begin, end := now.Add(-Backdate).Truncate(time.Second), now.Add(DefaultTTL).Truncate(time.Second); !leaf.NotBefore.Equal(begin) || !leaf.NotAfter.Equal(end) {
		t.Errorf("valid from %v until %v, want %v until %v", leaf.NotBefore, leaf.NotAfter, begin, end)
	}
	second, err := ca.Sign(csr, payments, now, SignOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if other, err := parseCertificates(second); err != nil || other[0].SerialNumber.Cmp(leaf.SerialNumber) == 0 {
		t.Errorf("two certificates have the serial number %v, %v", leaf.SerialNumber, err)
	}
	if leaf.SerialNumber.Sign() <= 0 || leaf.SerialNumber.BitLen() < 64 || leaf.SerialNumber.BitLen() > 159 {
		t.Errorf("serial number %v, want a long positive one of at most 20 octets", leaf.SerialNumber)
	}
}

func TestServersCertificateHasNamesAndTheRoot(t *testing.T) {
	now := time.Now()
	ca := newCA(t, domain, now)
	_, csr := newKey(t)
	o := SignOptions{DNSNames: []string{"livefire.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	chain, err := ca.Sign(csr, Server(domain), now, o)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := parseCertificates(chain)
	if err != nil || len(certs) != 2 || fingerprint(certs[1]) != ca.Fingerprint() {
		t.Fatalf("chain = %d certificates, %v, want the leaf and the root", len(certs), err)
	}
	// An ordinary HTTPS client, which looks at names, accepts it too.
	roots := x509.NewCertPool()
	roots.AddCert(certs[1])
	for _, name := range []string{"livefire.example", "127.0.0.1"} {
		if _, err := certs[0].Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("Verify(%s) = %v", name, err)
		}
	}
	if _, err := ca.Sign(csr, payments, now, o); api.KindOf(err) != api.Invalid {
		t.Errorf("Sign of a service with names = %v, want Invalid", err)
	}
}

func TestSignRefuses(t *testing.T) {
	now := time.Now()
	ca := newCA(t, domain, now)
	_, good := newKey(t)
	tampered := slices.Clone(good)
	tampered[len(tampered)-1] ^= 1
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request := func(k crypto.Signer) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for _, tt := range []struct {
		name string
		csr  []byte
		id   ID
		now  time.Time
		ttl  time.Duration
		ok   bool
	}{
		{"a good request", good, payments, now, time.Hour, true},
		{"without proof of the key", tampered, payments, now, time.Hour, false},
		{"a P-384 key", request(p384), payments, now, time.Hour, false},
		{"an Ed25519 key", request(ed), payments, now, time.Hour, false},
		{"garbage", []byte("csr"), payments, now, time.Hour, false},
		{"nobody", good, ID{}, now, time.Hour, false},
		{"another trust domain", good, Server("other.test"), now, time.Hour, false},
		{"a site that is no name", good, Agent(domain, "EU"), now, time.Hour, false},
		{"a negative life", good, payments, now, -time.Hour, false},
		{"less than a second", good, payments, now, time.Millisecond, false},
		{"after the root's end", good, payments, now.Add(rootLife), time.Hour, false},
	} {
		_, err := ca.Sign(tt.csr, tt.id, tt.now, SignOptions{TTL: tt.ttl})
		if (err == nil) != tt.ok || !tt.ok && api.KindOf(err) != api.Invalid {
			t.Errorf("%s: Sign = %v, want signed: %t", tt.name, err, tt.ok)
		}
	}
	late := issueAt(t, ca, payments, now.Add(rootLife-time.Hour), 24*time.Hour)
	if !late.NotAfter().Equal(ca.root.NotAfter) {
		t.Errorf("a certificate ends at %v, after its root at %v", late.NotAfter(), ca.root.NotAfter)
	}
}
