package drill

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// Config is everything of a run that never changes.
type Config struct {
	Run        string         `json:"run"`
	Drill      string         `json:"drill"`
	Scenario   string         `json:"scenario"`
	Expect     Verdict        `json:"expect"`
	Software   string         `json:"software"`
	By         string         `json:"by"`    // who asked for the run
	ByKey      string         `json:"byKey"` // key id of that person
	Groups     []string       `json:"groups"`
	Site       api.SiteID     `json:"site"`
	MaxTargets int            `json:"maxTargets"`
	Services   []Service      `json:"services"` // in scope
	Faults     []Fault        `json:"faults"`
	Probes     []sample.Order `json:"probes"`
	Baseline   time.Duration  `json:"baseline"`
	Hold       time.Duration  `json:"hold"`
	Verify     time.Duration  `json:"verify"`
	Lease      time.Duration  `json:"lease"`
	Deadline   time.Duration  `json:"deadline"` // from the start
}

// Service in scope, and who may fail it back.
type Service struct {
	Name     api.ServiceID `json:"name"`
	Failback string        `json:"failback"` // api.Automatic, Approved or Manual
}

// Fault of the scenario, its parameters filled in.
type Fault struct {
	Kind  fault.Kind    `json:"kind"`
	Site  api.SiteID    `json:"site"` // whose agent applies it
	After time.Duration `json:"after"`
}

// probeLease outlives a restart of the server: a drill that kills the server must not blind its own probes.
const probeLease = time.Minute

// Configure derives the Config of a run from its proposal. It returns *api.Error (Invalid) for a drill without
// fault, probe or scope, or with a fault that this version does not know.
func Configure(p record.Proposal, by, byKey string) (Config, error) {
	d := p.Drill.Spec
	bad := func(format string, args ...any) (Config, error) {
		return Config{}, api.Errorf(api.Invalid, "Drill/"+p.Drill.Metadata.Name, format, args...)
	}
	sc, err := Fill(p.Scenario, d)
	if err != nil {
		return Config{}, err
	}
	c := Config{
		Run: p.Run, Drill: p.Drill.Metadata.Name, Scenario: d.Scenario, Expect: Verdict(sc.Spec.Expect.Verdict),
		Software: p.Software, By: by, ByKey: byKey, Groups: slices.Clone(d.Approvals),
		Site: d.Scope.Site, MaxTargets: d.Scope.MaxTargets,
		Baseline: d.Baseline.D(), Hold: d.Hold.D(), Verify: d.Verify.D(), Lease: d.Lease.D(), Deadline: d.Deadline.D(),
	}
	switch {
	case c.Run == "":
		return bad("no run id")
	case c.Site == "" || len(d.Scope.Services) == 0:
		return bad("the scope names no site or no service")
	case len(sc.Spec.Faults) == 0:
		return bad("scenario %s has no fault", d.Scenario)
	case len(d.Probes) == 0:
		return bad("no probe: nothing would be measured")
	case c.Lease < fault.MinLease || c.Lease > fault.MaxLease:
		return bad("lease %v is not between %v and %v", c.Lease, fault.MinLease, fault.MaxLease)
	case c.Hold <= 0 || c.Baseline <= 0 || c.Verify <= 0 || c.Deadline <= 0 || c.MaxTargets < 1:
		return bad("baseline, hold, verify, deadline and maxTargets must be positive")
	}
	if c.Expect == "" {
		c.Expect = Passed
	}
	for _, s := range d.Scope.Services {
		c.Services = append(c.Services, Service{Name: s, Failback: failbackMode(p, s)})
	}
	for _, f := range sc.Spec.Faults {
		k := fault.Kind(f.Kind)
		if !k.Known() {
			return bad("scenario %s: unknown fault kind %q", d.Scenario, f.Kind)
		}
		site := api.SiteID(f.Target.Site)
		if site == "" {
			site = c.Site
		}
		c.Faults = append(c.Faults, Fault{Kind: k, Site: site, After: f.After.D()})
	}
	// In the order in which they are due, so that the first one is the reference of the others.
	slices.SortStableFunc(c.Faults, func(a, b Fault) int { return int(a.After - b.After) })
	for i, pr := range d.Probes {
		if slices.ContainsFunc(d.Probes[:i], func(x api.Probe) bool { return x.Service == pr.Service }) {
			return bad("two probes of service %s: one is enough, and its id is the service", pr.Service)
		}
		c.Probes = append(c.Probes, sample.Order{
			ID: c.Run + "/" + string(pr.Service), Run: c.Run, Service: pr.Service, From: pr.From, Rate: pr.Rate,
			Timeout: pr.Timeout.D(), Method: pr.Method, Path: pr.Path, Lease: max(probeLease, 2*c.Lease),
		})
	}
	return c, nil
}

func failbackMode(p record.Proposal, s api.ServiceID) string {
	for _, x := range p.ActivePassive {
		if x.Spec.Service == s && x.Spec.Failback.Mode != "" {
			return x.Spec.Failback.Mode
		}
	}
	for _, x := range p.ActiveActive {
		if x.Spec.Service == s {
			return api.Automatic // an active-active site returns to its weight by itself
		}
	}
	return api.Approved
}

// Fill replaces "{parameter}" in the faults of a scenario by the drill's parameters or their defaults; {site} is
// the drill's site. It returns *api.Error (Invalid) for a parameter that is unknown or outside its enumeration.
func Fill(sc api.Scenario, d api.DrillSpec) (api.Scenario, error) {
	bad := func(format string, args ...any) (api.Scenario, error) {
		return api.Scenario{}, api.Errorf(api.Invalid, "Scenario/"+sc.Metadata.Name, format, args...)
	}
	values := map[string]string{"site": string(d.Scope.Site)}
	for name, p := range sc.Spec.Parameters {
		values[name] = p.Default
	}
	for name, v := range d.Parameters {
		p, ok := sc.Spec.Parameters[name]
		if !ok {
			return bad("has no parameter %q", name)
		}
		if len(p.Enum) > 0 && !slices.Contains(p.Enum, v) {
			return bad("parameter %s is %q; allowed: %s", name, v, strings.Join(p.Enum, ", "))
		}
		values[name] = v
	}
	out := sc
	out.Spec.Faults = slices.Clone(sc.Spec.Faults)
	for i := range out.Spec.Faults {
		f := &out.Spec.Faults[i]
		var err1, err2 error
		f.Kind, err1 = fill(f.Kind, values)
		f.Target.Site, err2 = fill(f.Target.Site, values)
		for _, err := range []error{err1, err2} {
			if err != nil {
				return bad("fault %d: %v", i+1, err)
			}
		}
	}
	return out, nil
}

func fill(s string, values map[string]string) (string, error) {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(s, "{")
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		name, after, ok := strings.Cut(rest, "}")
		v, known := values[name]
		if !ok || !known {
			return "", fmt.Errorf("unknown parameter in %q", s)
		}
		b.WriteString(v)
		s = after
	}
}
