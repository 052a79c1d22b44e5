package reconcile

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

var leverOn = userapi.Lever{Engaged: true, Reason: "storm"}

// "On restart: no inject intent yet: again from Prechecked. Any inject intent: never inject again" (architecture).
func TestRestartNeverPublishesAFaultAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		until  func(*term) string
		orders int // on record before the restart
	}{
		{"in the baseline", (*term).inBaseline, 0},
		{"injecting", (*term).injected, 1},
		{"holding", (*term).holding, 1},
		{"reverting", func(tm *term) string {
			run := tm.holding()
			if _, err := tm.loop.Abort(t.Context(), "ops1", run, "enough"); err != nil {
				t.Fatal(err)
			}
			return run
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			tm := w.lead()
			run := c.until(tm)
			if got := w.injections(run); got != c.orders {
				t.Fatalf("%d orders on record, want %d", got, c.orders)
			}
			if c.orders > 0 {
				if err := tm.xds.Renew("agent-a", tm.order().ID, time.Now().Add(time.Minute)); err != nil && c.name != "reverting" {
					t.Fatalf("the order was not published: %v", err)
				}
			}
			_ = tm.end()
			next := w.lead() // with an xDS server that has never seen an order
			next.settled()
			if c.orders == 0 {
				next.awaitState(drill.PrecheckOK)
				next.look(func(l *Loop) {
					if got := l.run.machine.State.Attempt; got != 2 {
						t.Errorf("attempt %d after a restart in the baseline, want a new one", got)
					}
				})
				return
			}
			order := next.order()
			next.closed(run)
			if got := w.injections(run); got != 1 {
				t.Errorf("%d orders on record after the restart, want 1", got)
			}
			if err := next.xds.Renew("agent-a", order.ID, time.Now().Add(time.Minute)); kindOf(err) != api.NotFound {
				t.Errorf("the new term has published the order again: %v", err)
			}
			v, err := next.loop.RunOf(t.Context(), run)
			if err != nil || v.Run.Status.Verdict != string(drill.Aborted) || v.Run.Status.State != string(drill.Done) {
				t.Errorf("run closed as %+v, %v", v.Run.Status, err)
			}
			own := w.ofRun(run)
			if last := own[len(own)-1]; last.Kind != string(record.RunClosed) || !slices.Contains(kinds(own), string(record.RunRestarted)) {
				t.Errorf("records of the run %v", kinds(own))
			}
		})
	}
}

func (w *world) ofRun(run string) []evidence.Record {
	w.t.Helper()
	out, err := w.ledger.Records(w.t.Context(), run)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func TestLeverAndGuardrailAbortTheRun(t *testing.T) {
	for _, c := range []struct {
		name, reason string
		trip         func(*testing.T, *term)
	}{
		{"lever", "lever", func(t *testing.T, tm *term) {
			if _, err := tm.loop.SetLever(t.Context(), "ops1", leverOn); err != nil {
				t.Fatal(err)
			}
		}},
		{"guardrail", "guardrail success", func(t *testing.T, tm *term) {
			for _, o := range tm.probes() {
				if o.Service != "bank" {
					continue
				}
				in, b := tm.chunk(o, 2, 10, false)
				if err := tm.loop.Samples(t.Context(), agents[2], in, b); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"lease lost", "lease-lost", func(t *testing.T, tm *term) {
			if err := tm.loop.OrderLost(t.Context(), tm.order().ID); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tm := newWorld(t).lead()
			run := tm.holding()
			c.trip(t, tm)
			tm.awaitState(drill.Reverting)
			tm.look(func(l *Loop) {
				if got := l.run.machine.State.Reason; !strings.Contains(got, c.reason) {
					t.Errorf("reverts because of %q, want %q", got, c.reason)
				}
				if len(l.run.placed) != len(l.run.machine.Probes()) {
					t.Errorf("orders %v are still placed", l.run.placed)
				}
			})
			if err := tm.xds.Renew("agent-a", tm.order().ID, time.Now().Add(time.Minute)); err == nil {
				t.Error("the fault's order is still in force")
			}
			tm.closed(run)
			if c.name == "lever" {
				if _, err := tm.loop.RunDrill(t.Context(), "ops1", "", "loss", userapi.RunRequest{}); kindOf(err) != api.Denied {
					t.Errorf("a run while the lever is engaged: %v, want Denied", err)
				}
			}
		})
	}
}

func TestClosedRunTakesNoMoreRecords(t *testing.T) {
	tm := newWorld(t).lead()
	run := tm.holding()
	order, probes := tm.order(), tm.probes()
	if _, err := tm.loop.Abort(t.Context(), "ops1", run, "enough"); err != nil {
		t.Fatal(err)
	}
	tm.closed(run)
	before := len(tm.ofRun(run))
	in, b := tm.chunk(probes[0], 2, 0, true)
	for what, c := range map[string]struct {
		err  error
		want api.ErrorKind
	}{
		"samples":    {tm.loop.Samples(t.Context(), agents[2], in, b), api.NotFound},
		"executions": {tm.loop.Executions(t.Context(), agents[1], nodeapi.Executions{Workload: "shop-b1"}, nil), api.NotFound},
		"order lost": {tm.loop.OrderLost(t.Context(), order.ID), ""},
		"approve":    {tm.approve(run), api.Denied},
	} {
		if kindOf(c.err) != c.want {
			t.Errorf("%s after the end: %v, want %q", what, c.err, c.want)
		}
	}
	if _, err := tm.loop.Abort(t.Context(), "ops1", run, "again"); kindOf(err) != api.Denied {
		t.Errorf("abort after the end: %v", err)
	}
	if _, err := tm.loop.SetLever(t.Context(), "ops1", leverOn); err != nil {
		t.Fatal(err)
	}
	if got := len(tm.ofRun(run)); got != before {
		t.Errorf("%d records, were %d at the end of the run", got, before)
	}
	if dir, err := tm.loop.Bundle(t.Context(), run); err != nil {
		t.Errorf("bundle: %v", err)
	} else if _, err := os.Stat(dir); err != nil {
		t.Errorf("bundle: %v", err)
	}
}

func TestSamplesAreTakenOnceAndInOrder(t *testing.T) {
	w := newWorld(t)
	tm := w.lead()
	run := tm.inBaseline()
	o := tm.probes()[0]
	second, b2 := tm.chunk(o, 1, 0, false)
	if err := tm.loop.Samples(t.Context(), agents[2], second, b2); err != nil {
		t.Fatal(err)
	}
	stored := func() (n int) {
		for _, k := range kinds(w.ofRun(run)) {
			if k == string(record.SampleChunk) {
				n++
			}
		}
		return n
	}
	before := stored()
	other, bOther := tm.chunk(o, 1, 3, false)
	gap, bGap := tm.chunk(o, 3, 0, false)
	next, bNext := tm.chunk(o, 2, 0, false)
	lied := next
	lied.SHA256 = strings.Repeat("0", 64)
	foreign := o
	foreign.Service = "bank"
	mislabelled, bMislabelled := tm.chunk(foreign, 2, 0, false)
	nobody := o
	nobody.ID += "x"
	unknown, bUnknown := tm.chunk(nobody, 0, 0, false)
	check := func(tm *term) {
		for _, c := range []struct {
			name string
			node Node
			in   nodeapi.Samples
			data []byte
			want api.ErrorKind
		}{
			{"the same again", agents[2], second, b2, ""},
			{"other bytes", agents[2], other, bOther, api.Conflict},
			{"a gap", agents[2], gap, bGap, api.Conflict},
			{"another digest than announced", agents[2], lied, bNext, api.Invalid},
			{"of another service", agents[2], mislabelled, bMislabelled, api.Denied},
			{"by the agent of another site", agents[0], next, bNext, api.Denied},
			{"of a probe that nobody ordered", agents[2], unknown, bUnknown, api.NotFound},
			{"not a chunk", agents[2], next, []byte("x"), api.Invalid},
		} {
			if err := tm.loop.Samples(t.Context(), c.node, c.in, c.data); kindOf(err) != c.want {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
		}
	}
	check(tm)
	if got := stored(); got != before {
		t.Errorf("%d chunks on record, were %d", got, before)
	}
}

// A fault is proven gone by the agent that holds it, and by nobody else.
func TestFaultIsReportedByItsOwnAgentOnly(t *testing.T) {
	tm := newWorld(t).lead()
	tm.injected()
	for _, c := range []struct {
		name string
		node Node
		edit func(*fault.Report)
		want api.ErrorKind
	}{
		{"another site's agent", agents[1], func(*fault.Report) {}, api.Denied},
		{"an order that never was", agents[0], func(r *fault.Report) { r.Order += "x" }, api.Invalid},
		{"another age", agents[0], func(r *fault.Report) { r.After = r.After.AddDate(500, 0, 0) }, api.Invalid},
		{"another run", agents[0], func(r *fault.Report) { r.Order = "other-1/02-x" }, ""}, // of a run that is over: dropped
	} {
		f := tm.reports(fault.Reverted)
		for i := range f.Reports {
			c.edit(&f.Reports[i])
		}
		if err := tm.loop.Faults(t.Context(), c.node, f); kindOf(err) != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	tm.look(func(l *Loop) {
		if got := l.run.machine.State.Injected[0].Targets; len(got) != 0 {
			t.Errorf("targets %+v from reports that were refused", got)
		}
	})
	tm.report(fault.Applied)
	tm.awaitState(drill.Holding)
}

func TestApprovalIsOfThisRunByThisPerson(t *testing.T) {
	tm := newWorld(t).lead()
	tm.settled()
	run := tm.propose()
	public := tm.key.Public().(ed25519.PublicKey)
	good := tm.envelope(run, "sec1", evidence.Approve)
	damaged := []byte(strings.Replace(string(good), `"payload"`, `"payl0ad"`, 1))
	stale, err := evidence.SignApproval(tm.key, evidence.Approval{Run: run, ProposalSHA256: strings.Repeat("0", 64), Group: "security",
		Decision: evidence.Reject, By: "sec1", At: tm.now()})
	if err != nil {
		t.Fatal(err)
	}
	otherKey, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, by, group, run string
		key                  []byte
		envelope             []byte
		want                 api.ErrorKind
	}{
		{"another account sends it", "eve", "security", run, public, good, api.Denied},
		{"another group", "sec1", "operations", run, public, good, api.Denied},
		{"another key is enrolled", "sec1", "security", run, otherKey, good, api.Denied},
		{"damaged", "sec1", "security", run, public, damaged, api.Denied},
		{"no such run", "sec1", "security", "loss-1", public, good, api.NotFound},
		{"by whoever asked for the run", "ops1", "security", run, public, tm.envelope(run, "ops1", evidence.Approve), api.Denied},
		{"a rejection of another proposal", "sec1", "security", run, public, stale, api.Denied},
		{"good", "sec1", "security", run, public, good, ""},
	} {
		if _, err := tm.loop.Approve(t.Context(), c.by, c.group, c.key, c.run, c.envelope); kindOf(err) != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	tm.look(func(l *Loop) {
		if got := fmt.Sprint(len(l.run.saved.Approvals), string(l.run.saved.Approvals["security"]) == string(good)); got != "1 true" {
			t.Errorf("envelopes kept: %s", got)
		}
	})
}

func TestOneRunAtATime(t *testing.T) {
	tm := newWorld(t).lead()
	tm.settled()
	run := tm.propose()
	if _, err := tm.loop.RunDrill(t.Context(), "ops1", "", "loss", userapi.RunRequest{}); kindOf(err) != api.Conflict {
		t.Errorf("a second run: %v, want Conflict", err)
	}
	if _, err := tm.loop.RunDrill(t.Context(), "ops1", "", "loss", userapi.RunRequest{PlanOnly: true}); err != nil {
		t.Errorf("a plan beside a run: %v", err)
	}
	if _, err := tm.loop.RunDrill(t.Context(), "ops1", "", "nothing", userapi.RunRequest{PlanOnly: true}); kindOf(err) != api.NotFound {
		t.Errorf("a drill that does not exist: %v", err)
	}
	if _, err := tm.loop.Abort(t.Context(), "ops1", run, "changed my mind"); err != nil {
		t.Fatal(err)
	}
	tm.await("evidence", func(l *Loop) bool { return l.run.saved.Report != "" })
	if again := tm.propose(); again == run {
		t.Errorf("run %s twice", again)
	}
	if v, err := tm.loop.RunOf(t.Context(), run); err != nil || v.Run.Status.Verdict != string(drill.Aborted) {
		t.Errorf("the first run: %+v, %v", v.Run.Status, err)
	}
}
