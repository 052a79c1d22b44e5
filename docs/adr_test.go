package docs_test

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var requireRE = regexp.MustCompile(`(?m)^\t(\S+) v\S+`)

// imported are the modules whose packages our files import, test files too.
func imported(t *testing.T) []string {
	t.Helper()
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	err = fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(p) != ".go" {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(p)), nil, parser.ImportsOnly)
		if err != nil {
			return fmt.Errorf("parse %s: %w", p, err)
		}
		for _, i := range f.Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			best := ""
			for _, m := range requireRE.FindAllSubmatch(mod, -1) {
				if module := string(m[1]); (name == module || strings.HasPrefix(name, module+"/")) && len(module) > len(best) {
					best = module
				}
			}
			if best != "" {
				seen[best] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for m := range seen {
		out = append(out, m)
	}
	slices.Sort(out)
	return out
}

// "A new dependency needs an ADR line: what for, what it pulls in, what we would write instead."
func TestEveryDependencyHasALineInADecision(t *testing.T) {
	var decisions bytes.Buffer
	files, err := filepath.Glob("adr/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		decisions.Write(b)
	}
	modules := imported(t)
	if len(modules) < 10 {
		t.Fatalf("only %q found", modules)
	}
	for _, m := range modules {
		if !regexp.MustCompile("`" + regexp.QuoteMeta(m) + "[/`]").Match(decisions.Bytes()) {
			t.Errorf("no page of docs/adr has a line about %s", m)
		}
	}
}

// Each decision has the sections that make it one, and is in the list.
func TestDecisionsAreWhole(t *testing.T) {
	all := pages(t)
	n := 0
	for p, page := range all {
		if path.Dir(p) != "docs/adr" || path.Base(p) == "README.md" {
			continue
		}
		n++
		if !strings.HasPrefix(page, "# "+path.Base(p)[:4]+": ") {
			t.Errorf("%s does not open with its number", p)
		}
		rest := page
		for _, section := range []string{"**Status:**", "## Context", "## Decision", "## Consequences", "## Rejected", "## Revisit when"} {
			_, after, ok := strings.Cut(rest, section)
			if !ok {
				t.Errorf("%s: %q is missing, or not at its place", p, section)
				break
			}
			rest = after
		}
		if !strings.Contains(all["docs/adr/README.md"], "("+path.Base(p)+")") {
			t.Errorf("%s is not in the list", p)
		}
	}
	if n < 10 {
		t.Errorf("only %d decisions found", n)
	}
}
