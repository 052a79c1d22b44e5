package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// Reason says in one stable word why a peer was refused; for access logs and metrics.
type Reason string

const (
	NoCertificate    Reason = "no-certificate"
	UnknownAuthority Reason = "unknown-authority"
	Expired          Reason = "expired" // or not valid yet: the message says which
	OtherTrustDomain Reason = "other-trust-domain"
	WrongIdentity    Reason = "wrong-identity"
	NotSPIFFE        Reason = "not-spiffe"
)

// Refusal is a peer that was not accepted. A handshake returns it on the side that refused.
type Refusal struct {
	Reason Reason
	Peer   string // what the peer claims to be; proven only when Reason is WrongIdentity
	Err    error
}

func (r *Refusal) Error() string {
	if r.Peer == "" {
		return fmt.Sprintf("peer refused: %s: %v", r.Reason, r.Err)
	}
	return fmt.Sprintf("peer %s refused: %s: %v", r.Peer, r.Reason, r.Err)
}

func (r *Refusal) Unwrap() error { return r.Err }

// ReasonOf is the reason of the *Refusal in err's chain, "" if there is none.
func ReasonOf(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

// verifyPeer checks a peer's chain and who it is. The claimed trust domain comes before the chain: a node of another mesh also
// has another authority, and that it is of another mesh is the more useful answer.
func verifyPeer(chain []*x509.Certificate, trustDomain string, roots *x509.CertPool, now time.Time, accept func(ID) error) error {
	if len(chain) == 0 {
		return &Refusal{Reason: NoCertificate, Err: errors.New("the peer sent none")}
	}
	id, err := idOf(chain[0])
	if err != nil {
		return &Refusal{Reason: NotSPIFFE, Err: err}
	}
	peer := id.String()
	if id.TrustDomain != trustDomain {
		return &Refusal{OtherTrustDomain, peer, fmt.Errorf("ours is %s", trustDomain)}
	}
	if err := verifyChain(chain, roots, now); err != nil {
		return &Refusal{reasonOfChain(err), peer, err}
	}
	if accept != nil {
		if err := accept(id); err != nil {
			return &Refusal{WrongIdentity, peer, err}
		}
	}
	return nil
}

func verifyChain(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	if chain[0].IsCA {
		return errors.New("the certificate of an authority is not that of a peer")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}

func reasonOfChain(err error) Reason {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return Expired
	}
	return UnknownAuthority
}
