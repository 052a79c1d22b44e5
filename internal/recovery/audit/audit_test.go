package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// good is an ActivePassive service of two sites with two workloads each, of which nothing is wrong.
func good() Input {
	rto := api.Duration(5 * time.Second)
	svc := api.Service{Metadata: api.Metadata{Name: "payments"}, Spec: api.ServiceSpec{Data: "stateless",
		Objectives: api.Objectives{RTO: &rto},
		Health:     api.HealthCheck{Interval: api.Duration(500 * time.Millisecond), Timeout: api.Duration(300 * time.Millisecond), Failures: 3, Successes: 2}}}
	p := api.ActivePassive{Metadata: api.Metadata{Name: "payments"}, Spec: api.ActivePassiveSpec{Service: "payments", Order: []api.SiteID{"eu-west", "us-east"},
		Failover: api.Failover{Mode: api.Automatic, After: api.Duration(5 * time.Second), Observers: 2}}}
	in := Input{At: now, Services: []api.Service{svc}, ActivePassive: []api.ActivePassive{p},
		Demand: map[api.ServiceID]Demand{"payments": {Rate: 150, Known: true}}}
	table := route.Service{Name: "payments"}
	for i, site := range []api.SiteID{"eu-west", "us-east"} {
		s := route.Site{Name: site}
		for _, n := range []string{"1", "2"} {
			name := string(site) + "-" + n
			s.Endpoints = append(s.Endpoints, route.Endpoint{Workload: name, Capacity: 100, Registered: true,
				Address: netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d00%s", i+1, n))})
			in.Certificates = append(in.Certificates, Certificate{Service: "payments", Site: site, Workload: name, NotAfter: now.Add(20 * time.Hour)})
		}
		table.Sites = append(table.Sites, s)
	}
	in.Table = route.Table{Epoch: 1, Services: []route.Service{table}}
	in.Snapshot = health.Snapshot{At: now}
	for _, o := range []string{"client-1", "client-2"} {
		for _, site := range table.Sites {
			in.Snapshot = in.Snapshot.With(views(api.NodeID(o), "client", site, true))
		}
	}
	return in.observed()
}

func views(observer api.NodeID, at api.SiteID, site route.Site, healthy bool) health.Observation {
	o := health.Observation{Observer: observer, ObserverSite: at, Service: "payments", Site: site.Name, At: now}
	for _, e := range site.Endpoints {
		o.Endpoints = append(o.Endpoints, health.EndpointView{Workload: e.Workload, Healthy: healthy})
	}
	return o
}

// observed fills in the facts from the table and the snapshot, as the loop does.
func (in Input) observed() Input {
	in.Facts = map[api.ServiceID]map[api.SiteID]Facts{}
	for _, s := range in.Table.Services {
		in.Facts[s.Name] = Observe(in.Snapshot, s, 2, nil)
	}
	return in
}

// bad lists what is not OK as "CODE site severity".
func bad(fs []Finding) []string {
	var out []string
	for _, f := range fs {
		if !f.OK {
			out = append(out, strings.Join(strings.Fields(f.Code+" "+string(f.Site)+" "+f.Severity), " "))
		}
	}
	return out
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	tests := []struct {
		rule string
		with func(*Input)
		want []string
	}{
		{"nothing is wrong", func(*Input) {}, nil},
		{"a standby that nobody reaches is not ready, and carries nothing", func(in *Input) {
			for _, o := range []api.NodeID{"client-1", "client-2"} {
				in.Snapshot = in.Snapshot.With(views(o, "client", in.Table.Services[0].Sites[1], false))
			}
			*in = in.observed()
		}, []string{"LF2101 us-east high", "LF2102 us-east medium", "LF2103 us-east medium"}},
		{"a standby of which one workload is gone is not wholly ready, and too small", func(in *Input) {
			in.Table.Services[0].Sites[1].Endpoints[0].Registered = false
			for _, o := range []api.NodeID{"client-1", "client-2"} {
				v := views(o, "client", in.Table.Services[0].Sites[1], true)
				v.Endpoints[0].Healthy = false
				in.Snapshot = in.Snapshot.With(v)
			}
			*in = in.observed()
		}, []string{"LF2101 us-east medium", "LF2103 us-east high"}},
		{"the active site is not judged as a standby", func(in *Input) {
			in.Active = map[api.ServiceID]api.SiteID{"payments": "us-east"}
			in.Facts["payments"]["us-east"] = Facts{}
		}, nil},
		{"without a second site nothing can take over", func(in *Input) { in.ActivePassive[0].Spec.Order = []api.SiteID{"eu-west"} },
			[]string{"LF2101 high"}},
		{"a site that residency excludes is no standby", func(in *Input) { in.Table.Services[0].Sites[1].Excluded = true },
			[]string{"LF2101 high"}},
		{"no data is not a pass: demand", func(in *Input) { in.Demand = nil },
			[]string{"LF2102 medium", "LF2103 us-east medium"}},
		{"no data is not a pass: capacity", func(in *Input) {
			f := in.Facts["payments"]["us-east"]
			f.ReadyCapacity = 0
			in.Facts["payments"]["us-east"] = f
		}, []string{"LF2102 us-east medium", "LF2103 us-east medium"}},
		{"no data is not a pass: certificates", func(in *Input) {
			in.Certificates, in.Facts["payments"]["eu-west"] = in.Certificates[2:], Facts{}
		}, []string{"LF2105 eu-west medium"}},
		{"a ready workload has proved its certificate, whenever it ends", func(in *Input) { in.Certificates = nil }, nil},
		{"a certificate that is not valid", func(in *Input) {
			f := in.Facts["payments"]["us-east"]
			f.CertificatesValid = false
			in.Facts["payments"]["us-east"] = f
		}, []string{"LF2105 us-east high"}},
		{"a standby that is too small", func(in *Input) { in.Demand["payments"] = Demand{Rate: 201, Known: true} },
			[]string{"LF2103 us-east high"}},
		{"a smaller requirement is met by a smaller standby", func(in *Input) {
			half := 0.5
			in.ActivePassive[0].Spec.Require.Capacity = &half
			in.Demand["payments"] = Demand{Rate: 400, Known: true}
		}, nil},
		{"one observer outside a site, with the server", func(in *Input) {
			in.Snapshot.Observations = slices.DeleteFunc(in.Snapshot.Observations, func(o health.Observation) bool { return o.Observer == "client-2" })
		}, nil},
		{"the server alone is not enough", func(in *Input) {
			in.Snapshot.Observations = slices.DeleteFunc(in.Snapshot.Observations, func(o health.Observation) bool { return o.Site == "eu-west" })
		}, []string{"LF2104 eu-west high"}},
		{"three observers are asked for and two plus the server report", func(in *Input) { in.ActivePassive[0].Spec.Failover.Observers = 3 }, nil},
		{"four are too many", func(in *Input) { in.ActivePassive[0].Spec.Failover.Observers = 4 },
			[]string{"LF2104 eu-west high", "LF2104 us-east high"}},
		{"without reflex the dwell counts against the objective", func(in *Input) { no := false; in.ActivePassive[0].Spec.Reflex = &no },
			[]string{"LF2104 high"}},
		{"a check that is slower than the objective", func(in *Input) { in.Services[0].Spec.Health.Interval = api.Duration(2 * time.Second) },
			[]string{"LF2104 high"}},
		{"a check of zero interval", func(in *Input) { in.Services[0].Spec.Health.Interval = 0 }, []string{"LF2104 high"}},
		{"without an objective nothing is too slow", func(in *Input) {
			in.Services[0].Spec.Objectives.RTO = nil
			in.Services[0].Spec.Health.Interval = api.Duration(time.Hour)
		}, nil},
		{"an approved failover without reflex depends on a person", func(in *Input) {
			no, rto := false, api.Duration(time.Minute)
			in.Services[0].Spec.Objectives.RTO = &rto
			in.ActivePassive[0].Spec.Reflex, in.ActivePassive[0].Spec.Failover.Mode = &no, api.Approved
		}, []string{"LF2104 medium"}},
		{"a certificate that has ended", func(in *Input) { in.Certificates[0].NotAfter = now }, []string{"LF2105 eu-west high"}},
		{"a certificate that ends within the hour", func(in *Input) { in.Certificates[3].NotAfter = now.Add(ExpiresSoon - 1) }, []string{"LF2105 us-east medium"}},
		{"reflex for stateful data", func(in *Input) {
			yes := true
			in.Services[0].Spec.Data, in.ActivePassive[0].Spec.Reflex = "stateful", &yes
		}, []string{"LF2106 high"}},
		{"an ActiveActive whose survivors cannot carry the load", func(in *Input) {
			in.ActiveActive = []api.ActiveActive{{Metadata: api.Metadata{Name: "a"}, Spec: api.ActiveActiveSpec{Service: "payments",
				Weights: map[api.SiteID]float64{"eu-west": 1, "us-east": 1}, Evacuate: api.Evacuate{Mode: api.Automatic}}}}
			in.ActivePassive = nil
			in.Demand["payments"] = Demand{Rate: 300, Known: true}
		}, []string{"LF2103 eu-west high", "LF2103 us-east high"}},
		{"an ActiveActive of one site", func(in *Input) {
			in.ActiveActive = []api.ActiveActive{{Metadata: api.Metadata{Name: "a"}, Spec: api.ActiveActiveSpec{Service: "payments",
				Weights: map[api.SiteID]float64{"eu-west": 1, "us-east": 0}, Evacuate: api.Evacuate{Mode: api.Automatic}}}}
			in.ActivePassive = nil
		}, []string{"LF2101 high"}},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			in := good()
			tt.with(&in)
			got := Check(in)
			if d := cmp.Diff(tt.want, bad(got)); d != "" {
				t.Errorf("%s\n%+v", d, got)
			}
			for _, f := range got {
				if f.Name == "" || f.Message == "" || f.OK != (f.Fix == "") {
					t.Errorf("incomplete: %+v", f)
				}
			}
		})
	}
}

// A matrix needs an answer of every rule, good or bad.
func TestCheckAnswersEveryRule(t *testing.T) {
	answered := map[string]bool{}
	for _, f := range Check(good()) {
		answered[f.Code] = true
	}
	for _, r := range Rules() {
		if !answered[r.Code] {
			t.Errorf("%s %s has no answer", r.Code, r.Name)
		}
	}
}

// Every code that is used here can be explained.
func TestCodesAreExplained(t *testing.T) {
	for _, code := range []string{CodeStandbyReady, CodeCapacityKnown, CodeCapacityEnough, CodeDetection, CodeCertificates, CodeReflexStateful,
		CodeNoEndpoints, CodePatternConflict, CodeAddress, CodeReference, CodeTargetNotReady, CodeTargetTooSmall, CodeReplicaFresh,
		CodeDemandUnknown, CodeResidency, CodeSiteLostUnplanned, CodeMaxSwitches, CodeNotFenced, CodeApprovalOutstanding, CodeNothingToDo} {
		if _, err := api.LookupCode(code); err != nil {
			t.Errorf("%s: %v", code, err)
		}
	}
	for _, r := range Rules() {
		if c, err := api.LookupCode(r.Code); err == nil && c.Title != r.Name {
			t.Errorf("%s is called %q here and %q where it is explained", r.Code, r.Name, c.Title)
		}
	}
}

func TestObserveCountsWhatIsHealthyAndRegistered(t *testing.T) {
	in := good()
	s := in.Table.Services[0]
	s.Sites[0].Endpoints[0].Registered = false
	got := Observe(in.Snapshot, s, 2, map[api.SiteID]bool{"us-east": true})
	eu, us := got["eu-west"], got["us-east"]
	if eu.Workloads != 2 || eu.ReadyWorkloads != 1 || eu.ReadyCapacity != 100 || !eu.CertificatesValid || eu.Verdict.State != health.Ready {
		t.Errorf("eu-west: %+v", eu)
	}
	if us.ReadyWorkloads != 2 || us.ReadyCapacity != 200 || us.CertificatesValid {
		t.Errorf("us-east: %+v", us)
	}
}

func TestCarries(t *testing.T) {
	for _, tt := range []struct {
		rule      string
		capacity  float64
		d         Demand
		ratio     float64
		ok, known bool
	}{
		{"exactly enough", 100, Demand{100, true}, 1, true, true},
		{"a little too small", 99, Demand{100, true}, 1, false, true},
		{"a margin is asked for", 110, Demand{100, true}, 1.2, false, true},
		{"nothing is asked for", 0, Demand{}, 0, true, true},
		{"the demand is not known", 100, Demand{}, 1, false, false},
		{"the capacity is not known", 0, Demand{100, true}, 1, false, false},
		{"no demand needs no capacity", 0, Demand{0, true}, 1, true, true},
	} {
		ok, known, why := Carries(Facts{ReadyCapacity: tt.capacity}, tt.d, tt.ratio)
		if ok != tt.ok || known != tt.known || (!ok && why == "") {
			t.Errorf("%s: %v, %v, %q", tt.rule, ok, known, why)
		}
	}
}
