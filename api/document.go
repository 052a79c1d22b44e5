package api

import (
	"errors"
	"fmt"
	"reflect"
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
		r := &reader{file: f, offset: c.first, positions: map[string]place{}, anchors: map[string]ast.Node{}}
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

// shallow refuses what would make the parser recurse deeply: brackets and list markers without end.
func (f *file) shallow(c chunk) bool {
	const most = 20 * maxLevels // brackets in texts and comments count too, hence the room
	open := 0
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
			if open > most || (markers > most && len(line) > 2*most && dense(line[:at+1], markers)) {
				f.add(CodeLimit, place{c.first + i + 1, at + 1}, "write it with fewer levels", "nested deeper than %d levels", maxLevels)
				return false
			}
		}
	}
	return true
}

// dense says whether most of a text is indicators: "- - - - -".
func dense(text string, markers int) bool { return 3*markers > len(text) }

func (f *file) syntax(c chunk, err error) {
	at, message := place{c.first + 1, 1}, err.Error()
	var y yaml.Error
	if errors.As(err, &y) {
		message = y.GetMessage()
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
	setType(o)
	zeros := r.zeroValues(o)
	o.Default()
	r.refuseZeros(o, zeros)
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

// zeroValues are the written zeros of fields: path -> where.
func (r *reader) zeroValues(o Object) map[string]place {
	out := map[string]place{}
	for path := range leaves(o) {
		if at, ok := r.zeros[path]; ok {
			out[path] = at
		}
	}
	return out
}

// refuseZeros refuses a written zero that the default replaced: it would silently become something else.
func (r *reader) refuseZeros(o Object, zeros map[string]place) {
	if len(zeros) == 0 {
		return
	}
	now := leaves(o)
	for path, at := range zeros {
		if v, ok := now[path]; ok && !isZero(v) {
			r.bad(path, CodeZero, at, "leave it out for the default, or write the value that you mean", "%s: zero cannot be written here, it would become the default %v", fieldName(path), v)
		}
	}
}
