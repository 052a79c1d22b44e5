package api

import (
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// reader turns the nodes of one document into an object and notes where everything was written.
type reader struct {
	file      *file
	offset    int // lines before the document
	positions map[string]place
	zeros     map[string]place // written zeros
	anchors   map[string]ast.Node
	reports   []string // paths that have a problem already
	values    int
	level     int
	over      bool // a limit was exceeded and reported
}

func newReader(f *file, offset int) *reader {
	return &reader{file: f, offset: offset, positions: map[string]place{}, zeros: map[string]place{}, anchors: map[string]ast.Node{}}
}

// entry is one key of a mapping with its value.
type entry struct {
	key   string
	at    place
	value ast.Node
}

var durationType = reflect.TypeFor[Duration]()

// bad notes a problem at a path; what Validate says about the same path later is not repeated.
func (r *reader) bad(path, code string, at place, hint, format string, args ...any) {
	r.reports = append(r.reports, path)
	r.file.add(code, at, hint, format, args...)
}

func (r *reader) reported(path string) bool {
	for _, p := range r.reports {
		if under(path, p) {
			return true
		}
	}
	return false
}

// placeOf is where a node begins; block fields begin at their first key.
func (r *reader) placeOf(n ast.Node) place {
	switch x := n.(type) {
	case *ast.MappingNode:
		if !x.IsFlowStyle && len(x.Values) > 0 {
			return r.placeOf(x.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return r.placeOf(x.Key)
	}
	if n == nil || n.GetToken() == nil || n.GetToken().Position == nil {
		return place{r.offset + 1, 1}
	}
	p := n.GetToken().Position
	return place{p.Line + r.offset, p.Column}
}

// read sets v from n. required says whether the fields of a struct that have no default must be there.
func (r *reader) read(n ast.Node, v reflect.Value, path string, required bool) {
	n, ok := r.resolve(n, path)
	if !ok {
		return
	}
	r.level++
	defer func() { r.level-- }()
	if r.values++; r.over || r.values > maxValues || r.level > maxLevels {
		if !r.over {
			r.bad("$", CodeLimit, r.placeOf(n), "split it, or write out its aliases", "the document has more than %d values or %d levels", maxValues, maxLevels)
		}
		r.over = true
		return
	}
	if n.Type() == ast.NullType {
		return // as if it was not written
	}
	if v.Type() == durationType {
		r.duration(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		before := len(r.reports)
		r.read(n, p.Elem(), path, required)
		if len(r.reports) == before {
			v.Set(p)
		}
		delete(r.zeros, path) // a pointer tells zero from nothing
	case reflect.Struct:
		r.fields(n, v, path, required)
	case reflect.Map:
		r.dictionary(n, v, path)
	case reflect.Slice:
		r.list(n, v, path)
	case reflect.Interface:
		if x, ok := r.any(n, path); ok && x != nil {
			v.Set(reflect.ValueOf(x))
		}
	default:
		r.scalar(n, v, path)
	}
}

// resolve follows anchors and aliases, and refuses tags.
func (r *reader) resolve(n ast.Node, path string) (ast.Node, bool) {
	for range maxLevels {
		switch x := n.(type) {
		case *ast.AnchorNode:
			r.anchors[x.Name.GetToken().Value] = x.Value
			n = x.Value
		case *ast.AliasNode:
			target, ok := r.anchors[x.Value.GetToken().Value]
			if !ok {
				r.bad(path, CodeYAML, r.placeOf(x), "an anchor is written before its alias, in the same document", "alias %s has no anchor", x.Value.GetToken().Value)
				return nil, false
			}
			n = target
		case *ast.TagNode:
			r.bad(path, CodeYAML, r.placeOf(x), "remove the tag", "tags are not supported")
			return nil, false
		case *ast.DirectiveNode:
			r.bad(path, CodeYAML, r.placeOf(x), "remove the line", "directives are not supported")
			return nil, false
		case nil:
			return nil, false
		default:
			return n, true
		}
	}
	r.bad(path, CodeLimit, r.placeOf(n), "write the value out", "an alias stands for itself")
	return nil, false
}

// mapping lists the entries of a mapping, each key once.
func (r *reader) mapping(n ast.Node, path string) ([]entry, bool) {
	n, ok := r.resolve(n, path)
	if !ok {
		return nil, false
	}
	var nodes []*ast.MappingValueNode
	switch x := n.(type) {
	case *ast.MappingNode:
		nodes = x.Values
	case *ast.MappingValueNode:
		nodes = []*ast.MappingValueNode{x}
	default:
		r.bad(path, CodeType, r.placeOf(n), "write fields, for example name: value", "%s%s where fields are expected", named(path), shape(n))
		return nil, false
	}
	seen := map[string]place{}
	var out []entry
	for _, kv := range nodes {
		at := r.placeOf(kv.Key)
		key, ok := r.text(kv.Key)
		if kv.Key.IsMergeKey() || !ok {
			r.bad(path, CodeYAML, at, "write the fields out", "merge keys and keys that are not words are not supported")
			continue
		}
		if first, twice := seen[key]; twice {
			r.bad(child(path, key), CodeTwice, at, "remove one of them", "%s is already written at line %d", key, first.line)
			continue
		}
		seen[key] = at
		out = append(out, entry{key, at, kv.Value})
	}
	return out, true
}

func (r *reader) fields(n ast.Node, v reflect.Value, path string, required bool) {
	entries, ok := r.mapping(n, path)
	if !ok {
		return
	}
	known := fieldsOf(v.Type())
	written := map[string]bool{}
	for _, e := range entries {
		at := child(path, e.key)
		f, ok := known.byName[e.key]
		if !ok {
			r.bad(at, CodeField, e.at, nearestHint(e.key, known.names), "unknown field %s", e.key)
			continue
		}
		r.mark(at, e.at, e.value)
		written[e.key] = e.value != nil && e.value.Type() != ast.NullType
		r.read(e.value, v.FieldByIndex(f.index), at, path != "$" || e.key != "status")
	}
	if !required {
		return
	}
	for _, name := range known.names {
		if f := known.byName[name]; f.required && !written[name] && (path != "$" || name != "status") && name != "apiVersion" && name != "kind" {
			r.bad(child(path, name), CodeMissing, locate(r.positions, child(path, name)), "write "+name, "required field %s is missing", fieldName(child(path, name)))
		}
	}
}

// mark notes where a field was written: its value if that is a scalar, else its key.
func (r *reader) mark(path string, key place, value ast.Node) {
	r.positions[path] = key
	if _, ok := value.(ast.ScalarNode); ok && value.Type() != ast.NullType {
		r.positions[path] = r.placeOf(value)
	}
}

func (r *reader) dictionary(n ast.Node, v reflect.Value, path string) {
	entries, ok := r.mapping(n, path)
	if !ok {
		return
	}
	out := reflect.MakeMap(v.Type())
	for _, e := range entries {
		at := child(path, e.key)
		r.mark(at, e.at, e.value)
		x := reflect.New(v.Type().Elem()).Elem()
		r.read(e.value, x, at, true)
		delete(r.zeros, at)
		out.SetMapIndex(reflect.ValueOf(e.key).Convert(v.Type().Key()), x)
	}
	v.Set(out)
}

func (r *reader) list(n ast.Node, v reflect.Value, path string) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		r.bad(path, CodeType, r.placeOf(n), "write a list, for example [a, b]", "%s%s where a list is expected", named(path), shape(n))
		return
	}
	out := reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values))
	for i, e := range seq.Values {
		at := index(path, i)
		r.positions[at] = r.placeOf(e)
		if e == nil || e.Type() == ast.NullType {
			r.bad(at, CodeType, r.placeOf(n), "write a value, or remove the entry", "%sentry %d is empty", named(path), i+1)
			continue
		}
		r.read(e, out.Index(i), at, true)
		delete(r.zeros, at)
	}
	if len(seq.Values) == 0 {
		r.zero(path, n)
	}
	v.Set(out)
}

func named(path string) string {
	if n := fieldName(path); n != "" {
		return n + ": "
	}
	return ""
}

// shape names what a node is, for people.
func shape(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "fields"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return n.GetToken().Value
	case ast.ScalarNode:
		return strconv.Quote(strings.TrimSpace(n.GetToken().Value))
	}
	return "something else"
}
