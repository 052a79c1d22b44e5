//go:build e2e

package e2e

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/mesh/membership"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// "Refusals, a table where each row has its accepted twin, the application has received 0 bytes, and the access log or ledger
// names the reason."
func TestRefusals(t *testing.T) {
	b := newRig(t).server()
	t.Run("inbound", b.inbound)
	t.Run("tokens", b.tokens)
	t.Run("viewer", b.viewer)
	t.Run("approvals", b.approvals)
}

// sidecar is a livefire-proxy of payments at eu-west in front of an application that counts bytes.
type sidecar struct {
	t       *testing.T
	app     *application
	inbound string
	log     string
}

func (b *bare) sidecar(t *testing.T) *sidecar {
	s := &sidecar{t: t, app: newApplication(t), inbound: b.port(), log: filepath.Join(b.dir, "access.jsonl")}
	b.start("sidecar", built.proxy, "--service", "payments", "--site", "eu-west", "--name", "eu-payments-1", "--app", s.app.listener.Addr().String(),
		"--inbound", s.inbound, "--access-log", s.log, "--dir", filepath.Join(b.dir, "sidecar"),
		"--token", tokenFile(b.rig, b.admin, nodeapi.TokenRequest{Site: "eu-west", Service: "payments"}))
	return s
}

// ask sends one request and gives its status; an error is a connection that was refused.
func (s *sidecar) ask(cfg *tls.Config) (int, error) {
	c, err := net.DialTimeout("tcp", s.inbound, time.Second)
	if err != nil {
		return 0, err
	}
	if cfg != nil {
		c = tls.Client(c, cfg)
	}
	defer c.Close()
	status, _, err := request(c)
	return status, err
}

func request(c net.Conn) (int, string, error) {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "GET /account HTTP/1.1\r\nHost: payments.mesh\r\nUser-Agent: e2e\r\n\r\n"); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func (s *sidecar) logged(word string) bool {
	b, err := os.ReadFile(s.log)
	return err == nil && strings.Contains(string(b), word)
}

func (b *bare) inbound(t *testing.T) {
	s := b.sidecar(t)
	now := time.Now()
	caller := identity.Service(demoDomain, "client", "caller")
	good := anyServer(certificate(t, b.ca, caller, now, time.Hour))
	b.await(15*time.Second, "the sidecar serves the allowed caller", func() bool {
		status, err := s.ask(good)
		return err == nil && status == 200
	})
	foreign, err := identity.OpenCA(t.TempDir(), demoDomain, now)
	if err != nil {
		t.Fatal(err)
	}
	other, err := identity.OpenCA(t.TempDir(), "other.example", now)
	if err != nil {
		t.Fatal(err)
	}
	ended := certificate(t, b.ca, caller, now, 2*time.Second)
	b.await(5*time.Second, "the end of a certificate", func() bool { return time.Now().After(ended.Leaf.NotAfter) })
	for _, row := range []struct {
		name   string
		cfg    *tls.Config
		reason string // in the access log
	}{
		{"no certificate", anyServer(), "no-certificate"},
		{"certificate of an unknown authority", anyServer(certificate(t, foreign, caller, now, time.Hour)), "unknown-authority"},
		{"expired certificate", anyServer(ended), "expired"},
		{"certificate of another trust domain", anyServer(certificate(t, other, identity.Service("other.example", "client", "caller"), now, time.Hour)), "other-trust-domain"},
		{"plaintext", nil, "plaintext"},
		{"identity without a policy", anyServer(certificate(t, b.ca, identity.Service(demoDomain, "eu-west", "orders"), now, time.Hour)), "site/eu-west/service/orders"},
		{"identity of another site", anyServer(certificate(t, b.ca, identity.Service(demoDomain, "us-east", "caller"), now, time.Hour)), "site/us-east/service/caller"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := s.app.received.Load()
			status, err := s.ask(row.cfg)
			if err == nil && status != http.StatusForbidden && status != http.StatusBadRequest {
				t.Errorf("status %d, want a refusal", status)
			}
			if got := s.app.received.Load() - before; got != 0 {
				t.Errorf("the application has received %d bytes", got)
			}
			if !poll(2*time.Second, func() bool { return s.logged(row.reason) }) {
				t.Errorf("the access log does not say %q (status %d, %v)", row.reason, status, err)
			}
			if status, err := s.ask(good); err != nil || status != 200 || s.app.received.Load() == before {
				t.Errorf("the accepted twin: status %d, %v, %d bytes", status, err, s.app.received.Load()-before)
			}
		})
	}
	t.Run("an open connection past its certificate's end", func(t *testing.T) { s.outlives(b, caller) })
}

// outlives: TLS does not look at a certificate again, the sidecar does.
func (s *sidecar) outlives(b *bare, caller identity.ID) {
	t := s.t
	const life = 2 * time.Second
	cert := certificate(t, b.ca, caller, time.Now(), life)
	raw, err := net.DialTimeout("tcp", s.inbound, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, anyServer(cert))
	defer c.Close()
	if status, _, err := request(c); err != nil || status != 200 {
		t.Fatalf("while the certificate is valid: %d, %v", status, err)
	}
	_ = c.SetReadDeadline(cert.Leaf.NotAfter.Add(2 * time.Second))
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("the connection is open after the certificate's end: %d bytes, %v", n, err)
	}
	if at := time.Now(); at.Before(cert.Leaf.NotAfter.Add(-100 * time.Millisecond)) {
		t.Errorf("closed %v before the certificate's end", cert.Leaf.NotAfter.Sub(at))
	}
}

func (b *bare) tokens(t *testing.T) {
	join := func(node api.NodeID, service api.ServiceID, token string) error {
		_, err := membership.Open(b.ctx(10*time.Second), membership.Config{Dir: filepath.Join(t.TempDir(), "node"), Token: token, Node: node,
			Workload: &nodeapi.Workload{Name: string(node), Service: service, Address: "127.0.0.1:1"}, Logger: slog.New(slog.DiscardHandler)})
		return err
	}
	make := func(service api.ServiceID, ttl time.Duration) nodeapi.TokenResponse {
		resp, err := b.admin.Token(b.ctx(10*time.Second), nodeapi.TokenRequest{Site: "eu-west", Service: service, TTL: ttl})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	refused := func(what, reason string, err error) {
		if api.KindOf(err) != api.Denied || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v, want denied: %s", what, err, reason)
		}
	}
	accepted := func(what string, err error) {
		if err != nil {
			t.Errorf("the accepted twin of %s: %v", what, err)
		}
	}
	token := make("payments", 0)
	accepted("used twice", join("twin-1", "payments", token.Token))
	refused("used twice", "used", join("twin-2", "payments", token.Token))

	token = make("orders", 0)
	refused("another service", "service orders", join("other-1", "payments", token.Token))
	accepted("another service", join("other-2", "orders", token.Token))

	token = make("payments", time.Millisecond)
	b.await(5*time.Second, "the token's end", func() bool { return time.Now().After(token.Expires) })
	refused("expired", "expired", join("late-1", "payments", token.Token))
	accepted("expired", join("late-2", "payments", make("payments", time.Minute).Token))

	refused("made up", "unknown", join("made-up", "payments", strings.Replace(make("payments", 0).Token, "lf1.", "lf1.0", 1)))
}

// operation of the OpenAPI document.
type operation struct {
	ID       string `json:"operationId"`
	Role     string `json:"x-livefire-role"`
	Mutates  bool   `json:"x-livefire-mutates"`
	Security []any  `json:"security"`
}

// viewer: "each mutation of the OpenAPI document as viewer". Calls without authentication (join, enrol) are refused by their
// one-time secrets: see tokens.
func (b *bare) viewer(t *testing.T) {
	b.person("vera", userapi.Viewer, "")
	asViewer, asAdmin := b.caller(t, b.contextOf("vera")), b.caller(t, filepath.Join(b.home, "context.yaml"))
	var doc struct {
		Paths map[string]map[string]operation
	}
	if status, body := asViewer("GET", "/openapi.json"); status != 200 || json.Unmarshal(body, &doc) != nil {
		t.Fatalf("GET /openapi.json: %d %s", status, body)
	}
	if status, body := asViewer("GET", "/v1alpha1/status"); status != 200 {
		t.Fatalf("a viewer may read: %d %s", status, body)
	}
	mutations, twins := 0, 0
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if !op.Mutates || op.Security == nil {
				continue
			}
			mutations++
			at := strings.NewReplacer("{kind}", "Site", "{name}", "nobody", "{service}", "nothing", "{run}", "nothing-20260101-1", "{drill}", "nothing",
				"{id}", "F-nothing", "{node}", "nothing").Replace(path)
			if status, body := asViewer(strings.ToUpper(method), at); status != http.StatusForbidden {
				t.Errorf("%s %s as viewer: %d %s, want 403", method, at, status, body)
			}
			if strings.Contains(op.Role, "operator") || op.Role == "admin" {
				twins++
				if status, body := asAdmin(strings.ToUpper(method), at); status == http.StatusForbidden || status == http.StatusUnauthorized {
					t.Errorf("%s %s as admin: %d %s", method, at, status, body)
				}
			}
		}
	}
	t.Logf("%d mutations refused, %d of them as admin not refused for the role", mutations, twins)
	if mutations < 15 || twins < 8 {
		t.Errorf("%d mutations and %d twins: the document has lost some", mutations, twins)
	}
}

// caller calls the API with the certificate of a context file and an empty object as body.
func (b *bare) caller(t *testing.T, path string) func(method, path string) (int, []byte) {
	t.Helper()
	ctx := readContext(t, path)
	pair, err := tls.X509KeyPair([]byte(ctx.Certificate), []byte(ctx.Key))
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: anyServer(pair)}, Timeout: 10 * time.Second}
	t.Cleanup(c.CloseIdleConnections)
	return func(method, path string) (int, []byte) {
		req, err := http.NewRequestWithContext(b.ctx(10*time.Second), method, ctx.Server+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
}

// approvals: "approver is the runner; an edit after approval".
func (b *bare) approvals(t *testing.T) {
	ctx := b.ctx(60 * time.Second)
	boss := b.person("boss", userapi.Admin, "security")
	people := map[string]*client.Client{"development": b.person("dev1", userapi.Approver, "development"),
		"operations": b.person("ops1", userapi.Approver, "operations"), "security": b.person("sec1", userapi.Approver, "security")}
	run, err := boss.RunDrill(ctx, "site-loss", userapi.RunRequest{})
	if err != nil {
		t.Fatalf("run the drill: %v", err)
	}
	id := run.Run.Metadata.Name
	if err := approve(b, boss, id, "security"); api.KindOf(err) != api.Denied {
		t.Errorf("the runner approves: %v, want denied", err)
	}
	for _, group := range []string{"development", "operations"} {
		if err := approve(b, people[group], id, group); err != nil {
			t.Fatalf("%s approves: %v", group, err)
		}
	}
	old, err := boss.Proposal(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	b.edit(t)
	if err := approve(b, people["security"], id, "security"); err != nil && api.KindOf(err) != api.Conflict && api.KindOf(err) != api.Denied {
		t.Fatalf("security approves: %v", err)
	}
	missing := func() []string {
		r, err := boss.Run(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return r.Missing
	}
	if !poll(15*time.Second, func() bool { return len(missing()) == 3 }) {
		t.Fatalf("after an edit of the drill the approvals of %v are missing, want all three void", missing())
	}
	changed, err := boss.Proposal(ctx, id)
	if err != nil || string(changed) == string(old) || !strings.Contains(string(changed), "3s") {
		t.Errorf("the proposal is not rendered again: %v", err)
	}
	groups := []string{"development", "operations", "security"}
	for _, group := range groups {
		if err := approve(b, people[group], id, group); err != nil {
			t.Errorf("the accepted twin: %s approves the new proposal: %v", group, err)
		}
	}
	if !poll(15*time.Second, func() bool {
		r, err := boss.Run(ctx, id)
		return err == nil && len(r.Missing) == 0 && !slices.Contains([]string{"", "Draft", "Proposed"}, r.Run.Status.State)
	}) {
		t.Error("with three approvals of the new proposal the run does not go on")
	}
}

// edit changes the drill, as an operator would while others read its proposal.
func (b *bare) edit(t *testing.T) {
	ctx := b.ctx(10 * time.Second)
	raw, err := b.admin.Get(ctx, api.Ref{Kind: api.KindDrill, Name: "site-loss"})
	if err != nil {
		t.Fatal(err)
	}
	var drill map[string]any
	if err := json.Unmarshal(raw, &drill); err != nil {
		t.Fatal(err)
	}
	drill["spec"].(map[string]any)["hold"] = "3s"
	delete(drill, "status")
	changed, err := json.Marshal(drill)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.admin.Apply(ctx, userapi.ApplyRequest{Objects: []json.RawMessage{changed}, Reason: "an edit after approval"}); err != nil {
		t.Fatalf("edit the drill: %v", err)
	}
}

// approve signs the stored proposal with the person's own key.
func approve(b *bare, c *client.Client, id, group string) error {
	ctx := b.ctx(10 * time.Second)
	proposal, err := c.Proposal(ctx, id)
	if err != nil {
		return err
	}
	key, err := c.ApprovalKey()
	if err != nil {
		return err
	}
	envelope, err := evidence.SignApproval(key, evidence.Approval{Run: id, ProposalSHA256: sha256Hex(proposal), Group: group,
		Decision: evidence.Approve, By: c.User(), At: time.Now().UTC()})
	if err != nil {
		return err
	}
	_, err = c.Approve(ctx, id, envelope)
	return err
}
