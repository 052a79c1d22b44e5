package httpapi

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/server/ledger"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/testkit/testetcd"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const domain = "mesh.test"

// rig is the API on a real store, ledger and authority, behind real TLS. Only what lies behind Calls is made up.
type rig struct {
	t      *testing.T
	store  *store.Store
	ledger *ledger.Ledger
	ca     *identity.CA
	server *Server
	base   string
	fence  atomic.Pointer[store.Fence]
	resign context.CancelFunc
	admin  *http.Client
	broken atomic.Bool // the ledger refuses
	audits atomic.Int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, store: testetcd.Open(t)}
	var err error
	if r.ca, err = identity.OpenCA(t.TempDir(), domain, time.Now()); err != nil {
		t.Fatal(err)
	}
	r.lead()
	private, _, err := evidence.NewKey(domain + "/livefire")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := evidence.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	r.ledger, err = ledger.Open(t.Context(), ledger.Config{Store: r.store, Fence: func() store.Fence { return *r.fence.Load() },
		Signer: signer, Origin: signer.Name(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r.server, err = New(Config{Store: r.store, Calls: r.calls(), TrustDomain: domain, CAFingerprint: r.ca.Fingerprint(),
		PeerID: func(cs tls.ConnectionState) (string, error) {
			id, err := identity.PeerID(cs)
			return id.String(), err
		},
		KeySHA256: func(cs tls.ConnectionState) (string, error) {
			if len(cs.PeerCertificates) == 0 {
				return "", errors.New("no client certificate")
			}
			return sha256Hex(cs.PeerCertificates[0].RawSubjectPublicKeyInfo), nil
		}})
	if err != nil {
		t.Fatal(err)
	}
	r.listen()
	r.bootstrap()
	return r
}

// lead wins an election and holds it until resign.
func (r *rig) lead() {
	ctx, cancel := context.WithCancel(context.Background())
	elected := make(chan struct{})
	var tasks sync.WaitGroup
	tasks.Go(func() {
		_ = r.store.Lead(ctx, "server", "test", 3*time.Second, func(ctx context.Context, f store.Fence) error {
			if r.fence.Swap(&f) == nil {
				close(elected)
			}
			<-ctx.Done()
			return nil
		})
	})
	r.resign = func() { cancel(); tasks.Wait() }
	r.t.Cleanup(r.resign)
	select {
	case <-elected:
	case <-time.After(time.Minute):
		r.t.Fatal("not elected")
	}
}

func (r *rig) commit(ctx context.Context, writes []store.Op, entries ...Entry) error {
	if r.broken.Load() {
		return api.Errorf(api.Unavailable, "ledger", "broken by the test")
	}
	var out []ledger.Entry
	for _, e := range entries {
		out = append(out, ledger.Entry{Kind: string(e.Kind), Actor: e.Actor, Subject: e.Subject, Data: e.Data})
	}
	_, err := r.ledger.AppendWith(ctx, writes, out...)
	return err
}

func (r *rig) signed(chain []byte, id identity.ID, err error) (Signed, error) {
	return Signed{Identity: id.String(), Certificate: chain, Roots: r.ca.Roots(), TrustDomain: domain}, err
}

func (r *rig) calls() Calls {
	c := Calls{
		Commit: r.commit,
		SignNode: func(site api.SiteID, service api.ServiceID, agent bool, csr []byte) (Signed, error) {
			id := identity.Service(domain, site, service)
			if agent {
				id = identity.Agent(domain, site)
			}
			chain, err := r.ca.Sign(csr, id, time.Now(), identity.SignOptions{})
			return r.signed(chain, id, err)
		},
		SignUser: func(name string, csr []byte) (Signed, error) {
			id := identity.User(domain, name)
			chain, err := r.ca.Sign(csr, id, time.Now(), identity.SignOptions{})
			return r.signed(chain, id, err)
		},
		Endpoints:  func() (string, []string) { return "https://127.0.0.1:1", []string{"127.0.0.1:2"} },
		Checkpoint: r.checkpoint,
		Version:    func() userapi.Version { return userapi.Version{Version: "test"} },
	}
	behind(r, &c)
	return c
}

func (r *rig) checkpoint(ctx context.Context) ([]byte, error) { return r.ledger.Checkpoint(ctx) }

// behind is what the loop would answer.
func behind(r *rig, c *Calls) {
	c.Heartbeat = func(context.Context, Node, nodeapi.Heartbeat) (nodeapi.HeartbeatResponse, error) {
		return nodeapi.HeartbeatResponse{Received: time.Now()}, nil
	}
	c.Health = func(context.Context, Node, nodeapi.Health) error { return nil }
	c.Leave = func(context.Context, Node, nodeapi.Leave) error { return nil }
	c.Faults = func(context.Context, Node, nodeapi.Faults) error { return nil }
	c.Samples = func(context.Context, Node, nodeapi.Samples, []byte) error { return nil }
	c.Executions = func(context.Context, Node, nodeapi.Executions, []byte) error { return nil }
	c.Status = func(context.Context) (userapi.Status, error) {
		return userapi.Status{Version: "test", Services: []userapi.ServiceStatus{}, Nodes: []userapi.NodeStatus{}, Audit: []userapi.Rule{}, Runs: []userapi.RunSummary{}}, nil
	}
	c.WatchStatus = func(_ context.Context, emit func(userapi.Status) error) error { return emit(userapi.Status{}) }
	c.StatusOf = func(context.Context, api.Object) {}
	c.Audit = func(context.Context) ([]userapi.Rule, error) {
		r.audits.Add(1)
		return []userapi.Rule{{Code: "LF2101", OK: false}, {Code: "LF2102", OK: true}}, nil
	}
	c.Move = func(_ context.Context, _ Caller, s api.ServiceID, _ string, _ userapi.MoveRequest) (userapi.MoveResponse, error) {
		return userapi.MoveResponse{Service: s}, nil
	}
	c.RunDrill = func(context.Context, Caller, string, userapi.RunRequest) (userapi.Run, error) {
		return userapi.Run{}, nil
	}
	c.Run = func(context.Context, string) (userapi.Run, error) {
		return userapi.Run{Proposal: []byte(`{"a": 1}`)}, nil
	}
	c.Runs = func(context.Context) ([]userapi.RunSummary, error) { return []userapi.RunSummary{}, nil }
	c.Approve = func(context.Context, Caller, []byte, string, userapi.ApproveRequest) (userapi.Run, error) {
		return userapi.Run{}, nil
	}
	c.Abort = func(context.Context, Caller, string, string) (userapi.Run, error) { return userapi.Run{}, nil }
	c.WatchRun = func(_ context.Context, _ string, emit func(userapi.RunEvent) error) error {
		return emit(userapi.RunEvent{})
	}
	c.Bundle = func(_ context.Context, run string) (string, error) {
		return "", api.Errorf(api.NotFound, "run/"+run, "does not exist")
	}
	c.ApplyFinding = func(context.Context, Caller, string, userapi.FindingRequest) (userapi.FindingResponse, error) {
		return userapi.FindingResponse{}, nil
	}
	c.CloseFinding = c.ApplyFinding
	c.Lever = func(context.Context) (userapi.Lever, error) { return userapi.Lever{}, nil }
	c.SetLever = func(_ context.Context, _ Caller, l userapi.Lever) (userapi.Lever, error) { return l, nil }
}

func (r *rig) listen() {
	r.t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		r.t.Fatal(err)
	}
	csr, err := key.CSR()
	if err != nil {
		r.t.Fatal(err)
	}
	chain, err := r.ca.Sign(csr, identity.Server(domain), time.Now(), identity.SignOptions{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		r.t.Fatal(err)
	}
	svid, err := identity.NewSVID(key, chain, r.ca.Roots())
	if err != nil {
		r.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	srv := &http.Server{Handler: r.server, TLSConfig: identity.OptionalTLS(identity.NewSource(svid), nil, "http/1.1"),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = srv.ServeTLS(identity.Listener(l), "", "") }) // ends with Close
	r.t.Cleanup(func() {
		_ = srv.Close()
		tasks.Wait()
	})
	r.base = "https://" + l.Addr().String()
}

// bootstrap makes the machine's administrator.
func (r *rig) bootstrap() {
	r.t.Helper()
	key, csr := personKey(r.t)
	if err := r.server.EnsureAdmin(r.t.Context(), key.Public().(ed25519.PublicKey), spki(r.t, key)); err != nil {
		r.t.Fatal(err)
	}
	r.admin = r.person("admin", key, csr)
}

func personKey(t *testing.T) (ed25519.PrivateKey, []byte) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, csr
}

func spki(t *testing.T, key crypto.Signer) string {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return sha256Hex(b)
}

// person is a client with a certificate of the authority for a name, enrolled or not.
func (r *rig) person(name string, key ed25519.PrivateKey, csr []byte) *http.Client {
	r.t.Helper()
	chain, err := r.ca.Sign(csr, identity.User(domain, name), time.Now(), identity.SignOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.client(chain, key)
}

func (r *rig) client(chain []byte, key crypto.Signer) *http.Client {
	r.t.Helper()
	cfg, err := identity.RootsTLS(domain, r.ca.Roots(), identity.Exactly(identity.Server(domain)))
	if err != nil {
		r.t.Fatal(err)
	}
	if chain != nil {
		cert := tls.Certificate{PrivateKey: key}
		for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
			cert.Certificate = append(cert.Certificate, block.Bytes)
		}
		cfg.Certificates = []tls.Certificate{cert}
		cfg.GetClientCertificate = nil
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}, Timeout: time.Minute}
	r.t.Cleanup(c.CloseIdleConnections)
	return c
}

// enrolled makes an account by the calls that people make, and the client of its certificate.
func (r *rig) enrolled(name, role, group string) (*http.Client, ed25519.PrivateKey) {
	r.t.Helper()
	var made userapi.UserCreated
	r.must(r.admin, "POST", "/v1alpha1/users", userapi.User{Name: name, Role: role, Group: group}, &made)
	key, csr := personKey(r.t)
	var out userapi.EnrolResponse
	r.must(r.client(nil, nil), "POST", "/v1alpha1/enrol", userapi.EnrolRequest{Code: made.Code, CSR: csr}, &out)
	return r.client(out.Certificate, key), key
}

// nodeKey is a node's key, as its client needs it.
type nodeKey struct {
	identity.Key
	csr []byte
}

func newNodeKey(t *testing.T) nodeKey {
	t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := key.CSR()
	if err != nil {
		t.Fatal(err)
	}
	return nodeKey{key, csr}
}

func (r *rig) token(req nodeapi.TokenRequest) string {
	r.t.Helper()
	var out nodeapi.TokenResponse
	r.must(r.admin, "POST", "/v1alpha1/tokens", req, &out)
	return out.Token
}

// joinAs spends a token and returns the error of the API, nil if it was taken.
func (r *rig) joinAs(token, node, service string, key nodeKey) (nodeapi.JoinResponse, *api.Error) {
	r.t.Helper()
	req := nodeapi.JoinRequest{Token: token, Node: api.NodeID(node), CSR: key.csr}
	if service != "" {
		req.Workload = &nodeapi.Workload{Name: node, Service: api.ServiceID(service)}
	}
	var out nodeapi.JoinResponse
	return out, r.call(r.client(nil, nil), "POST", "/v1alpha1/join", req, &out)
}

// nodeClient is the client of a node's certificate.
func (r *rig) nodeClient(key nodeKey, chain []byte) *http.Client {
	r.t.Helper()
	svid, err := identity.NewSVID(key.Key, chain, r.ca.Roots())
	if err != nil {
		r.t.Fatal(err)
	}
	keyPEM, err := svid.KeyPEM()
	if err != nil {
		r.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, keyPEM)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.client(chain, pair.PrivateKey.(crypto.Signer))
}

// call makes a call and returns the API's error, nil for 200.
func (r *rig) call(c *http.Client, method, path string, in, out any) *api.Error {
	r.t.Helper()
	var body io.Reader
	switch in := in.(type) {
	case nil:
	case string:
		body = strings.NewReader(in)
	case []byte:
		body = bytes.NewReader(in)
	default:
		b, err := json.Marshal(in)
		if err != nil {
			r.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.base+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.do(c, req, out)
}

func (r *rig) do(c *http.Client, req *http.Request, out any) *api.Error {
	r.t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL.Path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", req.Method, req.URL.Path, err)
	}
	if resp.StatusCode == http.StatusOK {
		if out != nil {
			if err := json.Unmarshal(b, out); err != nil {
				r.t.Fatalf("%s %s: %v in %s", req.Method, req.URL.Path, err, b)
			}
		}
		return nil
	}
	var e api.Error
	if err := json.Unmarshal(b, &e); err != nil || e.Kind == "" || e.Kind.HTTPStatus() != resp.StatusCode {
		r.t.Fatalf("%s %s: status %d with %q, want an api.Error of that status", req.Method, req.URL.Path, resp.StatusCode, b)
	}
	return &e
}

func (r *rig) must(c *http.Client, method, path string, in, out any) {
	r.t.Helper()
	if e := r.call(c, method, path, in, out); e != nil {
		r.t.Fatalf("%s %s: %v", method, path, e)
	}
}

// accounts are the recorded changes of accounts and tokens, as "action detail".
func (r *rig) recorded(kind record.Kind) []evidence.Record {
	r.t.Helper()
	size, err := r.ledger.Size(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	if size == 0 {
		return nil
	}
	all, err := r.ledger.Range(r.t.Context(), 0, size)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []evidence.Record
	for _, rec := range all {
		if rec.Kind == string(kind) {
			out = append(out, rec)
		}
	}
	return out
}

// actions are those of the account records, with their details.
func (r *rig) actions() []string {
	r.t.Helper()
	var out []string
	for _, rec := range r.recorded(record.Account) {
		var a record.AccountChange
		if err := json.Unmarshal(rec.Data, &a); err != nil {
			r.t.Fatal(err)
		}
		out = append(out, a.Action+" "+a.Detail)
	}
	return out
}
