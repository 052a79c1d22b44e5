package api

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// field of a struct as it is written.
type field struct {
	index    []int
	required bool // its tag has neither omitempty nor omitzero
}

// fieldSet are the fields of a struct type, in order.
type fieldSet struct {
	names  []string
	byName map[string]field
}

// fieldsOf lists the fields of a struct type by their names in JSON; those of an inlined struct are its own.
func fieldsOf(t reflect.Type) fieldSet {
	s := fieldSet{byName: map[string]field{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			inner := fieldsOf(f.Type)
			for _, n := range inner.names {
				x := inner.byName[n]
				s.names = append(s.names, n)
				s.byName[n] = field{append([]int{i}, x.index...), x.required}
			}
			continue
		}
		if name == "" || name == "-" || !f.IsExported() {
			continue
		}
		s.names = append(s.names, name)
		s.byName[name] = field{f.Index, !strings.Contains(options, "omit")}
	}
	return s
}

// tree is v as encoding/json would read it back, but with its zero scalars: maps, slices, texts, numbers.
// Nil pointers, maps and slices are left out.
func tree(v reflect.Value) (any, bool) {
	if v.Type() == durationType {
		return Duration(v.Int()).String(), true
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			return nil, false
		}
		return tree(v.Elem())
	case reflect.Struct:
		set, out := fieldsOf(v.Type()), map[string]any{}
		for name, f := range set.byName {
			if x, ok := tree(v.FieldByIndex(f.index)); ok {
				out[name] = x
			}
		}
		return out, true
	case reflect.Map:
		if v.IsNil() {
			return nil, false
		}
		out := map[string]any{}
		for k, e := range v.Seq2() {
			out[k.String()], _ = tree(e)
		}
		return out, true
	case reflect.Slice:
		if v.IsNil() {
			return nil, false
		}
		out := make([]any, v.Len())
		for i := range out {
			out[i], _ = tree(v.Index(i))
		}
		return out, true
	case reflect.String:
		return v.String(), true
	case reflect.Bool:
		return v.Bool(), true
	case reflect.Float64:
		return v.Float(), true
	case reflect.Uint64:
		return float64(v.Uint()), true
	default:
		return float64(v.Int()), true
	}
}

// leaves are the values of o that are not fields of their own, by path: scalars, and empty lists and mappings.
func leaves(o Object) map[string]any {
	out := map[string]any{}
	t, _ := tree(reflect.ValueOf(o))
	collect(out, "$", t)
	return out
}

func collect(out map[string]any, path string, x any) {
	switch x := x.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(x)) {
			collect(out, child(path, k), x[k])
		}
		if len(x) > 0 {
			return
		}
	case []any:
		for i, e := range x {
			collect(out, index(path, i), e)
		}
		if len(x) > 0 {
			return
		}
	}
	out[path] = x
}

// isZero says whether a leaf says nothing.
func isZero(x any) bool {
	switch x := x.(type) {
	case nil:
		return true
	case string:
		return x == "" || x == "0s"
	case float64:
		return x == 0
	case bool:
		return !x
	case map[string]any:
		return len(x) == 0
	case []any:
		return len(x) == 0
	}
	return false
}
