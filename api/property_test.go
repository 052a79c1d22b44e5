package api

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// fill writes random values into every field. What omitempty drops is not made: an empty list reads as absent.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	if v.Type() == durationType {
		v.SetInt(int64(r.IntN(3)) * r.Int64N(1e15))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if r.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(r, v.Elem(), depth)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i), depth)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 1 + r.IntN(3) {
			e := reflect.New(v.Type().Elem()).Elem()
			fill(r, e, depth)
			v.SetMapIndex(reflect.ValueOf(word(r)).Convert(v.Type().Key()), e)
		}
	case reflect.Slice:
		n := 1 + r.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(r, v.Index(i), depth+1)
		}
	case reflect.Interface:
		switch k := r.IntN(5); {
		case k == 0 && depth < 4:
			v.Set(reflect.ValueOf([]any{word(r), map[string]any{word(r): 1.5}, []any{}}))
		case k == 1:
			v.Set(reflect.ValueOf(any(r.Float64())))
		case k == 2:
			v.Set(reflect.ValueOf(any(true)))
		default:
			v.Set(reflect.ValueOf(any(word(r))))
		}
	case reflect.String:
		v.SetString(word(r))
	case reflect.Bool:
		v.SetBool(r.IntN(2) == 0)
	case reflect.Int, reflect.Int64:
		v.SetInt(r.Int64N(1<<53) - 1<<52)
	case reflect.Uint64:
		v.SetUint(r.Uint64N(1 << 53))
	case reflect.Float64:
		v.SetFloat([]float64{0, 1, 0.1, 1e-9, 1e21, -2.5, r.NormFloat64()}[r.IntN(7)])
	default:
		panic(v.Type().String())
	}
}

func word(r *rand.Rand) string {
	words := []string{
		"eu-west", "true", "null", "~", "1", "1.10", "0x1f", "1e3", "", " ", "a b", "a: b", "#x", "- x", "x #y", "{a}", "[b]", "*c", "&d", "!e",
		"a\nb", "\ttab", "quo\"te", "it's", "back\\slash", "ü😀", "\u2028", "\u0000\u001b\u007f", "no", "=", "<<", "2026-01-01", "%", "@", "`", "|", ">", "?", "a,b", "...", "---", "\r\n", "\u0085", "\ufeff", "\ufffd", "trailing ", "yes", ".inf", "-1", "+1", "1_000", "0o7", "5s", "a/b.c",
	}
	w := words[r.IntN(len(words))]
	if r.IntN(4) == 0 {
		w += words[r.IntN(len(words))]
	}
	return w
}

// read decodes one document without completing or checking it.
func read(t *testing.T, text []byte, into Object) {
	t.Helper()
	f := &file{name: "f.yaml", lines: strings.Split(string(text), "\n"), objects: map[Ref]place{}}
	parsed, err := parse(string(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	rd := newReader(f, 0)
	rd.read(parsed.Docs[0].Body, reflect.ValueOf(into).Elem(), "$", true)
	if len(f.problems) > 0 {
		t.Fatalf("%v\n%s", f.err(), text)
	}
}

// Whatever an object of any kind holds, its YAML and its JSON are read back to the same object.
func TestEncodedObjectsAreReadBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, k := range Kinds() {
		for range 200 {
			want, _ := New(k)
			fill(r, reflect.ValueOf(want).Elem(), 0)
			setType(want)
			text, err := EncodeYAML(want)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := New(k)
			read(t, text, got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%s through YAML (-want +got):\n%s\n%s", k, diff, text)
			}
			raw, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			fromJSON, _ := New(k)
			read(t, raw, fromJSON)
			if diff := cmp.Diff(want, fromJSON); diff != "" {
				t.Fatalf("%s through JSON (-want +got):\n%s\n%s", k, diff, raw)
			}
			clone, err := Clone(want)
			if err != nil || !cmp.Equal(want, clone) {
				t.Fatalf("Clone: %v\n%s", err, cmp.Diff(want, clone))
			}
			if changes := Diff(want, clone); len(changes) > 0 {
				t.Fatalf("Diff of an object and its copy = %v", changes)
			}
		}
	}
}

// Completing twice is completing once, and nothing but the documented fields changes.
func TestDefaultIsIdempotent(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, k := range Kinds() {
		for range 100 {
			o, _ := New(k)
			fill(r, reflect.ValueOf(o).Elem(), 0)
			o.Default()
			once, err := Clone(o)
			if err != nil {
				t.Fatal(err)
			}
			o.Default()
			if diff := cmp.Diff(once, o); diff != "" {
				t.Fatalf("%s: a second Default changes (-once +twice):\n%s", k, diff)
			}
			o.Validate() // must not panic, whatever the object holds
		}
	}
}

// Every accepted file can be written and read again; every refusal points into the file.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(header + "kind: Site\nmetadata: {name: a}\nspec: {}\n"))
	f.Add([]byte(header + "kind: Service\nmetadata: {name: a}\nspec: {data: stateless, retries: {on: [connect, 502]}}\n---\nkind: Site\n"))
	f.Add([]byte("a: &a [*a, *a]\n--- |\n  text\n...\n- ? x\n"))
	f.Add([]byte("{\"apiVersion\": \"livefire.dev/v1alpha1\",\r\n\t\"kind\": \"Drill\"}"))
	f.Add([]byte(header + "kind: Drill\nmetadata: {name: d}\nspec:\n  scenario: s\n  scope: {site: a, services: [b]}\n  probes: [{service: b, from: c, rate: 1e2}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := Decode("f.yaml", data)
		if err != nil {
			inFile(t, err, data)
			return
		}
		for _, d := range docs {
			text, err := EncodeYAML(d.Object)
			if err != nil {
				t.Fatal(err)
			}
			again, err := Decode("again.yaml", text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if diff := cmp.Diff(d.Object, again[0].Object); diff != "" {
				t.Fatalf("(-first +again):\n%s\n%s", diff, text)
			}
		}
	})
}

// inFile checks that every position of err lies in the file and quotes its line.
func inFile(t *testing.T, err error, data []byte) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.Kind != Invalid || len(e.Details) == 0 {
		t.Fatalf("Decode = %v, want an *Error (Invalid) with details", err)
	}
	if len(data) > MaxFileBytes {
		return
	}
	lines := strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n")
	for _, d := range e.Details {
		if d.Line < 1 || d.Line > len(lines) {
			t.Fatalf("line %d of %d: %s", d.Line, len(lines), d.Message)
		}
		line := strings.TrimSuffix(lines[d.Line-1], "\r")
		if d.Column < 1 || d.Column > utf8.RuneCountInString(line)+1 {
			t.Fatalf("column %d of line %q: %s", d.Column, line, d.Message)
		}
		if q := strings.TrimSuffix(d.Quote, "..."); !strings.HasPrefix(line, q) && utf8.ValidString(line) {
			t.Fatalf("quote %q of line %q", d.Quote, line)
		}
		if d.Message == "" || d.Code == "" || d.File != "f.yaml" {
			t.Fatalf("position without words: %+v", d)
		}
	}
}
