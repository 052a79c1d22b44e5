package server

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/mesh/xdsserver"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
	"github.com/livefire-mesh/livefire/internal/server/httpapi"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// signNode issues the certificate of a sidecar or an agent.
func (s *server) signNode(site api.SiteID, service api.ServiceID, agent bool, csr []byte) (httpapi.Signed, error) {
	id := identity.Service(s.ca.TrustDomain(), site, service)
	if agent {
		id = identity.Agent(s.ca.TrustDomain(), site)
	}
	return s.sign(id, csr, identity.DefaultTTL)
}

// signUser issues a person's certificate.
func (s *server) signUser(name string, csr []byte) (httpapi.Signed, error) {
	return s.sign(identity.User(s.ca.TrustDomain(), name), csr, adminTTL)
}

func (s *server) sign(id identity.ID, csr []byte, ttl time.Duration) (httpapi.Signed, error) {
	chain, err := s.ca.Sign(csr, id, time.Now(), identity.SignOptions{TTL: ttl})
	if err != nil {
		return httpapi.Signed{}, err
	}
	return httpapi.Signed{Identity: id.String(), Certificate: chain, Roots: s.ca.Roots(), TrustDomain: s.ca.TrustDomain()}, nil
}

// ensureAdmin makes the administrator of this machine: a key, a certificate and context.yaml, all 0600.
func (s *server) ensureAdmin(ctx context.Context) error {
	key, err := loadOrMakeKey(filepath.Join(s.cfg.DataDir, "admin.key"))
	if err != nil {
		return err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return fmt.Errorf("make the administrator's certificate request: %w", err)
	}
	signed, err := s.signUser(adminName, csr)
	if err != nil {
		return err
	}
	public := key.Public().(ed25519.PublicKey)
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return fmt.Errorf("encode the administrator's key: %w", err)
	}
	if err := s.api.EnsureAdmin(ctx, public, sha256Hex(spki)); err != nil {
		return err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	b, err := yaml.Marshal(userapi.Context{Server: s.addresses.API, User: adminName, TrustDomain: s.cfg.TrustDomain,
		Key: string(keyPEM), Certificate: string(signed.Certificate), Roots: string(signed.Roots)})
	if err != nil {
		return fmt.Errorf("encode context: %w", err)
	}
	path := filepath.Join(s.cfg.DataDir, "context.yaml")
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	return os.Rename(path+".tmp", path)
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func loadOrMakeKey(path string) (ed25519.PrivateKey, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		block, _ := pem.Decode(b)
		if block == nil {
			return nil, api.Errorf(api.Invalid, path, "is not a PEM key")
		}
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, api.Errorf(api.Invalid, path, "%v", err)
		}
		key, ok := k.(ed25519.PrivateKey)
		if !ok {
			return nil, api.Errorf(api.Invalid, path, "is not an Ed25519 key")
		}
		return key, nil
	}
	if !os.IsNotExist(err) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, keyPEM, 0o600)
}

func encodeKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// events carries what the xDS server sees to the present term's loop. Without a term nobody needs it: the next one
// starts from what it hears then.
func (s *server) events() xdsserver.Events {
	tell := func(what string, err error) {
		if err != nil && api.KindOf(err) != api.Unavailable {
			s.cfg.Logger.Error("event not taken", "event", what, "err", err)
		}
	}
	return xdsserver.Events{
		Connected:    func(n route.Node, _ route.Capabilities) { s.cfg.Logger.Info("node connected", "node", n.ID) },
		Disconnected: func(n route.Node) { s.cfg.Logger.Info("node disconnected", "node", n.ID) },
		Acked: func(node api.NodeID, epoch route.Epoch, _ time.Time) {
			at := s.clock()
			if l, err := s.loop(); err == nil {
				go func() { tell("ack", l.Acked(context.Background(), node, epoch, at)) }()
			}
		},
		Nacked: func(node api.NodeID, typeURL string, names []string, message string) {
			if l, err := s.loop(); err == nil {
				go func() {
					tell("nack", l.Nacked(context.Background(), node, fmt.Sprintf("%s %v: %s", typeURL, names, message)))
				}()
			}
		},
		Load: func(node api.NodeID, load []nodeapi.Load) {
			if l, err := s.loop(); err == nil {
				go func() { tell("load", l.Load(context.Background(), node, load)) }()
			}
		},
		OrderLost: func(node api.NodeID, name, reason string) {
			s.cfg.Logger.Warn("order lost", "node", node, "order", name, "reason", reason)
			if l, err := s.loop(); err == nil {
				go func() { tell("order lost", l.OrderLost(context.Background(), name)) }()
			}
		},
	}
}
