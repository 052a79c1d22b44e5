package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

const (
	svidFile  = "svid.pem"  // the key and the chain in one file: they change together
	rootsFile = "roots.pem" // what peers are checked against
)

// Key is a private key made on this node. It never leaves it.
type Key struct{ private *ecdsa.PrivateKey }

// NewKey makes a P-256 key.
func NewKey() (Key, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("make a key: %w", err)
	}
	return Key{k}, nil
}

// CSR is a certificate request (DER): the public key, and the proof that its sender has the private one.
func (k Key) CSR() ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k.private)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return der, nil
}

// SVID is a key with its certificate, and the roots to check peers against. Nobody changes it.
type SVID struct {
	id       ID
	cert     tls.Certificate
	key      Key
	chainPEM []byte
	roots    *x509.CertPool
	rootsPEM []byte
}

// NewSVID joins a key, its certificate chain (PEM, leaf first) and the roots of the trust domain (PEM).
// Invalid: they do not belong together.
func NewSVID(key Key, chainPEM, rootsPEM []byte) (*SVID, error) {
	chain, err := parseCertificates(chainPEM)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "certificate", "%v", err)
	}
	roots, err := parseCertificates(rootsPEM)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "roots", "%v", err)
	}
	leaf := chain[0]
	id, err := idOf(leaf)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "certificate", "%v", err)
	}
	if !key.private.PublicKey.Equal(leaf.PublicKey) {
		return nil, api.Errorf(api.Invalid, id.String(), "the certificate is not for this key")
	}
	v := &SVID{id: id, key: key, chainPEM: encodeCertificates(chain...), roots: x509.NewCertPool(), rootsPEM: encodeCertificates(roots...)}
	for _, r := range roots {
		v.roots.AddCert(r)
	}
	// At its own beginning, not now: one that has expired is still read, so that its owner can say so.
	if err := verifyChain(chain, v.roots, leaf.NotBefore); err != nil {
		return nil, api.Errorf(api.Invalid, id.String(), "the roots do not vouch for the certificate: %v", err)
	}
	v.cert = tls.Certificate{PrivateKey: key.private, Leaf: leaf}
	for _, c := range chain {
		v.cert.Certificate = append(v.cert.Certificate, c.Raw)
	}
	return v, nil
}

// ID is who the certificate says that we are.
func (v *SVID) ID() ID { return v.id }

// NotAfter is the certificate's end.
func (v *SVID) NotAfter() time.Time { return v.cert.Leaf.NotAfter }

// RenewAt is the middle of the certificate's life, counted from its signing.
func (v *SVID) RenewAt() time.Time {
	signed := v.cert.Leaf.NotBefore.Add(Backdate)
	return signed.Add(v.NotAfter().Sub(signed) / 2)
}

// ChainPEM is the certificate chain, leaf first; RootsPEM the roots; KeyPEM the private key. For a data plane on this node
// that reads them from a socket or file of ours.
func (v *SVID) ChainPEM() []byte        { return v.chainPEM }
func (v *SVID) RootsPEM() []byte        { return v.rootsPEM }
func (v *SVID) KeyPEM() ([]byte, error) { return encodeKey(v.key.private) }

// Save writes v to a directory, which is made with mode 0700, in files of mode 0600. A crash leaves the old SVID or the new one.
func (v *SVID) Save(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of the identity: %w", err)
	}
	keyPEM, err := v.KeyPEM()
	if err != nil {
		return err
	}
	// Roots first: the new ones vouch for the old certificate too, but not the other way round.
	if err := writeSecret(filepath.Join(dir, rootsFile), v.rootsPEM); err != nil {
		return err
	}
	return writeSecret(filepath.Join(dir, svidFile), append(keyPEM, v.chainPEM...))
}

// LoadSVID reads what Save wrote. fs.ErrNotExist: this node has not joined yet. It may have expired: see NotAfter.
func LoadSVID(dir string) (*SVID, error) {
	own, err := readSecret(filepath.Join(dir, svidFile))
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(filepath.Join(dir, rootsFile))
	if err != nil {
		return nil, fmt.Errorf("read the roots: %w", err)
	}
	key, err := parseKey(own)
	if err != nil {
		return nil, api.Errorf(api.Invalid, filepath.Join(dir, svidFile), "%v", err).WithHint("join again with a new token")
	}
	return NewSVID(Key{key}, own, roots)
}
