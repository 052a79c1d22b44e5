package api

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func decodeOne(t *testing.T, text string) Object {
	t.Helper()
	docs, err := Decode("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return docs[0].Object
}

func TestDiffNamesWhatAnOperatorOwns(t *testing.T) {
	old := decodeOne(t, document(KindActivePassive, "p", "failover: {after: 5s}\nreflex: true\n")).(*ActivePassive)
	next := decodeOne(t, document(KindActivePassive, "p", "order: [us-east, eu-west, ap]\nfailover: {after: 200ms}\n")).(*ActivePassive)
	next.Metadata.Labels = map[string]string{"tier": "1"}
	next.Metadata.Revision, next.Status = 7, &PlacementStatus{ActiveSite: "us-east"} // not the operator's
	want := []FieldChange{
		{"$.metadata.labels.tier", nil, "1"},
		{"$.spec.failover.after", "5s", "200ms"},
		{"$.spec.order", []any{"eu-west", "us-east"}, []any{"us-east", "eu-west", "ap"}},
		{"$.spec.reflex", true, nil},
	}
	got := Diff(old, next)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// service, observers, count, per, ready, capacity, mode and after of the fail-back, shares, every
	if got := Unchanged(old, next); got != 10 {
		t.Errorf("Unchanged = %d, want 10", got)
	}
	if got := want[1].Field(); got != "failover.after" {
		t.Errorf("Field = %q", got)
	}
}

func TestDiffOfAnEntryOfAList(t *testing.T) {
	old := decodeOne(t, document(KindDrill, "d", ""))
	next := decodeOne(t, document(KindDrill, "d", "probes: [{service: payments, from: client, rate: 20}]"))
	if diff := cmp.Diff([]FieldChange{{"$.spec.probes[0].rate", 10.0, 20.0}}, Diff(old, next)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDiffFromNothingIsEverythingThatSaysSomething(t *testing.T) {
	site := decodeOne(t, document(KindSite, "eu", "region: eu"))
	want := []FieldChange{{"$.spec.region", nil, "eu"}}
	if diff := cmp.Diff(want, Diff(nil, site)); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]FieldChange{{"$.spec.region", "eu", nil}}, Diff(site, nil)); diff != "" {
		t.Errorf("deleted (-want +got):\n%s", diff)
	}
}

func TestApplyPatch(t *testing.T) {
	o := decodeOne(t, document(KindActivePassive, "orders", "failover: {after: 1s}")).(*ActivePassive)
	o.Metadata.Revision = 9
	before, err := Clone(o)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ApplyPatch(o, []PatchOp{
		{Op: "replace", Path: "/spec/failover/after", Value: "200ms", Old: "1000ms"},
		{Op: "add", Path: "/spec/order/1", Value: "ap-south"},
		{Op: "add", Path: "/spec/order/-", Value: "sa-east"},
		{Op: "remove", Path: "/spec/order/0", Old: "eu-west"},
		{Op: "add", Path: "/spec/reflex", Value: false},
		{Op: "add", Path: "/metadata/labels/team~1x", Value: "a"},
		{Op: "remove", Path: "/spec/failback/after"},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := got.(*ActivePassive)
	if p.Spec.Failover.After.D() != 200*time.Millisecond || *p.Spec.Reflex || p.Metadata.Labels["team/x"] != "a" || p.Metadata.Revision != 9 {
		t.Errorf("patched: %+v %+v", p.Metadata, p.Spec)
	}
	if diff := cmp.Diff([]SiteID{"ap-south", "us-east", "sa-east"}, p.Spec.Order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if p.Spec.Failback.After.D() != 5*time.Minute {
		t.Errorf("a removed field is %v, want its default", p.Spec.Failback.After)
	}
	if diff := cmp.Diff(before, Object(o)); diff != "" {
		t.Errorf("the original changed (-before +after):\n%s", diff)
	}
}

func TestApplyPatchRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		op   PatchOp
		kind ErrorKind
	}{
		"another value than the one it was made for": {PatchOp{Op: "replace", Path: "/spec/failover/after", Value: "1s", Old: "9s"}, Conflict},
		"a field that is not there":                  {PatchOp{Op: "replace", Path: "/spec/nope", Value: 1}, Invalid},
		"a field that the kind has not":              {PatchOp{Op: "add", Path: "/spec/nope", Value: 1}, Invalid},
		"a type that the field has not":              {PatchOp{Op: "replace", Path: "/spec/failover/observers", Value: "two"}, Invalid},
		"a value that is not valid":                  {PatchOp{Op: "replace", Path: "/spec/failover/observers", Value: 1}, Invalid},
		"a zero that would become the default":       {PatchOp{Op: "replace", Path: "/spec/failover/after", Value: "0s"}, Invalid},
		"an entry beyond the list":                   {PatchOp{Op: "replace", Path: "/spec/order/2", Value: "x"}, Invalid},
		"an entry with a sign":                       {PatchOp{Op: "replace", Path: "/spec/order/+1", Value: "x"}, Invalid},
		"a path below a scalar":                      {PatchOp{Op: "add", Path: "/spec/service/x", Value: "x"}, Invalid},
		"a path that is no pointer":                  {PatchOp{Op: "add", Path: "spec", Value: "x"}, Invalid},
		"an operation that we have not":              {PatchOp{Op: "move", Path: "/spec/service", Value: "x"}, Invalid},
		"the name":                                   {PatchOp{Op: "replace", Path: "/metadata/name", Value: "x"}, Invalid},
		"the status":                                 {PatchOp{Op: "add", Path: "/status/phase", Value: "x"}, Invalid},
		"a spec that is a word":                      {PatchOp{Op: "replace", Path: "/spec", Value: "x"}, Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			o := decodeOne(t, document(KindActivePassive, "orders", ""))
			got, err := ApplyPatch(o, []PatchOp{tt.op})
			if KindOf(err) != tt.kind {
				t.Errorf("ApplyPatch = %v, %v; want %s", got, err, tt.kind)
			}
		})
	}
}

func TestDirectoriesAreReadInOrderWithAllTheirErrors(t *testing.T) {
	site := func(name string) *fstest.MapFile {
		return &fstest.MapFile{Data: []byte(header + "kind: Site\nmetadata: {name: " + name + "}\nspec: {}\n")}
	}
	fsys := fstest.MapFS{"d/b.yml": site("b"), "d/a.yaml": site("a"), "d/sub/c.json": site("c"), "d/.hidden.yaml": site("h"), "d/notes.txt": site("n"), "other.conf": site("o")}
	docs, err := DecodeFS(fsys, "d", "other.conf", "d/a.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range docs {
		got = append(got, d.File+" "+d.Object.Meta().Name)
	}
	if diff := cmp.Diff([]string{"d/a.yaml a", "d/b.yml b", "d/sub/c.json c", "other.conf o"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	fsys["d/c.yaml"] = site("a") // the same again
	fsys["d/d.yaml"] = site("Bad")
	_, err = DecodeFS(fsys, "d")
	var e *Error
	if !errors.As(err, &e) || len(e.Details) != 2 || e.Details[0].File != "d/c.yaml" || !strings.Contains(e.Details[0].Message, "d/a.yaml:1") || e.Details[1].File != "d/d.yaml" {
		t.Errorf("DecodeFS = %v, want one error in d/c.yaml that names d/a.yaml:1, and one in d/d.yaml", err)
	}
	if _, err := DecodeFS(fsys, "no-such"); KindOf(err) != NotFound {
		t.Errorf("a missing path: %v, want NotFound", err)
	}
	if _, err := DecodeFS(fstest.MapFS{"d": {Mode: fs.ModeDir}}, "d"); KindOf(err) != Invalid {
		t.Errorf("an empty directory: %v, want Invalid", err)
	}
}

func TestDecodeDirReadsThisMachine(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"b.yaml": "kind: Site\nmetadata: {name: b}\nspec: {}\n", "a.yaml": "kind: Site\nmetadata: {name: a}\nspec: {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(header+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	docs, err := DecodeDir(dir, filepath.Join(dir, "a.yaml"))
	if err != nil || len(docs) != 2 || docs[0].File != filepath.Join(dir, "a.yaml") {
		t.Errorf("DecodeDir = %v, %v", docs, err)
	}
	if _, err := DecodeDir(filepath.Join(dir, "none.yaml")); KindOf(err) != NotFound {
		t.Errorf("a missing file: %v, want NotFound", err)
	}
}
