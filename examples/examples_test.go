package examples_test

import (
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/examples"
)

func decode(t *testing.T, paths ...string) api.ResourceSet {
	t.Helper()
	docs, err := api.DecodeFS(examples.FS, paths...)
	if err != nil {
		t.Fatalf("DecodeFS(%v) = %v", paths, err)
	}
	return api.NewResourceSet(docs)
}

func TestEveryExampleDecodesAndResolves(t *testing.T) {
	for name, paths := range map[string][]string{"demo": examples.DemoResources(), "active-passive": {"active-passive"}} {
		t.Run(name, func(t *testing.T) {
			for _, p := range api.CheckReferences(decode(t, paths...)) {
				t.Errorf("%s: %s: %s", p.Ref, p.Path, p.Message)
			}
		})
	}
}

func TestEveryDemoFileIsResourcesOrWorkloads(t *testing.T) {
	files, err := fs.Glob(examples.FS, "demo/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !slices.Contains(examples.DemoResources(), f) && !strings.HasPrefix(f, "demo/workloads-") {
			t.Errorf("%s is neither in DemoResources nor a workloads file", f)
		}
	}
}

func TestTheDemoShowsBothKindsOfRecovery(t *testing.T) {
	set := decode(t, examples.DemoResources()...)
	for name, want := range map[string]bool{"payments": true, "orders": false} {
		p, ok := set[api.Ref{Kind: api.KindActivePassive, Name: name}].(*api.ActivePassive)
		if !ok {
			t.Fatalf("no ActivePassive/%s", name)
		}
		svc := set[api.Ref{Kind: api.KindService, Name: name}].(*api.Service)
		if got := p.Spec.ReflexFor(svc.Spec); got != want {
			t.Errorf("reflex of %s = %t, want %t", name, got, want)
		}
	}
}

func TestWorkloadsAreUniqueAndOfKnownServices(t *testing.T) {
	set := decode(t, examples.DemoResources()...)
	seen := map[string]string{}
	for _, site := range []string{"eu-west", "us-east", "client"} {
		if set[api.Ref{Kind: api.KindSite, Name: site}] == nil {
			t.Errorf("no Site/%s", site)
		}
		raw, err := fs.ReadFile(examples.FS, "demo/workloads-"+site+".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var file struct {
			Workloads []struct {
				Name, Service string
				Capacity      float64
				Command       []string
			}
		}
		if err := yaml.Unmarshal(raw, &file); err != nil {
			t.Fatalf("workloads-%s.yaml: %v", site, err)
		}
		for _, w := range file.Workloads {
			if other, twice := seen[w.Name]; twice {
				t.Errorf("%s of %s is already a workload of %s", w.Name, site, other)
			}
			seen[w.Name] = site
			if set[api.Ref{Kind: api.KindService, Name: w.Service}] == nil {
				t.Errorf("%s: no Service/%s", w.Name, w.Service)
			}
			if len(w.Command) == 0 {
				t.Errorf("%s has no command", w.Name)
			}
		}
	}
	if len(seen) != 11 {
		t.Errorf("%d workloads, want 11", len(seen))
	}
}
