// Package membership is a node's place in the mesh: it joins once with a token, then goes on with what is on disk.
//
// Open loads the identity of an earlier start or exchanges the token for one; Run renews it at half life. A node that
// has joined needs neither its token nor any server to start again.
//
// Errors: *api.Error: Denied when the server refuses the token, Invalid when there is neither an identity nor a token.
// Concurrency: a Member's parts are safe from any goroutine; Run has one caller.
package membership

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/mesh/nodeclient"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

// Config of a node. Dir, Node and Logger are required; Token only for the first start.
type Config struct {
	Dir      string // 0700: identity and where the server is
	Token    string
	Node     api.NodeID
	Workload *nodeapi.Workload // what a sidecar registers; nil for an agent
	Logger   *slog.Logger
}

// Home is what a node remembers of its join.
type Home struct {
	Node        api.NodeID `json:"node"`
	Site        api.SiteID `json:"site"`
	TrustDomain string     `json:"trustDomain"`
	API         string     `json:"api"`
	XDS         []string   `json:"xds"`
}

// Member is a node that has joined.
type Member struct {
	Home
	Source *identity.Source
	Client *nodeclient.Client
	Clock  *nodeclient.Clock

	dir string
	log *slog.Logger
}

const homeFile = "node.json"

// Open loads the node's identity, or joins with the token: it waits for the server, with back-off, until ctx ends.
func Open(ctx context.Context, cfg Config) (*Member, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, api.Errorf(api.Invalid, cfg.Dir, "state directory: %v", err)
	}
	m := &Member{Clock: &nodeclient.Clock{}, dir: cfg.Dir, log: cfg.Logger}
	svid, err := identity.LoadSVID(cfg.Dir)
	switch {
	case err == nil && time.Now().Before(svid.NotAfter()):
		err = m.recall(cfg.Node)
	case err == nil || errors.Is(err, fs.ErrNotExist):
		svid, err = m.join(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	m.Source = identity.NewSource(svid)
	server := identity.Exactly(identity.Server(m.TrustDomain))
	m.Client = nodeclient.New(m.API, m.Node, identity.ClientTLS(m.Source, server))
	return m, nil
}

// recall reads what was remembered at the join.
func (m *Member) recall(node api.NodeID) error {
	path := filepath.Join(m.dir, homeFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return api.Errorf(api.Invalid, path, "not read: %v", err).WithHint("remove %s and join again with a new token", m.dir)
	}
	if err := json.Unmarshal(b, &m.Home); err != nil {
		return api.Errorf(api.Invalid, path, "damaged: %v", err).WithHint("remove %s and join again with a new token", m.dir)
	}
	if m.Node != node {
		return api.Errorf(api.Invalid, m.dir, "belongs to node %s, not %s", m.Node, node).WithHint("each node has a state directory of its own")
	}
	return nil
}

// join makes a key here and has it signed.
func (m *Member) join(ctx context.Context, cfg Config) (*identity.SVID, error) {
	apiURL, fingerprint, err := parseToken(cfg.Token)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := identity.FingerprintTLS(fingerprint)
	if err != nil {
		return nil, err
	}
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	csr, err := key.CSR()
	if err != nil {
		return nil, err
	}
	c := nodeclient.New(apiURL, cfg.Node, tlsConfig)
	defer c.Close()
	resp, err := untilReached(ctx, m.log, func() (nodeapi.JoinResponse, error) {
		return c.Join(ctx, nodeapi.JoinRequest{Token: cfg.Token, Node: cfg.Node, CSR: csr, Workload: cfg.Workload})
	})
	if err != nil {
		return nil, err
	}
	svid, err := identity.NewSVID(key, resp.Certificate, resp.Roots)
	if err != nil {
		return nil, err
	}
	m.Home = Home{Node: cfg.Node, Site: resp.Site, TrustDomain: resp.TrustDomain, API: resp.API, XDS: resp.XDS}
	b, err := json.MarshalIndent(m.Home, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", homeFile, err)
	}
	// The identity last: without it the next start joins again, and within a minute the same token still does.
	if err := os.WriteFile(filepath.Join(m.dir, homeFile), append(b, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("remember the server: %w", err)
	}
	if err := svid.Save(m.dir); err != nil {
		return nil, err
	}
	m.log.Info("joined", "node", m.Node, "site", m.Site, "identity", resp.Identity)
	return svid, nil
}

// untilReached repeats a call that no server answered.
func untilReached[T any](ctx context.Context, log *slog.Logger, call func() (T, error)) (T, error) {
	wait := 100 * time.Millisecond
	for {
		out, err := call()
		if api.KindOf(err) != api.Unavailable {
			return out, err
		}
		log.Info("waiting for a server", "err", err)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return out, errors.Join(context.Cause(ctx), err)
		case <-timer.C:
		}
		wait = min(2*wait, time.Second)
	}
}

// parseToken finds in a token where to go and whom to trust there.
func parseToken(token string) (apiURL, fingerprint string, err error) {
	if token == "" {
		return "", "", api.Errorf(api.Invalid, "token", "this node has not joined and has no token").
			WithHint("livefire token create --site SITE --service SERVICE (or --agent), then --token FILE")
	}
	parts := strings.Split(strings.TrimSpace(token), ".")
	if len(parts) != 5 || parts[0] != "lf1" {
		return "", "", api.Errorf(api.Invalid, "token", "is not a join token").WithHint("copy the whole token that `livefire token create` printed")
	}
	url, err := base64.RawURLEncoding.DecodeString(parts[4])
	if err != nil {
		return "", "", api.Errorf(api.Invalid, "token", "is damaged: %v", err)
	}
	return string(url), parts[3], nil
}

// Run renews the identity at half life until ctx ends.
func (m *Member) Run(ctx context.Context) error {
	return m.Source.Rotate(ctx, m.log, m.dir, func(ctx context.Context, csr []byte) (chain, roots []byte, err error) {
		resp, err := m.Client.Renew(ctx, nodeapi.RenewRequest{CSR: csr})
		return resp.Certificate, resp.Roots, err
	})
}

// Identity is the node's SPIFFE id.
func (m *Member) Identity() string { return m.Source.Current().ID().String() }
