package xds

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

var update = flag.Bool("update", false, "rewrite the golden files; read the diff before you commit it")

// golden compares a message list with testdata/<name>.json.
func golden(t *testing.T, name string, got any) {
	t.Helper()
	text, err := json.MarshalIndent(got, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	path := filepath.Join("testdata", name+".json")
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, text) {
		t.Errorf("%s differs (-want +got):\n%s", path, cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(text), "\n")))
	}
}

// asJSON is stable, unlike protojson's own white space.
func asJSON(t *testing.T, m proto.Message) json.RawMessage {
	t.Helper()
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRenderedTableIsAsReviewed(t *testing.T) {
	for _, kind := range []string{KindBuiltin, KindEnvoy, KindGRPC} {
		n, caps := testNode()
		caps.Kind = kind
		r := mustRender(t, testTable(), n, caps)
		out := []json.RawMessage{}
		for _, typeURL := range TableTypes() {
			for _, x := range r[typeURL] {
				out = append(out, asJSON(t, x.Body))
			}
		}
		golden(t, kind, out)
	}
}

func TestBootstrapIsAsReviewed(t *testing.T) {
	n, caps := testNode()
	caps.Kind = KindEnvoy
	b, err := Bootstrap(BootstrapConfig{
		Node: n, Capabilities: caps, Servers: []string{"unix:/run/livefire/xds", "127.0.0.1:7443"}, Admin: "/run/livefire/admin", Load: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "bootstrap", asJSON(t, b))
	if len(b.GetStaticResources().GetClusters()) != 1 || len(b.GetStaticResources().GetListeners()) != 0 {
		t.Error("Envoy has static resources besides its servers' cluster")
	}
	for _, servers := range [][]string{nil, {"server.example:1"}} {
		if _, err := Bootstrap(BootstrapConfig{Node: n, Servers: servers}); err == nil {
			t.Errorf("Bootstrap with servers %q = nil, want an error", servers)
		}
	}
}

func TestEqualTablesGiveEqualBytes(t *testing.T) {
	n, caps := testNode()
	a, b := mustRender(t, testTable(), n, caps), mustRender(t, testTable(), n, caps)
	for typeURL, rs := range a {
		for i, x := range rs {
			if !bytes.Equal(x.Body.GetValue(), b[typeURL][i].Body.GetValue()) || x.Version != b[typeURL][i].Version {
				t.Errorf("%s %s is rendered in two ways", typeURL, x.Name)
			}
		}
	}
}

func open[M proto.Message](t *testing.T, r Resources, name string, m M) M {
	t.Helper()
	typeURL := "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
	x, ok := r.Find(typeURL, name)
	if !ok {
		t.Fatalf("no %s %s", typeURL, name)
	}
	if err := x.Body.UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestExcludedSiteIsNotRendered(t *testing.T) {
	for _, reflex := range []bool{true, false} {
		n, caps := testNode()
		table := testTable()
		s := testService("orders", reflex)
		s.Sites[1].Excluded = true
		table.Services[0] = s
		r := mustRender(t, table, n, caps)
		for _, typeURL := range []string{TypeCluster, TypeEndpoint} {
			for _, x := range r[typeURL] {
				if strings.HasPrefix(x.Name, "orders") && (strings.Contains(x.Name, "us") || bytes.Contains(x.Body.GetValue(), []byte("us/service/orders"))) {
					t.Errorf("reflex %v: %s %s speaks of the excluded site", reflex, typeURL, x.Name)
				}
			}
		}
		got, _, err := Decode(r)
		if err != nil || !got.Services[0].Sites[1].Excluded {
			t.Errorf("reflex %v: the decoded table does not name the excluded site: %v", reflex, err)
		}
	}
}

func TestPrioritiesBeginAtZeroAndHaveNoGaps(t *testing.T) {
	s := testService("orders", true)
	eu, us := s.Sites[0], s.Sites[1]
	for name, c := range map[string]struct {
		sites []route.Site
		want  []uint32
	}{
		"shared and reserve":      {[]route.Site{{Share: 6000}, {Share: 4000}, {Priority: 1}, {Priority: 2}}, []uint32{0, 0, 1, 2}},
		"gap by an excluded site": {[]route.Site{{Share: 10000}, {Priority: 1, Excluded: true}, {Priority: 2}}, []uint32{0, 1}},
		"nobody has a share":      {[]route.Site{{Priority: 1}, {Priority: 2}}, []uint32{0, 1}},
		"equal priorities":        {[]route.Site{{Share: 10000}, {Priority: 3}, {Priority: 3}}, []uint32{0, 1, 1}},
	} {
		s.Sites = nil
		for i, site := range c.sites {
			site.Name, site.Endpoints = []api.SiteID{"a", "b", "c", "d"}[i], []route.Endpoint{eu.Endpoints[0], us.Endpoints[0]}
			s.Sites = append(s.Sites, site)
		}
		n, caps := testNode()
		r := mustRender(t, route.Table{Services: []route.Service{s}}, n, caps)
		var got []uint32
		for _, l := range open(t, r, "orders", &endpointv3.ClusterLoadAssignment{}).GetEndpoints() {
			got = append(got, l.GetPriority())
			if l.GetLoadBalancingWeight().GetValue() == 0 {
				t.Errorf("%s: locality %v has no weight: it would never be used", name, l.GetLocality())
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: priorities = %v, want %v", name, got, c.want)
		}
	}
}

func TestServiceWithoutSharesIsNotRoutedButObserved(t *testing.T) {
	for _, reflex := range []bool{true, false} {
		s := testService("orders", reflex)
		s.Sites[0].Share, s.Sites[0].Priority, s.Sites[1].Priority = 0, 1, 2
		n, caps := testNode()
		r := mustRender(t, route.Table{Services: []route.Service{s}}, n, caps)
		vh := open(t, r, "outbound", &routev3.RouteConfiguration{}).GetVirtualHosts()[0]
		if len(vh.GetRoutes()) != 1 || vh.GetRoutes()[0].GetDirectResponse().GetStatus() != 503 {
			t.Errorf("reflex %v: routes = %v, want one that answers 503", reflex, vh.GetRoutes())
		}
		for _, c := range r[TypeCluster] {
			if strings.HasPrefix(c.Name, "orders") && len(open(t, r, c.Name, &clusterv3.Cluster{}).GetHealthChecks()) != 1 {
				t.Errorf("reflex %v: cluster %s is not checked", reflex, c.Name)
			}
		}
	}
}

func TestOnlyRepeatableRequestsAreRetriedAfterAReset(t *testing.T) {
	s := testService("orders", true)
	rs := routes(s)
	if len(rs) != 2 || rs[0].GetName() != "safe" {
		t.Fatalf("routes = %v, want safe methods and the rest", rs)
	}
	safe, rest := rs[0].GetRoute().GetRetryPolicy(), rs[1].GetRoute().GetRetryPolicy()
	if got, want := safe.GetRetryOn(), "connect-failure,refused-stream,reset,retriable-status-codes"; got != want {
		t.Errorf("safe methods: retry on %q, want %q", got, want)
	}
	if got, want := rest.GetRetryOn(), "connect-failure,refused-stream,reset-before-request"; got != want || len(rest.GetRetriableStatusCodes()) > 0 {
		t.Errorf("the rest: retry on %q %v, want %q", got, rest.GetRetriableStatusCodes(), want)
	}
	s.Retries.Idempotent = true
	if rs := routes(s); len(rs) != 1 || rs[0].GetRoute().GetRetryPolicy().GetRetryOn() != safe.GetRetryOn() {
		t.Errorf("idempotent service: routes = %v, want one with the policy of safe methods", rs)
	}
	s.Retries.Attempts = 1
	for _, r := range routes(s) {
		if r.GetRoute().GetRetryPolicy() != nil {
			t.Errorf("one attempt in all, and a retry policy %v", r.GetRoute().GetRetryPolicy())
		}
	}
}

func TestWeightsOfAServiceWithoutReflexAreItsShares(t *testing.T) {
	s := testService("orders", false)
	s.Sites[0].Share, s.Sites[1].Share, s.Sites[1].Priority = 7500, 2500, 0
	got := map[string]uint32{}
	for _, c := range routeAction(s).GetWeightedClusters().GetClusters() {
		got[c.GetName()] = c.GetWeight().GetValue()
	}
	if diff := cmp.Diff(map[string]uint32{"orders|eu": 7500, "orders|us": 2500}, got); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
	if p := routeAction(s).GetRetryPolicy(); p.GetRetryPriority() != nil {
		t.Error("retries may leave the site of a service without reflex")
	}
}

func TestClusterAcceptsOnlyItsOwnIdentities(t *testing.T) {
	n, caps := testNode()
	table := testTable()
	table.Services[1].Sites[1].Endpoints = nil
	r := mustRender(t, table, n, caps)
	for name, want := range map[string][]string{
		"orders":      {identity("eu", "orders"), identity("us", "orders")},
		"payments|eu": {identity("eu", "payments")},
		"payments|us": {"livefire:nobody"},
	} {
		var u tlsv3.UpstreamTlsContext
		if err := open(t, r, name, &clusterv3.Cluster{}).GetTransportSocket().GetTypedConfig().UnmarshalTo(&u); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range u.GetCommonTlsContext().GetCombinedValidationContext().GetDefaultValidationContext().GetMatchTypedSubjectAltNames() {
			got = append(got, m.GetMatcher().GetExact())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s accepts %q, want %q", name, got, want)
		}
		p := u.GetCommonTlsContext().GetTlsParams()
		if p.GetTlsMinimumProtocolVersion() != tlsv3.TlsParameters_TLSv1_3 || p.GetTlsMaximumProtocolVersion() != tlsv3.TlsParameters_TLSv1_3 {
			t.Errorf("%s: TLS %v, want 1.3 as minimum and maximum", name, p)
		}
	}
}

func TestCallerPatternMeansTheSameToEnvoy(t *testing.T) {
	ids := []string{
		"spiffe://demo.test/site/eu/service/web", "spiffe://demo.test/site/us/service/web", "spiffe://demo.test/site/us/service/shop",
		"spiffe://demo.test/site/us/service", "spiffe://demo.test/site/us/service/", "spiffe://demo.test/site/us/service/web/x",
		"spiffe://demoxtest/site/eu/service/web", "spiffe://demo.test/site/eu/agent",
	}
	for _, pattern := range []string{
		"spiffe://demo.test/site/eu/service/web", "spiffe://demo.test/site/eu/service/*", "spiffe://demo.test/site/*",
		"spiffe://demo.test/site/*/service/web", "*", "spiffe://demo.test/site/eu/service/w*",
	} {
		m := principal(pattern).GetAuthenticated().GetPrincipalName()
		for _, id := range ids {
			got := m.GetExact() == id
			if re := m.GetSafeRegex().GetRegex(); re != "" {
				got = regexp.MustCompile("^(?:" + re + ")$").MatchString(id)
			}
			if want := route.MatchIdentity(pattern, id); got != want {
				t.Errorf("%s by %s: Envoy says %v, MatchIdentity %v", pattern, id, got, want)
			}
		}
	}
}

func TestNoTTLTypeIsPartOfATable(t *testing.T) {
	// A TTL on one of these is ignored by Envoy or turns the end of a drill into an outage.
	for _, typeURL := range append(OrderTypes(), TypeRuntime) {
		if slices.Contains(TableTypes(), typeURL) {
			t.Errorf("%s is sent without a lease", typeURL)
		}
	}
}

func FuzzDecodeSurvivesAnyRoutes(f *testing.F) {
	n, caps := testNode()
	r, _ := Render(testTable(), n, caps)
	x, _ := r.Find(TypeRoute, outboundName)
	f.Add(x.Body.GetValue())
	f.Fuzz(func(t *testing.T, b []byte) {
		broken := Resources{}
		for typeURL, rs := range r {
			broken[typeURL] = slices.Clone(rs)
		}
		body := proto.CloneOf(x.Body)
		body.Value = b
		broken.Add(Resource{Name: outboundName, Body: body})
		table, _, err := Decode(broken) // must not panic
		if err == nil && fmt.Sprint(table.Epoch) != "7" {
			t.Errorf("epoch = %d, want 7", table.Epoch)
		}
	})
}
