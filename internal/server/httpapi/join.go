package httpapi

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
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
	// keepExpired is how long a token is remembered after its end, to name the reason of a refusal.
	keepExpired = time.Hour
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
	Refused  []string      `json:"refused,omitempty"` // reasons that stand in the log: each once, however often it is tried
	revision int64
	lease    store.LeaseID
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
	by := c.Actor()
	if c.Node != nil {
		n, err := s.nodeOfKey(r, c)
		if err != nil {
			return nil, err
		}
		by = "node:" + string(n)
	}
	lease, err := s.cfg.Store.Grant(r.Context(), in.TTL+keepExpired)
	if err != nil {
		return nil, err
	}
	t.lease = lease
	op, err := t.op()
	if err != nil {
		return nil, err
	}
	if err := s.commit(r.Context(), []store.Op{op}, tokenEntry("token.created", by, t, "")); err != nil {
		return nil, err
	}
	apiURL, _ := s.cfg.Calls.Endpoints()
	token := strings.Join([]string{"lf1", id, secret, s.cfg.CAFingerprint, encodeURL(apiURL)}, ".")
	return nodeapi.TokenResponse{Token: token, Expires: t.Secret.Expires}, nil
}

// nodeOfKey is the name of the agent that calls, which its certificate does not say.
func (s *Server) nodeOfKey(r *http.Request, c Caller) (api.NodeID, error) {
	key, err := s.cfg.KeySHA256(*r.TLS)
	if err != nil {
		return "", api.Errorf(api.Denied, "", "%v", err)
	}
	items, _, err := s.cfg.Store.List(r.Context(), knownPrefix)
	if err != nil {
		return "", err
	}
	for _, it := range items {
		k, err := decodeKnown(it)
		if err != nil {
			return "", err
		}
		if k.is(*c.Node, key) {
			return k.Node, nil
		}
	}
	return "", api.Errorf(api.Denied, c.Identity, "this certificate is no node's any more")
}

// op is the write of a token that was read at its revision.
func (t joinToken) op() (store.Op, error) {
	b, err := json.Marshal(t)
	if err != nil {
		return store.Op{}, fmt.Errorf("encode token %s: %w", t.Secret.ID, err)
	}
	return store.Op{Key: tokensPrefix + t.Secret.ID, Value: b, IfRevision: t.revision, Lease: t.lease}, nil
}

func tokenEntry(action, actor string, t joinToken, detail string) Entry {
	who := "agent"
	if t.Service != "" {
		who = "service/" + string(t.Service)
	}
	return Entry{Kind: record.Account, Actor: actor, Subject: "site/" + string(t.Site) + "/" + who,
		Data: record.AccountChange{Action: action, Name: t.Secret.ID, Detail: detail, By: actor}}
}

// join spends a token. Only who has the secret learns why it is refused, and is recorded.
func (s *Server) join(_ http.ResponseWriter, r *http.Request, _ Caller) (any, error) {
	var in nodeapi.JoinRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	switch {
	case !nameRE.MatchString(string(in.Node)):
		return nil, api.Errorf(api.Invalid, "node", "%q is not a name: lower-case letters, digits and dashes, at most 63", in.Node)
	case in.Workload != nil && in.Workload.Name != string(in.Node):
		return nil, api.Errorf(api.Invalid, "node/"+string(in.Node), "its workload has the node's name, not %q", in.Workload.Name)
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
		return nil, s.refuseToken(r.Context(), in.Node, t, reason)
	}
	// Before the token is spent: a request that cannot be signed must not cost it.
	signed, err := s.cfg.Calls.SignNode(t.Site, t.Service, t.Agent, in.CSR)
	if err != nil {
		return nil, err
	}
	if t.UsedBy == "" {
		if err := s.spend(r.Context(), t, in.Node, key); err != nil {
			return nil, err
		}
	}
	apiURL, xds := s.cfg.Calls.Endpoints()
	return nodeapi.JoinResponse{Identity: signed.Identity, Certificate: signed.Certificate, Roots: signed.Roots,
		TrustDomain: signed.TrustDomain, Site: t.Site, API: apiURL, XDS: xds}, nil
}

// unknownToken is the reason for whoever does not have the secret of a token.
const unknownToken = "unknown"

// checkToken finds the token and says why it must be refused, "" if it is good.
func (s *Server) checkToken(ctx context.Context, in nodeapi.JoinRequest, key string) (joinToken, string, error) {
	parts := strings.Split(in.Token, ".")
	if len(parts) != 5 || parts[0] != "lf1" || !nameRE.MatchString(parts[1]) {
		return joinToken{}, "not a join token", nil
	}
	item, err := s.cfg.Store.Get(ctx, tokensPrefix+parts[1])
	if api.KindOf(err) == api.NotFound {
		return joinToken{}, unknownToken, nil
	}
	if err != nil {
		return joinToken{}, "", err
	}
	var t joinToken
	if err := json.Unmarshal(item.Value, &t); err != nil {
		return t, "", fmt.Errorf("decode token %s: %w", parts[1], err)
	}
	t.revision, t.lease = item.Revision, item.Lease
	now := time.Now()
	if t.Secret.matches(parts[2], t.Secret.Expires) != nil {
		return joinToken{}, unknownToken, nil
	}
	switch expired := t.Secret.matches(parts[2], now); {
	case t.UsedBy != "" && t.UsedBy == in.Node && t.UsedKey == key && now.Sub(t.UsedAt) <= repeatWithin:
		// Its answer was lost.
	case t.UsedBy != "":
		return t, "used already", nil
	case expired != nil:
		return t, expired.Error(), nil
	}
	switch {
	case t.Agent && in.Workload != nil:
		return t, "is for an agent, not for a sidecar", nil
	case !t.Agent && (in.Workload == nil || in.Workload.Service != t.Service):
		return t, "is for service " + string(t.Service), nil
	}
	return t, "", nil
}

// refuseToken records a refusal with its reason. Without the right secret there is no token to speak of: whoever guesses
// must not be able to fill the log.
func (s *Server) refuseToken(ctx context.Context, node api.NodeID, t joinToken, reason string) error {
	denied := api.Errorf(api.Denied, "token", "refused: %s", reason).WithHint("livefire token create --site SITE --service SERVICE makes a new one")
	if t.revision == 0 {
		s.cfg.Logger.Warn("join refused", "node", node, "reason", reason)
		return denied
	}
	what := string(node) + ": " + reason
	if slices.Contains(t.Refused, what) || len(t.Refused) >= maxRefusals {
		return denied
	}
	t.Refused = append(t.Refused, what)
	op, err := t.op()
	if err != nil {
		return err
	}
	err = s.commit(ctx, []store.Op{op}, tokenEntry("token.refused", "node:"+string(node), t, reason))
	if err != nil && !errors.Is(err, store.ErrConflict) { // a conflict: the token was used or refused at the same moment
		return err
	}
	return denied
}

// maxRefusals bounds what one token can write into the log.
const maxRefusals = 16

// spend marks the token used and binds the node's name to its key, in one transaction. A name that is bound goes to
// another key only while no node of that name is registered.
func (s *Server) spend(ctx context.Context, t joinToken, node api.NodeID, key string) error {
	subject := "node/" + string(node)
	known, err := s.known(ctx, node)
	if err != nil && api.KindOf(err) != api.NotFound {
		return err
	}
	detail := "key " + key[:16]
	var alive []store.Op
	if err == nil && !known.is(Node{Site: t.Site, Service: t.Service, Agent: t.Agent}, key) {
		if known.Site != t.Site || known.Service != t.Service || known.Agent != t.Agent {
			return api.Errorf(api.Conflict, subject, "this name belongs to another node").WithHint("choose another --name")
		}
		// A deletion of what is not there: it makes the transaction fail if it is.
		alive = []store.Op{{Key: store.NodePrefix + string(node), Delete: true, IfRevision: store.NotExisting}}
		detail += ", in place of " + known.Key[:16]
	}
	// The key before it goes with it: two nodes must not be one.
	known.Node, known.Site, known.Service, known.Agent, known.Previous, known.Key = node, t.Site, t.Service, t.Agent, "", key
	t.UsedBy, t.UsedKey, t.UsedAt = node, key, time.Now().UTC()
	tokenOp, err1 := t.op()
	knownOp, err2 := known.op()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	err = s.commit(ctx, append(alive, tokenOp, knownOp), tokenEntry("node.joined", "node:"+string(node), t, detail))
	if errors.Is(err, store.ErrConflict) {
		if _, gone := s.cfg.Store.Get(ctx, store.NodePrefix+string(node)); alive != nil && gone == nil {
			return api.Errorf(api.Conflict, subject, "a node of this name is alive").WithHint("choose another --name, or stop that node and try again after 3 s")
		}
	}
	return changedMeanwhile(err, subject)
}

// op is the write of a node that was read at its revision.
func (k knownNode) op() (store.Op, error) {
	b, err := json.Marshal(k)
	if err != nil {
		return store.Op{}, fmt.Errorf("encode node %s: %w", k.Node, err)
	}
	return store.Op{Key: knownPrefix + string(k.Node), Value: b, IfRevision: k.revision}, nil
}

// is says whether a peer with this identity and key is the node.
func (k knownNode) is(claim Node, key string) bool {
	return k.Site == claim.Site && k.Service == claim.Service && k.Agent == claim.Agent && key != "" && (key == k.Key || key == k.Previous)
}

func (s *Server) known(ctx context.Context, node api.NodeID) (knownNode, error) {
	item, err := s.cfg.Store.Get(ctx, knownPrefix+string(node))
	if err != nil {
		return knownNode{}, err
	}
	return decodeKnown(item)
}

func decodeKnown(item store.Item) (knownNode, error) {
	k := knownNode{revision: item.Revision}
	if err := json.Unmarshal(item.Value, &k); err != nil {
		return k, fmt.Errorf("decode node %s: %w", item.Key, err)
	}
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
	if !k.is(claim, keySHA256) {
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
