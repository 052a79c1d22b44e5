package membership

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

const domain = "mesh.test"

// authority answers joins as a server does; the first calls it refuses with the kinds given.
type authority struct {
	ca    *identity.CA
	url   string
	mu    sync.Mutex
	fails []api.ErrorKind       // guarded by mu
	joins []nodeapi.JoinRequest // guarded by mu: that were answered
}

func newAuthority(t *testing.T, fails ...api.ErrorKind) *authority {
	t.Helper()
	a := &authority{fails: fails}
	var err error
	if a.ca, err = identity.OpenCA(t.TempDir(), domain, time.Now()); err != nil {
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
	chain, err := a.ca.Sign(csr, identity.Server(domain), time.Now(), identity.SignOptions{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		t.Fatal(err)
	}
	svid, err := identity.NewSVID(key, chain, a.ca.Roots())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.url = "https://" + l.Addr().String()
	srv := &http.Server{Handler: http.HandlerFunc(a.join), TLSConfig: identity.OptionalTLS(identity.NewSource(svid), nil, "http/1.1"),
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)}
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = srv.ServeTLS(l, "", "") }) // ends with Close
	t.Cleanup(func() { _ = srv.Close(); tasks.Wait() })
	return a
}

func (a *authority) join(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.fails) > 0 {
		kind := a.fails[0]
		a.fails = a.fails[1:]
		w.WriteHeader(kind.HTTPStatus())
		_ = json.NewEncoder(w).Encode(api.Errorf(kind, "token", "refused by the test"))
		return
	}
	var in nodeapi.JoinRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	chain, err := a.ca.Sign(in.CSR, identity.Service(domain, "eu", "pay"), time.Now(), identity.SignOptions{})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	a.joins = append(a.joins, in)
	_ = json.NewEncoder(w).Encode(nodeapi.JoinResponse{Identity: "x", Certificate: chain, Roots: a.ca.Roots(), TrustDomain: domain, Site: "eu", API: a.url, XDS: []string{"127.0.0.1:1"}})
}

func (a *authority) token(fingerprint string) string {
	return strings.Join([]string{"lf1", "id", "secret", fingerprint, base64.RawURLEncoding.EncodeToString([]byte(a.url))}, ".")
}

func open(t *testing.T, dir, token string, node api.NodeID) (*Member, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	m, err := Open(ctx, Config{Dir: dir, Token: token, Node: node, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Cleanup(m.Client.Close)
	}
	return m, err
}

func TestNodeJoinsOnceThenNeedsNeitherTokenNorServer(t *testing.T) {
	a := newAuthority(t, api.Unavailable) // no leader at first: the node waits
	dir := filepath.Join(t.TempDir(), "state")
	m, err := open(t, dir, a.token(a.ca.Fingerprint()), "pay-1")
	if err != nil {
		t.Fatal(err)
	}
	if want := "spiffe://mesh.test/site/eu/service/pay"; m.Identity() != want || m.Site != "eu" || m.API != a.url {
		t.Errorf("member %s at %s with %s", m.Identity(), m.Site, m.API)
	}
	a.mu.Lock()
	a.fails = []api.ErrorKind{api.Denied, api.Denied}
	a.mu.Unlock()
	again, err := open(t, dir, "", "pay-1")
	if err != nil || again.Identity() != m.Identity() {
		t.Fatalf("the second start: %v", err)
	}
	if len(a.joins) != 1 {
		t.Errorf("joined %d times", len(a.joins))
	}
	if _, err := open(t, dir, "", "pay-2"); api.KindOf(err) != api.Invalid {
		t.Errorf("another node in the same directory: %v, want Invalid", err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is open to others: %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestNodeIsRefusedOrRefuses(t *testing.T) {
	other, err := identity.OpenCA(t.TempDir(), domain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	denying := newAuthority(t, api.Denied)
	for _, c := range []struct {
		name, token string
		want        api.ErrorKind
	}{
		{"no token", "", api.Invalid},
		{"not a token", "lf1.x", api.Invalid},
		{"damaged address", "lf1.id.secret." + other.Fingerprint() + ".%%%", api.Invalid},
		{"damaged fingerprint", denying.token("zz"), api.Invalid},
		{"the server refuses", denying.token(denying.ca.Fingerprint()), api.Denied},
	} {
		dir := t.TempDir()
		if _, err := open(t, dir, c.token, "pay-1"); api.KindOf(err) != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
		if _, err := identity.LoadSVID(dir); err == nil {
			t.Errorf("%s left an identity", c.name)
		}
	}
	// A server whose root is not the token's gets nothing, not even the token.
	a := newAuthority(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, Config{Dir: t.TempDir(), Token: a.token(other.Fingerprint()), Node: "pay-1", Logger: slog.New(slog.DiscardHandler)}); err == nil || len(a.joins) > 0 {
		t.Errorf("joined a server of another authority: %v, %d requests", err, len(a.joins))
	}
}
