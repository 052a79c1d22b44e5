package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/livefire-mesh/livefire/internal/drill/drilltest"
	"github.com/livefire-mesh/livefire/internal/drill/report"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := "testdata/" + name
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update rewrites it); got:\n%s", file, got)
	}
}

func TestTextOfEveryKindOfRun(t *testing.T) {
	for name, s := range scripts() {
		golden(t, name+".txt", []byte(text(t, build(t, s), report.TextOptions{Unicode: true})))
	}
}

func TestJSONIsTheContract(t *testing.T) {
	golden(t, "site-loss.json", encode(t, build(t, drilltest.SiteLoss())))
}

func TestPage(t *testing.T) {
	golden(t, "site-loss.html", page(t, build(t, drilltest.SiteLoss())))
}

var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestTextFitsATerminal(t *testing.T) {
	for name, s := range scripts() {
		r := build(t, s)
		plain := text(t, r, report.TextOptions{})
		for line := range strings.Lines(plain) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
			if strings.HasSuffix(line, " \n") {
				t.Errorf("%s: trailing space: %q", name, line)
			}
			for _, c := range line {
				if c > 126 {
					t.Errorf("%s: %q under ASCII: %s", name, c, line)
				}
			}
		}
		wide := text(t, r, report.TextOptions{Unicode: true})
		coloured := text(t, r, report.TextOptions{Unicode: true, Colour: true})
		if coloured == wide || colours.ReplaceAllString(coloured, "") != wide {
			t.Errorf("%s: colour changes more than colour", name)
		}
		for line := range strings.Lines(wide) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
	}
}

// The page is well-formed XML, so every browser and every checker reads the same tree; nothing in it leads outside.
func TestPageIsWellFormedAndAlone(t *testing.T) {
	for name, s := range scripts() {
		html := page(t, build(t, s))
		ids, refs := map[string]int{}, []string{}
		d := xml.NewDecoder(bytes.NewReader(html))
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: not well-formed: %v", name, err)
			}
			e, ok := tok.(xml.StartElement)
			if !ok {
				continue
			}
			checkElement(t, name, e)
			for _, a := range e.Attr {
				switch a.Name.Local {
				case "id":
					ids[a.Value]++
				case "aria-labelledby":
					refs = append(refs, strings.Fields(a.Value)...)
				}
			}
		}
		for id, n := range ids {
			if n > 1 {
				t.Errorf("%s: id %s %d times", name, id, n)
			}
		}
		for _, u := range regexp.MustCompile(`url\(([^)]*)\)`).FindAllSubmatch(html, -1) {
			refs = append(refs, strings.TrimPrefix(string(u[1]), "#"))
		}
		for _, r := range refs {
			if ids[r] == 0 {
				t.Errorf("%s: %s is referred to and does not exist", name, r)
			}
		}
		for _, bad := range []string{"NaN", "Inf", "ZgotmplZ", "<no value>"} {
			if bytes.Contains(html, []byte(bad)) {
				t.Errorf("%s: contains %s", name, bad)
			}
		}
	}
}

func checkElement(t *testing.T, name string, e xml.StartElement) {
	t.Helper()
	switch e.Name.Local {
	case "script", "link", "img", "iframe", "object", "image", "use":
		t.Errorf("%s: element %s", name, e.Name.Local)
	}
	for _, a := range e.Attr {
		switch {
		case a.Name.Local == "xmlns":
		case a.Name.Local == "href" || a.Name.Local == "src" || strings.HasPrefix(a.Name.Local, "on"):
			t.Errorf("%s: attribute %s of %s", name, a.Name.Local, e.Name.Local)
		case strings.Contains(a.Value, "://"):
			t.Errorf("%s: reference %q", name, a.Value)
		}
	}
}

// Each drawing says in words what it shows.
func TestEveryChartHasTitleAndDescription(t *testing.T) {
	html := string(page(t, build(t, drilltest.SiteLoss())))
	charts := regexp.MustCompile(`(?s)<svg class="chart".*?</svg>`).FindAllString(html, -1)
	if len(charts) != 6 {
		t.Errorf("%d charts, want 3 for each of 2 services", len(charts))
	}
	for _, c := range charts {
		if !regexp.MustCompile(`<title id="[^"]+">[^<]+</title><desc id="[^"]+">[^<]+</desc>`).MatchString(c) {
			t.Errorf("a chart without title or description: %.200s", c)
		}
	}
	if !strings.Contains(html, "prefers-color-scheme:dark") || !strings.Contains(html, "@page{size:A4") {
		t.Error("no dark scheme, or no rules for A4")
	}
}

// What an operator or an agent wrote never becomes markup.
func TestTextsAreEscaped(t *testing.T) {
	b := drilltest.SiteLoss().Build()
	evil := `</title></svg><script>alert(1)</script>`
	for i := range b.Records {
		b.Records[i].Data = []byte(strings.ReplaceAll(string(b.Records[i].Data), "hold ended", `\u003c/td\u003e\u003cscript\u003e`))
	}
	for i := range b.Chunks {
		for j := range b.Chunks[i].Samples {
			if s := &b.Chunks[i].Samples[j]; s.Site == drilltest.Home {
				s.Site = "eu-west" + "<script>"
			}
		}
	}
	b.Proposal.Drill.Spec.Scenario = evil
	r, err := report.Build(input(b))
	if err != nil {
		t.Fatal(err)
	}
	if html := page(t, r); bytes.Contains(html, []byte("<script")) {
		t.Error("markup of others reached the page")
	}
}

// "One set of numbers everywhere": what the terminal says, the page says in the same digits.
func TestViewsShowTheSameNumbers(t *testing.T) {
	for name, s := range scripts() {
		r := build(t, s)
		txt, html := text(t, r, report.TextOptions{Unicode: true}), string(page(t, r))
		for _, m := range regexp.MustCompile(`RTA [^(]*? ± [0-9.]+ s`).FindAllString(txt, -1) {
			if !strings.Contains(strings.ReplaceAll(html, "&gt;", ">"), m) {
				t.Errorf("%s: %q is not on the page", name, m)
			}
		}
		for _, m := range regexp.MustCompile(`(detect|decide|propagate|settle) ([0-9]+\.[0-9]+)`).FindAllString(txt, -1) {
			if !strings.Contains(html, m+" s") {
				t.Errorf("%s: %q is not on the page", name, m)
			}
		}
	}
}

func TestContractOfTheOutline(t *testing.T) {
	v := tree(t, encode(t, build(t, drilltest.SiteLoss())))
	at := func(path string) any {
		var x any = v
		for _, k := range strings.Split(path, ".") {
			switch y := x.(type) {
			case map[string]any:
				x = y[k]
			case []any:
				x = y[len(y)-1].(map[string]any)[k]
			default:
				return nil
			}
		}
		return x
	}
	for path, want := range map[string]any{
		"apiVersion": "livefire.dev/v1alpha1", "kind": "DrillReport", "run.verdict": "passed", "run.restored": true, "run.scenario": "site-loss",
		"services.service": "orders", "services.pattern": "ActivePassive", "services.result": "recovered", "services.switchSeconds": 2.26,
		"services.reflex.served": 0.0, "services.account.sent": 2951.0, "services.account.failed.status": 231.0, "services.account.executedTwice": 0.0,
		"services.marks.tI.uncertainty": "0.004s", "services.phases.name": "settle", "safety.faults.endedBy": "revert",
		"approvals.group": "security", "findings.status": "open", "log.size": 212.0,
	} {
		if got := at(path); got != want {
			t.Errorf("%s = %v, want %v", path, got, want)
		}
	}
	if src, _ := at("services.marks.tI.source").(string); !strings.HasPrefix(src, "record ") {
		t.Errorf("tI's source is %q", src)
	}
	if m := at("services.marks").(map[string]any); m["tE"] != nil {
		t.Error("orders has a tE though no proxy left by reflex")
	}
}
