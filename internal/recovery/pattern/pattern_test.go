package pattern

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func site(name, region, jurisdiction string) api.Site {
	return api.Site{Metadata: api.Metadata{Name: name}, Spec: api.SiteSpec{Region: region, Jurisdiction: jurisdiction}}
}

func service(name, data string) api.Service {
	return api.Service{Metadata: api.Metadata{Name: name}, Spec: api.ServiceSpec{Protocol: "http", Port: 80, Hosts: []string{name + ".mesh"}, Data: data}}
}

func workload(name, service, site, address string) api.Workload {
	return api.Workload{Metadata: api.Metadata{Name: name},
		Spec:   api.WorkloadSpec{Service: api.ServiceID(service), Site: api.SiteID(site), Address: address, Version: "v1", Capacity: 100},
		Status: &api.WorkloadStatus{Node: api.NodeID(name), Registered: true}}
}

func passive(service string, order ...api.SiteID) api.ActivePassive {
	return api.ActivePassive{Metadata: api.Metadata{Name: service}, Spec: api.ActivePassiveSpec{Service: api.ServiceID(service), Order: order}}
}

func active(service string, weights map[api.SiteID]float64) api.ActiveActive {
	return api.ActiveActive{Metadata: api.Metadata{Name: service},
		Spec: api.ActiveActiveSpec{Service: api.ServiceID(service), Weights: weights, Shed: api.Shed{Capacity: 1}}}
}

// world is three sites with two workloads each of payments (ActivePassive), ledger (stateful, ActivePassive), search
// (ActiveActive), docs (no pattern) and one caller without an address.
func world() Resources {
	r := Resources{
		TrustDomain: "demo.livefire",
		Sites:       []api.Site{site("eu-west", "eu", "EU"), site("us-east", "us", "US"), site("ap-south", "ap", "IN")},
		Services: []api.Service{service("payments", "stateless"), service("ledger", "stateful"), service("search", "stateless"),
			service("docs", "stateless"), service("caller", "stateless")},
		ActivePassive: []api.ActivePassive{passive("payments", "eu-west", "us-east", "ap-south"), passive("ledger", "eu-west", "us-east")},
		ActiveActive:  []api.ActiveActive{active("search", map[api.SiteID]float64{"eu-west": 2, "us-east": 1})},
		Policies: []api.AuthorizationPolicy{
			{Metadata: api.Metadata{Name: "b"}, Spec: api.AuthorizationPolicySpec{Service: "payments", Allow: []api.AllowRule{{Identity: "spiffe://demo.livefire/site/client/service/caller"}}}},
			{Metadata: api.Metadata{Name: "a"}, Spec: api.AuthorizationPolicySpec{Service: "payments", Allow: []api.AllowRule{{Identity: "spiffe://demo.livefire/site/eu-west/service/search", Methods: []string{"GET"}}}}},
		},
	}
	n := 0
	for _, svc := range []string{"payments", "ledger", "search", "docs"} {
		for _, at := range []string{"eu-west", "us-east", "ap-south"} {
			if (svc == "ledger" || svc == "search") && at == "ap-south" {
				continue
			}
			for _, i := range []string{"1", "2"} {
				n++
				r.Workloads = append(r.Workloads, workload(svc+"-"+at+"-"+i, svc, at, "127.0.0.1:"+string(rune('1'+n/10))+"00"+string(rune('0'+n%10))))
			}
		}
	}
	r.Workloads = append(r.Workloads, workload("caller-1", "caller", "client", ""))
	r.Workloads[1].Status.Registered = false
	return r
}

// TestRouteGolden shows whole tables; each file is one situation.
func TestRouteGolden(t *testing.T) {
	resident := world()
	resident.Services[0].Spec.Residency = []string{"EU", "US"}
	tests := []struct {
		name   string
		r      Resources
		placed map[api.ServiceID]Placement
	}{
		{"initial", world(), nil},
		{"failed-over", world(), map[api.ServiceID]Placement{"payments": {Active: "us-east", Shares: map[api.SiteID]route.Weight{"us-east": route.Whole}}}},
		{"ramp", world(), map[api.ServiceID]Placement{"payments": {Active: "us-east", Shares: map[api.SiteID]route.Weight{"eu-west": 1000, "us-east": 9000}}}},
		{"evacuated", world(), map[api.ServiceID]Placement{"search": {Shares: map[api.SiteID]route.Weight{"us-east": route.Whole}}}},
		{"residency", resident, map[api.ServiceID]Placement{"payments": {Active: "ap-south", Shares: map[api.SiteID]route.Weight{"ap-south": 5000, "us-east": 5000}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := json.MarshalIndent(Route(tt.r, tt.placed, route.Table{Epoch: 41}), "", " ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", tt.name+".json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func must(t *testing.T, tbl route.Table, name api.ServiceID) route.Service {
	t.Helper()
	s, ok := tbl.Service(name)
	if !ok {
		t.Fatalf("%s is not in the table; problems: %+v", name, tbl.Problems)
	}
	return s
}

func codes(tbl route.Table, name api.ServiceID) []string {
	var out []string
	for _, p := range tbl.Problems {
		if p.Service == name {
			out = append(out, p.Code)
		}
	}
	return out
}

func sharesOf(s route.Service) map[api.SiteID]route.Weight {
	out := map[api.SiteID]route.Weight{}
	for _, x := range s.Sites {
		if x.Share > 0 {
			out[x.Name] = x.Share
		}
	}
	return out
}

func TestEpochRisesOnlyWhenTheContentChanges(t *testing.T) {
	first := Route(world(), nil, route.Table{})
	if first.Epoch != 1 {
		t.Errorf("first epoch = %d, want 1", first.Epoch)
	}
	if again := Route(world(), nil, first); again.Epoch != 1 {
		t.Errorf("epoch of the same content = %d, want 1", again.Epoch)
	}
	stored, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	var read route.Table
	if err := json.Unmarshal(stored, &read); err != nil {
		t.Fatal(err)
	}
	if again := Route(world(), nil, read); again.Epoch != 1 {
		t.Errorf("epoch of the same content after a restart = %d, want 1", again.Epoch)
	}
	r := world()
	r.Workloads[0].Status.Registered = false
	if next := Route(r, nil, first); next.Epoch != 2 {
		t.Errorf("epoch of another content = %d, want 2", next.Epoch)
	}
	if empty := Route(Resources{}, nil, route.Table{}); empty.Epoch != 0 {
		t.Errorf("epoch of an empty mesh = %d, want 0", empty.Epoch)
	}
}

// "a whole site may die at once: the table never becomes empty by itself" (ARCHITECTURE.md, Guarantees)
func TestTheLastEndpointsAreKept(t *testing.T) {
	full := Route(world(), nil, route.Table{})
	r := world()
	r.Workloads = nil
	next := Route(r, nil, full)
	for _, name := range []api.ServiceID{"payments", "ledger", "search", "docs"} {
		if d := cmp.Diff(must(t, full, name), must(t, next, name), cmp.Comparer(equalJSON)); d != "" {
			t.Errorf("%s changed: %s", name, d)
		}
		if got := codes(next, name); !slices.Equal(got, []string{audit.CodeNoEndpoints}) {
			t.Errorf("%s: problems %v", name, got)
		}
	}
	elsewhere := r
	elsewhere.Workloads = []api.Workload{workload("lost-1", "payments", "mars", "127.0.0.1:9999")}
	if s := must(t, Route(elsewhere, nil, full), "payments"); countEndpoints(s) != 6 {
		t.Errorf("a workload at a site of no pattern replaced the last endpoints: %+v", s.Sites)
	}
	moved := Route(r, map[api.ServiceID]Placement{"payments": {Active: "us-east"}}, next)
	if got := must(t, moved, "payments").Share("us-east"); got != route.Whole {
		t.Errorf("a failover with kept endpoints gives us-east %d", got)
	}
	r.Services = slices.DeleteFunc(r.Services, func(s api.Service) bool { return s.Metadata.Name == "payments" })
	if _, ok := Route(r, nil, next).Service("payments"); ok {
		t.Error("payments was deleted by the operator and is still in the table")
	}
	if s := must(t, next, "caller"); len(s.Sites) != 0 {
		t.Errorf("caller has sites %v", s.Sites)
	}
}

func equalJSON(a, b route.Service) bool {
	return Equal(route.Table{Services: []route.Service{a}}, route.Table{Services: []route.Service{b}})
}

func TestReflexIsTheDefaultOfStatelessDataOnly(t *testing.T) {
	yes, no := true, false
	for _, tt := range []struct {
		data  string
		asked *bool
		want  bool
		code  []string
	}{
		{"stateless", nil, true, nil},
		{"stateless", &no, false, nil},
		{"stateful", nil, false, nil},
		{"stateful", &no, false, nil},
		{"stateful", &yes, false, []string{audit.CodeReflexStateful}},
	} {
		r := world()
		r.Services[0].Spec.Data = tt.data
		r.ActivePassive[0].Spec.Reflex = tt.asked
		tbl := Route(r, nil, route.Table{})
		if s := must(t, tbl, "payments"); s.Reflex != tt.want || !slices.Equal(codes(tbl, "payments"), tt.code) {
			t.Errorf("%s, asked %v: reflex %v, problems %v", tt.data, tt.asked, s.Reflex, codes(tbl, "payments"))
		}
	}
}

// "residency: a hard exclusion that no failure overrides"
func TestResidencyExcludes(t *testing.T) {
	r := world()
	r.Services[0].Spec.Residency = []string{"US"}
	tbl := Route(r, nil, route.Table{})
	s := must(t, tbl, "payments")
	if d := cmp.Diff(map[api.SiteID]route.Weight{"us-east": route.Whole}, sharesOf(s)); d != "" {
		t.Errorf("initial placement: %s", d)
	}
	if d := cmp.Diff([]api.SiteID{"us-east"}, Usable(s)); d != "" {
		t.Errorf("usable: %s", d)
	}
	if got := codes(tbl, "payments"); !slices.Equal(got, []string{audit.CodeResidency}) {
		t.Errorf("problems %v", got)
	}

	only := Route(r, map[api.ServiceID]Placement{"payments": {Active: "eu-west"}}, tbl)
	if got := sharesOf(must(t, only, "payments")); len(got) != 0 {
		t.Errorf("a share for an excluded site: %v", got)
	}
	r.Sites = nil
	if got := Usable(must(t, Route(r, nil, tbl), "payments")); len(got) != 0 {
		t.Errorf("sites of unknown jurisdiction are usable: %v", got)
	}
}

func TestUsableIsSharesAndReflex(t *testing.T) {
	tbl := Route(world(), nil, route.Table{})
	for name, want := range map[api.ServiceID][]api.SiteID{
		"payments": {"eu-west", "us-east", "ap-south"},
		"ledger":   {"eu-west"},
		"search":   {"eu-west", "us-east"},
		"caller":   nil,
	} {
		if d := cmp.Diff(want, Usable(must(t, tbl, name))); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// "one bad route is kept aside with a coded reason and never takes down the others"
func TestBadInputIsKeptAside(t *testing.T) {
	good := Route(world(), nil, route.Table{})
	r := world()
	r.ActiveActive = append(r.ActiveActive, active("payments", map[api.SiteID]float64{"us-east": 1}), active("nobody", nil))
	r.Workloads[len(r.Workloads)-2].Spec.Address = "docs.example:80"
	tbl := Route(r, nil, good)
	if d := cmp.Diff(must(t, good, "payments"), must(t, tbl, "payments"), cmp.Comparer(equalJSON)); d != "" {
		t.Errorf("a service with two patterns lost its last table: %s", d)
	}
	want := map[api.ServiceID]string{"payments": audit.CodePatternConflict, "nobody": audit.CodeReference, "docs": audit.CodeAddress}
	for name, code := range want {
		if got := codes(tbl, name); !slices.Equal(got, []string{code}) {
			t.Errorf("%s: problems %v, want %s", name, got, code)
		}
	}
	for _, p := range tbl.Problems {
		// What is gone is kept by nobody, so a pattern that was left behind cannot keep its service alive.
		if gone := p.Service == "nobody"; p.Gone != gone {
			t.Errorf("%s: gone = %t, want %t", p.Service, p.Gone, gone)
		}
	}
	if len(tbl.Problems) != len(want) {
		t.Errorf("problems: %+v", tbl.Problems)
	}
	if fresh := Route(r, nil, route.Table{}); len(codes(fresh, "payments")) != 1 {
		t.Errorf("problems: %+v", fresh.Problems)
	} else if _, ok := fresh.Service("payments"); ok {
		t.Error("a service with two patterns and no last table is in the table")
	}
}

func TestPlacementOfSitesThatThePatternNoLongerHasIsIgnored(t *testing.T) {
	placed := map[api.ServiceID]Placement{
		"payments": {Active: "mars", Shares: map[api.SiteID]route.Weight{"mars": route.Whole}},
		"search":   {Shares: map[api.SiteID]route.Weight{"mars": 9000, "us-east": 1000}},
	}
	tbl := Route(world(), placed, route.Table{})
	if d := cmp.Diff(map[api.SiteID]route.Weight{"eu-west": route.Whole}, sharesOf(must(t, tbl, "payments"))); d != "" {
		t.Errorf("payments: %s", d)
	}
	if d := cmp.Diff(map[api.SiteID]route.Weight{"us-east": route.Whole}, sharesOf(must(t, tbl, "search"))); d != "" {
		t.Errorf("search: %s", d)
	}
}
