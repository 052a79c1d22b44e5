package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

func site(name string) string {
	return `{"apiVersion":"livefire.dev/v1alpha1","kind":"Site","metadata":{"name":"` + name + `"},"spec":{"region":"r"}}`
}

func service(name string) string {
	return `{"apiVersion":"livefire.dev/v1alpha1","kind":"Service","metadata":{"name":"` + name + `"},"spec":{"data":"stateless"}}`
}

func placement(name, order string) string {
	return `{"apiVersion":"livefire.dev/v1alpha1","kind":"ActivePassive","metadata":{"name":"` + name + `"},"spec":{"service":"` + name + `","order":[` + order + `]}}`
}

func objects(docs ...string) []json.RawMessage {
	out := make([]json.RawMessage, len(docs))
	for i, d := range docs {
		out[i] = json.RawMessage(d)
	}
	return out
}

func (r *rig) apply(docs ...string) (userapi.ApplyResponse, *api.Error) {
	r.t.Helper()
	var out userapi.ApplyResponse
	return out, r.call(r.admin, "POST", "/v1alpha1/apply", userapi.ApplyRequest{Objects: objects(docs...)}, &out)
}

// names of everything that operators wrote.
func (r *rig) names() string {
	r.t.Helper()
	items, _, err := r.store.List(r.t.Context(), store.ResourcePrefix)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []string
	for _, it := range items {
		out = append(out, strings.TrimPrefix(it.Key, store.ResourcePrefix))
	}
	return strings.Join(out, " ")
}

func TestApplyIsAllOrNone(t *testing.T) {
	for _, c := range []struct {
		name string
		docs []string
		kind api.ErrorKind
		want string // in the error
	}{
		{"accepted", []string{site("eu"), site("us"), service("pay"), placement("pay", `"eu","us"`)}, "", ""},
		{"reference to nothing", []string{site("eu"), service("pay"), placement("pay", `"eu","mars"`)}, api.Invalid, "mars"},
		{"unknown field", []string{site("eu"), strings.Replace(service("pay"), `"data"`, `"dta"`, 1)}, api.Invalid, "dta"},
		{"unknown kind", []string{site("eu"), strings.Replace(service("pay"), "Service", "Servce", 1)}, api.Invalid, "Servce"},
		{"bad value", []string{site("eu"), strings.Replace(service("pay"), "stateless", "some", 1)}, api.Invalid, "some"},
		{"twice the same", []string{site("eu"), site("eu")}, api.Invalid, "twice"},
		{"null", []string{site("eu"), "null"}, api.Invalid, ""},
		{"server's kind", []string{site("eu"), `{"apiVersion":"livefire.dev/v1alpha1","kind":"DrillRun","metadata":{"name":"d-1"},"spec":{"drill":"d"}}`}, api.Denied, "the server alone"},
		{"server's kind", []string{site("eu"), `{"apiVersion":"livefire.dev/v1alpha1","kind":"Finding","metadata":{"name":"F-1"},"spec":{"code":"LF2101"}}`}, api.Denied, "the server alone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			_, e := r.apply(c.docs...)
			if kindOrNone(e) != c.kind || e != nil && !strings.Contains(e.Error(), c.want) {
				t.Fatalf("apply = %v, want %q with %q", e, c.kind, c.want)
			}
			records := len(r.recorded(record.Changed))
			if c.kind == "" {
				if records != len(c.docs) || r.audits.Load() != 1 {
					t.Errorf("%d records of %d changes, %d audits", records, len(c.docs), r.audits.Load())
				}
			} else if r.names() != "" || records != 0 {
				t.Errorf("a refused apply left %q and %d records", r.names(), records)
			}
		})
	}
}

// "refused whole, with file, line, column, the line quoted, the reason and the fix" (issue 3).
func TestUnknownFieldIsRefusedWithItsPosition(t *testing.T) {
	r := newRig(t)
	e := r.call(r.admin, "POST", "/v1alpha1/apply", `{"objects": [`+site("eu")+`, {"apiVersion":"livefire.dev/v1alpha1","kind":"Service",
"metadata":{"name":"pay"}, "spec":{"data":"stateless","timout":"1s"}}]}`, nil)
	if e == nil || len(e.Details) != 1 {
		t.Fatalf("apply = %v, want one position", e)
	}
	d := e.Details[0]
	if d.File != "request[1]" || d.Line != 2 || d.Column != 55 || !strings.Contains(d.Message, "timout") || !strings.Contains(d.Hint, "timeout") || d.Quote == "" {
		t.Errorf("position %+v", d)
	}
}

func TestApplyOfOldRevisionIsRefused(t *testing.T) {
	r := newRig(t)
	first, e := r.apply(site("eu"))
	if e != nil {
		t.Fatal(e)
	}
	with := func(region string, revision int64) string {
		return fmt.Sprintf(`{"apiVersion":"livefire.dev/v1alpha1","kind":"Site","metadata":{"name":"eu","revision":%d},"spec":{"region":%q}}`, revision, region)
	}
	second, e := r.apply(with("a", first.Revision))
	if e != nil {
		t.Fatalf("apply of the newest revision: %v", e)
	}
	for _, c := range []struct {
		doc  string
		want api.ErrorKind
	}{
		{with("b", first.Revision), api.Conflict},
		{with("a", first.Revision), api.Conflict}, // also if nothing else would change
		{strings.Replace(with("b", 7), "eu", "gone", 1), api.Conflict},
		{with("b", second.Revision), ""},
		{with("c", 0), ""}, // whatever is there
	} {
		if _, e := r.apply(c.doc); kindOrNone(e) != c.want {
			t.Errorf("apply %s: %v, want %q", c.doc, e, c.want)
		}
	}
	for _, c := range []struct {
		query string
		want  api.ErrorKind
	}{{"?revision=" + fmt.Sprint(first.Revision), api.Conflict}, {"?revision=x", api.Invalid}, {"?revision=-1", api.Invalid}, {"", ""}, {"", api.NotFound}} {
		if e := r.call(r.admin, "DELETE", "/v1alpha1/resources/Site/eu"+c.query, nil, nil); kindOrNone(e) != c.want {
			t.Errorf("delete%s: %v, want %q", c.query, e, c.want)
		}
	}
}

func TestUnchangedApplyWritesNothing(t *testing.T) {
	r := newRig(t)
	if _, e := r.apply(site("eu")); e != nil {
		t.Fatal(e)
	}
	before, err := r.store.Revision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, e := r.apply(site("eu"))
	if e != nil || len(out.Changes) != 1 || out.Changes[0].Action != "unchanged" {
		t.Fatalf("apply of the same = %+v, %v", out, e)
	}
	after, err := r.store.Revision(t.Context())
	if err != nil || after != before {
		t.Errorf("revision %d, was %d (%v)", after, before, err)
	}
}

func TestDryRunWritesNothing(t *testing.T) {
	r := newRig(t)
	before := len(r.recorded(record.Changed))
	var out userapi.ApplyResponse
	in := userapi.ApplyRequest{Objects: objects(site("eu")), DryRun: true}
	r.must(r.admin, "POST", "/v1alpha1/apply", in, &out)
	if len(out.Changes) != 1 || out.Changes[0].Action != "created" || out.Revision != 0 {
		t.Errorf("dry run = %+v", out)
	}
	if r.names() != "" || len(r.recorded(record.Changed)) != before {
		t.Errorf("a dry run wrote %q", r.names())
	}
	in.Objects = objects(service("pay"), placement("pay", `"mars"`))
	if e := r.call(r.admin, "POST", "/v1alpha1/apply", in, nil); kindOrNone(e) != api.Invalid {
		t.Errorf("dry run of what would be refused: %v", e)
	}
}

func TestDeleteKeepsWhatIsReferredTo(t *testing.T) {
	r := newRig(t)
	if _, e := r.apply(site("eu"), site("us"), service("pay"), placement("pay", `"eu","us"`)); e != nil {
		t.Fatal(e)
	}
	if e := r.call(r.admin, "DELETE", "/v1alpha1/resources/Service/pay", nil, nil); kindOrNone(e) != api.Invalid {
		t.Fatalf("delete of a service that is placed: %v", e)
	}
	refs := []api.Ref{{Kind: api.KindService, Name: "pay"}, {Kind: api.KindActivePassive, Name: "pay"}}
	r.must(r.admin, "POST", "/v1alpha1/apply", userapi.ApplyRequest{Delete: refs}, nil)
	if got := r.names(); got != "Site/eu Site/us" {
		t.Errorf("left %q", got)
	}
	for _, ref := range []api.Ref{{Kind: api.KindDrillRun, Name: "d-1"}, {Kind: api.KindFinding, Name: "F-1"}} {
		if e := r.call(r.admin, "POST", "/v1alpha1/apply", userapi.ApplyRequest{Delete: []api.Ref{ref}}, nil); kindOrNone(e) != api.Denied {
			t.Errorf("delete of %v: %v, want Denied", ref, e)
		}
	}
}

// Two changes, each right by itself, must not together leave a reference to nothing.
func TestConcurrentChangesKeepReferencesWhole(t *testing.T) {
	r := newRig(t)
	for round := range 10 {
		if _, e := r.apply(site("eu"), service("pay")); e != nil {
			t.Fatal(e)
		}
		var both sync.WaitGroup
		both.Go(func() { _, _ = r.apply(placement("pay", `"eu"`)) })
		both.Go(func() { _ = r.call(r.admin, "DELETE", "/v1alpha1/resources/Service/pay", nil, nil) })
		both.Wait()
		set, err := r.server.stored(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if problems := api.CheckReferences(set); len(problems) > 0 {
			t.Fatalf("round %d: %+v", round, problems)
		}
		_ = r.call(r.admin, "POST", "/v1alpha1/apply", userapi.ApplyRequest{Delete: []api.Ref{{Kind: api.KindActivePassive, Name: "pay"}}}, nil)
	}
}

func TestConcurrentAppliesOfDifferentObjectsAllSucceed(t *testing.T) {
	r := newRig(t)
	var all sync.WaitGroup
	for i := range changeAttempts {
		all.Go(func() {
			if _, e := r.apply(site(fmt.Sprintf("s%d", i))); e != nil {
				t.Errorf("apply %d: %v", i, e)
			}
		})
	}
	all.Wait()
	if got := len(r.recorded(record.Changed)); got != changeAttempts {
		t.Errorf("%d records, want %d", got, changeAttempts)
	}
}

func TestApplyWithoutItsRecordsWritesNothing(t *testing.T) {
	r := newRig(t)
	r.broken.Store(true)
	if _, e := r.apply(site("eu")); kindOrNone(e) != api.Unavailable {
		t.Fatalf("apply without a ledger: %v, want Unavailable", e)
	}
	if r.names() != "" {
		t.Errorf("written without a record: %s", r.names())
	}
}

func TestLargeApplyIsOneTransactionAndOneRecord(t *testing.T) {
	r := newRig(t)
	var docs []string
	for i := range 150 {
		docs = append(docs, site(fmt.Sprintf("s%d", i)))
	}
	out, e := r.apply(docs...)
	if e != nil {
		t.Fatal(e)
	}
	records := r.recorded(record.Changed)
	if len(records) != 1 {
		t.Fatalf("%d records, want 1", len(records))
	}
	var whole record.Resource
	if err := json.Unmarshal(records[0].Data, &whole); err != nil || len(whole.More) != len(docs)-1 || len(out.Changes) != len(docs) {
		t.Errorf("record of %d changes, answer of %d (%v)", len(whole.More)+1, len(out.Changes), err)
	}
	items, _, err := r.store.List(t.Context(), store.ResourcePrefix)
	if err != nil || len(items) != len(docs) {
		t.Fatalf("%d objects stored: %v", len(items), err)
	}
	for _, it := range items {
		if it.Revision != out.Revision {
			t.Fatalf("%s is at revision %d, not %d", it.Key, it.Revision, out.Revision)
		}
	}
}

func TestWatchShowsAllThenEachChange(t *testing.T) {
	r := newRig(t)
	if _, e := r.apply(site("eu"), site("us")); e != nil {
		t.Fatal(e)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", r.base+"/v1alpha1/watch?kind=Site", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.admin.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	next := func() string {
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		var ev userapi.WatchEvent
		if err := json.Unmarshal(lines.Bytes(), &ev); err != nil {
			t.Fatal(err)
		}
		return ev.Type + " " + ev.Ref.Name
	}
	for _, want := range []string{"object eu", "object us", "synced "} {
		if got := next(); got != want {
			t.Fatalf("line %q, want %q", got, want)
		}
	}
	if _, e := r.apply(site("ap"), service("unwatched")); e != nil {
		t.Fatal(e)
	}
	r.must(r.admin, "DELETE", "/v1alpha1/resources/Site/us", nil, nil)
	for _, want := range []string{"object ap", "deleted us"} {
		if got := next(); got != want {
			t.Fatalf("line %q, want %q", got, want)
		}
	}
	for _, kind := range []string{"", "Nothing", "Site/../Service"} {
		if e := r.call(r.admin, "GET", "/v1alpha1/watch?kind="+kind, nil, nil); kindOrNone(e) != api.Invalid {
			t.Errorf("watch of kind %q: %v, want Invalid", kind, e)
		}
	}
}
