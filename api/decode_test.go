package api

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const header = "apiVersion: livefire.dev/v1alpha1\n"

// positions gives "line:column code" of each error.
func positions(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var e *Error
	if !errors.As(err, &e) || e.Kind != Invalid {
		t.Fatalf("error %v is not an *Error (Invalid)", err)
	}
	var out []string
	for _, d := range e.Details {
		out = append(out, fmt.Sprintf("%d:%d %s", d.Line, d.Column, d.Code))
	}
	return out
}

// A bad file is refused whole, and says everything that is wrong in every document at once.
func TestEveryErrorOfEveryDocumentIsReportedAtOnce(t *testing.T) {
	text := header + `kind: Service
metadata: {name: payments}
spec:
  data: stateles
  objectives: {rto: 5, success: 99%}
  health:
    intervall: 500ms
    timeout: 300ms
    timeout: 200ms
  retries: {attempts: three}
  port: 80.5
---
kind: ActivPassive
metadata: {name: x}
---
kind: Site
metadata: {name: Foo_bar}
---
kind: Drill
metadata: {name: d}
spec: [a]
---
kind: Site
	spec: {}
---
kind: Site
metadata: {name: fine}
spec: {}
---
kind: Site
metadata: {name: fine}
spec: {}
`
	docs, err := Decode("shop.yaml", []byte(text))
	if docs != nil {
		t.Errorf("Decode gave %d documents of a bad file, want none", len(docs))
	}
	want := []string{
		"5:9 LF0010", "6:21 LF0005", "6:33 LF0004", "8:5 LF0002", "10:5 LF0003", "11:23 LF0004", "12:9 LF0004",
		"14:7 LF0006", "17:1 LF0007", "18:18 LF0013", "22:7 LF0004", "25:1 LF0001", "32:18 LF0008",
	}
	if diff := cmp.Diff(want, positions(t, err)); diff != "" {
		t.Errorf("errors differ (-want +got):\n%s\n%v", diff, err)
	}
	for _, want := range []string{
		"shop.yaml:8:5: unknown field intervall (LF0002)\n        intervall: 500ms\n    fix: did you mean interval?",
		"shop.yaml: 13 errors; nothing was read",
		"fix: write the unit: 5s, 5ms or 5m",
		"fix: did you mean ActivePassive?",
		"Site/fine is already written at line 27",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	site := header + "kind: Site\nmetadata: {name: a}\n"
	tests := map[string]struct {
		text string
		want []string
	}{
		"a first document without apiVersion":  {"kind: Site\nmetadata: {name: a}\nspec: {}\n", []string{"1:1 LF0007"}},
		"another apiVersion":                   {"apiVersion: v1\nkind: Site\nmetadata: {name: a}\nspec: {}\n", []string{"1:13 LF0006"}},
		"a document without kind":              {header + "metadata: {name: a}\n", []string{"1:1 LF0007"}},
		"a document that is a word":            {"hello", []string{"1:1 LF0004"}},
		"a document that is a list":            {"- a\n- b\n", []string{"1:1 LF0004"}},
		"a missing name":                       {header + "kind: Site\nmetadata: {}\nspec: {}\n", []string{"3:1 LF0007"}},
		"an empty required field":              {site + "spec:\n", []string{"4:1 LF0007"}},
		"a status that the kind has not":       {site + "spec: {}\nstatus: {}\n", []string{"5:1 LF0002"}},
		"a field of another mapping":           {site + "spec: {name: x}\n", []string{"4:8 LF0002"}},
		"a tag":                                {site + "spec: !!map {}\n", []string{"4:7 LF0012"}},
		"a merge key":                          {site + "spec: {<<: {}, region: x}\n", []string{"4:8 LF0012"}},
		"an alias without anchor":              {site + "spec: {region: *r}\n", []string{"4:16 LF0012"}},
		"an anchor that holds itself":          {site + "spec: &s {region: *s}\n", []string{"4:10 LF0004"}},
		"a bool where text is expected":        {site + "spec: {region: true}\n", []string{"4:16 LF0004"}},
		"an open bracket":                      {site + "spec: {region: [\n", []string{"4:16 LF0001"}},
		"a negative port":                      {header + "kind: Service\nmetadata: {name: a}\nspec: {data: stateless, port: -1}\n", []string{"4:31 LF0010"}},
		"a written zero with another default":  {header + "kind: Service\nmetadata: {name: a}\nspec: {data: stateless, health: {failures: 0}}\n", []string{"4:44 LF0011"}},
		"a written empty list with a default":  {header + "kind: Service\nmetadata: {name: a}\nspec: {data: stateless, retries: {on: []}}\n", []string{"4:39 LF0011"}},
		"a written empty text with a default":  {header + "kind: Service\nmetadata: {name: a}\nspec: {data: stateless, protocol: ''}\n", []string{"4:35 LF0011"}},
		"a missing field of a list entry":      {header + "kind: AuthorizationPolicy\nmetadata: {name: a}\nspec:\n  service: a\n  allow:\n  - methods: [GET]\n", []string{"7:5 LF0007"}},
		"an empty list entry":                  {header + "kind: Service\nmetadata: {name: a}\nspec:\n  data: stateless\n  hosts:\n  -\n", []string{"7:3 LF0004"}},
		"a problem of a field nobody wrote":    {header + "kind: Service\nmetadata: {name: a}\nspec:\n  data: stateless\n  health:\n    interval: 200ms\n", []string{"6:3 LF0017"}},
		"two levels up if need be":             {header + "kind: Service\nmetadata: {name: Bad}\nspec:\n  data: stateless\n", []string{"3:18 LF0013", "4:1 LF0013"}},
		"characters that no editor shows":      {site + "spec: {region: \"\x00\"}\n", []string{"4:17 LF0001"}},
		"bytes that are not UTF-8":             {site + "spec: {region: \xff}\n", []string{"4:16 LF0001"}},
		"lists without end":                    {strings.Repeat("- ", 5000), []string{"1:2561 LF0009"}},
		"brackets without end":                 {strings.Repeat("[", 5000), []string{"1:1281 LF0009"}},
		"keys without end":                     {strings.Repeat("? ", 5000), []string{"1:2561 LF0009"}},
		"a directive":                          {"%YAML 1.2\n---\n" + site + "spec: {}\n", []string{"1:1 LF0001"}},
		"more documents than anyone can check": {strings.Repeat("---\nkind: Site\n", MaxDocuments+1), []string{"2001:1 LF0009"}},
		"a file that is too large":             {strings.Repeat("#", MaxFileBytes+1), []string{"1:1 LF0009"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			docs, err := Decode("f.yaml", []byte(tt.text))
			if err == nil {
				t.Fatalf("Decode accepted it: %d documents", len(docs))
			}
			if diff := cmp.Diff(tt.want, positions(t, err)); diff != "" {
				t.Errorf("errors differ (-want +got):\n%s\n%.2000s", diff, err)
			}
		})
	}
}

// Aliases cost what they stand for: nine levels of nine aliases would be 387 million values.
func TestAliasBombIsRefused(t *testing.T) {
	var b strings.Builder
	b.WriteString(header + "kind: Finding\nmetadata: {name: f-1}\nspec:\n  code: LF2107\n  severity: low\n  what: x\n  status: open\n" +
		"  change:\n    resource: Service/a\n    patch:\n    - op: add\n      path: /spec/x\n      value:\n        a0: &a0 [x]\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&b, "        a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 8), i-1)
	}
	start := time.Now()
	_, err := Decode("bomb.yaml", []byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), CodeLimit) {
		t.Fatalf("Decode = %v, want a refusal with %s", err, CodeLimit)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the refusal took %v", took)
	}
}

// Inputs of the largest size end in bounded time, whatever they hold.
func TestLargestFilesAreReadInBoundedTime(t *testing.T) {
	for name, line := range map[string]string{
		"lines of a text": "a\n", "keys": "a: 1\n", "unknown fields": "  x: {a: [1, 2, {b: c}]}\n", "indentation": "",
		"quotes": "\"a\": \"b\", ", "flow": "a: b, ", "flow list": "[1], ", "comments": "# [ { - \n", "list": "- a\n", "documents": "---\n", "short lines": "a: 1\n",
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Repeat(line, MaxFileBytes/max(len(line), 1))
			switch name {
			case "short lines":
				text = strings.Repeat(line, maxLines-1)
			case "flow":
				text = "{" + text + "}"
			}
			if line == "" {
				var b strings.Builder
				for i := 0; b.Len() < MaxFileBytes; i++ {
					fmt.Fprintf(&b, "%sa:\n", strings.Repeat(" ", i))
				}
				text = b.String()
			}
			start := time.Now()
			_, err := Decode("f.yaml", []byte(text))
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v (%.100v)", took, err)
			}
		})
	}
}

func TestLaterDocumentsMayOmitAPIVersion(t *testing.T) {
	docs, err := Decode("f.yaml", []byte("# two sites\n---\n"+header+"kind: Site\nmetadata: {name: a}\nspec: {}\n---\n# only words\n---\nkind: Site\nmetadata: {name: b}\nspec: {region: eu}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) != 2 {
		t.Fatalf("%d documents, want 2", len(docs))
	}
	for i, want := range []struct {
		ref  string
		line int
	}{{"Site/a", 3}, {"Site/b", 10}} {
		if got := RefOf(docs[i].Object).String(); got != want.ref || docs[i].Line != want.line || docs[i].File != "f.yaml" {
			t.Errorf("document %d = %s at %s:%d, want %s at f.yaml:%d", i, got, docs[i].File, docs[i].Line, want.ref, want.line)
		}
		if got := docs[i].Object.(*Site).Type; got != (Type{Version, KindSite}) {
			t.Errorf("type of document %d = %v", i, got)
		}
	}
}

// What another program writes as JSON is the same as the YAML of a person.
func TestJSONIsRead(t *testing.T) {
	for name, text := range map[string]string{
		"compact":  `{"apiVersion":"livefire.dev/v1alpha1","kind":"Site","metadata":{"name":"a","labels":{"x":"\u003ca\u0026\ud83d\ude00 \/ \"q\" \n"}},"spec":{"region":"e\tu"}}`,
		"indented": "{\n\t\"apiVersion\": \"livefire.dev/v1alpha1\",\n\t\"kind\": \"Site\",\n\t\"metadata\": {\n\t\t\"name\": \"a\",\n\t\t\"labels\": {\"x\": \"<a&😀 / \\\"q\\\" \\n\"}\n\t},\n\t\"spec\": {\"region\": \"e\\tu\"}\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			docs, err := Decode("f.json", []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			want := &Site{Type: Type{Version, KindSite}, Metadata: Metadata{Name: "a", Labels: map[string]string{"x": "<a&😀 / \"q\" \n"}}, Spec: SiteSpec{Region: "e\tu"}}
			if diff := cmp.Diff(want, docs[0].Object); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Numbers are words where words are expected: retries.on is [connect, 502] in the documentation.
func TestNumbersAreWordsWhereWordsAreExpected(t *testing.T) {
	docs, err := Decode("f.yaml", []byte(header+"kind: Service\nmetadata: {name: a, labels: {tier: 1.10}}\nspec: {data: stateless, retries: {on: [connect, 502]}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := docs[0].Object.(*Service)
	if diff := cmp.Diff([]string{"connect", "502"}, s.Spec.Retries.On); diff != "" {
		t.Errorf("retries.on (-want +got):\n%s", diff)
	}
	if got := s.Metadata.Labels["tier"]; got != "1.10" {
		t.Errorf("label = %q, want 1.10", got)
	}
}

func TestAnchorsAreFollowed(t *testing.T) {
	docs, err := Decode("f.yaml", []byte(header+"kind: Service\nmetadata: {name: a}\nspec:\n  data: stateless\n  health: {interval: &i 2s, timeout: *i}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := docs[0].Object.(*Service).Spec.Health.Timeout.D(); got != 2*time.Second {
		t.Errorf("timeout = %v, want 2s", got)
	}
}

func TestLocateFindsTheNearestWrittenParent(t *testing.T) {
	docs, err := Decode("f.yaml", []byte(header+"kind: ActiveActive\nmetadata: {name: a}\nspec:\n  service: s\n  weights:\n    eu-west: 1\n    us-east: 2\n"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"$.spec.weights.us-east":       "8:14",
		"$.spec.weights.'no.such'":     "6:3",
		"$.spec.evacuate.mode":         "4:1",
		"$.spec.return.ramp.shares[2]": "4:1",
		"$.metadata.name":              "3:18",
		"$.status":                     "1:1",
	} {
		p := docs[0].Locate(Problem{Path: path, Message: "x"})
		if got := fmt.Sprintf("%d:%d", p.Line, p.Column); got != want {
			t.Errorf("Locate(%s) = %s, want %s", path, got, want)
		}
	}
}
