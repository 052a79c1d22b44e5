package evidence

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The kinds and payloads belong to another package, which this one must not import; the page must list them all.
func TestSpecListsEveryKindOfRecord(t *testing.T) {
	source, err := os.ReadFile("../internal/drill/record/record.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/spec/evidence.md")
	if err != nil {
		t.Fatal(err)
	}
	kinds := regexp.MustCompile(`(?m)^\t\w+ +Kind += "([^"]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(kinds) < 27 {
		t.Fatalf("%d kinds found in record.go", len(kinds))
	}
	known := map[string]bool{}
	for _, k := range kinds {
		known[k[1]] = true
		if !strings.Contains(string(page), "`"+k[1]+"`") {
			t.Errorf("docs/spec/evidence.md does not list %s", k[1])
		}
	}
	for _, k := range []string{KindProposed, KindApproved, KindIntent, KindClosed, KindApplied, KindChunk, KindExecuted} {
		if !known[k] {
			t.Errorf("%s is no kind of record", k)
		}
	}
}
