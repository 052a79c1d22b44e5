package docs_test

import (
	"cmp"
	"crypto/tls"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/livefire-mesh/livefire/internal/mesh/proxy"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// kept is a registerer that remembers what it was given.
type kept struct{ collectors []prometheus.Collector }

func (k *kept) Register(c prometheus.Collector) error {
	k.collectors = append(k.collectors, c)
	return nil
}

func (k *kept) MustRegister(cs ...prometheus.Collector) { k.collectors = append(k.collectors, cs...) }
func (k *kept) Unregister(prometheus.Collector) bool    { return false }

// documented is a metric as the page lists it.
type documented struct{ kind, labels string }

var (
	rowRE  = regexp.MustCompile("(?m)^\\| `(livefire_[a-z0-9_]+)` \\| (\\w+) \\| ([^|]*) \\|")
	nameRE = regexp.MustCompile(`fqName: "([^"]+)"`)
	varsRE = regexp.MustCompile(`variableLabels: \{([^}]*)\}`)
)

// kindOf a collector, by what it is.
func kindOf(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	switch c.(type) {
	case *prometheus.HistogramVec, prometheus.Histogram:
		return "histogram"
	case *prometheus.GaugeVec:
		return "gauge"
	case *prometheus.CounterVec:
		return "counter"
	}
	// A plain counter or gauge says what it is when it is asked for its value.
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("gather %T: %d families, %v", c, len(families), err)
	}
	return strings.ToLower(families[0].GetType().String())
}

func TestMetricsPageListsEveryMetricAsItIs(t *testing.T) {
	reg := &kept{}
	_, err := proxy.New(proxy.Config{Node: route.Node{ID: "n", Site: "s"}, Registerer: reg,
		ClientTLS: func(string) *tls.Config { return nil }}) // no listener: nothing to close
	if err != nil {
		t.Fatal(err)
	}
	code := map[string]documented{}
	for _, c := range reg.collectors {
		descs := make(chan *prometheus.Desc, 8)
		c.Describe(descs)
		close(descs)
		for d := range descs {
			code[nameRE.FindStringSubmatch(d.String())[1]] = documented{kindOf(t, c), strings.ReplaceAll(varsRE.FindStringSubmatch(d.String())[1], ",", ", ")}
		}
	}
	page, err := os.ReadFile("metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]documented{}
	for _, m := range rowRE.FindAllStringSubmatch(string(page), -1) {
		listed[m[1]] = documented{m[2], strings.ReplaceAll(strings.TrimSpace(m[3]), "`", "")}
	}
	if len(code) < 10 {
		t.Fatalf("only %d metrics found in the code", len(code))
	}
	for name, want := range code {
		if got, ok := listed[name]; !ok || got != want {
			t.Errorf("metrics.md lists %s as %+v, the code has %+v", name, got, want)
		}
	}
	for name := range listed {
		if _, ok := code[name]; !ok {
			t.Errorf("metrics.md lists %s, which the code does not have", name)
		}
	}
}

// Metrics that another package registers would not be seen by the test above.
func TestOnlyTheProxyMakesMetrics(t *testing.T) {
	made := regexp.MustCompile(`\bprometheus\.(New(Counter|Gauge|Histogram|Summary|Desc|Untyped)|BuildFQName)|\bpromauto\.`)
	var where []string
	err := fs.WalkDir(os.DirFS(root), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && p != "." && strings.HasPrefix(d.Name(), ".") {
			return cmp.Or(err, fs.SkipDir)
		}
		if d.IsDir() || path.Ext(p) != ".go" || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		b, err := fs.ReadFile(os.DirFS(root), p)
		if err == nil && made.Match(b) {
			where = append(where, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"internal/mesh/proxy/metrics.go"}; !slices.Equal(where, want) {
		t.Errorf("metrics are made in %q, this test and docs/metrics.md know of %q", where, want)
	}
}
