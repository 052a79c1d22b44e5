package api

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// document reads one chunk of the file: one object, or nothing if only comments stand there.
func (f *file) document(c chunk) []Document {
	before := len(f.problems)
	if !f.shallow(c) {
		return nil
	}
	parsed, err := parse(strings.Join(f.lines[c.first:c.end], "\n"))
	if err != nil {
		f.syntax(c, err)
		return nil
	}
	var docs []Document
	for _, d := range parsed.Docs {
		if d.Body == nil || d.Body.Type() == ast.CommentType || d.Body.Type() == ast.NullType {
			continue
		}
		r := newReader(f, c.first)
		if doc := r.object(d.Body); doc.Object != nil {
			docs = append(docs, doc)
		}
	}
	if len(f.problems) > before {
		return nil
	}
	return docs
}

// parse calls the parser; a panic in it is an error of the input as far as our users are concerned.
func parse(text string) (out *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("cannot be read as YAML")
		}
	}()
	return parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
}

// shallow refuses what would make the parser recurse deeply or run for long: brackets and list markers without
// end, and more lines than any document needs.
func (f *file) shallow(c chunk) bool {
	const most = 20 * maxLevels // brackets in texts and comments count too, hence the room
	if n := c.end - c.first; n > maxLines {
		f.add(CodeLimit, place{c.first + maxLines + 1, 1}, "split it", "a document of %d lines, at most %d are read", n, maxLines)
		return false
	}
	open, separators := 0, 0
	for i, line := range f.lines[c.first:c.end] {
		markers := 0
		for at, r := range line {
			switch r {
			case '[', '{':
				open++
			case ']', '}':
				open = max(open-1, 0)
			case '-', '?', '&', '!', '*', ':':
				markers++
			}
			if r == ':' || r == ',' || r == '?' {
				separators++
			}
			if open > most || (markers > most && len(line) > 2*most && dense(line[:at+1], markers)) {
				f.add(CodeLimit, place{c.first + i + 1, at + 1}, "write it with fewer levels", "nested deeper than %d levels", maxLevels)
				return false
			}
		}
		if separators > maxSeparators {
			f.add(CodeLimit, place{c.first + i + 1, 1}, "split it", "the document has more than %d fields", maxSeparators/2)
			return false
		}
	}
	return true
}

// dense says whether most of a text is indicators: "- - - - -".
func dense(text string, markers int) bool { return 3*markers > len(text) }

func (f *file) syntax(c chunk, err error) {
	at, message := place{c.first + 1, 1}, ""
	var y yaml.Error
	if !errors.As(err, &y) {
		message = err.Error()
	} else {
		message = y.GetMessage() // Error() would print the file
		if t := y.GetToken(); t != nil && t.Position != nil {
			at = place{t.Position.Line + c.first, t.Position.Column}
		}
	}
	message, _, _ = strings.Cut(message, "\n")
	f.add(CodeSyntax, at, "look at the indentation, colons and quotes of this line and the one before", "%s", message)
}

// object reads the body of one document.
func (r *reader) object(body ast.Node) Document {
	var none Document
	entries, ok := r.mapping(body, "$")
	if !ok {
		return none
	}
	start := r.placeOf(body)
	if len(entries) > 0 {
		start = entries[0].at
	}
	r.positions["$"] = start
	o := r.newObject(entries, start)
	if o == nil {
		return none
	}
	r.read(body, reflect.ValueOf(o).Elem(), "$", true)
	o, err := Clone(o) // as the store gives it back: what is empty is not there
	if err != nil {
		r.bad("$", CodeType, start, "", "%v", err)
		return none
	}
	o.Default()
	r.refuseZeros(o)
	doc := Document{Object: o, File: r.file.name, Line: start.line, lines: r.file.lines, positions: r.positions}
	for _, p := range o.Validate() {
		if !r.reported(p.Path) {
			r.file.put(doc.Locate(p))
		}
	}
	r.unique(o, start)
	return doc
}

// newObject makes an empty object of the kind that the document names.
func (r *reader) newObject(entries []entry, start place) Object {
	var kind, version *entry
	for i := range entries {
		switch entries[i].key {
		case "kind":
			kind = &entries[i]
		case "apiVersion":
			version = &entries[i]
		}
	}
	switch text, isText := "", false; {
	case version == nil && !r.file.version:
		r.file.add(CodeMissing, start, "apiVersion: "+Version, "apiVersion is missing in the first document")
	case version != nil:
		text, isText = r.text(version.value)
		if !isText || text != Version {
			r.file.add(CodeKind, r.placeOf(version.value), "apiVersion: "+Version, "apiVersion %q is not known", text)
		}
	}
	r.file.version = true // say it once
	if kind == nil {
		r.file.add(CodeMissing, start, "one of "+strings.Join(kindNames(), ", "), "kind is missing")
		return nil
	}
	text, _ := r.text(kind.value)
	o, err := New(Kind(text))
	if err != nil {
		r.file.add(CodeKind, r.placeOf(kind.value), nearestHint(text, kindNames()), "kind %q is not known", text)
		return nil
	}
	return o
}

// unique refuses the second document of one kind and name.
func (r *reader) unique(o Object, start place) {
	ref := RefOf(o)
	if ref.Name == "" {
		return
	}
	if first, ok := r.file.objects[ref]; ok {
		at := locate(r.positions, "$.metadata.name")
		r.file.add(CodeSameName, at, "rename one of them, or merge the two", "%s is already written at line %d", ref, first.line)
		return
	}
	r.file.objects[ref] = start
}

// refuseZeros refuses a written zero that the default replaced: it would silently become something else.
func (r *reader) refuseZeros(o Object) {
	now := leaves(o)
	for path, at := range r.zeros {
		if v, ok := valueUnder(now, path); ok {
			r.bad(path, CodeZero, at, "leave it out for the default, or write the value that you mean",
				"%s: what is empty or zero cannot be written here, it would become the default %v", fieldName(path), v)
		}
	}
}

// valueUnder is a value at or below path that says something.
func valueUnder(leaves map[string]any, path string) (any, bool) {
	for _, p := range slices.Sorted(maps.Keys(leaves)) {
		if under(p, path) && !isZero(leaves[p]) {
			return leaves[p], true
		}
	}
	return nil, false
}
