package reconcile

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
	"github.com/livefire-mesh/livefire/internal/mesh/xdsserver"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/server/ledger"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/testkit/testetcd"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// limit bounds every wait of these tests; none of them depends on how long it is.
const limit = time.Minute

const resourcesYAML = `
apiVersion: livefire.dev/v1alpha1
kind: Site
metadata: {name: a}
spec: {region: a}
---
kind: Site
metadata: {name: b}
spec: {region: b}
---
kind: Site
metadata: {name: client}
spec: {region: c}
---
kind: Service
metadata: {name: shop}
spec:
  data: stateless
  objectives: {rto: 5s, success: 0.99}
  health: {path: /healthz, interval: 300ms, timeout: 250ms}
---
kind: Service
metadata: {name: bank}
spec: {data: stateless, health: {path: /healthz}}
---
kind: Service
metadata: {name: caller}
spec: {data: stateless, dependsOn: [shop]}
---
kind: ActivePassive
metadata: {name: shop}
spec:
  service: shop
  order: [a, b]
  reflex: false
  failover: {mode: automatic, after: 1s, observers: 2}
  failback: {mode: manual, ramp: {shares: [1], every: 1s}}
---
kind: Scenario
metadata: {name: loss}
spec:
  faults:
    - {kind: kill, target: {site: "{site}"}}
  expect: {verdict: passed}
---
kind: Drill
metadata: {name: loss}
spec:
  scenario: loss
  scope: {site: a, services: [shop], maxTargets: 4}
  probes:
    - {service: shop, from: client, rate: 10}
    - {service: bank, from: client, rate: 10}
  guardrails:
    - {service: bank, success: {min: 0.9}, over: 10s}
  baseline: 2s
  hold: 4s
  verify: 2s
  lease: 5s
  approvals: [security]
  deadline: 5m
`

// world is what outlives a term: the store, the log, the clock and the people.
type world struct {
	t      *testing.T
	store  *store.Store
	ledger *ledger.Ledger
	signer *evidence.Signer
	dir    string
	key    ed25519.PrivateKey // of the approver

	mu    sync.Mutex
	fence store.Fence   // guarded by mu
	skip  time.Duration // guarded by mu: how far the clock is ahead
	base  time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, store: testetcd.Open(t), dir: t.TempDir(), base: time.Now()}
	private, _, err := evidence.NewKey("mesh.test/livefire")
	if err != nil {
		t.Fatal(err)
	}
	if w.signer, err = evidence.NewSigner(private); err != nil {
		t.Fatal(err)
	}
	if _, w.key, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	w.ledger, err = ledger.Open(t.Context(), ledger.Config{Store: w.store, Fence: w.currentFence, Signer: w.signer,
		Origin: w.signer.Name(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := api.Decode("test.yaml", []byte(resourcesYAML))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		if _, err := w.store.PutObject(t.Context(), store.Fence{}, d.Object); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) currentFence() store.Fence {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fence
}

// now is the server's clock: real time plus what the test has skipped.
func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.base.Add(time.Since(w.base) + w.skip).Round(0).UTC()
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.skip += d
}

// term is one leadership: a loop on the world's store, with an xDS server that nobody is connected to.
type term struct {
	*world
	loop *Loop
	xds  *xdsserver.Server
	end  func() error // ends the term and returns Run's error
}

// lead wins an election and runs a loop until end, or the end of the test.
func (w *world) lead() *term {
	w.t.Helper()
	tm := &term{world: w, xds: xdsserver.New(xdsserver.Config{Logger: slog.New(slog.DiscardHandler)})}
	ctx, cancel := context.WithCancel(context.Background())
	elected, done := make(chan struct{}), make(chan error, 1)
	go func() {
		var result error
		_ = w.store.Lead(ctx, "server", "test", 3*time.Second, func(ctx context.Context, f store.Fence) error {
			w.mu.Lock()
			w.fence = f
			w.mu.Unlock()
			tm.loop = New(Config{Store: w.store, Ledger: w.ledger, Signer: w.signer, XDS: tm.xds, Fence: f, TrustDomain: "mesh.test",
				Dir: w.dir, Software: "test", Clock: w.now, Logger: slog.New(slog.DiscardHandler)})
			close(elected)
			result = tm.loop.Run(ctx)
			cancel() // one term only
			return result
		})
		done <- result
	}()
	var once sync.Once
	var result error
	tm.end = func() error {
		once.Do(func() { cancel(); result = <-done })
		return result
	}
	w.t.Cleanup(func() { _ = tm.end() }) // the tests that care look at it
	select {
	case <-elected:
	case <-time.After(limit):
		w.t.Fatal("not elected")
	}
	return tm
}

// look runs f on the loop's goroutine.
func (tm *term) look(f func(l *Loop)) {
	tm.t.Helper()
	if err := tm.loop.do(tm.t.Context(), func(context.Context) error { f(tm.loop); return nil }); err != nil {
		tm.t.Fatalf("look: %v", err)
	}
}

// await waits until ok says so, asked after every step of the loop; keep is done before each time.
func (tm *term) await(what string, ok func(l *Loop) bool) {
	tm.t.Helper()
	deadline := time.After(limit)
	for {
		changed := tm.loop.news.wait()
		done, state := false, ""
		tm.look(func(l *Loop) {
			done = ok(l)
			if l.run != nil {
				state = fmt.Sprintf("run %s: %s", l.run.state(), l.run.machine.State.Reason)
			}
		})
		if done {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			tm.t.Fatalf("%s: never; %s", what, state)
		}
	}
}

var (
	sidecars = []Node{{ID: "shop-a1", Site: "a", Service: "shop"}, {ID: "shop-a2", Site: "a", Service: "shop"},
		{ID: "shop-b1", Site: "b", Service: "shop"}, {ID: "shop-b2", Site: "b", Service: "shop"},
		{ID: "bank-b1", Site: "b", Service: "bank"}, {ID: "caller-1", Site: "client", Service: "caller"}}
	agents = []Node{{ID: "agent-a", Site: "a", Agent: true}, {ID: "agent-b", Site: "b", Agent: true}, {ID: "agent-client", Site: "client", Agent: true}}
)

func workload(n Node) *nodeapi.Workload {
	w := &nodeapi.Workload{Name: string(n.ID), Service: n.Service, Version: "v1", Capacity: 100}
	if n.Service != "caller" {
		w.Address = "127.0.0.1:9000"
	}
	return w
}

func agentOf(n Node) *nodeapi.Agent {
	a := &nodeapi.Agent{Site: n.Site, Kinds: []fault.Kind{fault.Kill, fault.Pause}}
	for _, s := range sidecars {
		if s.Site == n.Site {
			a.Processes = append(a.Processes, nodeapi.Process{Name: string(s.ID), Service: s.Service, Workload: string(s.ID), PID: 1, State: "running"})
		}
	}
	if n.Site == "client" {
		a.CanProbe = []api.ServiceID{"bank", "shop"}
	}
	return a
}

// beat sends the heartbeat of every node, but those named.
func (tm *term) beat(but ...api.NodeID) {
	tm.t.Helper()
	for _, n := range append(append([]Node{}, sidecars...), agents...) {
		if strings.Contains(fmt.Sprint(but), string(n.ID)) {
			continue
		}
		h := nodeapi.Heartbeat{Sent: time.Now()}
		if n.Agent {
			h.Agent = agentOf(n)
		} else {
			h.Workload = workload(n)
		}
		if _, err := tm.loop.Heartbeat(tm.t.Context(), n, h); err != nil {
			tm.t.Fatalf("heartbeat of %s: %v", n.ID, err)
		}
	}
}

// watchAll sends every sidecar's view: all endpoints healthy, but those at the sites named.
func (tm *term) watchAll(lost ...api.SiteID) {
	tm.t.Helper()
	for _, n := range sidecars {
		var h nodeapi.Health
		for _, s := range []struct {
			service api.ServiceID
			site    api.SiteID
			names   []string
		}{{"shop", "a", []string{"shop-a1", "shop-a2"}}, {"shop", "b", []string{"shop-b1", "shop-b2"}}, {"bank", "b", []string{"bank-b1"}}} {
			o := health.Observation{Service: s.service, Site: s.site}
			for _, name := range s.names {
				o.Endpoints = append(o.Endpoints, health.EndpointView{Workload: name, Healthy: !strings.Contains(fmt.Sprint(lost), string(s.site))})
			}
			h.Observations = append(h.Observations, o)
		}
		if err := tm.loop.Health(tm.t.Context(), n, h); err != nil {
			tm.t.Fatalf("health of %s: %v", n.ID, err)
		}
	}
}

// settled brings the mesh up: every node registered and seen healthy, the table complete.
func (tm *term) settled() {
	tm.t.Helper()
	tm.beat()
	tm.await("all nodes in the table", func(l *Loop) bool {
		svc, ok := l.table.Service("shop")
		n := 0
		for _, s := range svc.Sites {
			for _, e := range s.Endpoints {
				if e.Registered {
					n++
				}
			}
		}
		return ok && n == 4 && len(l.regs) == len(sidecars)+len(agents)
	})
	tm.watchAll()
}

// records are all of the log, from an index on.
func (w *world) records(from int64) []evidence.Record {
	w.t.Helper()
	size, err := w.ledger.Size(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if size <= from {
		return nil
	}
	out, err := w.ledger.Range(w.t.Context(), from, size)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func kinds(records []evidence.Record) []string {
	out := make([]string, len(records))
	for i, r := range records {
		out[i] = r.Kind
	}
	return out
}

// injections is how many intents to inject a run has on record.
func (w *world) injections(run string) int {
	w.t.Helper()
	n := 0
	for _, r := range w.records(0) {
		var in record.Intent
		if r.Run == run && r.Kind == string(record.RunIntent) && json.Unmarshal(r.Data, &in) == nil && in.Fault != nil {
			n++
		}
	}
	return n
}

// propose opens a run and returns its id.
func (tm *term) propose() string {
	tm.t.Helper()
	v, err := tm.loop.RunDrill(tm.t.Context(), "ops1", "key-of-ops1", "loss", userapi.RunRequest{})
	if err != nil {
		tm.t.Fatal(err)
	}
	if got := v.Run.Status.State; got != string(drill.Proposed) {
		tm.t.Fatalf("a new run is %s", got)
	}
	return v.Run.Metadata.Name
}

func (tm *term) envelope(run, by, decision string) []byte {
	tm.t.Helper()
	v, err := tm.loop.RunOf(tm.t.Context(), run)
	if err != nil {
		tm.t.Fatal(err)
	}
	b, err := evidence.SignApproval(tm.key, evidence.Approval{Run: run, ProposalSHA256: sha256Hex(v.Proposal), Group: "security",
		Decision: decision, By: by, At: tm.now()})
	if err != nil {
		tm.t.Fatal(err)
	}
	return b
}

func (tm *term) approve(run string) error {
	tm.t.Helper()
	public := tm.key.Public().(ed25519.PublicKey)
	_, err := tm.loop.Approve(tm.t.Context(), "sec1", "security", public, run, tm.envelope(run, "sec1", evidence.Approve))
	return err
}

// chunk is the bytes of one chunk of a probe, and what announces them. failed of its ten samples failed.
func (tm *term) chunk(o sample.Order, number int64, failed int, last bool) (nodeapi.Samples, []byte) {
	c := sample.Chunk{Header: sample.Header{Format: sample.Format, Order: o.ID, Service: o.Service, From: o.From, Rate: o.Rate, Chunk: number, Last: last}}
	at := tm.now().Add(-time.Second).Truncate(time.Millisecond)
	for i := range int64(10) {
		s := sample.Sample{Seq: number*10 + i, Intended: at.Add(time.Duration(i) * 100 * time.Millisecond), End: time.Millisecond,
			Class: sample.OK, Code: 200, Attempts: 1, Site: "a", Request: fmt.Sprintf("%s/%d", o.ID, number*10+i)}
		if int(i) < failed {
			s.Class, s.Code = sample.Status, 500
		}
		c.Samples = append(c.Samples, s)
	}
	b := sample.EncodeChunk(c)
	return nodeapi.Samples{Order: o.ID, Chunk: number, SHA256: sha256Hex(b)}, b
}

// probes are the probe orders of the active run.
func (tm *term) probes() (out []sample.Order) {
	tm.look(func(l *Loop) { out = l.run.machine.Probes() })
	return out
}

// feed uploads a chunk of every probe.
func (tm *term) feed(number int64, last bool) {
	tm.t.Helper()
	for _, o := range tm.probes() {
		in, b := tm.chunk(o, number, 0, last)
		if err := tm.loop.Samples(tm.t.Context(), agents[2], in, b); err != nil {
			tm.t.Fatalf("samples of %s: %v", o.ID, err)
		}
	}
}

func (tm *term) awaitState(want drill.Name) {
	tm.t.Helper()
	tm.await("state "+string(want), func(l *Loop) bool { return l.run.state() == want })
}

// inBaseline takes a run to its baseline, injected one to its injection, holding one to its hold.
func (tm *term) inBaseline() string {
	tm.t.Helper()
	tm.settled()
	run := tm.propose()
	if err := tm.approve(run); err != nil {
		tm.t.Fatal(err)
	}
	tm.awaitState(drill.PrecheckOK)
	tm.feed(0, false)
	tm.awaitState(drill.Baseline)
	return run
}

func (tm *term) injected() string {
	tm.t.Helper()
	run := tm.inBaseline()
	tm.advance(2 * time.Second)
	tm.beat()
	tm.watchAll()
	tm.feed(1, false)
	tm.awaitState(drill.Injecting)
	return run
}

func (tm *term) holding() string {
	tm.t.Helper()
	run := tm.injected()
	tm.report(fault.Applied)
	tm.awaitState(drill.Holding)
	return run
}

// order is the fault order of the active run.
func (tm *term) order() (out fault.Order) {
	tm.t.Helper()
	tm.look(func(l *Loop) { out = l.run.machine.State.Injected[0].Order })
	return out
}

// reports on every target at site a.
func (tm *term) reports(phase fault.Phase) nodeapi.Faults {
	var out nodeapi.Faults
	for _, target := range []string{"shop-a1", "shop-a2"} {
		out.Reports = append(out.Reports, fault.Report{Order: tm.order().ID, Target: target, Service: "shop", Phase: phase,
			Before: tm.now(), After: tm.now(), Proof: "pid 1 gone", EndedBy: fault.ByRevert})
	}
	return out
}

func (tm *term) report(phase fault.Phase) {
	tm.t.Helper()
	if err := tm.loop.Faults(tm.t.Context(), agents[0], tm.reports(phase)); err != nil {
		tm.t.Fatal(err)
	}
}

// closed takes a run that reverts to its end: the faults proven gone, the mesh healthy, everything counted.
func (tm *term) closed(run string) {
	tm.t.Helper()
	tm.awaitState(drill.Reverting)
	tm.report(fault.Reverted)
	deadline := time.Now().Add(limit)
	for {
		tm.beat()
		tm.watchAll()
		state := drill.Name("")
		tm.look(func(l *Loop) { state = l.run.state() })
		if state == drill.Done {
			break
		}
		if time.Now().After(deadline) {
			tm.t.Fatalf("the run stays %s", state)
		}
		if tm.countedIn() {
			tm.advance(40 * time.Second) // longer than the machine waits for counts and measurements
			continue
		}
		changed := tm.loop.news.wait()
		tm.advance(time.Second)
		<-changed
	}
	tm.await("evidence of "+run, func(l *Loop) bool { r, err := l.findRun(run); return err == nil && r.saved.Report != "" })
}

func (tm *term) countedIn() (yes bool) {
	tm.look(func(l *Loop) { yes = l.run.machine.State.Stage == drill.Counting })
	return yes
}

func kindOf(err error) api.ErrorKind { return api.KindOf(err) }
