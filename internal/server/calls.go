package server

import (
	"context"
	"crypto/tls"
	"errors"
	"runtime"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/mesh/xdsserver"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
	"github.com/livefire-mesh/livefire/internal/server/httpapi"
	"github.com/livefire-mesh/livefire/internal/server/ledger"
	"github.com/livefire-mesh/livefire/internal/server/reconcile"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

var errNoTerm = api.Errorf(api.Unavailable, "server", "does not lead now").WithHint("try again in a second, or another server")

// loop is that of the present term.
func (s *server) loop() (*reconcile.Loop, error) {
	if t := s.term.Load(); t != nil {
		return t.loop, nil
	}
	return nil, errNoTerm
}

// wire makes the API and the xDS server.
func (s *server) wire() error {
	s.xds = xdsserver.New(xdsserver.Config{Identify: s.identify, Events: s.events(), Logger: s.cfg.Logger})
	var err error
	s.api, err = httpapi.New(httpapi.Config{
		Store: s.store, TrustDomain: s.cfg.TrustDomain, CAFingerprint: s.ca.Fingerprint(), Logger: s.cfg.Logger,
		PeerID: func(cs tls.ConnectionState) (string, error) {
			id, err := identity.PeerID(cs)
			return id.String(), err
		},
		KeySHA256: keySHA256,
		Calls:     s.calls(),
	})
	return err
}

func keySHA256(cs tls.ConnectionState) (string, error) {
	if len(cs.PeerCertificates) == 0 {
		return "", errors.New("no client certificate")
	}
	return sha256Hex(cs.PeerCertificates[0].RawSubjectPublicKeyInfo), nil
}

// with1, with0 and on call the present term's loop, or say that there is none.
func with0(s *server, f func(*reconcile.Loop) error) error {
	l, err := s.loop()
	if err != nil {
		return err
	}
	return f(l)
}

func with1[T any](s *server, f func(*reconcile.Loop) (T, error)) (T, error) {
	l, err := s.loop()
	if err != nil {
		var zero T
		return zero, err
	}
	return f(l)
}

func node(n httpapi.Node) reconcile.Node {
	return reconcile.Node{ID: n.ID, Site: n.Site, Service: n.Service, Agent: n.Agent}
}

func (s *server) calls() httpapi.Calls {
	c := httpapi.Calls{
		Commit:     s.commit,
		SignNode:   s.signNode,
		SignUser:   s.signUser,
		Endpoints:  func() (string, []string) { return s.addresses.API, []string{s.addresses.XDS} },
		Checkpoint: func(ctx context.Context) ([]byte, error) { return s.ledger.Checkpoint(ctx) },
		Version: func() userapi.Version {
			return userapi.Version{Version: s.cfg.Version, Go: runtime.Version(), Key: s.signer.VerifierKey()}
		},
	}
	s.nodeCalls(&c)
	s.peopleCalls(&c)
	s.drillCalls(&c)
	return c
}

// commit writes for the API, under the fence of the present term.
func (s *server) commit(ctx context.Context, writes []store.Op, entries ...httpapi.Entry) error {
	if s.term.Load() == nil {
		return errNoTerm
	}
	records := make([]ledger.Entry, len(entries))
	for i, e := range entries {
		records[i] = ledger.Entry{Kind: string(e.Kind), Actor: e.Actor, Subject: e.Subject, At: s.clock(), Data: e.Data}
	}
	_, err := s.ledger.AppendWith(ctx, writes, records...)
	if errors.Is(err, store.ErrFenced) {
		return errNoTerm
	}
	return err
}

func (s *server) nodeCalls(c *httpapi.Calls) {
	c.Heartbeat = func(ctx context.Context, n httpapi.Node, h nodeapi.Heartbeat) (nodeapi.HeartbeatResponse, error) {
		return with1(s, func(l *reconcile.Loop) (nodeapi.HeartbeatResponse, error) { return l.Heartbeat(ctx, node(n), h) })
	}
	c.Health = func(ctx context.Context, n httpapi.Node, h nodeapi.Health) error {
		return with0(s, func(l *reconcile.Loop) error { return l.Health(ctx, node(n), h) })
	}
	c.Leave = func(ctx context.Context, n httpapi.Node, in nodeapi.Leave) error {
		return with0(s, func(l *reconcile.Loop) error { return l.Leave(ctx, node(n), in) })
	}
	c.Faults = func(ctx context.Context, n httpapi.Node, f nodeapi.Faults) error {
		return with0(s, func(l *reconcile.Loop) error { return l.Faults(ctx, node(n), f) })
	}
	c.Samples = func(ctx context.Context, n httpapi.Node, in nodeapi.Samples, data []byte) error {
		return with0(s, func(l *reconcile.Loop) error { return l.Samples(ctx, node(n), in, data) })
	}
	c.Executions = func(ctx context.Context, n httpapi.Node, in nodeapi.Executions, data []byte) error {
		return with0(s, func(l *reconcile.Loop) error { return l.Executions(ctx, node(n), in, data) })
	}
}

func (s *server) peopleCalls(c *httpapi.Calls) {
	c.Status = func(ctx context.Context) (userapi.Status, error) {
		return with1(s, func(l *reconcile.Loop) (userapi.Status, error) { return l.Status(ctx) })
	}
	c.WatchStatus = func(ctx context.Context, emit func(userapi.Status) error) error {
		return with0(s, func(l *reconcile.Loop) error { return l.WatchStatus(ctx, emit) })
	}
	c.StatusOf = func(ctx context.Context, o api.Object) {
		if l, err := s.loop(); err == nil {
			l.StatusOf(ctx, o)
		}
	}
	c.Audit = func(ctx context.Context) ([]userapi.Rule, error) {
		return with1(s, func(l *reconcile.Loop) ([]userapi.Rule, error) { return l.Audit(ctx) })
	}
	c.Move = func(ctx context.Context, who httpapi.Caller, service api.ServiceID, verb string, r userapi.MoveRequest) (userapi.MoveResponse, error) {
		return with1(s, func(l *reconcile.Loop) (userapi.MoveResponse, error) {
			return l.Move(ctx, who.Actor(), service, verb, r)
		})
	}
	c.Lever = func(ctx context.Context) (userapi.Lever, error) {
		return with1(s, func(l *reconcile.Loop) (userapi.Lever, error) { return l.Lever(ctx) })
	}
	c.SetLever = func(ctx context.Context, who httpapi.Caller, v userapi.Lever) (userapi.Lever, error) {
		return with1(s, func(l *reconcile.Loop) (userapi.Lever, error) { return l.SetLever(ctx, who.Name, v) })
	}
	c.ApplyFinding = func(ctx context.Context, who httpapi.Caller, id string, r userapi.FindingRequest) (userapi.FindingResponse, error) {
		return with1(s, func(l *reconcile.Loop) (userapi.FindingResponse, error) { return l.ApplyFinding(ctx, who.Name, id, r) })
	}
	c.CloseFinding = func(ctx context.Context, who httpapi.Caller, id string, r userapi.FindingRequest) (userapi.FindingResponse, error) {
		return with1(s, func(l *reconcile.Loop) (userapi.FindingResponse, error) { return l.CloseFinding(ctx, who.Name, id, r) })
	}
}

func (s *server) drillCalls(c *httpapi.Calls) {
	c.RunDrill = func(ctx context.Context, who httpapi.Caller, drill string, r userapi.RunRequest) (userapi.Run, error) {
		return with1(s, func(l *reconcile.Loop) (userapi.Run, error) { return l.RunDrill(ctx, who.Name, who.Key, drill, r) })
	}
	c.Run = func(ctx context.Context, run string) (userapi.Run, error) {
		return with1(s, func(l *reconcile.Loop) (userapi.Run, error) { return l.RunOf(ctx, run) })
	}
	c.Runs = func(ctx context.Context) ([]userapi.RunSummary, error) {
		return with1(s, func(l *reconcile.Loop) ([]userapi.RunSummary, error) { return l.Runs(ctx) })
	}
	c.Approve = func(ctx context.Context, who httpapi.Caller, key []byte, run string, r userapi.ApproveRequest) (userapi.Run, error) {
		return with1(s, func(l *reconcile.Loop) (userapi.Run, error) {
			return l.Approve(ctx, who.Name, who.Group, key, run, r.Envelope)
		})
	}
	c.Abort = func(ctx context.Context, who httpapi.Caller, run, reason string) (userapi.Run, error) {
		return with1(s, func(l *reconcile.Loop) (userapi.Run, error) { return l.Abort(ctx, who.Name, run, reason) })
	}
	c.WatchRun = func(ctx context.Context, run string, emit func(userapi.RunEvent) error) error {
		return with0(s, func(l *reconcile.Loop) error { return l.WatchRun(ctx, run, emit) })
	}
	c.Bundle = func(ctx context.Context, run string) (string, error) {
		return with1(s, func(l *reconcile.Loop) (string, error) { return l.Bundle(ctx, run) })
	}
}

// change makes a change of resources for the loop: a finding that is applied.
func (s *server) change(ctx context.Context, by string, r userapi.ApplyRequest) (userapi.ApplyResponse, error) {
	return s.api.Change(ctx, httpapi.Caller{Name: by, Role: userapi.Operator}, r)
}

// identify proves which node opened an xDS stream.
func (s *server) identify(ctx context.Context, n *corev3.Node) (route.Node, route.Capabilities, error) {
	var zero route.Capabilities
	p, ok := peer.FromContext(ctx)
	if !ok {
		return route.Node{}, zero, errors.New("no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return route.Node{}, zero, errors.New("no TLS")
	}
	id, err := identity.PeerID(info.State)
	if err != nil {
		return route.Node{}, zero, err
	}
	key, err := keySHA256(info.State)
	if err != nil {
		return route.Node{}, zero, err
	}
	claim := httpapi.Node{Site: id.Site, Service: id.Service, Agent: id.Role == identity.RoleAgent}
	known, err := s.api.KnownNode(ctx, api.NodeID(n.GetId()), claim, key)
	if err != nil {
		return route.Node{}, zero, err
	}
	said, capabilities, err := xds.ReadNode(n)
	if err != nil {
		return route.Node{}, zero, err
	}
	return route.Node{ID: known.ID, Site: known.Site, Service: known.Service, Identity: id.String(), Workload: said.Workload}, capabilities, nil
}
