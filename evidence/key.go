package evidence

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// NewKey makes an Ed25519 key in the note forms: skey is secret, vkey is what verifiers need. name is the
// origin of the log; it must not be empty and must hold no white space and no '+'.
func NewKey(name string) (skey, vkey string, err error) {
	skey, vkey, err = note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", "", fmt.Errorf("make key %q: %w", name, err)
	}
	if _, err := note.NewVerifier(vkey); err != nil {
		return "", "", fmt.Errorf("make key %q: %w", name, err)
	}
	return skey, vkey, nil
}

// KeyID names a public key: the SHA-256 of its 32 bytes in lower-case hex.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return hex.EncodeToString(sum[:])
}

// Signer holds the server's key. One key signs checkpoints and statements.
type Signer struct {
	key  ed25519.PrivateKey
	note note.Signer
	vkey string
}

// NewSigner reads a key in note signer form ("PRIVATE+KEY+<name>+<hash>+<base64>").
func NewSigner(skey string) (*Signer, error) {
	ns, err := note.NewSigner(skey)
	if err != nil {
		return nil, fmt.Errorf("read signer key: %w", err)
	}
	// The name holds no '+', but base64 may: cut from the left.
	raw, err := base64.StdEncoding.DecodeString(strings.SplitN(skey, "+", 5)[4])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, errors.New("read signer key: not an Ed25519 key")
	}
	key := ed25519.NewKeyFromSeed(raw[1:])
	vkey, err := note.NewEd25519VerifierKey(ns.Name(), key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, fmt.Errorf("read signer key: %w", err)
	}
	return &Signer{key: key, note: ns, vkey: vkey}, nil
}

// LoadSigner reads the key file at path. The file must be closed to group and others.
func LoadSigner(path string) (*Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read signer key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read signer key %s: mode %04o lets others read it: chmod 600 it", path, info.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read signer key: %w", err)
	}
	return NewSigner(strings.TrimSpace(string(b)))
}

// Name is the origin of the log that this key signs.
func (s *Signer) Name() string { return s.note.Name() }

// VerifierKey is the public half in note verifier form ("<name>+<hash>+<base64>").
func (s *Signer) VerifierKey() string { return s.vkey }

// PublicKey is the public half.
func (s *Signer) PublicKey() ed25519.PublicKey { return s.key.Public().(ed25519.PublicKey) }

// ParseVerifierKey reads a verifier key and accepts only its canonical form.
func ParseVerifierKey(vkey string) (name string, pub ed25519.PublicKey, err error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return "", nil, fmt.Errorf("read verifier key: %w", err)
	}
	parts := strings.SplitN(vkey, "+", 3)
	raw, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize {
		return "", nil, errors.New("read verifier key: not an Ed25519 key")
	}
	pub = ed25519.PublicKey(raw[1:])
	again, err := note.NewEd25519VerifierKey(v.Name(), pub)
	if err != nil {
		return "", nil, fmt.Errorf("read verifier key: %w", err)
	}
	if again != vkey {
		return "", nil, fmt.Errorf("read verifier key: %w", errNotCanonical)
	}
	return v.Name(), pub, nil
}
