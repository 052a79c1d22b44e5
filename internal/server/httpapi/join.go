package httpapi

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

const (
	tokensPrefix = "/livefire/accounts/tokens/"
	knownPrefix  = "/livefire/accounts/nodes/"
	tokenTTL     = 10 * time.Minute
	maxTokenTTL  = 24 * time.Hour
	// repeatWithin lets a node whose answer was lost ask again with the same key.
	repeatWithin = time.Minute
)

// joinToken is what is stored of a one-time token.
type joinToken struct {
	Site     api.SiteID    `json:"site"`
	Service  api.ServiceID `json:"service,omitempty"`
	Agent    bool          `json:"agent,omitempty"`
	Secret   oneTime       `json:"secret"`
	UsedBy   api.NodeID    `json:"usedBy,omitempty"`
	UsedKey  string        `json:"usedKey,omitempty"`
	UsedAt   time.Time     `json:"usedAt,omitzero"`
	revision int64
}

// knownNode binds a node's name to its keys: the one in use and the one before it (during a renewal both are).
type knownNode struct {
	Node     api.NodeID    `json:"node"`
	Site     api.SiteID    `json:"site"`
	Service  api.ServiceID `json:"service,omitempty"`
	Agent    bool          `json:"agent,omitempty"`
	Key      string        `json:"key"`
	Previous string        `json:"previous,omitempty"`
	revision int64
}

func (s *Server) createToken(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	var in nodeapi.TokenRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	switch {
	case !nameRE.MatchString(string(in.Site)):
		return nil, api.Errorf(api.Invalid, "token", "site %q is not a name", in.Site).WithHint("--site NAME")
	case in.Agent == (in.Service != ""):
		return nil, api.Errorf(api.Invalid, "token", "a token is for one service or for the agent of a site").WithHint("--service NAME or --agent")
	case in.Service != "" && !nameRE.MatchString(string(in.Service)):
		return nil, api.Errorf(api.Invalid, "token", "service %q is not a name", in.Service)
	case in.TTL < 0 || in.TTL > maxTokenTTL:
		return nil, api.Errorf(api.Invalid, "token", "ttl %v; at most %v", in.TTL, maxTokenTTL)
	case c.Node != nil && (in.Agent || in.Site != c.Node.Site):
		return nil, api.Errorf(api.Denied, "token", "an agent asks for tokens of services at its own site only")
	}
	if in.TTL == 0 {
		in.TTL = tokenTTL
	}
	id, secret := newSecret()
	t := joinToken{Site: in.Site, Service: in.Service, Agent: in.Agent,
		Secret: oneTime{ID: id, SHA256: sha256Hex([]byte(secret)), Expires: time.Now().UTC().Add(in.TTL)}}
	b, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	if _, err := s.cfg.Store.Txn(r.Context(), s.cfg.Fence(), store.Op{Key: tokensPrefix + id, Value: b}); err != nil {
		return nil, err
	}
	if err := s.recordToken(r.Context(), "token.created", c.Actor(), t, ""); err != nil {
		return nil, err
	}
	apiURL, _ := s.cfg.Calls.Endpoints()
	token := strings.Join([]string{"lf1", id, secret, s.cfg.CAFingerprint, encodeURL(apiURL)}, ".")
	return nodeapi.TokenResponse{Token: token, Expires: t.Secret.Expires}, nil
}

func (s *Server) recordToken(ctx context.Context, action, actor string, t joinToken, detail string) error {
	who := "agent"
	if t.Service != "" {
		who = "service/" + string(t.Service)
	}
	return s.cfg.Calls.Record(ctx, Entry{Kind: record.Account, Actor: actor, Subject: "site/" + string(t.Site) + "/" + who,
		Data: record.AccountChange{Action: action, Name: t.Secret.ID, Detail: detail, By: actor}})
}

// join spends a token. A refusal is recorded with its reason; the caller learns only that the token was refused.
func (s *Server) join(_ http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	var in nodeapi.JoinRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	if !nameRE.MatchString(string(in.Node)) {
		return nil, api.Errorf(api.Invalid, "node", "%q is not a name: lower-case letters, digits and dashes, at most 63", in.Node)
	}
	key, err := csrKey(in.CSR)
	if err != nil {
		return nil, err
	}
	t, reason, err := s.checkToken(r.Context(), in, key)
	if err != nil {
		return nil, err
	}
	if reason != "" {
		if err := s.recordToken(r.Context(), "token.refused", "node:"+string(in.Node), t, reason); err != nil {
			return nil, err
		}
		return nil, api.Errorf(api.Denied, "token", "refused: %s", reason).WithHint("livefire token create --site SITE --service SERVICE makes a new one")
	}
	if t.UsedBy == "" {
		if err := s.spend(r.Context(), t, in.Node, key); err != nil {
			return nil, err
		}
	}
	signed, err := s.cfg.Calls.SignNode(t.Site, t.Service, t.Agent, in.CSR)
	if err != nil {
		return nil, err
	}
	apiURL, xds := s.cfg.Calls.Endpoints()
	return nodeapi.JoinResponse{Identity: signed.Identity, Certificate: signed.Certificate, Roots: signed.Roots,
		TrustDomain: signed.TrustDomain, Site: t.Site, API: apiURL, XDS: xds}, nil
}

// checkToken finds the token and says why it must be refused, "" if it is good.
func (s *Server) checkToken(ctx context.Context, in nodeapi.JoinRequest, key string) (joinToken, string, error) {
	parts := strings.Split(in.Token, ".")
	if len(parts) != 5 || parts[0] != "lf1" || !nameRE.MatchString(parts[1]) {
		return joinToken{}, "not a join token", nil
	}
	item, err := s.cfg.Store.Get(ctx, tokensPrefix+parts[1])
	if api.KindOf(err) == api.NotFound {
		return joinToken{Secret: oneTime{ID: parts[1]}}, "unknown", nil
	}
	if err != nil {
		return joinToken{}, "", err
	}
	var t joinToken
	if err := json.Unmarshal(item.Value, &t); err != nil {
		return t, "", fmt.Errorf("decode token %s: %w", parts[1], err)
	}
	t.revision = item.Revision
	now := time.Now()
	if err := t.Secret.matches(parts[2], now); err != nil {
		return t, err.Error(), nil
	}
	if t.UsedBy != "" && (t.UsedBy != in.Node || t.UsedKey != key || now.Sub(t.UsedAt) > repeatWithin) {
		return t, "used already", nil
	}
	if t.Agent && in.Workload != nil {
		return t, "is for an agent, not for a sidecar", nil
	}
	if !t.Agent && (in.Workload == nil || in.Workload.Service != t.Service) {
		return t, "is for service " + string(t.Service), nil
	}
	return t, "", nil
}

// spend marks the token used and binds the node's name to its key, in one transaction.
func (s *Server) spend(ctx context.Context, t joinToken, node api.NodeID, key string) error {
	known, err := s.known(ctx, node)
	if err != nil && api.KindOf(err) != api.NotFound {
		return err
	}
	if err == nil && known.Key != key && (known.Site != t.Site || known.Service != t.Service || known.Agent != t.Agent) {
		return api.Errorf(api.Conflict, "node/"+string(node), "this name belongs to another node").WithHint("choose another --name")
	}
	known.Node, known.Site, known.Service, known.Agent, known.Previous, known.Key = node, t.Site, t.Service, t.Agent, known.Key, key
	t.UsedBy, t.UsedKey, t.UsedAt = node, key, time.Now().UTC()
	tokenJSON, err1 := json.Marshal(t)
	nodeJSON, err2 := json.Marshal(known)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if _, err := s.cfg.Store.Txn(ctx, s.cfg.Fence(),
		store.Op{Key: tokensPrefix + t.Secret.ID, Value: tokenJSON, IfRevision: t.revision},
		store.Op{Key: knownPrefix + string(node), Value: nodeJSON, IfRevision: known.revision}); err != nil {
		return err
	}
	return s.recordToken(ctx, "node.joined", "node:"+string(node), t, "key "+key[:16])
}

func (s *Server) known(ctx context.Context, node api.NodeID) (knownNode, error) {
	var k knownNode
	item, err := s.cfg.Store.Get(ctx, knownPrefix+string(node))
	if err != nil {
		return k, err
	}
	if err := json.Unmarshal(item.Value, &k); err != nil {
		return k, fmt.Errorf("decode node %s: %w", node, err)
	}
	k.revision = item.Revision
	return k, nil
}

// KnownNode checks that a peer with this identity and public key is the node of that name.
func (s *Server) KnownNode(ctx context.Context, name api.NodeID, claim Node, keySHA256 string) (Node, error) {
	k, err := s.known(ctx, name)
	if api.KindOf(err) == api.NotFound {
		return Node{}, api.Errorf(api.Denied, "node/"+string(name), "never joined")
	}
	if err != nil {
		return Node{}, err
	}
	if k.Site != claim.Site || k.Service != claim.Service || k.Agent != claim.Agent || keySHA256 != k.Key && keySHA256 != k.Previous {
		return Node{}, api.Errorf(api.Denied, "node/"+string(name), "this certificate is not that node's")
	}
	return Node{ID: name, Site: k.Site, Service: k.Service, Agent: k.Agent}, nil
}

// csrKey is the SHA-256 of the request's public key, after its proof of possession was checked.
func csrKey(csr []byte) (string, error) {
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return "", api.Errorf(api.Invalid, "csr", "%v", err)
	}
	if err := req.CheckSignature(); err != nil {
		return "", api.Errorf(api.Invalid, "csr", "not signed by its own key: %v", err)
	}
	return sha256Hex(req.RawSubjectPublicKeyInfo), nil
}
