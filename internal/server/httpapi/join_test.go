package httpapi

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

var paySidecar = nodeapi.TokenRequest{Site: "eu", Service: "pay"}

// editToken changes what is stored of a token.
func (r *rig) editToken(token string, edit func(*joinToken)) {
	r.t.Helper()
	key := tokensPrefix + strings.Split(token, ".")[1]
	item, err := r.store.Get(r.t.Context(), key)
	if err != nil {
		r.t.Fatal(err)
	}
	var jt joinToken
	if err := json.Unmarshal(item.Value, &jt); err != nil {
		r.t.Fatal(err)
	}
	edit(&jt)
	b, err := json.Marshal(jt)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.store.Txn(r.t.Context(), *r.fence.Load(), store.Op{Key: key, Value: b, IfRevision: item.Revision, Lease: item.Lease}); err != nil {
		r.t.Fatal(err)
	}
}

// "token used twice, of another service, expired" (issue 3): each refusal beside the join that is accepted.
func TestTokenIsSpentOnceForWhatItSays(t *testing.T) {
	r := newRig(t)
	mine, other := newNodeKey(t), newNodeKey(t)
	wrongSecret := func(token string) string {
		p := strings.Split(token, ".")
		p[2] = strings.Repeat("A", len(p[2]))
		return strings.Join(p, ".")
	}
	for _, c := range []struct {
		name     string
		prepare  func(token string) string
		node     string
		service  string
		key      nodeKey
		want     string // "" = accepted
		recorded string // in the ledger; "" = nothing new
	}{
		{"good", nil, "n1", "pay", mine, "", "node.joined key"},
		{"another service", nil, "n2", "orders", mine, "is for service pay", "token.refused is for service pay"},
		{"an agent with a sidecar's token", nil, "n3", "", mine, "is for service pay", "token.refused is for service pay"},
		{"expired", func(tok string) string {
			r.editToken(tok, func(j *joinToken) { j.Secret.Expires = time.Now().Add(-time.Second) })
			return tok
		}, "n4", "pay", mine, "expired at", "token.refused expired at"},
		{"used by another", func(tok string) string {
			if _, e := r.joinAs(tok, "n5-first", "pay", other); e != nil {
				t.Fatal(e)
			}
			return tok
		}, "n5", "pay", mine, "used already", "token.refused used already"},
		{"used by the same with another key", func(tok string) string {
			if _, e := r.joinAs(tok, "n6", "pay", other); e != nil {
				t.Fatal(e)
			}
			return tok
		}, "n6", "pay", mine, "used already", "token.refused used already"},
		{"repeated with the same key at once", func(tok string) string {
			if _, e := r.joinAs(tok, "n7", "pay", mine); e != nil {
				t.Fatal(e)
			}
			return tok
		}, "n7", "pay", mine, "", ""},
		{"repeated with the same key when it has just expired", func(tok string) string {
			if _, e := r.joinAs(tok, "n8", "pay", mine); e != nil {
				t.Fatal(e)
			}
			r.editToken(tok, func(j *joinToken) { j.Secret.Expires = time.Now().Add(-time.Second) })
			return tok
		}, "n8", "pay", mine, "", ""},
		{"repeated with the same key after a minute", func(tok string) string {
			if _, e := r.joinAs(tok, "n9", "pay", mine); e != nil {
				t.Fatal(e)
			}
			r.editToken(tok, func(j *joinToken) { j.UsedAt = time.Now().Add(-repeatWithin - time.Second) })
			return tok
		}, "n9", "pay", mine, "used already", "token.refused used already"},
		{"wrong secret", wrongSecret, "n10", "pay", mine, "unknown", ""},
		{"unknown id", func(tok string) string {
			return strings.Replace(tok, strings.Split(tok, ".")[1], "0123456789abcdef", 1)
		}, "n11", "pay", mine, "unknown", ""},
		{"not a token", func(string) string { return "lf1.x" }, "n12", "pay", mine, "not a join token", ""},
		{"a key into the store", func(string) string { return "lf1.../users/admin.a.b.c" }, "n13", "pay", mine, "not a join token", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			token := r.token(paySidecar)
			if c.prepare != nil {
				token = c.prepare(token)
			}
			before := len(r.actions())
			joined, e := r.joinAs(token, c.node, c.service, c.key)
			if c.want == "" && e != nil {
				t.Fatalf("refused: %v", e)
			}
			if c.want != "" && (e == nil || e.Kind != api.Denied || !strings.Contains(e.Message, c.want)) {
				t.Fatalf("join = %v, want Denied with %q", e, c.want)
			}
			if e == nil && joined.Identity != "spiffe://mesh.test/site/eu/service/pay" {
				t.Errorf("identity %s", joined.Identity)
			}
			news := r.actions()[before:]
			if c.recorded == "" && len(news) > 0 || c.recorded != "" && (len(news) != 1 || !strings.HasPrefix(news[0], c.recorded)) {
				t.Errorf("recorded %q, want %q", news, c.recorded)
			}
		})
	}
}

// Whoever holds a spent token must not be able to fill the log with it.
func TestRefusalIsRecordedOnceForEachReason(t *testing.T) {
	r := newRig(t)
	token, key := r.token(paySidecar), newNodeKey(t)
	before := len(r.actions())
	for range 5 {
		if _, e := r.joinAs(token, "n1", "orders", key); e == nil {
			t.Fatal("joined")
		}
	}
	for i := range maxRefusals + 5 {
		if _, e := r.joinAs(token, "n"+strings.Repeat("x", i+1), "orders", key); e == nil {
			t.Fatal("joined")
		}
	}
	if got := len(r.actions()) - before; got != maxRefusals {
		t.Errorf("%d records of refusals, want %d", got, maxRefusals)
	}
	if _, e := r.joinAs(token, "n1", "pay", key); e != nil {
		t.Errorf("the token is spent by refusals: %v", e)
	}
}

func TestOneOfManyJoinsAtOnceSpendsTheToken(t *testing.T) {
	r := newRig(t)
	token := r.token(paySidecar)
	var joins sync.WaitGroup
	results := make(chan *api.Error, 8)
	for i := range cap(results) {
		key := newNodeKey(t)
		joins.Go(func() {
			_, e := r.joinAs(token, "n"+strings.Repeat("x", i+1), "pay", key)
			results <- e
		})
	}
	joins.Wait()
	won := 0
	for range cap(results) {
		if e := <-results; e == nil {
			won++
		} else if e.Kind != api.Conflict && e.Kind != api.Denied {
			t.Errorf("loser got %v", e)
		}
	}
	if won != 1 {
		t.Errorf("%d nodes joined with one token", won)
	}
}

// A request that cannot be signed, or a ledger that does not take the record, must not cost the token.
func TestFailedJoinLeavesTheTokenWhole(t *testing.T) {
	r := newRig(t)
	token, key := r.token(paySidecar), newNodeKey(t)
	r.broken.Store(true)
	if _, e := r.joinAs(token, "n1", "pay", key); e == nil || e.Kind != api.Unavailable {
		t.Fatalf("join without a ledger = %v, want Unavailable", e)
	}
	r.broken.Store(false)
	_, ed25519CSR := personKey(t) // a node's key is P-256
	if _, e := r.joinAs(token, "n1", "pay", nodeKey{csr: ed25519CSR}); e == nil || e.Kind != api.Invalid {
		t.Fatalf("join with a person's key = %v, want Invalid", e)
	}
	if _, e := r.joinAs(token, "n1", "pay", newNodeKey(t)); e != nil {
		t.Errorf("join after failures: %v", e)
	}
}

// A name that lives is not given to another key.
func TestNameOfLivingNodeIsNotTaken(t *testing.T) {
	r := newRig(t)
	first, second := newNodeKey(t), newNodeKey(t)
	joined, e := r.joinAs(r.token(paySidecar), "pay-1", "pay", first)
	if e != nil {
		t.Fatal(e)
	}
	registered := store.Op{Key: store.NodePrefix + "pay-1", Value: []byte("{}"), IfRevision: store.AnyRevision}
	if _, err := r.store.Txn(t.Context(), *r.fence.Load(), registered); err != nil {
		t.Fatal(err)
	}
	if _, e := r.joinAs(r.token(paySidecar), "pay-1", "pay", second); e == nil || e.Kind != api.Conflict || !strings.Contains(e.Message, "alive") {
		t.Fatalf("another key took a living node's name: %v", e)
	}
	if _, e := r.joinAs(r.token(paySidecar), "pay-1", "pay", first); e != nil {
		t.Errorf("the node itself is kept out: %v", e)
	}
	registered.Delete = true
	if _, err := r.store.Txn(t.Context(), *r.fence.Load(), registered); err != nil {
		t.Fatal(err)
	}
	if _, e := r.joinAs(r.token(nodeapi.TokenRequest{Site: "us", Service: "pay"}), "pay-1", "pay", second); e == nil || e.Kind != api.Conflict {
		t.Errorf("a node of another site took the name: %v", e)
	}
	if _, e := r.joinAs(r.token(paySidecar), "pay-1", "pay", second); e != nil {
		t.Errorf("the name of a node that is gone: %v", e)
	}
	if last := r.actions(); !strings.Contains(last[len(last)-1], "in place of") {
		t.Errorf("recorded %q, want the key that was replaced", last[len(last)-1])
	}
	// The key before it is worth nothing now.
	e = r.call(r.nodeClient(first, joined.Certificate), "POST", "/v1alpha1/nodes/pay-1/heartbeat", "{}", nil)
	if e == nil || e.Kind != api.Denied {
		t.Errorf("heartbeat with the key that was replaced: %v, want Denied", e)
	}
}

func TestNodeSpeaksForItselfOnly(t *testing.T) {
	r := newRig(t)
	clients := map[string]nodeKey{}
	certs := map[string][]byte{}
	for _, name := range []string{"pay-1", "pay-2"} {
		key := newNodeKey(t)
		joined, e := r.joinAs(r.token(paySidecar), name, "pay", key)
		if e != nil {
			t.Fatal(e)
		}
		clients[name], certs[name] = key, joined.Certificate
	}
	c := r.nodeClient(clients["pay-1"], certs["pay-1"])
	for _, call := range []string{"heartbeat", "health", "renew", "leave"} {
		for _, node := range []string{"pay-2", "nobody", "..%2f..%2fusers%2fadmin"} {
			if e := r.call(c, "POST", "/v1alpha1/nodes/"+node+"/"+call, "{}", nil); e == nil || e.Kind != api.Denied {
				t.Errorf("%s as %s: %v, want Denied", call, node, e)
			}
		}
	}
	if e := r.call(c, "POST", "/v1alpha1/nodes/pay-1/heartbeat", "{}", nil); e != nil {
		t.Errorf("heartbeat as itself: %v", e)
	}
}

// Each attempt to renew makes a new key: lost answers must not lock the node out.
func TestRenewalSurvivesLostAnswers(t *testing.T) {
	r := newRig(t)
	key := newNodeKey(t)
	joined, e := r.joinAs(r.token(paySidecar), "pay-1", "pay", key)
	if e != nil {
		t.Fatal(e)
	}
	old := r.nodeClient(key, joined.Certificate)
	var next nodeKey
	var resp nodeapi.RenewResponse
	for range 3 { // the answers of the first two are lost
		next = newNodeKey(t)
		r.must(old, "POST", "/v1alpha1/nodes/pay-1/renew", nodeapi.RenewRequest{CSR: next.csr}, &resp)
	}
	r.must(old, "POST", "/v1alpha1/nodes/pay-1/heartbeat", "{}", nil) // on its way during the change
	renewed := r.nodeClient(next, resp.Certificate)
	r.must(renewed, "POST", "/v1alpha1/nodes/pay-1/heartbeat", "{}", nil)
	r.must(renewed, "POST", "/v1alpha1/nodes/pay-1/renew", nodeapi.RenewRequest{CSR: newNodeKey(t).csr}, &resp)
	if e := r.call(old, "POST", "/v1alpha1/nodes/pay-1/heartbeat", "{}", nil); e == nil {
		t.Error("a key two renewals old is still good")
	}
}

func TestAgentMakesTokensOfItsOwnSiteOnly(t *testing.T) {
	r := newRig(t)
	key := newNodeKey(t)
	joined, e := r.joinAs(r.token(nodeapi.TokenRequest{Site: "eu", Agent: true}), "agent-eu", "", key)
	if e != nil {
		t.Fatal(e)
	}
	agent := r.nodeClient(key, joined.Certificate)
	for _, c := range []struct {
		in   nodeapi.TokenRequest
		want api.ErrorKind
	}{
		{nodeapi.TokenRequest{Site: "eu", Service: "pay"}, ""},
		{nodeapi.TokenRequest{Site: "us", Service: "pay"}, api.Denied},
		{nodeapi.TokenRequest{Site: "eu", Agent: true}, api.Denied},
		{nodeapi.TokenRequest{Site: "eu"}, api.Invalid},
		{nodeapi.TokenRequest{Site: "eu", Service: "../x"}, api.Invalid},
		{nodeapi.TokenRequest{Site: "eu", Service: "pay", TTL: 48 * time.Hour}, api.Invalid},
		{nodeapi.TokenRequest{Site: "eu", Service: "pay", TTL: -1}, api.Invalid},
	} {
		e := r.call(agent, "POST", "/v1alpha1/tokens", c.in, nil)
		if got := kindOrNone(e); got != c.want {
			t.Errorf("token for %+v: %v, want %q", c.in, e, c.want)
		}
	}
	created := r.recorded("account")
	if last := created[len(created)-1]; last.Actor != "node:agent-eu" {
		t.Errorf("the token was made by %q in the log, want node:agent-eu", last.Actor)
	}
	// An agent whose name went to another key makes no tokens any more.
	if _, e := r.joinAs(r.token(nodeapi.TokenRequest{Site: "eu", Agent: true}), "agent-eu", "", newNodeKey(t)); e != nil {
		t.Fatal(e)
	}
	if e := r.call(agent, "POST", "/v1alpha1/tokens", paySidecar, nil); e == nil || e.Kind != api.Denied {
		t.Errorf("token for an agent that was replaced: %v, want Denied", e)
	}
}

func kindOrNone(e *api.Error) api.ErrorKind {
	if e == nil {
		return ""
	}
	return e.Kind
}

func TestSecretsAreNeverStored(t *testing.T) {
	r := newRig(t)
	token := r.token(paySidecar)
	r.enrolled("vic", "viewer", "")
	items, _, err := r.store.List(t.Context(), "/livefire/")
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(token, ".")[2]
	if slices.ContainsFunc(items, func(it store.Item) bool { return strings.Contains(string(it.Value), secret) }) {
		t.Error("the secret of a token is in the store")
	}
}
