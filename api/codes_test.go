package api

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the generated files")

func TestEveryCodeIsUniqueAndExplained(t *testing.T) {
	last := ""
	for _, c := range Codes() {
		if !code.MatchString(c.Code) || c.Code <= last {
			t.Errorf("%s after %s: codes are LFnnnn, ascending, each once", c.Code, last)
		}
		last = c.Code
		if c.Title == "" || c.Explanation == "" || c.Action == "" {
			t.Errorf("%s lacks a text: %+v", c.Code, c)
		}
		if !strings.HasSuffix(c.Explanation, ".") || !strings.HasSuffix(c.Action, ".") || strings.HasSuffix(c.Title, ".") {
			t.Errorf("%s: the title is no sentence, the other two are", c.Code)
		}
		if got, err := LookupCode(c.Code); err != nil || got != c {
			t.Errorf("LookupCode(%s) = %v, %v", c.Code, got, err)
		}
	}
	if _, err := LookupCode("LF9999"); KindOf(err) != NotFound {
		t.Errorf("LookupCode(LF9999) = %v, want NotFound", err)
	}
}

// A code that people see without an explanation sends them nowhere.
func TestEveryCodeInTheSourceIsInTheTable(t *testing.T) {
	mention := regexp.MustCompile(`"LF[0-9]{4}"`)
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range mention.FindAllString(string(raw), -1) {
			if _, err := LookupCode(strings.Trim(m, `"`)); err != nil {
				t.Errorf("%s uses %s, which api/codetable.go does not explain", path, m)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// generated compares a committed file with what it is generated from; -update writes it.
func generated(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test ./api -update writes it", err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("%s is stale; go test ./api -update rewrites it (-want +got):\n%.2000s", path, diff)
	}
}

func TestCodesPage(t *testing.T) {
	var b strings.Builder
	b.WriteString("<!-- Generated from api/codetable.go by go test ./api -update. DO NOT EDIT. -->\n# Codes\n\n" +
		"Offline: `livefire explain LFnnnn`.\n\n| range | about |\n|---|---|\n| LF00xx | files |\n| LF01xx | references between objects |\n" +
		"| LF21xx | rules of readiness, findings |\n| LF31xx | refusals of a failover, a drill or an approval |\n")
	for _, c := range Codes() {
		fmt.Fprintf(&b, "\n## %s: %s\n\n%s\n\n**What to do.** %s\n", c.Code, c.Title, c.Explanation, c.Action)
	}
	generated(t, "../docs/reference/codes.md", b.String())
}

func TestErrorsSayWhatWhereAndWhatToDo(t *testing.T) {
	e := Errorf(Denied, "Service/a", "refused %d", 1).WithCode("LF3103").WithHint("wait")
	e.Details = []Position{{File: "f", Line: 2, Column: 3, Quote: "x: y", Code: "LF0002", Message: "m", Hint: "h"}}
	want := "Service/a: refused 1 (LF3103)\nf:2:3: m (LF0002)\n    x: y\n    fix: h"
	if got := e.Error(); got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	wrapped := fmt.Errorf("outside: %w", e)
	if KindOf(wrapped) != Denied || KindOf(nil) != "" || KindOf(os.ErrClosed) != Internal {
		t.Error("KindOf does not find the first *Error of the chain")
	}
	kinds := []ErrorKind{Invalid, NotFound, Conflict, Denied, Unavailable, Internal}
	for i, k := range kinds {
		if s := k.HTTPStatus(); s < 400 || s > 599 || slices.ContainsFunc(kinds[:i], func(o ErrorKind) bool { return o.HTTPStatus() == s }) {
			t.Errorf("%s has the status %d, which is no error or another kind's", k, s)
		}
		if k.ExitCode() < 2 {
			t.Errorf("%s exits with %d", k, k.ExitCode())
		}
	}
}
