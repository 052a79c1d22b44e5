package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const world = header + `kind: Site
metadata: {name: eu-west}
spec: {jurisdiction: EU}
---
kind: Site
metadata: {name: us-east}
spec: {jurisdiction: US}
---
kind: Service
metadata: {name: payments}
spec: {data: stateless, objectives: {success: 0.99}}
---
kind: Service
metadata: {name: ledger}
spec: {data: stateful}
---
kind: Scenario
metadata: {name: site-loss}
spec:
  parameters: {fault: {enum: [kill, pause], default: kill}}
  faults: [{kind: "{fault}", target: {site: "{site}"}}]
`

// linked gives "Kind/name path code" of what CheckReferences says about the world and more documents.
func linked(t *testing.T, more string) []string {
	t.Helper()
	docs, err := Decode("f.yaml", []byte(world+more))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range CheckReferences(NewResourceSet(docs)) {
		if p.Hint == "" || p.Message == "" {
			t.Errorf("%s: %s says too little: %q, %q", p.Ref, p.Path, p.Message, p.Hint)
		}
		out = append(out, fmt.Sprintf("%s %s %s", p.Ref, p.Path, p.Code))
	}
	return out
}

func TestReferencesMustResolve(t *testing.T) {
	drill := func(fields string) string {
		return "---\nkind: Drill\nmetadata: {name: d}\nspec:\n  scope: {site: eu-west, services: [payments]}\n  probes: [{service: payments, from: us-east, rate: 100}]\n" + fields
	}
	tests := map[string]struct {
		more string
		want []string
	}{
		"nothing": {"", nil},
		"all resolve": {"---\nkind: ActivePassive\nmetadata: {name: p}\nspec: {service: payments, order: [eu-west, us-east], reflex: true, failover: {mode: automatic}}\n" +
			drill("  scenario: site-loss\n  parameters: {fault: pause}\n"), nil},
		"a service it depends on": {"---\nkind: Service\nmetadata: {name: a}\nspec: {data: stateless, dependsOn: [payment]}\n", []string{"Service/a $.spec.dependsOn[0] LF0101"}},
		"a host of two services":  {"---\nkind: Service\nmetadata: {name: zoo}\nspec: {data: stateless, hosts: [payments.mesh]}\n", []string{"Service/zoo $.spec.hosts[0] LF0108"}},
		"service and site of a workload": {"---\nkind: Workload\nmetadata: {name: w}\nspec: {service: x, site: y, address: '10.0.0.1:1'}\n",
			[]string{"Workload/w $.spec.service LF0101", "Workload/w $.spec.site LF0101"}},
		"a workload that its sidecar registered is not the operator's": {"---\nkind: Workload\nmetadata: {name: w}\nspec: {service: x, site: y, address: '10.0.0.1:1'}\nstatus: {node: w, registered: true}\n", nil},
		"service and sites of a pattern": {"---\nkind: ActivePassive\nmetadata: {name: p}\nspec: {service: x, order: [eu-west, y]}\n",
			[]string{"ActivePassive/p $.spec.service LF0101", "ActivePassive/p $.spec.order[1] LF0101"}},
		"sites of weights": {"---\nkind: ActiveActive\nmetadata: {name: p}\nspec: {service: payments, weights: {eu-west: 1, z: 1}}\n", []string{"ActiveActive/p $.spec.weights.z LF0101"}},
		"two patterns of one service": {"---\nkind: ActivePassive\nmetadata: {name: p}\nspec: {service: payments, order: [eu-west, us-east]}\n---\nkind: ActiveActive\nmetadata: {name: q}\nspec: {service: payments, weights: {eu-west: 1, us-east: 1}}\n",
			[]string{"ActiveActive/q $.spec.service LF0102"}},
		"reflex of a stateful service": {"---\nkind: ActivePassive\nmetadata: {name: p}\nspec: {service: ledger, order: [eu-west, us-east], reflex: true}\n", []string{"ActivePassive/p $.spec.reflex LF0103"}},
		"automatic failover of a stateful service": {"---\nkind: ActivePassive\nmetadata: {name: p}\nspec: {service: ledger, order: [eu-west, us-east], failover: {mode: automatic}}\n",
			[]string{"ActivePassive/p $.spec.failover.mode LF0104"}},
		"automatic evacuation of a stateful service": {"---\nkind: ActiveActive\nmetadata: {name: p}\nspec: {service: ledger, weights: {eu-west: 1, us-east: 1}}\n",
			[]string{"ActiveActive/p $.spec.evacuate.mode LF0104"}},
		"a stateful service with what is allowed": {"---\nkind: ActivePassive\nmetadata: {name: p}\nspec: {service: ledger, order: [eu-west, us-east], reflex: false}\n", nil},
		"a site outside the residency": {"---\nkind: Service\nmetadata: {name: a}\nspec: {data: stateless, residency: [EU]}\n---\nkind: ActivePassive\nmetadata: {name: p}\nspec: {service: a, order: [eu-west, us-east]}\n",
			[]string{"ActivePassive/p $.spec.order[1] LF0107"}},
		"a policy":   {"---\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {service: x, allow: []}\n", []string{"AuthorizationPolicy/p $.spec.service LF0101"}},
		"a scenario": {drill("  scenario: site-los\n"), []string{"Drill/d $.spec.scenario LF0101"}},
		"sites and services of a drill": {"---\nkind: Drill\nmetadata: {name: d}\nspec: {scenario: site-loss, scope: {site: y, services: [x]}, probes: [{service: x, from: z, rate: 100}], guardrails: [{service: v, success: {min: 0.9}}]}\n",
			[]string{"Drill/d $.spec.scope.site LF0101", "Drill/d $.spec.scope.services[0] LF0101", "Drill/d $.spec.probes[0].from LF0101", "Drill/d $.spec.probes[0].service LF0101", "Drill/d $.spec.guardrails[0].service LF0101"}},
		"a parameter that the scenario has not": {drill("  scenario: site-loss\n  parameters: {falt: kill}\n"), []string{"Drill/d $.spec.parameters.falt LF0106"}},
		"a value that the scenario refuses":     {drill("  scenario: site-loss\n  parameters: {fault: burn}\n"), []string{"Drill/d $.spec.parameters.fault LF0106"}},
		"a parameter without default that is left out": {drill("  scenario: s\n") + "---\nkind: Scenario\nmetadata: {name: s}\nspec: {parameters: {f: {enum: [kill]}}, faults: [{kind: '{f}', target: {site: '{site}'}}]}\n",
			[]string{"Drill/d $.spec.parameters LF0106"}},
		"a hold shorter than the window": {drill("  scenario: site-loss\n  hold: 999ms\n"), []string{"Drill/d $.spec.hold LF0105"}},
		"a deadline without time for the way back": {drill("  scenario: site-loss\n  deadline: 3m\n") + "---\nkind: ActivePassive\nmetadata: {name: p}\nspec: {service: payments, order: [eu-west, us-east], failback: {mode: automatic, after: 1m, ramp: {shares: [0.5, 1], every: 10s}}}\n",
			[]string{"Drill/d $.spec.deadline LF0109"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, linked(t, tt.more)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnUnresolvedNameSuggestsTheNearest(t *testing.T) {
	docs, err := Decode("f.yaml", []byte(world+"---\nkind: Service\nmetadata: {name: a}\nspec: {data: stateless, dependsOn: [payment]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := CheckReferences(NewResourceSet(docs))
	if len(got) != 1 || !strings.Contains(got[0].Hint, "payments") {
		t.Errorf("problems = %+v, want one that suggests payments", got)
	}
}
