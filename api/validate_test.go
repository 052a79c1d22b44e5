package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// specs are a valid spec of each kind that an operator writes; a case replaces one field of it.
var specs = map[Kind]string{
	KindSite:    "region: eu",
	KindService: "data: stateless",
	KindWorkload: `service: payments
site: eu-west
address: 10.0.0.7:8443`,
	KindActivePassive: `service: payments
order: [eu-west, us-east]`,
	KindActiveActive: `service: payments
weights: {eu-west: 1, us-east: 1}`,
	KindAuthorizationPolicy: `service: payments
allow: [{identity: "spiffe://demo/site/client/service/*"}]`,
	KindScenario: `parameters: {fault: {enum: [kill, pause], default: kill}}
faults: [{kind: "{fault}", target: {site: "{site}"}}]`,
	KindDrill: `scenario: site-loss
scope: {site: eu-west, services: [payments]}
probes: [{service: payments, from: client, rate: 10}]`,
}

// document is a file with one object whose spec has lines of its own for the fields that with names.
func document(kind Kind, name, with string) string {
	replaced := map[string]bool{}
	for l := range strings.Lines(with) {
		field, _, _ := strings.Cut(l, ":")
		replaced[field] = true
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%skind: %s\nmetadata: {name: %s}\nspec:\n", header, kind, name)
	for l := range strings.Lines(specs[kind] + "\n" + with) {
		field, _, _ := strings.Cut(l, ":")
		if strings.TrimSpace(l) != "" && (!replaced[field] || strings.Contains(with, l)) {
			b.WriteString("  " + strings.TrimSuffix(l, "\n") + "\n")
		}
	}
	return b.String()
}

func TestTheSmallestObjectOfEachKindIsValid(t *testing.T) {
	for kind := range specs {
		if _, err := Decode("f.yaml", []byte(document(kind, "a", ""))); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// Each case is one rule: the field that breaks it, and where and with which code it is refused.
func TestValidationRefuses(t *testing.T) {
	tests := []struct {
		kind        Kind
		with, field string
		code        string
	}{
		{KindService, "protocol: udp", "protocol", CodeValue},
		{KindService, "port: 65536", "port", CodeValue},
		{KindService, "hosts: [Shop.mesh]", "hosts[0]", CodeName},
		{KindService, "hosts: [a.mesh, a.mesh]", "hosts[1]", CodeList},
		{KindService, "data: some", "data", CodeValue},
		{KindService, "objectives: {rpo: 1s}", "objectives.rpo", CodeRPO},
		{KindService, "objectives: {rto: 0s}", "objectives.rto", CodeValue},
		{KindService, "objectives: {success: 99}", "objectives.success", CodeValue},
		{KindService, "objectives: {latency: {p99: -1s}}", "objectives.latency.p99", CodeValue},
		{KindService, "objectives: {availability: {target: 1.1}}", "objectives.availability.target", CodeValue},
		{KindService, "health: {interval: 100ms, timeout: 200ms}", "health.timeout", CodeTimeout},
		{KindService, "health: {path: healthz}", "health.path", CodeValue},
		{KindService, "health: {failures: -1}", "health.failures", CodeValue},
		{KindService, "timeouts: {request: 1s, try: 2s}", "timeouts.try", CodeTimeout},
		{KindService, "retries: {on: [500]}", "retries.on[0]", CodeValue},
		{KindService, "retries: {attempts: 11}", "retries.attempts", CodeValue},
		{KindService, "retries: {budget: 20}", "retries.budget", CodeValue},
		{KindService, "limits: {pending: -1}", "limits.pending", CodeValue},
		{KindService, "residency: [EU, EU]", "residency[1]", CodeList},
		{KindService, "dependsOn: [a]", "dependsOn[0]", CodeValue},
		{KindService, "dependsOn: [b, b]", "dependsOn[1]", CodeList},
		{KindWorkload, "address: payments.mesh:80", "address", CodeAddress},
		{KindWorkload, "address: 10.0.0.7", "address", CodeAddress},
		{KindWorkload, "address: 0.0.0.0:80", "address", CodeAddress},
		{KindWorkload, "address: '[::1]:0'", "address", CodeAddress},
		{KindWorkload, "capacity: -1", "capacity", CodeValue},
		{KindWorkload, "identity: spiffe://demo/site/*", "identity", CodeIdentity},
		{KindWorkload, "version: v 1", "version", CodeValue},
		{KindActivePassive, "service: Payments", "service", CodeName},
		{KindActivePassive, "order: [eu-west]", "order", CodeList},
		{KindActivePassive, "order: [eu-west, eu-west]", "order[1]", CodeList},
		{KindActivePassive, "failover: {mode: auto}", "failover.mode", CodeValue},
		{KindActivePassive, "failover: {after: -1s}", "failover.after", CodeValue},
		{KindActivePassive, "failover: {observers: 1}", "failover.observers", CodeValue},
		{KindActivePassive, "failover: {maxSwitches: {count: -2}}", "failover.maxSwitches.count", CodeValue},
		{KindActivePassive, "require: {capacity: -1}", "require.capacity", CodeValue},
		{KindActivePassive, "failback: {ramp: {shares: [0.5, 0.5, 1]}}", "failback.ramp.shares[1]", CodeRamp},
		{KindActivePassive, "failback: {ramp: {shares: [0, 1]}}", "failback.ramp.shares[0]", CodeRamp},
		{KindActivePassive, "failback: {ramp: {shares: [0.1, 0.5]}}", "failback.ramp.shares[1]", CodeRamp},
		{KindActivePassive, "failback: {ramp: {shares: [0.5, 1.5]}}", "failback.ramp.shares[1]", CodeRamp},
		{KindActivePassive, "failback: {ramp: {every: -1s}}", "failback.ramp.every", CodeValue},
		{KindActiveActive, "weights: {eu-west: 1}", "weights", CodeList},
		{KindActiveActive, "weights: {eu-west: 0, us-east: 0}", "weights", CodeValue},
		{KindActiveActive, "weights: {eu-west: -1, us-east: 1}", "weights.eu-west", CodeValue},
		{KindActiveActive, "evacuate: {observers: 1}", "evacuate.observers", CodeValue},
		{KindActiveActive, "shed: {capacity: -1}", "shed.capacity", CodeValue},
		{KindAuthorizationPolicy, "allow: [{identity: https://demo/a}]", "allow[0].identity", CodeIdentity},
		{KindAuthorizationPolicy, "allow: [{identity: 'spiffe://demo/site/*/service/a'}]", "allow[0].identity", CodeIdentity},
		{KindAuthorizationPolicy, "allow: [{identity: 'spiffe://DEMO/a'}]", "allow[0].identity", CodeIdentity},
		{KindAuthorizationPolicy, "allow: [{identity: 'spiffe://demo'}]", "allow[0].identity", CodeIdentity},
		{KindAuthorizationPolicy, "allow: [{identity: 'spiffe://demo/a/../b'}]", "allow[0].identity", CodeIdentity},
		{KindAuthorizationPolicy, "allow: [{identity: 'spiffe://demo/a', methods: [get]}]", "allow[0].methods[0]", CodeValue},
		{KindAuthorizationPolicy, "allow: [{identity: 'spiffe://demo/a', paths: ['/*/x']}]", "allow[0].paths[0]", CodeValue},
		{KindScenario, "faults: []", "faults", CodeList},
		{KindScenario, "faults: [{kind: burn, target: {site: x}}]", "faults[0].kind", CodeScenario},
		{KindScenario, "faults: [{kind: '{nope}', target: {site: x}}]", "faults[0].kind", CodeScenario},
		{KindScenario, "faults: [{kind: kill, target: {site: '{nope}'}}]", "faults[0].target.site", CodeScenario},
		{KindScenario, "faults: [{kind: kill, target: {site: '{site'}}]", "faults[0].target.site", CodeScenario},
		{KindScenario, "faults: [{kind: kill, target: {}}]", "faults[0].target", CodeScenario},
		{KindScenario, "faults: [{kind: kill, target: {server: true}}]", "faults[0].target", CodeScenario},
		{KindScenario, "faults: [{kind: server-kill, target: {site: a}}]", "faults[0].target", CodeScenario},
		{KindScenario, "faults: [{kind: kill, target: {site: a}, after: 1s}]", "faults[0].after", CodeScenario},
		{KindScenario, "parameters: {fault: {enum: [kill, burn], default: kill}}", "faults[0].kind", CodeScenario},
		{KindScenario, "parameters: {fault: {default: kill}}", "faults[0].kind", CodeScenario},
		{KindScenario, "parameters: {fault: {enum: [kill, server-kill]}}", "faults[0].kind", CodeScenario},
		{KindScenario, "parameters: {fault: {enum: [kill], default: pause}}", "parameters.fault.default", CodeScenario},
		{KindScenario, "expect: {verdict: dirty}", "expect.verdict", CodeValue},
		{KindDrill, "scope: {site: eu-west, services: []}", "scope.services", CodeList},
		{KindDrill, "scope: {site: eu-west, services: [payments], maxTargets: -1}", "scope.maxTargets", CodeValue},
		{KindDrill, "scope: {site: eu-west, services: [payments, orders]}", "scope.services[1]", CodeProbe},
		{KindDrill, "probes: []", "probes", CodeProbe},
		{KindDrill, "probes: [{service: payments, from: client, rate: 0}]", "probes[0].rate", CodeValue},
		{KindDrill, "probes: [{service: payments, from: client, rate: 10001}]", "probes[0].rate", CodeValue},
		{KindDrill, "probes: [{service: payments, from: a, rate: 1}, {service: payments, from: b, rate: 1}]", "probes[1].service", CodeProbe},
		{KindDrill, "guardrails: [{service: search, success: {min: 90}}]", "guardrails[0].success.min", CodeValue},
		{KindDrill, "baseline: -1s", "baseline", CodeValue},
		{KindDrill, "lease: 500ms", "lease", CodeValue},
		{KindDrill, "lease: 6m", "lease", CodeValue},
		{KindDrill, "deadline: 1m", "deadline", CodeDeadline},
		{KindDrill, "approvals: [finance]", "approvals[0]", CodeValue},
		{KindDrill, "approvals: [security, security]", "approvals[1]", CodeList},
	}
	for _, tt := range tests {
		t.Run(string(tt.kind)+" "+tt.with, func(t *testing.T) {
			text := document(tt.kind, "a", tt.with)
			_, err := Decode("f.yaml", []byte(text))
			if err == nil {
				t.Fatalf("accepted:\n%s", text)
			}
			details := err.(*Error).Details
			if want := "spec." + tt.field + ": "; len(details) != 1 || !strings.HasPrefix(details[0].Message, want) || details[0].Code != tt.code {
				t.Errorf("want one problem %s (%s), got\n%v", want, tt.code, err)
			}
			if details[0].Hint == "" {
				t.Errorf("no fix is named: %v", err)
			}
		})
	}
}

func TestNamesAreDNSLabels(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "eu-west": true, "7": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "a_b": false, strings.Repeat("a", 64): false, "ü": false,
	} {
		o := &Site{Metadata: Metadata{Name: name}}
		if got := len(o.Validate()) == 0; got != ok {
			t.Errorf("name %q accepted = %t, want %t", name, got, ok)
		}
	}
}

// spec/patterns.md: what is not written has the value shown.
func TestDefaultsAreTheDocumentedOnes(t *testing.T) {
	service := &Service{Metadata: Metadata{Name: "payments"}, Spec: ServiceSpec{Data: Stateless, Objectives: Objectives{Availability: &Availability{Target: 0.999}}}}
	ms := func(n int) Duration { return Duration(time.Duration(n) * time.Millisecond) }
	service.Default()
	want := ServiceSpec{
		Protocol: "http", Port: 80, Hosts: []string{"payments.mesh"}, Data: Stateless,
		Objectives: Objectives{Availability: &Availability{Target: 0.999, Window: ms(30 * 86400_000)}},
		Health:     HealthCheck{Path: "/healthz", Interval: ms(500), Timeout: ms(300), Failures: 3, Successes: 2},
		Timeouts:   Timeouts{Request: ms(15_000), Idle: ms(300_000)},
		Retries:    Retries{On: []string{"connect", "reset", "refused", "502", "503", "504"}, Attempts: 3, Budget: 0.2},
		Limits:     Limits{1024, 1024, 1024},
	}
	if diff := cmp.Diff(want, service.Spec); diff != "" {
		t.Errorf("Service (-want +got):\n%s", diff)
	}
	passive := &ActivePassive{}
	passive.Default()
	if diff := cmp.Diff(ActivePassiveSpec{
		Failover: Failover{After: ms(5000), Observers: 2, MaxSwitches: MaxSwitches{2, ms(3600_000)}},
		Require:  Require{new(true), new(1.0)},
		Failback: Failback{Mode: Approved, After: ms(300_000), Ramp: Ramp{[]float64{0.1, 0.5, 1}, ms(60_000)}},
	}, passive.Spec); diff != "" {
		t.Errorf("ActivePassive (-want +got):\n%s", diff)
	}
	active := &ActiveActive{}
	active.Default()
	if diff := cmp.Diff(ActiveActiveSpec{
		Evacuate: Evacuate{Automatic, ms(5000), 2}, Shed: Shed{1}, Return: Return{ms(60_000), Ramp{[]float64{0.1, 0.5, 1}, ms(30_000)}},
	}, active.Spec); diff != "" {
		t.Errorf("ActiveActive (-want +got):\n%s", diff)
	}
	drill := &Drill{Spec: DrillSpec{Probes: make([]Probe, 1), Guardrails: make([]Guardrail, 1)}}
	drill.Default()
	if diff := cmp.Diff(DrillSpec{
		Scope: DrillScope{MaxTargets: 10}, Probes: []Probe{{Timeout: ms(2000), Method: "GET", Path: "/"}}, Guardrails: []Guardrail{{Over: ms(10_000)}},
		Baseline: ms(30_000), Hold: ms(60_000), Verify: ms(30_000), Lease: ms(15_000), Deadline: ms(900_000),
		Approvals: []string{"development", "operations", "security"},
	}, drill.Spec); diff != "" {
		t.Errorf("Drill (-want +got):\n%s", diff)
	}
}

// reflex defaults to true for stateless, false for stateful; automatic likewise.
func TestReflexAndModeFollowTheService(t *testing.T) {
	for data, want := range map[string]struct {
		reflex bool
		mode   string
	}{Stateless: {true, Automatic}, Stateful: {false, Approved}, "": {false, Approved}} {
		svc := ServiceSpec{Data: data}
		if got := (ActivePassiveSpec{}).ReflexFor(svc); got != want.reflex {
			t.Errorf("ReflexFor(%q) = %t, want %t", data, got, want.reflex)
		}
		if got := (Failover{}).ModeFor(svc); got != want.mode {
			t.Errorf("ModeFor(%q) = %s, want %s", data, got, want.mode)
		}
	}
	if (ActivePassiveSpec{Reflex: new(true)}).ReflexFor(ServiceSpec{Data: Stateful}) {
		t.Error("a stateful service got a reflex")
	}
	if (Failover{Mode: Manual}).ModeFor(ServiceSpec{Data: Stateless}) != Manual {
		t.Error("a written mode was not kept")
	}
}

// W = max(1 s, 10 probes, 1/(1 - success objective) probes), at most 10 s (docs/spec/measurement.md).
func TestWindow(t *testing.T) {
	for _, tt := range []struct {
		rate    float64
		success *float64
		want    time.Duration
	}{
		{200, nil, time.Second}, {5, nil, 2 * time.Second}, {0.5, nil, 10 * time.Second},
		{50, new(0.99), 2 * time.Second}, {200, new(0.99), time.Second}, {10, new(0.999), 10 * time.Second}, {1000, new(1.0), 10 * time.Second},
		{2.5, new(0.5), 4 * time.Second},
	} {
		got := Probe{Rate: tt.rate}.Window(tt.success).D()
		if (got - tt.want).Abs() > time.Microsecond {
			t.Errorf("Window at %v/s, success %v = %v, want %v", tt.rate, tt.success, got, tt.want)
		}
	}
}

func TestDurationIsReadBack(t *testing.T) {
	for _, text := range []string{"0s", "300ms", "5s", "1m30s", "1d12h", "-5s", "1.5ms", "1µs", "30d", "100y"} {
		d, err := ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := ParseDuration(d.String()); err != nil || back != d {
			t.Errorf("%s is written as %s and read back as %v, %v", text, d, back, err)
		}
	}
	for _, text := range []string{"", "5", "s", "5 s", "1e3s", "five"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, d)
		}
	}
}

// The documentation of the patterns, as an operator writes it. What it shows is what is not written.
const patternsPage = header + `kind: Service
metadata: {name: payments, labels: {tier: "1"}}
spec:
  protocol: http                  # http | grpc | tcp
  port: 80                        # the one that callers use
  hosts: [payments.mesh]          # names that callers use; default <name>.mesh
  data: stateless                 # stateful forbids reflex across sites
  objectives: {rto: 5s, success: 0.99, latency: {p99: 200ms}, availability: {target: 0.999, window: 30d}}
  health: {path: /healthz, interval: 500ms, timeout: 300ms, failures: 3, successes: 2}
  timeouts: {request: 15s, try: 0s, idle: 5m}
  retries: {on: [connect, reset, refused, 502, 503, 504], attempts: 3, budget: 0.2}
  limits: {connections: 1024, pending: 1024, requests: 1024}
  residency: []
  dependsOn: []
  owner: team-payments
---
kind: ActivePassive
metadata: {name: payments}
spec:
  service: payments
  order: [eu-west, us-east]
  reflex: true
  failover: {mode: automatic, after: 5s, observers: 2, maxSwitches: {count: 2, per: 1h}}
  require: {ready: true, capacity: 1.0}
  failback: {mode: approved, after: 5m, ramp: {shares: [0.1, 0.5, 1], every: 60s}}
---
kind: ActiveActive
metadata: {name: search}
spec:
  service: search
  weights: {eu-west: 1, us-east: 1}
  evacuate: {mode: automatic, after: 5s, observers: 2}
  shed: {capacity: 1.0}
  return: {after: 1m, ramp: {shares: [0.1, 0.5, 1], every: 30s}}
---
kind: Site
metadata: {name: eu-west}
spec: {region: eu, zone: "", jurisdiction: EU}
---
kind: Workload
metadata: {name: payments-1}
spec: {service: payments, site: eu-west, address: "10.0.0.7:8443", version: v1, capacity: 300}
---
kind: AuthorizationPolicy
metadata: {name: payments}
spec: {service: payments, allow: [{identity: "spiffe://demo.livefire/site/client/service/caller", methods: [GET, POST], paths: ["/*"]}]}
---
kind: Scenario
metadata: {name: site-loss}
spec: {parameters: {fault: {enum: [kill, pause], default: kill}}, faults: [{kind: "{fault}", target: {site: "{site}"}}], expect: {verdict: passed}}
---
kind: Drill
metadata: {name: site-loss}
spec:
  scenario: site-loss
  parameters: {fault: kill}
  scope: {site: eu-west, services: [payments, orders], maxTargets: 10}
  probes: [{service: payments, from: client, rate: 200, timeout: 2s}, {service: orders, from: client, rate: 100, timeout: 2s}]
  baseline: 30s
  hold: 60s
  verify: 30s
  lease: 15s
  guardrails: [{service: search, success: {min: 0.9}, over: 10s}]
  approvals: [development, operations, security]
  deadline: 15m
`

func TestTheDocumentedResourcesAreTheDefaults(t *testing.T) {
	docs, err := Decode("patterns.yaml", []byte(patternsPage))
	if err != nil {
		t.Fatal(err)
	}
	bare, err := Decode("bare.yaml", []byte(header+`kind: ActivePassive
metadata: {name: payments}
spec: {service: payments, order: [eu-west, us-east]}
---
kind: ActiveActive
metadata: {name: search}
spec: {service: search, weights: {eu-west: 1, us-east: 1}}
---
kind: Service
metadata: {name: payments}
spec: {data: stateless}
`))
	if err != nil {
		t.Fatal(err)
	}
	written := NewResourceSet(docs)
	for _, d := range bare {
		for _, c := range Diff(d.Object, written[RefOf(d.Object)]) {
			switch f := c.Field(); {
			case f == "reflex", f == "failover.mode": // by the service, see ReflexFor and ModeFor
			case strings.HasPrefix(f, "objectives"), f == "owner", f == "metadata.labels.tier": // no default
			default:
				t.Errorf("%s: %s is %v by default, the page shows %v", RefOf(d.Object), f, c.Old, c.New)
			}
		}
	}
}
