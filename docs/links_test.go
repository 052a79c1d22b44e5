// Package docs checks the pages against the repository: links lead somewhere, and metrics are listed as they are.
package docs_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"
)

const root = ".."

var (
	fenceRE   = regexp.MustCompile("(?ms)^ *```.*?^ *```[ \t]*$")
	codeRE    = regexp.MustCompile("`[^`\n]*`")
	linkRE    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	headingRE = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
)

// pages are all Markdown files by their slash-separated path from the root; hidden directories and test data are not ours
// to read.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "livefire-demo") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(p) != ".md" {
			return nil
		}
		b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(p)))
		out[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// prose is a page without what is code.
func prose(page string) string {
	return codeRE.ReplaceAllString(fenceRE.ReplaceAllString(page, ""), "")
}

// anchors of a page, as the usual renderers make them of headings: lower case, spaces become dashes, the rest goes.
func anchors(page string) []string {
	var out []string
	for _, m := range headingRE.FindAllStringSubmatch(fenceRE.ReplaceAllString(page, ""), -1) {
		a := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return unicode.ToLower(r)
			}
			return -1
		}, m[1])
		out = append(out, a)
	}
	return out
}

// broken lists the relative links of a page that lead nowhere.
func broken(from string, all map[string]string, exists func(string) bool) []string {
	var out []string
	for _, m := range linkRE.FindAllStringSubmatch(prose(all[from]), -1) {
		link := m[1]
		if strings.Contains(link, "://") || strings.HasPrefix(link, "mailto:") {
			continue
		}
		file, anchor, _ := strings.Cut(link, "#")
		target := from
		if file != "" {
			target = path.Join(path.Dir(from), file)
		}
		if strings.HasPrefix(target, "..") || !exists(target) {
			out = append(out, link)
			continue
		}
		if page, ok := all[target]; ok && anchor != "" && !slices.Contains(anchors(page), anchor) {
			out = append(out, link)
		}
	}
	return out
}

func TestEveryRelativeLinkLeadsSomewhere(t *testing.T) {
	all := pages(t)
	if len(all) < 20 {
		t.Fatalf("only %d pages found", len(all))
	}
	exists := func(p string) bool {
		_, err := os.Stat(filepath.Join(root, filepath.FromSlash(p)))
		return err == nil
	}
	for from := range all {
		for _, link := range broken(from, all, exists) {
			t.Errorf("%s: link %q leads nowhere", from, link)
		}
	}
}

func TestALinkIsBrokenByEachOfItsParts(t *testing.T) {
	all := map[string]string{
		"a.md":      "# One thing\n[ok](d/b.md) [ok](d/b.md#two-things) [ok](#one-thing) [ok](https://example.org/x) `[code](none.md)`\n```\n[fenced](none.md)\n```\n",
		"d/b.md":    "## Two things!\n[up](../a.md)\n",
		"file.md":   "[x](none.md)",
		"anchor.md": "[x](d/b.md#three)",
		"own.md":    "[x](#nothing)",
		"above.md":  "[x](../a.md)",
	}
	exists := func(p string) bool { _, ok := all[p]; return ok }
	for from, want := range map[string][]string{
		"a.md": nil, "d/b.md": nil, "file.md": {"none.md"}, "anchor.md": {"d/b.md#three"}, "own.md": {"#nothing"}, "above.md": {"../a.md"},
	} {
		if got := broken(from, all, exists); !slices.Equal(got, want) {
			t.Errorf("broken(%s) = %q, want %q", from, got, want)
		}
	}
}

// Every page below docs can be reached from the README by links: a page that nobody links is read by nobody.
func TestEveryPageIsReachedFromTheReadme(t *testing.T) {
	all := pages(t)
	seen := map[string]bool{"README.md": true}
	for todo := []string{"README.md"}; len(todo) > 0; {
		from := todo[0]
		todo = todo[1:]
		for _, m := range linkRE.FindAllStringSubmatch(prose(all[from]), -1) {
			file, _, _ := strings.Cut(m[1], "#")
			to := path.Join(path.Dir(from), file)
			if _, ok := all[to]; ok && !seen[to] {
				seen[to] = true
				todo = append(todo, to)
			}
		}
	}
	for p := range all {
		if strings.HasPrefix(p, "docs/") && !seen[p] {
			t.Errorf("%s is linked from no page that the README leads to", p)
		}
	}
}
