package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

func TestEnrolmentCodeIsUsedOnce(t *testing.T) {
	r := newRig(t)
	var made userapi.UserCreated
	r.must(r.admin, "POST", "/v1alpha1/users", userapi.User{Name: "vic", Role: userapi.Viewer}, &made)
	anonymous := r.client(nil, nil)
	enrol := func(code string, csr []byte) *api.Error {
		return r.call(anonymous, "POST", "/v1alpha1/enrol", userapi.EnrolRequest{Code: code, CSR: csr}, nil)
	}
	_, csr := personKey(t)
	parts := strings.Split(made.Code, ".")
	for _, c := range []struct {
		name, code string
		csr        []byte
		want       api.ErrorKind
	}{
		{"wrong secret", strings.Replace(made.Code, parts[2], strings.Repeat("A", len(parts[2])), 1), csr, api.Denied},
		{"another account", strings.Replace(made.Code, ".vic.", ".admin.", 1), csr, api.Denied},
		{"no account", strings.Replace(made.Code, ".vic.", ".nobody.", 1), csr, api.Denied},
		{"not a code", "lfc1", csr, api.Denied},
		{"a node's key", made.Code, newNodeKey(t).csr, api.Invalid},
		{"no request", made.Code, nil, api.Invalid},
		{"good", made.Code, csr, ""},
		{"again", made.Code, csr, api.Denied},
	} {
		if e := enrol(c.code, c.csr); kindOrNone(e) != c.want {
			t.Errorf("%s: %v, want %q", c.name, e, c.want)
		}
	}
	// A new code for the same account; the old key works until it is used, then no more.
	old, _ := r.enrolled("ops", userapi.Operator, "operations")
	r.must(old, "GET", "/v1alpha1/whoami", nil, nil)
	if e := r.call(r.admin, "POST", "/v1alpha1/users", userapi.User{Name: "ops", Role: userapi.Admin}, nil); kindOrNone(e) != api.Conflict {
		t.Errorf("a new code changed the role: %v", e)
	}
	r.enrolled("ops", userapi.Operator, "operations")
	if e := r.call(old, "GET", "/v1alpha1/whoami", nil, nil); kindOrNone(e) != api.Denied {
		t.Errorf("the key before the enrolment: %v, want Denied", e)
	}
}

func TestAccountsOfTheMachineAndOfTheCallerStay(t *testing.T) {
	r := newRig(t)
	adm, _ := r.enrolled("adm", userapi.Admin, "")
	for _, c := range []struct {
		method, path string
		in           any
		want         api.ErrorKind
	}{
		{"DELETE", "/v1alpha1/users/admin", nil, api.Denied},
		{"DELETE", "/v1alpha1/users/adm", nil, api.Denied},
		{"DELETE", "/v1alpha1/users/nobody", nil, api.NotFound},
		{"POST", "/v1alpha1/users", userapi.User{Name: "admin", Role: userapi.Admin}, api.Denied},
		{"POST", "/v1alpha1/users", userapi.User{Name: "a/b", Role: userapi.Viewer}, api.Invalid},
		{"POST", "/v1alpha1/users", userapi.User{Name: "x", Role: "root"}, api.Invalid},
		{"POST", "/v1alpha1/users", userapi.User{Name: "x", Role: userapi.Approver}, api.Invalid},
		{"POST", "/v1alpha1/users", userapi.User{Name: "x", Role: userapi.Approver, Group: "friends"}, api.Invalid},
		{"POST", "/v1alpha1/users", userapi.User{Name: "x", Role: userapi.Approver, Group: "security"}, ""},
	} {
		if e := r.call(adm, c.method, c.path, c.in, nil); kindOrNone(e) != c.want {
			t.Errorf("%s %s %+v: %v, want %q", c.method, c.path, c.in, e, c.want)
		}
	}
}

// bearer adds a token to every request.
type bearerTransport struct {
	next  http.RoundTripper
	token string
}

func (b bearerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

func (r *rig) withBearer(token string) *http.Client {
	c := r.client(nil, nil)
	c.Transport = bearerTransport{c.Transport, token}
	return c
}

func TestBearerTokenEndsWithItsTimeItsKeyAndItsAccount(t *testing.T) {
	r := newRig(t)
	ops, _ := r.enrolled("ops", userapi.Operator, "operations")
	make := func(c *http.Client, name string, ttl time.Duration) (string, *api.Error) {
		var out userapi.BearerResponse
		e := r.call(c, "POST", "/v1alpha1/users/"+name+"/tokens", userapi.BearerRequest{TTL: ttl}, &out)
		return out.Token, e
	}
	good, e := make(ops, "ops", time.Hour)
	if e != nil {
		t.Fatal(e)
	}
	var who userapi.Whoami
	r.must(r.withBearer(good), "GET", "/v1alpha1/whoami", nil, &who)
	if who.Name != "ops" || who.Role != userapi.Operator {
		t.Errorf("whoami = %+v", who)
	}
	short, e := make(ops, "ops", time.Nanosecond)
	if e != nil {
		t.Fatal(e)
	}
	for name, token := range map[string]string{"expired": short, "wrong secret": good[:len(good)-3] + "AAA", "not a token": "x", "a key into the store": "lfb1.a/b.c"} {
		if e := r.call(r.withBearer(token), "GET", "/v1alpha1/whoami", nil, nil); kindOrNone(e) != api.Denied {
			t.Errorf("%s: %v, want Denied", name, e)
		}
	}
	if _, e := make(ops, "admin", time.Hour); kindOrNone(e) != api.Denied {
		t.Errorf("an operator made a token of admin: %v", e)
	}
	if _, e := make(r.withBearer(good), "ops", 24*time.Hour); kindOrNone(e) != api.Denied {
		t.Errorf("a bearer token made a longer one: %v", e)
	}
	if _, e := make(ops, "ops", maxBearerTTL+1); kindOrNone(e) != api.Invalid {
		t.Errorf("a token for ever: %v", e)
	}
	// A new key: what the old one has made is over.
	ops, _ = r.enrolled("ops", userapi.Operator, "operations")
	if e := r.call(r.withBearer(good), "GET", "/v1alpha1/whoami", nil, nil); kindOrNone(e) != api.Denied {
		t.Errorf("the token of a key that was replaced: %v, want Denied", e)
	}
	// Another account of the same name does not inherit tokens.
	again, e := make(ops, "ops", time.Hour)
	if e != nil {
		t.Fatal(e)
	}
	r.must(r.admin, "DELETE", "/v1alpha1/users/ops", nil, nil)
	if e := r.call(r.withBearer(again), "GET", "/v1alpha1/whoami", nil, nil); kindOrNone(e) != api.Denied {
		t.Errorf("the token of a removed account: %v, want Denied", e)
	}
	r.must(r.admin, "POST", "/v1alpha1/users", userapi.User{Name: "ops", Role: userapi.Admin}, nil)
	if e := r.call(r.withBearer(again), "GET", "/v1alpha1/whoami", nil, nil); kindOrNone(e) != api.Denied {
		t.Errorf("a token outlived its account: %v, want Denied", e)
	}
}

// An account without its record, or a record without its account, could never be explained.
func TestAccountAndItsRecordAreWrittenTogether(t *testing.T) {
	r := newRig(t)
	before := len(r.actions())
	r.broken.Store(true)
	if e := r.call(r.admin, "POST", "/v1alpha1/users", userapi.User{Name: "vic", Role: userapi.Viewer}, nil); kindOrNone(e) != api.Unavailable {
		t.Fatalf("add without a ledger: %v, want Unavailable", e)
	}
	r.broken.Store(false)
	var users []userapi.User
	r.must(r.admin, "GET", "/v1alpha1/users", nil, &users)
	if len(users) != 1 || len(r.actions()) != before {
		t.Errorf("%d accounts and %d new records after a failed write", len(users), len(r.actions())-before)
	}
	r.must(r.admin, "POST", "/v1alpha1/users", userapi.User{Name: "vic", Role: userapi.Viewer}, nil)
}

// A server whose term has ended writes nothing, whatever it still believes.
func TestNothingIsWrittenAfterTheTerm(t *testing.T) {
	r := newRig(t)
	r.resign()
	for path, in := range map[string]any{
		"/v1alpha1/users":              userapi.User{Name: "vic", Role: userapi.Viewer},
		"/v1alpha1/tokens":             paySidecar,
		"/v1alpha1/users/admin/tokens": userapi.BearerRequest{},
		"/v1alpha1/apply":              userapi.ApplyRequest{Objects: objects(site("eu"))},
	} {
		if e := r.call(r.admin, "POST", path, in, nil); e == nil {
			t.Errorf("%s was answered after the end of the term", path)
		}
	}
}
