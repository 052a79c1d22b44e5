package httpapi

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// Who may make each call. Written out: the table of operations must not be its own witness.
const (
	everybody = "anonymous viewer approver operator admin sidecar agent"
	people    = "viewer approver operator admin"
	operating = "operator admin"
	aNode     = "sidecar agent"
)

var allowed = map[string]string{
	"version": everybody, "openapi": everybody, "healthz": everybody, "enrol": everybody, "join": everybody,
	"whoami": people, "listUsers": people, "status": people, "list": people, "get": people, "watch": people, "audit": people,
	"lever": people, "checkpoint": people, "listRuns": people, "getRun": people, "getProposal": people, "watchRun": people,
	"bundle": people, "report": people,
	"addUser": "admin", "removeUser": "admin",
	"newBearer": operating, "delete": operating, "apply": operating, "failover": operating, "failback": operating, "setLever": operating,
	"runDrill": operating, "abort": operating, "applyFinding": operating, "closeFinding": operating,
	"approve":     "approver admin",
	"createToken": "operator admin agent",
	"renew":       aNode, "heartbeat": aNode, "health": aNode, "leave": aNode,
	"faults": "agent", "samples": "agent", "executions": "agent",
}

// "Refusals, a table where each row has its accepted twin: each mutation of the OpenAPI document as viewer" (issue 3).
func TestEveryCallIsForTheRolesThatTheTableSays(t *testing.T) {
	r := newRig(t)
	callers := map[string]*http.Client{"anonymous": r.client(nil, nil)}
	callers["admin"], _ = r.enrolled("adm", userapi.Admin, "")
	callers["viewer"], _ = r.enrolled("vic", userapi.Viewer, "")
	callers["operator"], _ = r.enrolled("ops", userapi.Operator, "operations")
	callers["approver"], _ = r.enrolled("sec", userapi.Approver, "security")
	for name, req := range map[string]nodeapi.TokenRequest{"sidecar": {Site: "eu", Service: "pay"}, "agent": {Site: "eu", Agent: true}} {
		key := newNodeKey(t)
		joined, e := r.joinAs(r.token(req), name, string(req.Service), key)
		if e != nil {
			t.Fatal(e)
		}
		callers[name] = r.nodeClient(key, joined.Certificate)
	}
	seen := 0
	for _, op := range r.server.operations() {
		may, known := allowed[op.ID]
		if !known {
			t.Errorf("operation %s is not in this test's table", op.ID)
			continue
		}
		seen++
		for _, who := range strings.Fields(everybody) {
			path := strings.NewReplacer("{node}", who, "{kind}", "Service", "{name}", "nobody", "{service}", "pay", "{drill}", "d", "{run}", "d-1", "{id}", "F-1").Replace(op.Path)
			want := slices.Contains(strings.Fields(may), who)
			e := r.call(callers[who], op.Method, path, body(op), nil)
			// A call that got past the door may still fail for what it says: then the error is not about the caller.
			refused := e != nil && e.Kind == api.Denied && (strings.Contains(e.Message, "this call needs") ||
				strings.Contains(e.Message, "no client certificate") || strings.Contains(e.Message, "only an agent"))
			if refused == want {
				t.Errorf("%s by %s: %v; allowed = %v, want %v", op.ID, who, e, !refused, want)
			}
		}
		if op.Mutates && op.Allow == viewers {
			t.Errorf("%s changes state and is open to viewers", op.ID)
		}
		if (op.Method == "GET") == op.Mutates {
			t.Errorf("%s: method %s, mutates %v", op.ID, op.Method, op.Mutates)
		}
	}
	if seen != len(allowed) {
		t.Errorf("%d operations, this test's table has %d", seen, len(allowed))
	}
}

func body(op operation) any {
	if op.In == nil || op.Method == "GET" {
		return nil
	}
	return "{}"
}

func TestCertificateProvesNobodyElse(t *testing.T) {
	r := newRig(t)
	_, key := r.enrolled("vic", userapi.Viewer, "")
	other, otherCSR := personKey(t)
	foreign, err := identity.OpenCA(t.TempDir(), domain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		client     *http.Client
	}{
		{"enrolled key", "", r.person("vic", key, csrOf(t, key))},
		{"another key, signed for the same name", "not the enrolled one", r.person("vic", other, otherCSR)},
		{"an account that does not exist", "no such account", r.person("eve", other, otherCSR)},
		{"the machine's administrator with another key", "not the enrolled one", r.person("admin", other, otherCSR)},
	} {
		e := r.call(c.client, "GET", "/v1alpha1/whoami", nil, nil)
		if c.want == "" && e != nil || c.want != "" && (e == nil || !strings.Contains(e.Message, c.want)) {
			t.Errorf("%s: %v, want %q", c.name, e, c.want)
		}
	}
	chain, err := foreign.Sign(otherCSR, identity.User(domain, "vic"), time.Now(), identity.SignOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := r.client(chain, other).Get(r.base + "/v1alpha1/whoami"); err == nil {
		resp.Body.Close()
		t.Errorf("a certificate of another authority was answered with %d", resp.StatusCode)
	}
}

// A page in a browser of a person with a certificate must not act in that person's name.
func TestRequestOfAnotherOriginIsRefused(t *testing.T) {
	r := newRig(t)
	for _, h := range []struct{ key, value string }{{"Origin", "https://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}} {
		req, err := http.NewRequestWithContext(t.Context(), "POST", r.base+"/v1alpha1/lever", strings.NewReader(`{"engaged":true,"reason":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(h.key, h.value)
		if e := r.do(r.admin, req, nil); e == nil || e.Kind != api.Denied || !strings.Contains(e.Message, "origin") {
			t.Errorf("%s: %s: %v, want a refusal", h.key, h.value, e)
		}
		req.Header.Del(h.key)
		req.Body, _ = req.GetBody()
		if e := r.do(r.admin, req, nil); e != nil {
			t.Errorf("without %s: %v", h.key, e)
		}
	}
}

func TestReleaseAndOverrideNeedAdmin(t *testing.T) {
	r := newRig(t)
	ops, _ := r.enrolled("ops", userapi.Operator, "operations")
	for _, c := range []struct {
		path string
		in   any
		want bool
	}{
		{"/v1alpha1/lever", userapi.Lever{Engaged: true, Reason: "storm"}, true},
		{"/v1alpha1/lever", userapi.Lever{Engaged: true}, false}, // says not why
		{"/v1alpha1/lever", userapi.Lever{Reason: "over"}, false},
		{"/v1alpha1/services/pay/failover", userapi.MoveRequest{To: "us", Reason: "r"}, true},
		{"/v1alpha1/services/pay/failover", userapi.MoveRequest{To: "us", Reason: "r", Override: []string{"LF2101"}}, false},
	} {
		if e := r.call(ops, "POST", c.path, c.in, nil); (e == nil) != c.want {
			t.Errorf("operator, %s %+v: %v, want allowed %v", c.path, c.in, e, c.want)
		}
		if in, ok := c.in.(userapi.Lever); ok && in.Reason == "" {
			continue
		}
		if e := r.call(r.admin, "POST", c.path, c.in, nil); e != nil {
			t.Errorf("admin, %s: %v", c.path, e)
		}
	}
}

func TestBodyIsBoundedAndStrict(t *testing.T) {
	r := newRig(t)
	big := `{"reason":"` + strings.Repeat("x", maxBody) + `"}`
	for _, c := range []struct{ name, in, want string }{
		{"too large", big, "larger than 1048576 bytes"},
		{"unknown field", `{"engaged":true,"reason":"r","becuase":1}`, "becuase"},
		{"two values", `{"engaged":true,"reason":"r"}{}`, "more than one"},
		{"trailing brace", `{"engaged":true,"reason":"r"}}`, "more than one"},
		{"not JSON", `engaged`, "invalid"},
	} {
		if e := r.call(r.admin, "POST", "/v1alpha1/lever", c.in, nil); e == nil || e.Kind != api.Invalid || !strings.Contains(e.Message, c.want) {
			t.Errorf("%s: %v, want Invalid with %q", c.name, e, c.want)
		}
	}
}

// What was not meant for people stays inside.
func TestInternalErrorsAreNotShown(t *testing.T) {
	r := newRig(t)
	r.server.cfg.Calls.Runs = func(context.Context) ([]userapi.RunSummary, error) {
		return nil, errors.New("open /secret/path: permission denied")
	}
	e := r.call(r.admin, "GET", "/v1alpha1/runs", nil, nil)
	if e == nil || e.Kind != api.Internal || strings.Contains(e.Error(), "secret") || !strings.Contains(e.Hint, "id ") {
		t.Errorf("internal error shown as %v, hint %q", e, e.Hint)
	}
}

func csrOf(t *testing.T, key ed25519.PrivateKey) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}
