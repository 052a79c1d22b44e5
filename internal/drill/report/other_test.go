package report_test

import (
	"bytes"
	"encoding/xml"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/livefire-mesh/livefire/internal/drill/report"
)

func TestTableOfEveryKindOfRun(t *testing.T) {
	var out strings.Builder
	for _, name := range []string{"site-loss", "by-reflex", "late-ack", "not-recovered", "not-measured"} {
		out.WriteString(name + "\n")
		r := build(t, scripts()[name])
		if err := report.Table(&out, r, report.TextOptions{Unicode: true}); err != nil {
			t.Fatal(err)
		}
		var plain strings.Builder
		if err := report.Table(&plain, r, report.TextOptions{}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(plain.String()) {
			if utf8.RuneCountInString(line) > 101 || strings.ContainsAny(line, "√×") {
				t.Errorf("%s: %q", name, line)
			}
		}
	}
	golden(t, "tables.txt", []byte(out.String()))
}

func TestJUnitNeverPassesWhatIsNotAPass(t *testing.T) {
	for name, want := range map[string]struct{ failures, errors int }{
		"site-loss": {0, 0}, "not-recovered": {3, 0}, "not-measured": {1, 3}, "no-switch": {2, 1},
	} {
		var b bytes.Buffer
		if err := report.JUnit(&b, build(t, scripts()[name])); err != nil {
			t.Fatal(err)
		}
		var s struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Errors   int `xml:"errors,attr"`
			Cases    []struct {
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		}
		if err := xml.Unmarshal(b.Bytes(), &s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.Tests != 7 || len(s.Cases) != 7 || s.Failures != want.failures || s.Errors != want.errors {
			t.Errorf("%s: %d tests, %d failures, %d errors; want 7, %d, %d\n%s", name, s.Tests, s.Failures, s.Errors, want.failures, want.errors, b.Bytes())
		}
	}
}

func TestMarkdown(t *testing.T) {
	var b bytes.Buffer
	if err := report.Markdown(&b, build(t, scripts()["site-loss"])); err != nil {
		t.Fatal(err)
	}
	golden(t, "site-loss.md", b.Bytes())
}
