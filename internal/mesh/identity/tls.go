package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// Exactly accepts one identity.
func Exactly(want ID) func(ID) error {
	return func(got ID) error {
		if got != want {
			return fmt.Errorf("expected %s", want)
		}
		return nil
	}
}

// HasRole accepts every identity of the trust domain with one of these roles.
func HasRole(roles ...Role) func(ID) error {
	return func(got ID) error {
		for _, r := range roles {
			if got.Role == r {
				return nil
			}
		}
		return fmt.Errorf("expected a role of %v", roles)
	}
}

// ClientTLS shows our certificate, and accepts a server whose chain leads to our roots and whose id passes every expectation.
// Without an expectation it accepts any identity of the trust domain. The caller sets NextProtos on it if it needs them.
func ClientTLS(src *Source, expect ...func(ID) error) *tls.Config {
	cfg := clientConfig(func(cs tls.ConnectionState) error {
		v := src.Current()
		return verifyPeer(cs.PeerCertificates, v.id.TrustDomain, v.roots, time.Now(), all(expect))
	})
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &src.Current().cert, nil }
	return cfg
}

// RootsTLS is ClientTLS for a caller without a certificate, who shows a bearer token instead.
func RootsTLS(trustDomain string, rootsPEM []byte, expect ...func(ID) error) (*tls.Config, error) {
	roots, err := parseCertificates(rootsPEM)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "roots", "%v", err)
	}
	pool := x509.NewCertPool()
	for _, r := range roots {
		pool.AddCert(r)
	}
	return clientConfig(func(cs tls.ConnectionState) error {
		return verifyPeer(cs.PeerCertificates, trustDomain, pool, time.Now(), all(expect))
	}), nil
}

// FingerprintTLS is for a node that has nothing but a join token: it accepts a server of the mesh whose chain holds the root
// with this SHA-256 (CA.Fingerprint). So the first contact is authenticated too. Invalid: not the hex of a SHA-256.
func FingerprintTLS(sha256Hex string) (*tls.Config, error) {
	if b, err := hex.DecodeString(sha256Hex); err != nil || len(b) != 32 || hex.EncodeToString(b) != sha256Hex {
		return nil, api.Errorf(api.Invalid, "join token", "its fingerprint is not the SHA-256 of an authority").
			WithHint("copy the whole token, or ask for a new one")
	}
	return clientConfig(func(cs tls.ConnectionState) error {
		return verifyByFingerprint(cs.PeerCertificates, sha256Hex)
	}), nil
}

func verifyByFingerprint(chain []*x509.Certificate, sha256Hex string) error {
	if len(chain) == 0 {
		return &Refusal{Reason: NoCertificate, Err: errors.New("the server sent none")}
	}
	for _, c := range chain[1:] {
		if fingerprint(c) != sha256Hex || !c.IsCA || len(c.URIs) != 1 {
			continue
		}
		roots := x509.NewCertPool()
		roots.AddCert(c)
		return verifyPeer(chain, c.URIs[0].Host, roots, time.Now(), HasRole(RoleServer))
	}
	return &Refusal{Reason: UnknownAuthority, Err: errors.New("its chain does not hold the authority that the token names")}
}

// ServerTLS requires a client certificate of the trust domain that accept agrees to; nil agrees to all. Connections of a
// Listener end when that certificate does. protos are the application protocols (ALPN) that the server speaks: "h2" and
// "http/1.1" for an http.Server, "h2" for grpc; what those add to their own copy of the configuration does not count.
func ServerTLS(src *Source, accept func(ID) error, protos ...string) *tls.Config {
	return serverConfig(src, accept, true, protos)
}

// OptionalTLS is ServerTLS for callers who may have no certificate (a bearer token, a join): whoever shows one is checked
// all the same, whoever shows none passes, and PeerID says NoCertificate.
func OptionalTLS(src *Source, accept func(ID) error, protos ...string) *tls.Config {
	return serverConfig(src, accept, false, protos)
}

func serverConfig(src *Source, accept func(ID) error, required bool, protos []string) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		// Asked for, not required: we refuse it ourselves, with a reason.
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true, // each connection proves itself against the roots of its own time
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &src.Current().cert, nil },
	}
	verify := func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 && !required {
			return nil
		}
		v := src.Current()
		return verifyPeer(cs.PeerCertificates, v.id.TrustDomain, v.roots, time.Now(), accept)
	}
	cfg.VerifyConnection = verify
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		conn, ok := hello.Conn.(*expiringConn)
		if !ok {
			return nil, nil // not ours to close: the caller uses CloseAtExpiry
		}
		own := cfg.Clone()
		own.VerifyConnection = func(cs tls.ConnectionState) error {
			if err := verify(cs); err != nil {
				return err
			}
			conn.closeAtExpiry(cs)
			return nil
		}
		return own, nil
	}
	return cfg
}

func clientConfig(verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// The standard check is about host names, which mean nothing here. VerifyConnection takes its place, for every
		// connection, resumed ones too.
		InsecureSkipVerify: true,
		VerifyConnection:   verify,
	}
}

func all(checks []func(ID) error) func(ID) error {
	return func(id ID) error {
		for _, check := range checks {
			if err := check(id); err != nil {
				return err
			}
		}
		return nil
	}
}

// PeerID is who the peer of an established connection is. The connection must come from a configuration of this package:
// that has verified it. *Refusal: the peer showed no certificate, or not one of ours.
func PeerID(cs tls.ConnectionState) (ID, error) {
	if len(cs.PeerCertificates) == 0 {
		return ID{}, &Refusal{Reason: NoCertificate, Err: errors.New("the peer sent none")}
	}
	id, err := idOf(cs.PeerCertificates[0])
	if err != nil {
		return ID{}, &Refusal{Reason: NotSPIFFE, Err: err}
	}
	return id, nil
}
