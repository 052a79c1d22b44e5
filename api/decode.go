package api

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of one file.
const (
	MaxFileBytes = 1 << 20
	MaxDocuments = 1000

	maxLevels = 64
	maxLines  = 10_000 // of one document: the parser needs time in the square of its fields

	maxSeparators = 20_000 // of one document
	maxValues     = 100_000
	maxReports    = 1000 // errors of one file that are listed
	maxQuote      = 160  // characters of a quoted line
)

// Document is one object and where it was written.
type Document struct {
	Object Object
	File   string
	Line   int // of its first field, from 1

	lines     []string
	positions map[string]place
}

// place is a position in a file, from 1.
type place struct{ line, column int }

// Decode reads the YAML or JSON documents of one file, strictly. Each object comes back completed (Default) and
// valid. Documents after the first may omit apiVersion. Errors are *Error (Invalid) with one Position for each
// thing that is wrong in any document; a file with an error gives no object at all.
func Decode(name string, data []byte) ([]Document, error) {
	f := &file{name: name, objects: map[Ref]place{}}
	docs := f.decode(data)
	if len(f.problems) > 0 {
		return nil, f.err()
	}
	return docs, nil
}

// file is one file while it is read.
type file struct {
	name     string
	lines    []string
	problems []Position
	objects  map[Ref]place
	version  bool // a document has said its apiVersion
}

func (f *file) decode(data []byte) []Document {
	if len(data) > MaxFileBytes {
		f.add(CodeLimit, place{1, 1}, "split it", "the file has %d bytes, at most %d are read", len(data), MaxFileBytes)
		return nil
	}
	f.lines = strings.Split(string(bytes.TrimPrefix(data, []byte("\ufeff"))), "\n")
	for i := range f.lines {
		f.lines[i] = strings.TrimSuffix(f.lines[i], "\r")
		if !f.readable(i) {
			return nil
		}
	}
	chunks := f.chunks()
	if len(chunks) > MaxDocuments {
		f.add(CodeLimit, place{chunks[MaxDocuments].first + 1, 1}, "split the file", "%d documents, at most %d are read", len(chunks), MaxDocuments)
		return nil
	}
	var docs []Document
	for _, c := range chunks {
		docs = append(docs, f.document(c)...)
	}
	slices.SortStableFunc(f.problems, func(a, b Position) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return docs
}

// readable refuses what no editor shows: bytes that are not UTF-8, and control characters.
func (f *file) readable(i int) bool {
	line := f.lines[i]
	for at, r := range line {
		invalid := r == utf8.RuneError && !strings.HasPrefix(line[at:], "\ufffd")
		if invalid || (r < ' ' && r != '\t') || r == 0x7f || r == 0xfeff {
			f.add(CodeSyntax, place{i + 1, utf8.RuneCountInString(line[:at]) + 1}, "save the file as UTF-8 text", "character %q cannot stand in a file", r)
			return false
		}
	}
	return true
}

// chunk is the lines of one document: from first up to, not including, end; both from 0.
type chunk struct{ first, end int }

// chunks cuts the file at the lines that begin with "---", which cannot stand inside a document. Each document
// is parsed alone, so that a broken one does not hide the errors of the others.
func (f *file) chunks() []chunk {
	var out []chunk
	first := 0
	for i, l := range f.lines {
		if i > first && (l == "---" || strings.HasPrefix(l, "--- ") || strings.HasPrefix(l, "---\t")) {
			out = append(out, chunk{first, i})
			first = i
		}
	}
	return append(out, chunk{first, len(f.lines)})
}

// add notes one problem; the position is kept within the file.
func (f *file) add(code string, at place, hint, format string, args ...any) {
	f.put(Position{Line: at.line, Column: at.column, Code: code, Message: fmt.Sprintf(format, args...), Hint: hint})
}

func (f *file) put(p Position) {
	p.File = f.name
	p.Line = min(max(p.Line, 1), max(len(f.lines), 1))
	if len(f.lines) > 0 {
		line := f.lines[p.Line-1]
		p.Column = min(max(p.Column, 1), utf8.RuneCountInString(line)+1)
		p.Quote = quote(line)
	}
	f.problems = append(f.problems, p)
}

func quote(line string) string {
	line = strings.TrimRight(line, " \t")
	if r := []rune(line); len(r) > maxQuote {
		return string(r[:maxQuote]) + "..."
	}
	return line
}

// err is all that is wrong with the file.
func (f *file) err() *Error {
	n := len(f.problems)
	e := Errorf(Invalid, f.name, "%d errors; nothing was read", n)
	if n == 1 {
		e.Message = "1 error; nothing was read"
	}
	e.Details = f.problems
	if n > maxReports {
		e.Message += fmt.Sprintf("; the first %d are listed", maxReports)
		e.Details = e.Details[:maxReports]
	}
	return e
}

// Locate turns a problem of the document's object into a position in its file: of the field, or of the nearest
// written parent if the field was not written.
func (d Document) Locate(p Problem) Position {
	at := locate(d.positions, p.Path)
	if at == (place{}) {
		at = place{max(d.Line, 1), 1}
	}
	pos := Position{File: d.File, Line: at.line, Column: at.column, Code: p.Code, Message: fieldName(p.Path) + ": " + p.Message, Hint: p.Hint}
	if at.line <= len(d.lines) {
		pos.Quote = quote(d.lines[at.line-1])
	}
	return pos
}

// locate is the place of path or of its nearest written parent.
func locate(positions map[string]place, path string) place {
	for path != "" {
		if at, ok := positions[path]; ok {
			return at
		}
		path = parent(path)
	}
	return place{}
}

// parent cuts the last key or index off a path; "" above "$".
func parent(path string) string {
	if strings.HasSuffix(path, "'") { // a quoted key may hold dots and brackets
		if i := strings.LastIndex(path, ".'"); i > 0 {
			return path[:i]
		}
	}
	if i := strings.LastIndexAny(path, ".["); i > 0 {
		return path[:i]
	}
	return ""
}

// under says whether path is prefix or lies below it.
func under(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// fieldName is a path as people say it: "spec.failover.after".
func fieldName(path string) string { return strings.TrimPrefix(strings.TrimPrefix(path, "$"), ".") }
