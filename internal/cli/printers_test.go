package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

var at = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)

func ptr[T any](v T) *T { return &v }

func exampleStatus() userapi.Status {
	passed := &userapi.RunSummary{ID: "site-loss-20261120-1", Drill: "site-loss", State: "Done", Verdict: "passed"}
	return userapi.Status{At: at, Version: "v0.1.0", Epoch: 44, Leader: true, Runs: []userapi.RunSummary{*passed},
		Services: []userapi.ServiceStatus{
			{Service: "caller", Shares: map[api.SiteID]float64{"client": 1}, Sites: []userapi.SiteStatus{{Site: "client", State: "unknown", Endpoints: 1}}},
			{Service: "ledger", Pattern: "ActivePassive", Shares: map[api.SiteID]float64{"us-east": 1}, Phase: "Steady", RTO: "30s"},
			{Service: "orders", Pattern: "ActivePassive", ActiveSite: "eu-west", Shares: map[api.SiteID]float64{"eu-west": 1, "us-east": 0}, Phase: "Steady",
				Sites:   []userapi.SiteStatus{{Site: "eu-west", State: "ready", Healthy: 2, Endpoints: 2}, {Site: "us-east", State: "degraded", Healthy: 1, Endpoints: 2}},
				Success: ptr(0.9997), Demand: ptr(102.4), LastRun: passed, RTA: "2.1s", RTO: "5s"},
			{Service: "payments", Pattern: "ActivePassive", Reflex: true, Shares: map[api.SiteID]float64{"us-east": 1}, Phase: "Lost",
				Sites: []userapi.SiteStatus{{Site: "eu-west", State: "lost"}, {Site: "us-east", State: "ready"}}, LastRun: passed, RTO: "5s"},
			{Service: "search", Pattern: "ActiveActive", Reflex: true, Shares: map[api.SiteID]float64{"eu-west": 0.5, "us-east": 0.5}, Phase: "Steady",
				Sites: []userapi.SiteStatus{{Site: "eu-west", State: "ready"}, {Site: "us-east", State: "ready"}}, Success: ptr(1.0), LastRun: passed, RTO: "30s"},
		},
		Nodes: []userapi.NodeStatus{
			{Node: "agent-eu", Site: "eu-west", Agent: true, Registered: true, Connected: true, OffsetMS: -3, ErrorMS: 1},
			{Node: "eu-1", Site: "eu-west", Registered: true, Connected: true, Acked: 44, OffsetMS: 0.5, ErrorMS: 0.1},
			{Node: "eu-2", Site: "eu-west", Registered: false, Acked: 43, OffsetMS: 900, ErrorMS: 1},
			{Node: "us-1", Site: "us-east", Registered: true, Connected: true, Acked: 43, OffsetMS: 0.5, ErrorMS: 0.1},
		},
		Audit: exampleRules()}
}

func exampleRules() []userapi.Rule {
	return []userapi.Rule{
		{Code: "LF2101", Name: "standby-ready", Service: "search", Site: "us-east", OK: true, Message: "2 of 2 workloads are ready"},
		{Code: "LF2102", Name: "capacity-known", Severity: "low", Service: "search", Message: "demand unknown", Fix: "send traffic"},
		{Code: "LF2103", Name: "capacity-enough", Severity: "high", Service: "orders", Site: "us-east", Message: "100 requests/s for a demand of 102", Fix: "add workloads at us-east"},
	}
}

// TestPrinters: what people read, to the letter. -update rewrites testdata/golden.
func TestPrinters(t *testing.T) {
	plain, rich := view.Style{}, view.Style{Color: true}
	utf := view.Style{}
	plain.ASCII = true
	changes := []userapi.Change{
		{Ref: api.Ref{Kind: api.KindService, Name: "orders"}, Action: "changed", Fields: []api.FieldChange{
			{Path: "$.spec.health.failures", Old: 5.0, New: 3.0}, {Path: "$.spec.objectives.rto", New: "5s"}, {Path: "$.metadata.labels.tier", Old: "1"},
			{Path: "$.spec.hosts", Old: []any{"a"}, New: []any{"a", "b & c"}}}},
		{Ref: api.Ref{Kind: api.KindDrill, Name: "site-loss"}, Action: "created"},
		{Ref: api.Ref{Kind: api.KindSite, Name: "old"}, Action: "deleted"},
		{Ref: api.Ref{Kind: api.KindSite, Name: "eu-west"}, Action: "unchanged"},
	}
	finding := api.Finding{Metadata: api.Metadata{Name: "F-site-loss-20261120-1-1"}, Spec: api.FindingSpec{Run: "site-loss-20261120-1", Service: "orders",
		Code: "LF2107", Severity: "medium", What: "orders: detection is 62 % of the recovery time", Evidence: []int64{105, 118}, Status: api.FindingOpen,
		Change:    &api.Change{Resource: "Service/orders", Patch: []api.PatchOp{{Op: "replace", Path: "/spec/health/interval", Value: "200ms", Old: "500ms"}}},
		Predicted: &api.Predicted{Quantity: "rta", Before: 2.1, After: 1.3}}}
	retested := finding
	retested.Spec.Status, retested.Spec.Retest = api.FindingClosed, &api.Retest{Run: "site-loss-20261120-2", Before: 2.1, After: 1.9, Uncertainty: 0.02, Missed: true, Outcome: "helped"}
	run := userapi.RunSummary{ID: "site-loss-20261120-1", Verdict: "aborted", Reason: "lever", Findings: 2}
	for name, write := range map[string]func(io.Writer) error{
		"status":       func(w io.Writer) error { return writeStatus(w, utf, exampleStatus(), nil, false) },
		"status-wide":  func(w io.Writer) error { return writeStatus(w, plain, exampleStatus(), []string{"orders"}, true) },
		"status-color": func(w io.Writer) error { return writeStatus(w, rich, exampleStatus(), []string{"orders"}, false) },
		"check": func(w io.Writer) error {
			return writeChecks(w, utf, checks(exampleStatus(), exampleRules(), "https://127.0.0.1:7443, v0.1.0, 3 ms"), 1800*time.Millisecond)
		},
		"check-empty": func(w io.Writer) error {
			return writeChecks(w, plain, checks(userapi.Status{}, nil, "https://127.0.0.1:7443, v0.1.0, 3 ms"), time.Second)
		},
		"changes":          func(w io.Writer) error { return writeChanges(w, utf, changes) },
		"changes-color":    func(w io.Writer) error { return writeChanges(w, rich, changes[:1]) },
		"standing":         func(w io.Writer) error { return writeStanding(w, utf, exampleRules()) },
		"finding":          func(w io.Writer) error { return writeFinding(w, utf, finding) },
		"finding-retested": func(w io.Writer) error { return writeFinding(w, utf, retested) },
		"verdict":          func(w io.Writer) error { return writeVerdict(w, run) },
		"run":              func(w io.Writer) error { return writeRun(w, utf, exampleRun(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.Bytes())
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, d)
	}
}

// TestEveryFormatOfAnAnswer: documents carry apiVersion and kind; a table hides what is for -o wide.
func TestEveryFormatOfAnAnswer(t *testing.T) {
	site := &api.Site{Metadata: api.Metadata{Name: "eu-west"}, Spec: api.SiteSpec{Region: "eu"}}
	site.Default()
	resources := page{kind: "Site", head: []string{"NAME", "REGION"}, wide: 1, rows: [][]string{{"eu-west", "eu"}}, items: []item{{"Site", "eu-west", site}}}
	values := page{kind: "User", head: []string{"NAME"}, rows: [][]string{{"a<b"}}, items: []item{{"User", "a", struct {
		Name string `json:"name"`
	}{"a<b"}}, {"User", "none", struct{}{}}}}
	one := resources
	one.one = true
	for name, tt := range map[string]struct {
		f    format
		p    page
		want string
	}{
		"table": {"table", resources, "NAME\neu-west\n"},
		"wide":  {"wide", resources, "NAME     REGION\neu-west  eu\n"},
		"name":  {"name", resources, "site/eu-west\n"},
		"yaml of a resource can be applied again": {"yaml", one, "apiVersion: livefire.dev/v1alpha1\nkind: Site\nmetadata:\n  name: eu-west\nspec:\n  region: eu\n"},
		"json of one":    {"json", one, "{\n  \"apiVersion\": \"livefire.dev/v1alpha1\",\n  \"kind\": \"Site\",\n  \"metadata\": {\n    \"name\": \"eu-west\"\n  },\n  \"spec\": {\n    \"region\": \"eu\"\n  }\n}\n"},
		"jsonl":          {"jsonl", values, "{\"apiVersion\":\"livefire.dev/v1alpha1\",\"kind\":\"User\",\"name\":\"a<b\"}\n{\"apiVersion\":\"livefire.dev/v1alpha1\",\"kind\":\"User\"}\n"},
		"json of none":   {"json", page{kind: "User"}, "{\n  \"apiVersion\": \"livefire.dev/v1alpha1\",\n  \"kind\": \"UserList\",\n  \"items\": []\n}\n"},
		"yaml of values": {"yaml", page{kind: "User", items: values.items[:1]}, "apiVersion: livefire.dev/v1alpha1\nkind: UserList\nitems:\n- apiVersion: livefire.dev/v1alpha1\n  kind: User\n  name: a<b\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			s := &streams{out: &out, err: io.Discard}
			if err := s.print(tt.f, tt.p); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, out.String()); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// TestYAMLOfResourcesIsReadBack: `livefire get ... -o yaml` is what `livefire apply -f` reads.
func TestYAMLOfResourcesIsReadBack(t *testing.T) {
	var out bytes.Buffer
	var p page
	for _, name := range []string{"a", "b"} {
		o := &api.Site{Metadata: api.Metadata{Name: name, Revision: 7}, Spec: api.SiteSpec{Zone: "1"}}
		o.Default()
		p.items = append(p.items, item{"Site", name, o})
	}
	if err := (&streams{out: &out}).print("yaml", p); err != nil {
		t.Fatal(err)
	}
	docs, err := api.Decode("get", out.Bytes())
	if err != nil || len(docs) != 2 {
		t.Fatalf("Decode gives %d objects, %v; want 2 of:\n%s", len(docs), err, &out)
	}
	for i, d := range docs {
		if diff := cmp.Diff(p.items[i].doc, d.Object); diff != "" {
			t.Errorf("object %d (-want +got):\n%s", i, diff)
		}
	}
}

// TestColumnsFitRows: a kind's row has a cell for each of its columns.
func TestColumnsFitRows(t *testing.T) {
	for _, k := range api.Kinds() {
		o, err := api.New(k)
		if err != nil {
			t.Fatal(err)
		}
		head, wide := columns(k)
		if got := row(o); len(got) != len(head) || wide >= len(head) {
			t.Errorf("%s: %d cells for %d columns, %d of them wide", k, len(got), len(head), wide)
		}
		for _, word := range []string{string(k), string(k) + "s"} {
			if got, ok := lookupKind(word); !ok && word[len(word)-2] != 'y' || ok && got != k {
				t.Errorf("lookupKind(%q) = %q, %v", word, got, ok)
			}
		}
	}
	if k, ok := lookupKind("authorization-policies"); k != api.KindAuthorizationPolicy || !ok {
		t.Errorf("lookupKind(authorization-policies) = %q, %v", k, ok)
	}
}

func TestNoDataIsNoPass(t *testing.T) {
	if c := clockCheck([]userapi.NodeStatus{{Node: "a", Registered: true}}); c.Result != checkUnknown {
		t.Errorf("clocks that nobody measured are %s, want %s", c.Result, checkUnknown)
	}
	if c := clockCheck([]userapi.NodeStatus{{Node: "a", Registered: true, OffsetMS: -49, ErrorMS: 2}}); c.Result != checkFailed {
		t.Errorf("a clock 49 ms +- 2 ms away is %s, want %s", c.Result, checkFailed)
	}
	if got := proxyChecks(userapi.Status{})[0].Result; got != checkUnknown {
		t.Errorf("a mesh without a proxy is %s, want %s", got, checkUnknown)
	}
	if got := answerOf("b", nil, io.ErrUnexpectedEOF); got.Verdict != "no" {
		t.Errorf("a bundle that cannot be read is verified: %s, want no", got.Verdict)
	}
}
