package demo

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/examples"
)

// Sites of the demo, in the order in which they are shown.
var sites = []api.SiteID{"eu-west", "us-east", "client"}

// Scenarios are those that the demo can run, with what each shows.
func Scenarios() map[string]string {
	return map[string]string{
		"site-loss":   "eu-west is lost as a whole: killed (fault=kill) or hung (fault=pause)",
		"server-kill": "eu-west is paused and the server is killed: the fault must end without it",
	}
}

// setting is one thing that --set can change beside a scenario's parameters: a JSON pointer in every object of a kind.
type setting struct {
	kind api.Kind
	path string
	what string
}

var settings = map[string]setting{
	"baseline":        {api.KindDrill, "/spec/baseline", "duration of the baseline"},
	"hold":            {api.KindDrill, "/spec/hold", "duration of the hold"},
	"verify":          {api.KindDrill, "/spec/verify", "duration of the verification"},
	"lease":           {api.KindDrill, "/spec/lease", "lease of the faults"},
	"health.interval": {api.KindService, "/spec/health/interval", "interval of the active checks"},
	"failover.after":  {api.KindActivePassive, "/spec/failover/after", "dwell before a failover"},
	"failback.after":  {api.KindActivePassive, "/spec/failback/after", "wait before a fail-back"},
}

// Settings are what Options.Set can change beside a scenario's parameters, with what each means.
func Settings() map[string]string {
	out := map[string]string{"rate.SERVICE": "requests/s of a service's probe", "path.SERVICE": "path that a service's probe asks for"}
	for name, s := range settings {
		out[name] = s.what
	}
	return out
}

// plan is what the demo applies and runs.
type plan struct {
	scenario   string
	drill      string
	parameters map[string]string
	objects    []api.Object
	expect     string
	spec       api.DrillSpec
}

// newPlan reads the embedded resources and makes the changes of --set.
func newPlan(scenario string, set map[string]string) (plan, error) {
	p := plan{scenario: scenario, drill: scenario, parameters: map[string]string{}}
	if _, ok := Scenarios()[scenario]; !ok {
		return p, api.Errorf(api.Invalid, "--scenario", "%q is not a scenario of the demo", scenario).
			WithHint("one of %s: livefire demo --list", strings.Join(slices.Sorted(maps.Keys(Scenarios())), ", "))
	}
	docs, err := api.DecodeFS(examples.FS, examples.DemoResources()...)
	if err != nil {
		return p, fmt.Errorf("read the demo's resources: %w", err)
	}
	for _, doc := range docs {
		p.objects = append(p.objects, doc.Object)
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if err := p.set(name, set[name]); err != nil {
			return p, err
		}
	}
	for _, o := range p.objects {
		switch o := o.(type) {
		case *api.Scenario:
			if o.Metadata.Name == scenario {
				p.expect = o.Spec.Expect.Verdict
				for name, value := range p.parameters {
					if allowed := o.Spec.Parameters[name].Enum; len(allowed) > 0 && !slices.Contains(allowed, value) {
						return p, api.Errorf(api.Invalid, "--set "+name, "%q; one of %s", value, strings.Join(allowed, ", "))
					}
					if _, ok := o.Spec.Parameters[name]; !ok {
						return p, api.Errorf(api.Invalid, "--set "+name, "scenario %s has no such parameter, and it is no setting", scenario).
							WithHint("parameters: %v; settings: %s", slices.Sorted(maps.Keys(o.Spec.Parameters)), settingNames())
					}
				}
			}
		case *api.Drill:
			if o.Metadata.Name == p.drill {
				p.spec = o.Spec
			}
		}
	}
	return p, nil
}

func settingNames() string {
	return strings.Join(append(slices.Sorted(maps.Keys(settings)), "rate.SERVICE", "path.SERVICE"), ", ")
}

// set changes one thing.
func (p *plan) set(name, value string) error {
	if s, ok := settings[name]; ok {
		return p.patch(name, s, value)
	}
	if service, ok := strings.CutPrefix(name, "rate."); ok {
		return p.probe(name, service, func(pr *api.Probe) error {
			rate, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return fmt.Errorf("%q is not a number of requests per second", value)
			}
			pr.Rate = rate
			return nil
		})
	}
	if service, ok := strings.CutPrefix(name, "path."); ok {
		return p.probe(name, service, func(pr *api.Probe) error {
			pr.Path = value
			return nil
		})
	}
	p.parameters[name] = value
	return nil
}

func (p *plan) patch(name string, s setting, value string) error {
	if _, err := api.ParseDuration(value); err != nil {
		return api.Errorf(api.Invalid, "--set "+name, "%v", err)
	}
	for i, o := range p.objects {
		if o.TypeOf().Kind != s.kind {
			continue
		}
		ops := []api.PatchOp{{Op: "replace", Path: s.path, Value: value}}
		if name == "health.interval" {
			// A check must have ended before the next one starts.
			if svc, ok := o.(*api.Service); ok {
				if d, _ := api.ParseDuration(value); d < svc.Spec.Health.Timeout {
					ops = append([]api.PatchOp{{Op: "replace", Path: "/spec/health/timeout", Value: value}}, ops...)
				}
			}
		}
		patched, err := api.ApplyPatch(o, ops)
		if err != nil {
			return api.Errorf(api.Invalid, "--set "+name, "%v", err)
		}
		p.objects[i] = patched
	}
	return nil
}

func (p *plan) probe(name, service string, change func(*api.Probe) error) error {
	found := false
	for _, o := range p.objects {
		d, ok := o.(*api.Drill)
		if !ok {
			continue
		}
		for i := range d.Spec.Probes {
			if string(d.Spec.Probes[i].Service) != service {
				continue
			}
			found = true
			if err := change(&d.Spec.Probes[i]); err != nil {
				return api.Errorf(api.Invalid, "--set "+name, "%v", err)
			}
		}
		if problems := d.Validate(); len(problems) > 0 {
			return api.Errorf(api.Invalid, "--set "+name, "%s: %s", problems[0].Path, problems[0].Message)
		}
	}
	if !found {
		return api.Errorf(api.Invalid, "--set "+name, "no probe of service %q", service)
	}
	return nil
}
