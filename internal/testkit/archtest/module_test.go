package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

const modulePath = "github.com/livefire-mesh/livefire"

// module is what the rules look at: every directory with Go files, by its path in the module.
type module map[string]*room

// room is one package. Its imports of our own module are written as paths in the module.
type room struct {
	path  string
	name  string // of the package
	files []file // of the product, or the test files where there is nothing else
}

type file struct {
	path      string
	generated bool
	comment   string // the package comment, "" for none
	own       []string
	foreign   []string
	acts      []string // "file:line: what" for each clock, timer or goroutine
}

// readModule parses every Go file under fsys.
func readModule(fsys fs.FS) (module, error) {
	m := module{}
	tests := module{} // directories with nothing but tests have their comment there
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		into := m
		if strings.HasSuffix(base, "_test.go") {
			into = tests
		}
		return into.add(fsys, name)
	})
	for dir, r := range tests {
		if m[dir] == nil {
			m[dir] = &room{path: dir, name: strings.TrimSuffix(r.name, "_test"), files: r.files}
			for i := range m[dir].files {
				f := &m[dir].files[i]
				f.own, f.foreign, f.acts = nil, nil, nil // a test may import what it needs
			}
		}
	}
	return m, err
}

func (m module) add(fsys fs.FS, name string) error {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, name, src, parser.ParseComments)
	if err != nil {
		return fmt.Errorf("parse the module: %w", err)
	}
	dir := path.Dir(name)
	if m[dir] == nil {
		m[dir] = &room{path: dir, name: parsed.Name.Name}
	}
	f := file{path: name, generated: ast.IsGenerated(parsed), comment: parsed.Doc.Text()}
	for _, spec := range parsed.Imports {
		to, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("parse the module: %s: %w", name, err)
		}
		if own, ok := inModule(to); ok {
			f.own = append(f.own, own)
		} else {
			f.foreign = append(f.foreign, to)
		}
	}
	f.acts = acts(set, parsed)
	m[dir].files = append(m[dir].files, f)
	return nil
}

func inModule(importPath string) (string, bool) {
	if importPath == modulePath {
		return ".", true
	}
	return strings.CutPrefix(importPath, modulePath+"/")
}

// clocks are the functions of package time that read a clock or wait.
var clocks = map[string]bool{
	"Now": true, "Since": true, "Until": true, "After": true, "Tick": true,
	"NewTimer": true, "NewTicker": true, "AfterFunc": true, "Sleep": true,
}

// acts finds what a thinking package may not do by itself, also through a renamed or a dotted import of time.
func acts(set *token.FileSet, parsed *ast.File) []string {
	var out []string
	found := func(n ast.Node, what string) {
		at := set.Position(n.Pos())
		out = append(out, fmt.Sprintf("%s:%d: %s", at.Filename, at.Line, what))
	}
	name := ""
	for _, spec := range parsed.Imports {
		if spec.Path.Value == `"time"` {
			name = "time"
			if spec.Name != nil {
				name = spec.Name.Name
			}
			if name == "." {
				found(spec, "a dotted import of time hides its clock")
			}
		}
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found(n, "go statement")
		case *ast.SelectorExpr:
			// A name that is declared in the file (Obj) is a variable, not the package.
			if x, ok := n.X.(*ast.Ident); ok && name != "" && x.Name == name && x.Obj == nil && clocks[n.Sel.Name] {
				found(n, "time."+n.Sel.Name)
			}
		}
		return true
	})
	return out
}
