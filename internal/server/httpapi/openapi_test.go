package httpapi

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write docs/reference/openapi.json")

func committedDocument() string {
	return filepath.Join("..", "..", "..", "docs", "reference", "openapi.json")
}

func TestCommittedDocumentIsThatOfTheTable(t *testing.T) {
	got, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(committedDocument(), got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(committedDocument())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("docs/reference/openapi.json is not what the table of operations says; go test ./internal/server/httpapi -run Document -update")
	}
}

// document is the committed one, as a stranger reads it.
type document struct {
	OpenAPI    string `json:"openapi"`
	Paths      map[string]map[string]call
	Components struct {
		Schemas map[string]any `json:"schemas"`
	} `json:"components"`
}

type call struct {
	OperationID string `json:"operationId"`
	Mutates     bool   `json:"x-livefire-mutates"`
	Security    []map[string][]string
	Parameters  []struct{ Name, In string }
}

func readDocument(t *testing.T) document {
	t.Helper()
	b, err := os.ReadFile(committedDocument())
	if err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(d.OpenAPI, "3.1.") || len(d.Paths) == 0 {
		t.Fatalf("OpenAPI %q with %d paths", d.OpenAPI, len(d.Paths))
	}
	return d
}

// Each call of the document reaches its handler, and each handler is in the document: asked of the router itself.
func TestDocumentAndHandlersAreTheSame(t *testing.T) {
	d := readDocument(t)
	s := &Server{}
	mux := http.NewServeMux()
	for _, op := range s.operations() {
		mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("operation", op.ID) })
	}
	documented := map[string]bool{}
	for path, item := range d.Paths {
		for method, c := range item {
			documented[c.OperationID] = true
			target := path
			for _, p := range c.Parameters {
				if p.In == "path" {
					target = strings.ReplaceAll(target, "{"+p.Name+"}", "x")
				}
			}
			if strings.Contains(target, "{") {
				t.Errorf("%s: a path parameter is not described", path)
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(strings.ToUpper(method), target, nil))
			if got := w.Header().Get("operation"); got != c.OperationID {
				t.Errorf("%s %s reaches %q, documented as %q", method, path, got, c.OperationID)
			}
		}
	}
	for _, op := range s.operations() {
		if !documented[op.ID] {
			t.Errorf("%s is not in the document", op.ID)
		}
		if open := len(d.Paths[op.Path][strings.ToLower(op.Method)].Security) == 0; open != (op.Allow == anyone) {
			t.Errorf("%s: documented as open %v", op.ID, open)
		}
		if op.Handle == nil || op.Summary == "" {
			t.Errorf("%s has no handler or no summary", op.ID)
		}
	}
}

func TestSchemasOfTheDocumentCompile(t *testing.T) {
	d := readDocument(t)
	b, err := os.ReadFile(committedDocument())
	if err != nil {
		t.Fatal(err)
	}
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("https://livefire.dev/openapi.json", whole); err != nil {
		t.Fatal(err)
	}
	if len(d.Components.Schemas) < 20 {
		t.Errorf("%d schemas", len(d.Components.Schemas))
	}
	for name := range d.Components.Schemas {
		if _, err := c.Compile("https://livefire.dev/openapi.json#/components/schemas/" + name); err != nil {
			t.Errorf("schema %s: %v", name, err)
		}
	}
	// Every reference of the document leads somewhere.
	for _, ref := range strings.Split(string(b), `"$ref": "`)[1:] {
		ref, _, _ = strings.Cut(ref, `"`)
		if _, ok := d.Components.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]; !ok {
			t.Errorf("reference to %s, which is not there", ref)
		}
	}
}

// What the server says and accepts fits what the document promises.
func TestAnswersFitTheirSchemas(t *testing.T) {
	r := newRig(t)
	b, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if err := c.AddResource("https://livefire.dev/openapi.json", whole); err != nil {
		t.Fatal(err)
	}
	if _, e := r.apply(site("eu")); e != nil {
		t.Fatal(e)
	}
	for path, name := range map[string]string{"/v1alpha1/version": "userapi.Version", "/v1alpha1/whoami": "userapi.Whoami",
		"/v1alpha1/status": "userapi.Status", "/v1alpha1/lever": "userapi.Lever"} {
		schema, err := c.Compile("https://livefire.dev/openapi.json#/components/schemas/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var answer json.RawMessage
		r.must(r.admin, "GET", path, nil, &answer)
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(answer))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s answers %s: %v", path, answer, err)
		}
	}
}
