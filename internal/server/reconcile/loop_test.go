package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
	"github.com/livefire-mesh/livefire/internal/server/ledger"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// endpoints of a service at a site, as "name" or "-name" for one that is not registered.
func endpoints(t route.Table, service api.ServiceID, site api.SiteID) string {
	svc, _ := t.Service(service)
	var out []string
	for _, s := range svc.Sites {
		for _, e := range s.Endpoints {
			if s.Name != site {
				continue
			}
			if name := e.Workload; e.Registered {
				out = append(out, name)
			} else {
				out = append(out, "-"+name)
			}
		}
	}
	return strings.Join(out, " ")
}

// "a sidecar or its workload: unhealthy in every table within the registration lease, kept there as such" (architecture).
func TestEndOfRegistrationLeasePublishesOneTable(t *testing.T) {
	tm := newWorld(t).lead()
	tm.settled()
	var before route.Epoch
	tm.look(func(l *Loop) { before = l.table.Epoch })
	item, err := tm.store.Get(t.Context(), nodesPrefix+"shop-a1")
	if err != nil || item.Lease == 0 {
		t.Fatalf("registration %+v: %v", item, err)
	}
	if err := tm.store.Revoke(t.Context(), item.Lease); err != nil {
		t.Fatal(err)
	}
	tm.await("a table without it", func(l *Loop) bool { return endpoints(l.table, "shop", "a") == "-shop-a1 shop-a2" })
	tm.look(func(l *Loop) {
		if l.table.Epoch != before+1 {
			t.Errorf("epoch %d, was %d: want one table", l.table.Epoch, before)
		}
	})
	tm.beat()
	tm.await("back in the table", func(l *Loop) bool { return endpoints(l.table, "shop", "a") == "shop-a1 shop-a2" })
	// A real lease, not renewed: nobody but etcd says so.
	tm.beat("shop-a2")
	tm.await("the lease's end", func(l *Loop) bool { _, alive := l.regs["shop-a2"]; return !alive })
}

func TestSilentWorkloadIsRemovedAfterTenMinutesOnly(t *testing.T) {
	tm := newWorld(t).lead()
	tm.settled()
	drop := store.Op{Key: nodesPrefix + "shop-a1", Delete: true, IfRevision: store.AnyRevision}
	if _, err := tm.store.Txn(t.Context(), tm.currentFence(), drop); err != nil {
		t.Fatal(err)
	}
	tm.await("unregistered", func(l *Loop) bool { return endpoints(l.table, "shop", "a") == "-shop-a1 shop-a2" })
	tm.await("noted", func(l *Loop) bool { return !l.res.lostAt["shop-a1"].IsZero() })
	tm.advance(route.StaleAfter - time.Minute)
	tm.beat("shop-a1")
	tm.look(func(l *Loop) {
		if got := endpoints(l.table, "shop", "a"); !strings.Contains(got, "-shop-a1") {
			t.Errorf("endpoints %q after nine minutes", got)
		}
	})
	tm.advance(2 * time.Minute)
	tm.await("removed", func(l *Loop) bool { return !strings.Contains(endpoints(l.table, "shop", "a"), "shop-a1") })
}

// "each action is recorded, then done": verdict, order, table, in this order, and one table.
func TestLostSiteIsSwitchedOnceInOrder(t *testing.T) {
	tm := newWorld(t).lead()
	tm.settled()
	tm.await("active at a", func(l *Loop) bool { return l.machines["shop"].State.Active == "a" })
	var before route.Epoch
	tm.look(func(l *Loop) { before = l.table.Epoch })
	from := int64(len(tm.records(0)))
	tm.watchAll("a")
	tm.await("lost", func(l *Loop) bool { return slices.Contains(kinds(tm.records(from)), string(record.SiteVerdict)) })
	tm.look(func(l *Loop) {
		if l.table.Epoch != before {
			t.Errorf("the table changed before failover.after")
		}
	})
	tm.advance(1100 * time.Millisecond)
	tm.watchAll("a")
	tm.await("switched", func(l *Loop) bool { return l.machines["shop"].State.Active == "b" && l.table.Epoch > before })
	var order []string
	for _, r := range tm.records(from) {
		if r.Subject == "shop" || r.Kind == string(record.TableCommitted) {
			order = append(order, r.Kind)
		}
	}
	want := []string{string(record.SiteVerdict), string(record.FailoverOrder), string(record.TableCommitted)}
	if len(order) < 3 || !slices.Equal(order[:3], want) {
		t.Errorf("records %v, want %v first", order, want)
	}
	tm.look(func(l *Loop) {
		if l.table.Epoch != before+1 {
			t.Errorf("epoch %d, was %d: want one table", l.table.Epoch, before)
		}
		svc, _ := l.table.Service("shop")
		for _, s := range svc.Sites {
			if want := map[api.SiteID]route.Weight{"b": route.Whole}[s.Name]; s.Share != want {
				t.Errorf("share of %s = %v, want %v", s.Name, s.Share, want)
			}
		}
	})
}

// A new term knows what the one before it has decided, and decides nothing again.
func TestNewTermGoesOnWithTableAndPlacement(t *testing.T) {
	w := newWorld(t)
	tm := w.lead()
	tm.settled()
	tm.watchAll("a")
	tm.await("lost", func(l *Loop) bool { return slices.Contains(kinds(tm.records(0)), string(record.SiteVerdict)) })
	tm.advance(1100 * time.Millisecond)
	tm.watchAll("a")
	tm.await("switched", func(l *Loop) bool { return l.machines["shop"].State.Active == "b" })
	var epoch route.Epoch
	tm.look(func(l *Loop) { epoch = l.table.Epoch })
	if err := tm.end(); !errors.Is(err, context.Canceled) {
		t.Fatalf("the term ended with %v", err)
	}
	if _, err := tm.loop.Lever(t.Context()); kindOf(err) != api.Unavailable {
		t.Errorf("a call after the term: %v, want Unavailable", err)
	}
	orders := 0
	next := w.lead()
	next.settled()
	next.look(func(l *Loop) {
		if l.machines["shop"].State.Active != "b" || l.table.Epoch < epoch {
			t.Errorf("the new term has %s active in epoch %d, want b in at least %d", l.machines["shop"].State.Active, l.table.Epoch, epoch)
		}
	})
	for _, k := range kinds(w.records(0)) {
		if k == string(record.FailoverOrder) {
			orders++
		}
	}
	if orders != 1 {
		t.Errorf("%d orders to fail over, want 1", orders)
	}
}

func TestLeaveRemovesFromTheTableAtOnce(t *testing.T) {
	w := newWorld(t)
	tm := w.lead()
	tm.settled()
	sent := time.Now()
	leave := func(n Node) error { return tm.loop.Leave(t.Context(), n, nodeapi.Leave{Sent: sent}) }
	if err := leave(sidecars[0]); err != nil {
		t.Fatal(err)
	}
	tm.look(func(l *Loop) {
		if got := endpoints(l.table, "shop", "a"); got != "shop-a1 shop-a2" && got != "shop-a2" {
			t.Errorf("endpoints %q", got)
		}
	})
	tm.await("gone", func(l *Loop) bool { return endpoints(l.table, "shop", "a") == "shop-a2" })
	// A heartbeat that was on its way does not bring it back; one of the next start does.
	_, err := tm.loop.Heartbeat(t.Context(), sidecars[0], nodeapi.Heartbeat{Sent: sent.Add(-time.Millisecond), Workload: workload(sidecars[0])})
	if kindOf(err) != api.Conflict {
		t.Errorf("a heartbeat from before the farewell: %v, want Conflict", err)
	}
	records := len(tm.records(0))
	if err := leave(sidecars[0]); err != nil || len(tm.records(0)) != records {
		t.Errorf("leaving twice: %v and %d new records", err, len(tm.records(0))-records)
	}
	if _, err := w.store.Get(t.Context(), store.KindPrefix(api.KindWorkload)+"shop-a1"); kindOf(err) != api.NotFound {
		t.Errorf("the workload is still stored: %v", err)
	}
	// The last one of a site stays, unhealthy: an empty site could not be judged lost.
	if err := leave(sidecars[1]); err != nil {
		t.Fatal(err)
	}
	tm.await("the last one", func(l *Loop) bool { return endpoints(l.table, "shop", "a") == "-shop-a2" })
	// A caller has no endpoint to keep.
	if err := leave(sidecars[5]); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Get(t.Context(), store.KindPrefix(api.KindWorkload)+"caller-1"); kindOf(err) != api.NotFound {
		t.Errorf("the caller's workload is still stored: %v", err)
	}
	var details []string
	for _, r := range tm.records(0) {
		var a record.AccountChange
		if r.Kind == string(record.Account) && json.Unmarshal(r.Data, &a) == nil {
			details = append(details, a.Name+" "+a.Detail)
		}
	}
	want := []string{"shop-a1 workload removed", "shop-a2 workload kept: the last of its service at the site", "caller-1 workload removed"}
	if !slices.Equal(details, want) {
		t.Errorf("recorded %q, want %q", details, want)
	}
	tm.beat()
	tm.await("back", func(l *Loop) bool { return endpoints(l.table, "shop", "a") == "shop-a1 shop-a2" })
}

func TestNodeSaysOnlyWhatItIs(t *testing.T) {
	tm := newWorld(t).lead()
	shop := sidecars[0]
	edit := func(f func(*nodeapi.Workload)) nodeapi.Heartbeat {
		w := workload(shop)
		f(w)
		return nodeapi.Heartbeat{Sent: time.Now(), Workload: w}
	}
	agent := func(f func(*nodeapi.Agent)) nodeapi.Heartbeat {
		a := agentOf(agents[0])
		f(a)
		return nodeapi.Heartbeat{Sent: time.Now(), Agent: a}
	}
	for _, c := range []struct {
		name string
		node Node
		beat nodeapi.Heartbeat
		want api.ErrorKind
	}{
		{"good", shop, edit(func(*nodeapi.Workload) {}), ""},
		{"another service", shop, edit(func(w *nodeapi.Workload) { w.Service = "bank" }), api.Denied},
		{"another's workload", shop, edit(func(w *nodeapi.Workload) { w.Name = "shop-b1" }), api.Denied},
		{"a path as name", Node{ID: "../x", Site: "a", Service: "shop"}, edit(func(w *nodeapi.Workload) { w.Name = "../x" }), api.Invalid},
		{"no address", shop, edit(func(w *nodeapi.Workload) { w.Address = "here" }), api.Invalid},
		{"negative capacity", shop, edit(func(w *nodeapi.Workload) { w.Capacity = -1 }), api.Invalid},
		{"a sidecar as agent", shop, agent(func(*nodeapi.Agent) {}), api.Denied},
		{"an agent as sidecar", agents[0], edit(func(*nodeapi.Workload) {}), api.Denied},
		{"good agent", agents[0], agent(func(*nodeapi.Agent) {}), ""},
		{"agent of another site", agents[0], agent(func(a *nodeapi.Agent) { a.Site = "b" }), api.Denied},
		{"a path as workload", agents[0], agent(func(a *nodeapi.Agent) { a.Processes[0].Workload = "../../etc/cron.d/x" }), api.Invalid},
		{"a clock of another age", shop, nodeapi.Heartbeat{Sent: time.Now(), ClockOffset: 1 << 62}, api.Invalid},
	} {
		if _, err := tm.loop.Heartbeat(t.Context(), c.node, c.beat); kindOf(err) != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// What a node sends must not be able to end the term.
func TestUnbelievableReportsAreDropped(t *testing.T) {
	tm := newWorld(t).lead()
	tm.settled()
	records := len(tm.records(0))
	for _, r := range []nodeapi.Reflex{
		{Service: "shop", From: "a", To: "b", At: time.Date(9999, 12, 31, 23, 59, 59, 0, time.FixedZone("", -12*3600))},
		{Service: "nothing", From: "a", To: "b", At: time.Now()},
		{Service: "shop", From: "mars", To: "b", At: time.Now()},
	} {
		h := nodeapi.Health{Reflex: []nodeapi.Reflex{r}, Load: []nodeapi.Load{{Service: "shop", Requests: -5}, {Service: "x", Requests: 1}}}
		if err := tm.loop.Health(t.Context(), sidecars[5], h); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
	}
	if got := len(tm.records(0)) - records; got != 0 {
		t.Errorf("%d records of what nobody believes", got)
	}
	good := nodeapi.Health{Reflex: []nodeapi.Reflex{{Service: "shop", From: "a", To: "b", At: tm.now()}}}
	if err := tm.loop.Health(t.Context(), sidecars[5], good); err != nil || len(tm.records(0)) != records+1 {
		t.Errorf("a reflex: %v, %d new records", err, len(tm.records(0))-records)
	}
}

// A write that fails must not leave memory ahead of the store: the term ends, and the next one starts from what is stored.
func TestFailedWriteEndsTheTerm(t *testing.T) {
	w := newWorld(t)
	tm := w.lead()
	tm.settled()
	// Somebody else leads: every write of this term is refused.
	w.mu.Lock()
	good := w.fence
	w.mu.Unlock()
	items, _, err := w.store.List(t.Context(), "/livefire/election/")
	if err != nil || len(items) != 1 {
		t.Fatalf("%d candidates: %v", len(items), err)
	}
	if _, err := w.store.Txn(t.Context(), good, store.Op{Key: items[0].Key, Delete: true, IfRevision: store.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	stored := len(w.records(0))
	_, _ = tm.loop.SetLever(t.Context(), "ops", leverOn) // the outcome is looked at below
	select {
	case <-tm.loop.stopped:
	case <-time.After(limit):
		t.Fatal("the term goes on after a refused write")
	}
	if err := tm.end(); !errors.Is(err, store.ErrFenced) {
		t.Errorf("the term ended with %v, want fenced", err)
	}
	if got := len(w.records(0)); got != stored {
		t.Errorf("%d records, were %d", got, stored)
	}
	next := w.lead()
	if v, err := next.loop.Lever(t.Context()); err != nil || v.Engaged {
		t.Errorf("the next term has lever %+v, %v: want what is stored", v, err)
	}
}

// The API writes accounts and resources into the same log while the loop writes its own.
func TestOthersWriteTheLogAtTheSameTime(t *testing.T) {
	tm := newWorld(t).lead()
	tm.settled()
	before := len(tm.records(0))
	var writers sync.WaitGroup
	const each = 20
	writers.Go(func() {
		for range each {
			if _, err := tm.ledger.Append(t.Context(), ledger.Entry{Kind: string(record.Account), Actor: "user:x", Subject: "user/x", Data: record.AccountChange{Action: "user.added"}}); err != nil {
				t.Errorf("append: %v", err)
			}
		}
	})
	writers.Go(func() {
		for i := range each {
			v := leverOn
			v.Engaged = i%2 == 0
			if _, err := tm.loop.SetLever(t.Context(), "ops", v); err != nil {
				t.Errorf("lever: %v", err)
			}
		}
	})
	writers.Go(func() {
		for range each {
			tm.watchAll()
			if _, err := tm.loop.Status(t.Context()); err != nil {
				t.Errorf("status: %v", err)
			}
		}
	})
	writers.Wait()
	if got := len(tm.records(0)) - before; got != 2*each {
		t.Errorf("%d records, want %d", got, 2*each)
	}
}

func TestCallsAtTheEndOfTheTermGetAnAnswer(t *testing.T) {
	tm := newWorld(t).lead()
	tm.settled()
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for {
				if _, err := tm.loop.Status(context.Background()); err != nil {
					if kindOf(err) != api.Unavailable {
						t.Errorf("a call at the end: %v, want Unavailable", err)
					}
					return
				}
			}
		})
	}
	_ = tm.end()
	callers.Wait()
}
