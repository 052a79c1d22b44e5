package xds

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

const testDomain = "spiffe://demo.test"

func identity(site api.SiteID, s api.ServiceID) string {
	return fmt.Sprintf("%s/site/%s/service/%s", testDomain, site, s)
}

func testService(name api.ServiceID, reflex bool) route.Service {
	s := route.Service{
		Name: name, Protocol: "http", Port: 80, Hosts: []string{string(name) + ".mesh"}, Reflex: reflex,
		Health:   api.HealthCheck{Path: "/healthz", Interval: api.Duration(500 * time.Millisecond), Timeout: api.Duration(300 * time.Millisecond), Failures: 3, Successes: 2},
		Timeouts: api.Timeouts{Request: api.Duration(15 * time.Second), Idle: api.Duration(5 * time.Minute)},
		Retries:  api.Retries{On: []string{"connect", "reset", "refused", "502", "503", "504"}, Attempts: 3, Budget: 0.2},
		Limits:   api.Limits{Connections: 1024, Pending: 1024, Requests: 1024},
		Callers:  []api.AllowRule{{Identity: testDomain + "/site/eu/service/web"}},
	}
	for i, site := range []api.SiteID{"eu", "us"} {
		share := route.Whole
		if i > 0 {
			share = 0
		}
		s.Sites = append(s.Sites, route.Site{
			Name: site, Region: string(site), Zone: "a", Share: share, Priority: i,
			Endpoints: []route.Endpoint{
				{Workload: string(name) + "-1", Address: netip.MustParseAddrPort(fmt.Sprintf("127.0.%d.1:9001", i)), Version: "v1", Capacity: 100, Identity: identity(site, name), Registered: true},
				{Workload: string(name) + "-2", Address: netip.MustParseAddrPort(fmt.Sprintf("127.0.%d.2:9001", i)), Version: "v1", Capacity: 100, Identity: identity(site, name), Registered: i == 0},
			},
		})
	}
	return s
}

func testNode() (route.Node, route.Capabilities) {
	return route.Node{ID: "web-1-eu", Site: "eu", Service: "web", Identity: identity("eu", "web"), Workload: "web-1"},
		route.Capabilities{
			Kind: KindBuiltin, Inbound: "127.0.0.1:9001", App: "127.0.0.1:9000", Outbound: "127.0.0.1:9002",
			ServicePorts: map[api.ServiceID]string{"orders": "127.0.0.1:9100"},
		}
}

func testTable() route.Table {
	web := testService("web", true)
	web.Shed = 1
	return route.Table{Epoch: 7, Services: []route.Service{
		testService("orders", true), testService("payments", false), web,
	}}
}

var equateEmpty = cmp.Options{cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })}

func mustRender(t *testing.T, table route.Table, n route.Node, caps route.Capabilities) Resources {
	t.Helper()
	r, problems := Render(table, n, caps)
	if len(problems) > 0 {
		t.Fatalf("Render: problems %v, want none", problems)
	}
	return r
}

// randomTable keeps the invariants that route.Table documents.
func randomTable(rnd *rand.Rand) route.Table {
	t := route.Table{Epoch: route.Epoch(rnd.Uint64())}
	for i := range rnd.IntN(5) {
		t.Services = append(t.Services, randomService(rnd, api.ServiceID(fmt.Sprintf("svc-%d", i))))
	}
	for range rnd.IntN(3) {
		t.Problems = append(t.Problems, route.Problem{
			Service: api.ServiceID(fmt.Sprintf("svc-%d", rnd.IntN(9))), Code: "LF2122", Message: "keep \"one\"\n", Gone: rnd.IntN(2) == 0,
		})
	}
	return t
}

func randomService(rnd *rand.Rand, name api.ServiceID) route.Service {
	s := testService(name, rnd.IntN(2) == 0)
	s.Protocol = []string{"http", "grpc", "tcp"}[rnd.IntN(3)]
	s.Stateful = rnd.IntN(2) == 0
	s.Port = rnd.IntN(65536)
	s.Hosts = append(s.Hosts, fmt.Sprintf("%s-%d.example", name, rnd.IntN(100)))
	s.Health.Interval = api.Duration(1 + rnd.Int64N(int64(time.Hour)))
	s.Health.Path = []string{"", "/h", "/h/z%20a"}[rnd.IntN(3)]
	s.Timeouts = api.Timeouts{Request: api.Duration(rnd.Int64N(int64(time.Hour))), Try: api.Duration(rnd.IntN(2) * 300_000_000)}
	s.Retries.Attempts = rnd.IntN(4)
	s.Retries.Budget = rnd.Float64()
	s.Retries.Idempotent = rnd.IntN(2) == 0
	s.Limits.Pending = rnd.IntN(3) * 100
	s.Shed = rnd.Float64()
	s.Callers = append(s.Callers, api.AllowRule{
		Identity: testDomain + "/site/eu/service/*", Methods: []string{"GET"}, Paths: []string{"/a", "/b/*", "*"},
	})
	s.Sites = nil
	weights := map[api.SiteID]float64{}
	for i := range rnd.IntN(5) {
		site := route.Site{Name: api.SiteID(fmt.Sprintf("site-%d", i)), Region: []string{"", "r"}[rnd.IntN(2)]}
		weights[site.Name] = float64(rnd.IntN(3))
		for j := range rnd.IntN(4) {
			site.Endpoints = append(site.Endpoints, route.Endpoint{
				Workload: fmt.Sprintf("w-%d", j), Identity: identity(site.Name, name),
				Address:  netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), byte(j)}), uint16(1+rnd.IntN(65535))),
				Version:  []string{"", "v2"}[rnd.IntN(2)],
				Capacity: rnd.Float64() * 1000, Registered: rnd.IntN(2) == 0,
			})
		}
		s.Sites = append(s.Sites, site)
	}
	shares := route.Shares(weights)
	for i := range s.Sites {
		s.Sites[i].Share = shares[s.Sites[i].Name]
		if s.Sites[i].Share == 0 {
			s.Sites[i].Priority = 1 + rnd.IntN(3)
			s.Sites[i].Excluded = rnd.IntN(3) == 0
		}
	}
	slices.SortFunc(s.Sites, func(a, b route.Site) int {
		if a.Priority != b.Priority {
			return a.Priority - b.Priority
		}
		return strings.Compare(string(a.Name), string(b.Name))
	})
	return s
}

func TestDecodeIsTheInverseOfRender(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 100 {
		table := randomTable(rnd)
		n, caps := testNode()
		n.Service = "svc-0"
		caps.Kind = []string{KindBuiltin, KindEnvoy}[i%2]
		r := mustRender(t, table, n, caps)
		if err := Complete(r); err != nil {
			t.Fatalf("table %d: Complete = %v, want nil", i, err)
		}
		got, gotCaps, err := Decode(r)
		if err != nil {
			t.Fatalf("table %d: Decode: %v", i, err)
		}
		if diff := cmp.Diff(table, got, equateEmpty); diff != "" {
			t.Fatalf("table %d: Decode(Render(t)) differs (-want +got):\n%s", i, diff)
		}
		if diff := cmp.Diff(caps, gotCaps); diff != "" {
			t.Fatalf("table %d: capabilities differ (-want +got):\n%s", i, diff)
		}
	}
}

func TestNewEpochAloneChangesOnlyTheCarrier(t *testing.T) {
	for _, kind := range []string{KindBuiltin, KindEnvoy, KindGRPC} {
		n, caps := testNode()
		caps.Kind = kind
		table := testTable()
		before := mustRender(t, table, n, caps)
		table.Epoch++
		after := mustRender(t, table, n, caps)
		var changed []string
		for typeURL, rs := range after {
			for _, x := range rs {
				if old, ok := before.Find(typeURL, x.Name); !ok || old.Version != x.Version {
					changed = append(changed, x.Name)
				}
			}
		}
		want := []string{Carrier}
		if kind == KindGRPC {
			want = nil
		}
		if diff := cmp.Diff(want, changed); diff != "" {
			t.Errorf("%s: changed resources (-want +got):\n%s", kind, diff)
		}
	}
}

func TestPartOfAnEpochIsNotComplete(t *testing.T) {
	n, caps := testNode()
	table := testTable()
	before := mustRender(t, table, n, caps)
	table.Epoch++
	table.Services[0].Timeouts.Request++
	table.Services[0].Limits.Pending++
	table.Services[1].Sites[1].Endpoints[0].Registered = false
	after := mustRender(t, table, n, caps)

	mixed := Resources{}
	for _, typeURL := range TableTypes() {
		mixed[typeURL] = before[typeURL]
	}
	for _, typeURL := range TableTypes() {
		mixed[typeURL] = after[typeURL]
		err := Complete(mixed)
		if last := typeURL == TypeRoute; (err == nil) != last {
			t.Errorf("after %s: Complete = %v, want complete = %v", typeURL, err, last)
		}
	}
}

func TestBadServiceNeverTakesAnotherAway(t *testing.T) {
	n, caps := testNode()
	for name, spoil := range map[string]func(*route.Service){
		"address":      func(s *route.Service) { s.Sites[0].Endpoints[0].Address = netip.AddrPort{} },
		"identity":     func(s *route.Service) { s.Sites[0].Endpoints[0].Identity = "" },
		"shares":       func(s *route.Service) { s.Sites[0].Share = 1 },
		"interval":     func(s *route.Service) { s.Health.Interval = 0 },
		"host":         func(s *route.Service) { s.Hosts = []string{"*"} },
		"taken host":   func(s *route.Service) { s.Hosts = []string{"ORDERS.mesh"} },
		"text":         func(s *route.Service) { s.Callers[0].Paths = []string{"/\xff"} },
		"method":       func(s *route.Service) { s.Callers[0].Paths = []string{""}; s.Health.Path = "/\x00" },
		"share abroad": func(s *route.Service) { s.Sites[0].Excluded = true },
	} {
		table := testTable()
		spoil(&table.Services[1])
		r, problems := Render(table, n, caps)
		if len(problems) != 1 || problems[0].Service != "payments" || problems[0].Code != CodeRefused {
			t.Errorf("%s: problems = %v, want one of payments", name, problems)
		}
		got, _, err := Decode(r)
		if err != nil || len(got.Services) != 2 {
			t.Errorf("%s: Decode = %d services, %v; want the 2 others", name, len(got.Services), err)
		}
		if !got.Keeps("payments") {
			t.Errorf("%s: problems that travel = %v; whoever has payments must hear why it is absent, and keep it", name, got.Problems)
		}
		if err := Complete(r); err != nil {
			t.Errorf("%s: Complete = %v", name, err)
		}
	}
}

func TestUnreadableServiceIsNamed(t *testing.T) {
	n, caps := testNode()
	r := mustRender(t, testTable(), n, caps)
	eps := slices.Clone(r[TypeEndpoint])
	r[TypeEndpoint] = slices.DeleteFunc(eps, func(x Resource) bool { return x.Name == "orders" })
	got, _, err := Decode(r)
	var bad *DecodeError
	if !errors.As(err, &bad) || bad.Services["orders"] == nil || len(bad.Services) != 1 {
		t.Fatalf("Decode: %v, want a DecodeError that names orders", err)
	}
	if len(got.Services) != 2 {
		t.Errorf("services = %d, want 2", len(got.Services))
	}
}

func TestOrdersSurviveTheWire(t *testing.T) {
	until := time.Now().Add(time.Minute)
	f := fault.Order{ID: "r/01-x", Run: "r", Kind: fault.Kill, Site: "eu", Services: []api.ServiceID{"a", "b"}, MaxTargets: 3, Lease: 15 * time.Second, MaxDuration: time.Minute, Fence: 42}
	p := sample.Order{ID: "r/a", Run: "r", Service: "a", From: "us", Rate: 50.5, Timeout: 2 * time.Second, Method: "GET", Path: "/x", Lease: time.Second}
	c := Count{ID: "r/count", Run: "r", Prefix: "r.", Lease: 3 * time.Second}
	gotF, err := ReadFaultOrder(FaultOrder(f, until).Body)
	if err != nil || !cmp.Equal(gotF, f) {
		t.Errorf("fault order = %+v, %v; want %+v", gotF, err, f)
	}
	gotP, err := ReadProbeOrder(ProbeOrder(p, until).Body)
	if err != nil || gotP != p {
		t.Errorf("probe order = %+v, %v; want %+v", gotP, err, p)
	}
	gotC, err := ReadCountOrder(CountOrder(c, until).Body)
	if err != nil || gotC != c {
		t.Errorf("count order = %+v, %v; want %+v", gotC, err, c)
	}
	if _, err := ReadFaultOrder(CountOrder(c, until).Body); err == nil {
		t.Error("a count order was read as a fault order")
	}
	o := FaultOrder(f, until)
	if o.TypeURL != TypeFaultOrder || o.TTL != f.Lease || o.Name != f.ID {
		t.Errorf("order = %s %s %v", o.TypeURL, o.Name, o.TTL)
	}
}

func TestNodeSurvivesTheWire(t *testing.T) {
	n, caps := testNode()
	n.Identity = "" // is the certificate's, not the message's
	got, gotCaps, err := ReadNode(NodeMessage(n, caps))
	if err != nil || got != n || !cmp.Equal(gotCaps, caps) {
		t.Errorf("ReadNode = %+v, %+v, %v; want %+v, %+v", got, gotCaps, err, n, caps)
	}
}

func TestNewServiceCannotTakeAHostAway(t *testing.T) {
	n, caps := testNode()
	first := NewRenderer(testTable())
	table := testTable()
	thief := testService("aaa", true) // comes first in the table
	thief.Hosts = []string{"aaa.mesh", "Orders.mesh"}
	table.Services = slices.Insert(table.Services, 0, thief)
	second := first.Next(table)
	r, problems := second.RenderFor(n, caps)
	if len(problems) != 1 || problems[0].Service != "aaa" {
		t.Errorf("problems = %v, want one of aaa", problems)
	}
	got, _, err := Decode(r)
	if _, ok := got.Service("orders"); !ok || err != nil {
		t.Errorf("orders has lost its host: %v", err)
	}
	// Once its owner is gone, the host is free.
	table.Services = slices.Delete(table.Services, 1, 2)
	if _, problems := second.Next(table).RenderFor(n, caps); len(problems) > 0 {
		t.Errorf("problems = %v, want none", problems)
	}
}

func TestServiceThatCannotBeRenderedStaysAsItWas(t *testing.T) {
	n, caps := testNode()
	table := testTable()
	r := NewRenderer(table)
	for epoch := range route.Epoch(3) {
		bad := testTable()
		bad.Epoch = 8 + epoch
		bad.Services[1].Health.Timeout = 0
		bad.Services[1].Stateful = true
		r = r.Next(bad)
		rendered, problems := r.RenderFor(n, caps)
		if len(problems) != 1 || !strings.HasPrefix(problems[0].Message, "it stays as it was") {
			t.Errorf("epoch %d: problems = %v", bad.Epoch, problems)
		}
		got, _, err := Decode(rendered)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(table.Services, got.Services, equateEmpty); diff != "" || got.Epoch != bad.Epoch {
			t.Errorf("epoch %d: services (-want +got):\n%s", got.Epoch, diff)
		}
	}
}
