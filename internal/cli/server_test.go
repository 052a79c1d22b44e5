package cli

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const limit = time.Minute // bounds every wait; none of the tests depends on how long it is

// testServer is the other side of the commands: it answers what a test says, over TLS as the real one does.
type testServer struct {
	*http.ServeMux
	context string // context file of an account that it knows
}

func newServer(t *testing.T) *testServer {
	t.Helper()
	const domain = "mesh.test"
	now := time.Now()
	ca, err := identity.OpenCA(t.TempDir(), domain, now)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := key.CSR()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Sign(csr, identity.Server(domain), now, identity.SignOptions{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	svid, err := identity.NewSVID(key, chain, ca.Roots())
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{ServeMux: http.NewServeMux(), context: filepath.Join(t.TempDir(), "context.yaml")}
	h := httptest.NewUnstartedServer(s)
	// StartTLS would show a certificate of its own.
	h.Listener = tls.NewListener(h.Listener, identity.OptionalTLS(identity.NewSource(svid), identity.HasRole(identity.RoleUser)))
	h.Start()
	t.Cleanup(h.Close)
	url := "https://" + h.Listener.Addr().String()
	if err := client.Save(s.context, userapi.Context{Server: url, User: "ops1", TrustDomain: domain, Roots: string(ca.Roots()), Token: "lfb1.x.y"}); err != nil {
		t.Fatal(err)
	}
	return s
}

// answer makes the server answer a call with a value, or with an error.
func (s *testServer) answer(pattern string, f func(r *http.Request) any) {
	s.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		v := f(r)
		if e, ok := v.(*api.Error); ok {
			w.WriteHeader(e.Kind.HTTPStatus())
		}
		_ = json.NewEncoder(w).Encode(v)
	})
}

// stream answers with JSON lines, until events is closed or the caller has gone.
func (s *testServer) stream(pattern string, events func(n int, emit func(any), r *http.Request)) {
	var mu sync.Mutex
	n := -1
	s.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n++
		k := n
		mu.Unlock()
		w.WriteHeader(http.StatusOK)
		events(k, func(v any) {
			_ = json.NewEncoder(w).Encode(v)
			_ = http.NewResponseController(w).Flush()
		}, r)
	})
}

// connect is a client of the server.
func (s *testServer) connect(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.Load(s.context)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
