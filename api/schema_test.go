package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
)

const (
	schemaDialect  = "https://json-schema.org/draft/2020-12/schema"
	durationSyntax = `^-?([0-9]+(\.[0-9]+)?(y|w|d|h|m|s|ms|us|µs|ns))+$|^0$`
	labelSyntax    = `^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`
)

// words are the closed sets that the Go types do not tell: last keys of paths within a kind -> words.
var words = map[Kind]map[string][]string{
	KindService: {
		"spec.protocol": {HTTP, GRPC, TCP}, "spec.data": {Stateless, Stateful},
	},
	KindActivePassive: {"spec.failover.mode": {Automatic, Approved, Manual}, "spec.failback.mode": {Automatic, Approved, Manual}},
	KindActiveActive:  {"spec.evacuate.mode": {Automatic, Approved, Manual}},
	KindScenario:      {"spec.expect.verdict": {VerdictPassed, VerdictFailed, VerdictAborted}},
	KindDrill:         {"spec.approvals[]": Groups()},
	KindFinding: {
		"spec.severity": {"high", "medium", "low", "info"},
		"spec.status":   {FindingOpen, FindingApplied, FindingClosed, FindingNotHelped, FindingWaived},
	},
}

// minimal objects, so that Default reaches the fields behind pointers and in lists.
func minimal(k Kind) Object {
	o, _ := New(k)
	switch o := o.(type) {
	case *Service:
		o.Spec.Objectives.Availability = &Availability{}
	case *Drill:
		o.Spec.Probes, o.Spec.Guardrails = make([]Probe, 1), make([]Guardrail, 1)
	}
	return o
}

// schemaOf reflects the schema of a kind and adds what the Go type does not tell: defaults and closed sets.
func schemaOf(t *testing.T, r *jsonschema.Reflector, k Kind) *jsonschema.Schema {
	t.Helper()
	o := minimal(k)
	s := r.Reflect(o)
	s.ID, s.Version, s.Title = "", schemaDialect, string(k)
	s.Required = slices.DeleteFunc(s.Required, func(f string) bool { return f == "apiVersion" || f == "status" })
	property(s, "apiVersion").Const = Version
	property(s, "kind").Const = string(k)
	property(s, "metadata.name").Description = "a DNS label"
	if k != KindDrillRun && k != KindFinding {
		property(s, "metadata.name").Pattern = labelSyntax
	}
	property(s, "metadata.revision").Description = "set by the server; when written, the stored one must be the same"
	for path, list := range words[k] {
		for _, w := range list {
			p := property(s, path)
			p.Enum = append(p.Enum, w)
		}
	}
	if k == KindService {
		on := property(s, "spec.retries.on[]")
		on.Type = ""
		on.Enum = []any{"connect", "reset", "refused", "502", "503", "504", 502, 503, 504}
	}
	before, _ := tree(reflect.ValueOf(o))
	o.Default()
	after, _ := tree(reflect.ValueOf(o))
	for _, part := range []string{"spec"} {
		defaults(property(s, part), before.(map[string]any)[part], after.(map[string]any)[part])
	}
	return s
}

// property follows "a.b[]" from s; it panics if there is no such property: the table above is wrong then.
func property(s *jsonschema.Schema, path string) *jsonschema.Schema {
	for _, key := range strings.Split(path, ".") {
		name, item := strings.CutSuffix(key, "[]")
		next, ok := s.Properties.Get(name)
		if !ok {
			panic("no property " + path)
		}
		s = next
		if item {
			s = s.Items
		}
	}
	return s
}

// defaults writes the value of each scalar and list that Default filled in.
func defaults(s *jsonschema.Schema, before, after any) {
	was, _ := before.(map[string]any)
	now, _ := after.(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(now)) {
		p, ok := s.Properties.Get(key)
		if !ok {
			continue
		}
		switch v := now[key].(type) {
		case map[string]any:
			defaults(p, was[key], v)
		case []any:
			if len(v) > 0 && !scalars(v) {
				old, _ := was[key].([]any)
				defaults(p.Items, old[0], v[0])
			} else if len(v) > 0 {
				p.Default = v
			}
		default:
			if !isZero(v) && isZero(was[key]) {
				p.Default = v
			}
		}
	}
}

func reflector(t *testing.T) *jsonschema.Reflector {
	t.Helper()
	r := &jsonschema.Reflector{Anonymous: true, DoNotReference: true, ExpandedStruct: true}
	r.Mapper = func(x reflect.Type) *jsonschema.Schema {
		switch x {
		case durationType:
			return &jsonschema.Schema{Type: "string", Pattern: durationSyntax}
		case reflect.TypeFor[SiteID](), reflect.TypeFor[ServiceID](), reflect.TypeFor[NodeID]():
			return &jsonschema.Schema{Type: "string", Pattern: labelSyntax}
		}
		return nil
	}
	if err := r.AddGoComments("github.com/livefire-mesh/livefire/api", "./"); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSchemas(t *testing.T) {
	r := reflector(t)
	var all []string
	reference := strings.Builder{}
	reference.WriteString("<!-- Generated from the Go types by go test ./api -update. DO NOT EDIT. -->\n# Resources\n\n" +
		"Every document has `apiVersion: " + Version + "` (documents after the first of a file may omit it), `kind`, `metadata.name` (a DNS\n" +
		"label), `metadata.labels` and the `spec` below. A field without default that is not *required* is optional. Schemas for editors:\n`schemas/`.\n")
	for _, k := range Kinds() {
		s := schemaOf(t, r, k)
		raw, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		generated(t, "../schemas/"+string(k)+".json", string(raw)+"\n")
		all = append(all, fmt.Sprintf(`{"if":{"properties":{"kind":{"const":%q}},"required":["kind"]},"then":{"$ref":"%s.json"}}`, k, k))
		fmt.Fprintf(&reference, "\n## %s\n\n%s\n\n| field | type | default | meaning |\n|---|---|---|---|\n", k, s.Description)
		table(&reference, property(s, "spec"), "")
	}
	var b bytes.Buffer
	one := fmt.Sprintf(`{"$schema":%q,"title":"livefire","description":"Any resource of livefire.","type":"object","required":["kind"],"properties":{"kind":{"enum":["%s"]}},"allOf":[%s]}`,
		schemaDialect, strings.Join(kindNames(), `","`), strings.Join(all, ","))
	if err := json.Indent(&b, []byte(one), "", "  "); err != nil {
		t.Fatal(err)
	}
	generated(t, "../schemas/livefire.json", b.String()+"\n")
	generated(t, "../docs/reference/resources.md", reference.String())
}

// table writes one line for each field below s.
func table(b *strings.Builder, s *jsonschema.Schema, prefix string) {
	for pair := s.Properties.Oldest(); pair != nil; pair = pair.Next() {
		name, p := prefix+pair.Key, pair.Value
		typ, below := p.Type, p
		switch {
		case p.Pattern == durationSyntax:
			typ = "duration"
		case p.Type == "array":
			typ, below, name = "list of "+p.Items.Type, p.Items, name+"[]"
		case p.AdditionalProperties != nil && p.AdditionalProperties.Type != "" && p.Properties == nil:
			typ, below, name = "map of "+p.AdditionalProperties.Type, p.AdditionalProperties, name+".*"
		}
		if below.Properties != nil && below.Properties.Len() > 0 {
			table(b, below, name+".")
			continue
		}
		def := ""
		if p.Default != nil {
			raw, _ := json.Marshal(p.Default)
			def = "`" + strings.Trim(string(raw), `"`) + "`"
		} else if slices.Contains(s.Required, pair.Key) {
			def = "*required*"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", name, strings.TrimSuffix(typ, " of "), def, strings.ReplaceAll(strings.ReplaceAll(p.Description, "\n", " "), "|", "\\|"))
	}
}
