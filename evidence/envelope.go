package evidence

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
)

// envelope is a DSSE v1 envelope with exactly one signature. Its file is the canonical JSON and a newline.
type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"` // standard base64 with padding
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	KeyID string `json:"keyid"` // KeyID of the public key
	Sig   string `json:"sig"`
}

// pae is the pre-authentication encoding: what is signed.
func pae(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

func sealEnvelope(key ed25519.PrivateKey, payloadType string, payload []byte) ([]byte, error) {
	b, err := encodeCanonical(envelope{
		PayloadType: payloadType,
		Payload:     base64.StdEncoding.EncodeToString(payload),
		Signatures: []signature{{
			KeyID: KeyID(key.Public().(ed25519.PublicKey)),
			Sig:   base64.StdEncoding.EncodeToString(ed25519.Sign(key, pae(payloadType, payload))),
		}},
	})
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// openEnvelope verifies b and returns its payload. One byte string is accepted per payload and key: the key id
// must be that of pub (DSSE itself does not sign it), base64 must be the encoder's.
func openEnvelope(b []byte, payloadType string, pub ed25519.PublicKey) ([]byte, error) {
	if len(b) == 0 || b[len(b)-1] != '\n' {
		return nil, errors.New("no newline at the end")
	}
	if len(pub) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("public key of %d bytes", len(pub))
	}
	var e envelope
	if err := decodeCanonical(b[:len(b)-1], &e); err != nil {
		return nil, err
	}
	switch {
	case e.PayloadType != payloadType:
		return nil, fmt.Errorf("payload type %q, want %q", e.PayloadType, payloadType)
	case len(e.Signatures) != 1:
		return nil, fmt.Errorf("%d signatures, want 1", len(e.Signatures))
	case e.Signatures[0].KeyID != KeyID(pub):
		return nil, fmt.Errorf("signed with key %.12s, want %.12s", e.Signatures[0].KeyID, KeyID(pub))
	}
	payload, err := decodeBase64(e.Payload)
	if err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	sig, err := decodeBase64(e.Signatures[0].Sig)
	if err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	if !ed25519.Verify(pub, pae(payloadType, payload), sig) {
		return nil, errors.New("invalid signature")
	}
	return payload, nil
}

func decodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, err
	}
	if base64.StdEncoding.EncodeToString(b) != s {
		return nil, errNotCanonical
	}
	return b, nil
}
