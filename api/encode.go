package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// EncodeYAML writes o as YAML that Decode reads back to the same object: fields in the order of the Go types,
// spans as texts, nothing that was left empty.
func EncodeYAML(o Object) ([]byte, error) {
	w := &writer{}
	t := o.TypeOf()
	fmt.Fprintf(&w.out, "apiVersion: %s\nkind: %s\n", t.APIVersion, t.Kind)
	v := reflect.ValueOf(o).Elem()
	for _, name := range fieldsOf(v.Type()).names {
		if name != "apiVersion" && name != "kind" {
			w.field(name, v, "")
		}
	}
	if w.err != nil {
		return nil, fmt.Errorf("write %s as YAML: %w", RefOf(o), w.err)
	}
	return w.out.Bytes(), nil
}

// writer writes block mappings and lists; a list of scalars stands on one line.
type writer struct {
	out bytes.Buffer
	err error
}

// field writes one field of the struct v, unless it was left empty and may be left out.
func (w *writer) field(name string, v reflect.Value, indent string) {
	f := fieldsOf(v.Type()).byName[name]
	x := v.FieldByIndex(f.index)
	if !f.required && x.IsZero() || omitted(x) && !f.required {
		return
	}
	w.out.WriteString(indent + name + ":")
	w.value(x, indent+"  ")
}

// omitted is what encoding/json leaves out with omitempty or, for a struct, what holds nothing.
func omitted(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		return v.Len() == 0
	case reflect.Struct:
		return v.IsZero()
	}
	return false
}

// value writes what follows a key, its line end included.
func (w *writer) value(v reflect.Value, indent string) {
	if v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			w.out.WriteString(" null\n")
			return
		}
		w.value(v.Elem(), indent)
		return
	}
	switch {
	case v.Kind() == reflect.Struct:
		before := w.out.Len()
		w.out.WriteString("\n")
		for _, name := range fieldsOf(v.Type()).names {
			w.field(name, v, indent)
		}
		if w.out.Len() == before+1 {
			w.out.Truncate(before)
			w.out.WriteString(" {}\n")
		}
	case v.Kind() == reflect.Map:
		w.mapping(v, indent)
	case v.Kind() == reflect.Slice:
		w.list(v, indent)
	default:
		w.out.WriteString(" " + w.scalar(v) + "\n")
	}
}

func (w *writer) mapping(v reflect.Value, indent string) {
	if v.Len() == 0 {
		w.out.WriteString(" {}\n")
		return
	}
	w.out.WriteString("\n")
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	for _, k := range keys {
		w.out.WriteString(indent + w.text(k.String()) + ":")
		w.value(v.MapIndex(k), indent+"  ")
	}
}

func (w *writer) list(v reflect.Value, indent string) {
	flat := make([]string, 0, v.Len())
	for i := range v.Len() {
		e := v.Index(i)
		for (e.Kind() == reflect.Interface || e.Kind() == reflect.Pointer) && !e.IsNil() {
			e = e.Elem()
		}
		switch e.Kind() {
		case reflect.Struct, reflect.Map, reflect.Slice:
			w.blockList(v, indent)
			return
		}
		flat = append(flat, w.scalar(e))
	}
	w.out.WriteString(" [" + strings.Join(flat, ", ") + "]\n")
}

// blockList writes each entry after its marker, "-" on a line of its own.
func (w *writer) blockList(v reflect.Value, indent string) {
	w.out.WriteString("\n")
	for i := range v.Len() {
		var entry writer
		entry.value(v.Index(i), indent+"  ")
		text := strings.TrimPrefix(strings.TrimPrefix(entry.out.String(), "\n"), indent+"  ")
		w.out.WriteString(indent + "- " + strings.TrimPrefix(text, " "))
		if w.err == nil {
			w.err = entry.err
		}
	}
}

func (w *writer) scalar(v reflect.Value) string {
	if v.Type() == durationType {
		return Duration(v.Int()).String()
	}
	switch v.Kind() {
	case reflect.String:
		return w.text(v.String())
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Int, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Uint64:
		return strconv.FormatUint(v.Uint(), 10)
	case reflect.Float64:
		x, err := json.Marshal(v.Float())
		if err != nil {
			w.err = err
		}
		return string(x)
	case reflect.Interface:
		return "null"
	}
	w.err = fmt.Errorf("%s cannot be written", v.Type())
	return "null"
}

// plainText needs no quotes anywhere: no indicator, nothing that reads as a number, a truth or nothing.
var plainText = regexp.MustCompile(`^[A-Za-z/][-A-Za-z0-9_./]*$`)

var readsAsOther = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"}

func (w *writer) text(s string) string {
	if plainText.MatchString(s) && !slices.Contains(readsAsOther, strings.ToLower(s)) {
		return s
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		w.err = err
	}
	var out strings.Builder
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		if r <= 0xffff && !unicode.IsPrint(r) { // what Decode refuses to see in a file
			fmt.Fprintf(&out, `\u%04x`, r)
			continue
		}
		out.WriteRune(r)
	}
	return out.String()
}
