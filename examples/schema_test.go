package examples_test

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/livefire-mesh/livefire/examples"
)

// resourceFiles are the examples that hold resources.
func resourceFiles(t *testing.T) []string {
	t.Helper()
	files, err := fs.Glob(examples.FS, "*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		if !strings.HasPrefix(path.Base(f), "workloads-") {
			out = append(out, f)
		}
	}
	if len(out) < 7 {
		t.Fatalf("only %d files with resources: %v", len(out), out)
	}
	return out
}

// documents are the documents of a file as JSON values.
func documents(t *testing.T, raw []byte) []any {
	t.Helper()
	var out []any
	for _, text := range bytes.Split(raw, []byte("\n---\n")) {
		j, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(filepath.Join("..", "schemas", "livefire.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestEveryExampleMatchesTheSchemaThatItNames(t *testing.T) {
	s := schema(t)
	for _, file := range resourceFiles(t) {
		raw, err := fs.ReadFile(examples.FS, file)
		if err != nil {
			t.Fatal(err)
		}
		first, _, _ := strings.Cut(string(raw), "\n")
		rel, ok := strings.CutPrefix(first, "# yaml-language-server: $schema=")
		if _, err := os.Stat(filepath.Join(filepath.Dir(file), rel)); !ok || err != nil {
			t.Errorf("%s: the first line %q names no schema: %v", file, first, err)
		}
		for i, d := range documents(t, raw) {
			if err := s.Validate(d); err != nil {
				t.Errorf("%s, document %d: %v", file, i+1, err)
			}
		}
	}
}

// A schema that accepts everything would pass the test above.
func TestTheSchemaRefusesWhatDecodeRefuses(t *testing.T) {
	s := schema(t)
	for name, text := range map[string]string{
		"an unknown kind":       `{"kind": "Sites", "metadata": {"name": "a"}, "spec": {}}`,
		"an unknown field":      `{"kind": "Site", "metadata": {"name": "a"}, "spec": {"regio": "eu"}}`,
		"a missing field":       `{"kind": "Service", "metadata": {"name": "a"}, "spec": {}}`,
		"a missing name":        `{"kind": "Site", "metadata": {}, "spec": {}}`,
		"a name that is none":   `{"kind": "Site", "metadata": {"name": "A"}, "spec": {}}`,
		"a duration of no unit": `{"kind": "Service", "metadata": {"name": "a"}, "spec": {"data": "stateless", "objectives": {"rto": 5}}}`,
		"a word of another set": `{"kind": "Service", "metadata": {"name": "a"}, "spec": {"data": "some"}}`,
		"another apiVersion":    `{"apiVersion": "v1", "kind": "Site", "metadata": {"name": "a"}, "spec": {}}`,
	} {
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err == nil {
			t.Errorf("the schema accepts %s: %s", name, text)
		}
	}
}
