package identity

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

const (
	// Backdate is how long before the signing a certificate begins, for nodes whose clocks are behind.
	Backdate = time.Minute
	// DefaultTTL is the life of a certificate.
	DefaultTTL = 24 * time.Hour

	rootLife = 10 * 365 * 24 * time.Hour

	rootFile    = "ca.pem"
	rootKeyFile = "ca-key.pem"
)

// CA signs the certificates of one trust domain. Only a server has one.
type CA struct {
	trustDomain string
	key         *ecdsa.PrivateKey
	root        *x509.Certificate
}

// SignOptions say more about one certificate. The zero value is the default.
type SignOptions struct {
	TTL         time.Duration // zero: DefaultTTL; never beyond the root's end
	DNSNames    []string      // only for RoleServer: names by which ordinary HTTPS clients call it
	IPAddresses []net.IP      // only for RoleServer
}

// OpenCA loads the authority of a directory, or makes it there when there is none. Invalid: it is of another trust domain,
// damaged, or its key is open to other users.
func OpenCA(dir, trustDomain string, now time.Time) (*CA, error) {
	if _, err := ParseTrustDomain(trustDomain); err != nil {
		return nil, err
	}
	ca, err := LoadCA(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return createCA(dir, trustDomain, now)
	case err != nil:
		return nil, err
	case ca.trustDomain != trustDomain:
		return nil, api.Errorf(api.Invalid, dir, "holds the authority of trust domain %s, not %s", ca.trustDomain, trustDomain).
			WithHint("name that trust domain, or another data directory")
	}
	return ca, nil
}

// LoadCA loads the authority of a directory. fs.ErrNotExist: there is none.
func LoadCA(dir string) (*CA, error) {
	rootPEM, err := os.ReadFile(filepath.Join(dir, rootFile))
	if err != nil {
		return nil, fmt.Errorf("read the authority: %w", err)
	}
	keyPEM, err := readSecret(filepath.Join(dir, rootKeyFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, api.Errorf(api.Invalid, dir, "holds the certificate of an authority without its key").
			WithHint("restore %s from the backup", rootKeyFile)
	}
	if err != nil {
		return nil, err
	}
	roots, err := parseCertificates(rootPEM)
	if err != nil || len(roots) != 1 || !roots[0].IsCA || len(roots[0].URIs) != 1 {
		return nil, api.Errorf(api.Invalid, filepath.Join(dir, rootFile), "is not the certificate of one authority")
	}
	key, err := parseKey(keyPEM)
	if err != nil || !key.PublicKey.Equal(roots[0].PublicKey) {
		return nil, api.Errorf(api.Invalid, filepath.Join(dir, rootKeyFile), "is not the key of %s", rootFile)
	}
	return &CA{trustDomain: roots[0].URIs[0].Host, key: key, root: roots[0]}, nil
}

// createCA writes the key first: the certificate says that the authority exists.
func createCA(dir, trustDomain string, now time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the authority's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"livefire"}, CommonName: trustDomain},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(rootLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the authority: %w", err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read back the authority: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the authority: %w", err)
	}
	if err := writeSecret(filepath.Join(dir, rootKeyFile), keyPEM); err != nil {
		return nil, err
	}
	if err := writeSecret(filepath.Join(dir, rootFile), encodeCertificates(root)); err != nil {
		return nil, err
	}
	return &CA{trustDomain: trustDomain, key: key, root: root}, nil
}

// TrustDomain is the domain that it signs for.
func (ca *CA) TrustDomain() string { return ca.trustDomain }

// Roots is what its peers must trust, as PEM.
func (ca *CA) Roots() []byte { return encodeCertificates(ca.root) }

// Fingerprint is the SHA-256 of the root certificate, in hex, as join tokens carry it.
func (ca *CA) Fingerprint() string { return fingerprint(ca.root) }

// Sign makes the certificate of an identity for the public key of a certificate request (DER) and returns the chain as PEM,
// leaf first. Nothing else of the request is used; its signature proves that the sender has the key. The caller has decided
// that the sender may be id. A server's chain ends with the root. Invalid: the request or the options.
func (ca *CA) Sign(csr []byte, id ID, now time.Time, o SignOptions) ([]byte, error) {
	pub, err := publicKeyOf(csr, id.Role)
	if err != nil {
		return nil, err
	}
	template, err := ca.template(id, now, o)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.root, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", id, err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
	if id.Role == RoleServer {
		chain = append(chain, ca.Roots()...)
	}
	return chain, nil
}

func (ca *CA) template(id ID, now time.Time, o SignOptions) (*x509.Certificate, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if id.TrustDomain != ca.trustDomain {
		return nil, api.Errorf(api.Invalid, id.String(), "is not of the trust domain %s", ca.trustDomain)
	}
	if id.Role != RoleServer && len(o.DNSNames)+len(o.IPAddresses) > 0 {
		return nil, api.Errorf(api.Invalid, id.String(), "only a server's certificate has names and addresses")
	}
	ttl := o.TTL
	if ttl == 0 {
		ttl = DefaultTTL
	}
	end := now.Add(ttl)
	if end.After(ca.root.NotAfter) {
		end = ca.root.NotAfter
	}
	if ttl < time.Second || !end.After(now) {
		return nil, api.Errorf(api.Invalid, id.String(), "a certificate from now until %s would be of no use", end.UTC().Format(time.RFC3339))
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber:          serial,
		NotBefore:             now.Add(-Backdate),
		NotAfter:              end,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:                  []*url.URL{id.url()},
		DNSNames:              o.DNSNames,
		IPAddresses:           o.IPAddresses,
	}, nil
}

// publicKeyOf is the key that the request proves: ECDSA P-256, which every TLS stack has, and of a person Ed25519, which
// signs approvals too.
func publicKeyOf(der []byte, role Role) (crypto.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "certificate request", "cannot be read: %v", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, api.Errorf(api.Invalid, "certificate request", "does not prove that its sender has the key: %v", err)
	}
	if pub, ok := csr.PublicKey.(ed25519.PublicKey); ok && role == RoleUser {
		return pub, nil
	}
	pub, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, api.Errorf(api.Invalid, "certificate request", "its key is not ECDSA P-256")
	}
	return pub, nil
}

// newSerial is positive and of 127 random bits: at most 20 octets (RFC 5280), never guessed, never twice.
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return n.Add(n, big.NewInt(1)), nil
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func encodeCertificates(certs ...*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: pemCertificate, Bytes: c.Raw}) // a buffer does not fail
	}
	return b.Bytes()
}
