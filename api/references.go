package api

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// ResourceSet is every object that counts together: what is stored and what is about to be.
type ResourceSet map[Ref]Object

// ReferenceProblem is something that is wrong between objects, said about one of them.
type ReferenceProblem struct {
	Ref Ref `json:"ref"`
	Problem
}

// NewResourceSet is the set of the documents' objects.
func NewResourceSet(docs []Document) ResourceSet {
	set := ResourceSet{}
	for _, d := range docs {
		set[RefOf(d.Object)] = d.Object
	}
	return set
}

// service is a service of the set, nil if there is none.
func (s ResourceSet) service(name ServiceID) *Service {
	o, _ := s[Ref{KindService, string(name)}].(*Service)
	return o
}

// refs are the references of the set as people read them: by kind, then by name.
func (s ResourceSet) refs() []Ref {
	out := make([]Ref, 0, len(s))
	for r := range s {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b Ref) int {
		return cmp.Or(cmp.Compare(rankOfKind(a.Kind), rankOfKind(b.Kind)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// CheckReferences says what does not fit together in a set of valid, completed objects: names that do not
// resolve, and the rules that need more than one object. The order is fixed: by kind, name and field.
func CheckReferences(set ResourceSet) []ReferenceProblem {
	var out []ReferenceProblem
	patterns, hosts := map[ServiceID]Ref{}, map[string]Ref{}
	for _, ref := range set.refs() {
		c := &linker{set: set}
		switch o := set[ref].(type) {
		case *Service:
			c.service(ref, o, hosts)
		case *Workload:
			if o.Status == nil || o.Status.Node == "" { // else its sidecar speaks, not the operator
				c.exists("$.spec.service", KindService, string(o.Spec.Service))
				c.exists("$.spec.site", KindSite, string(o.Spec.Site))
			}
		case *ActivePassive:
			c.onePattern(ref, o.Spec.Service, patterns)
			c.activePassive(o.Spec)
		case *ActiveActive:
			c.onePattern(ref, o.Spec.Service, patterns)
			c.activeActive(o.Spec)
		case *AuthorizationPolicy:
			c.exists("$.spec.service", KindService, string(o.Spec.Service))
		case *Drill:
			c.drill(o.Spec)
		}
		for _, p := range c.problems {
			out = append(out, ReferenceProblem{ref, p})
		}
	}
	return out
}

// linker collects the problems of one object within its set.
type linker struct {
	checker
	set ResourceSet
}

// exists reports a name that nothing answers to, with the nearest one that does.
func (c *linker) exists(path string, kind Kind, name string) bool {
	if c.set[Ref{kind, name}] != nil {
		return true
	}
	var known []string
	for _, r := range c.set.refs() {
		if r.Kind == kind {
			known = append(known, r.Name)
		}
	}
	hint := fmt.Sprintf("write a %s of this name; there is none at all", kind)
	if len(known) > 0 {
		hint = nearestHint(name, known)
	}
	c.add(CodeUnresolved, path, hint, "%s %q does not exist", kind, name)
	return false
}

func (c *linker) service(ref Ref, s *Service, hosts map[string]Ref) {
	for i, d := range s.Spec.DependsOn {
		c.exists(index("$.spec.dependsOn", i), KindService, string(d))
	}
	for i, h := range s.Spec.Hosts {
		if first, taken := hosts[h]; taken {
			c.add(CodeHost, index("$.spec.hosts", i), "give each service a host of its own", "host %s already means %s", h, first)
			continue
		}
		hosts[h] = ref
	}
}

func (c *linker) onePattern(ref Ref, service ServiceID, patterns map[ServiceID]Ref) {
	if first, ok := patterns[service]; ok {
		c.add(CodePatterns, "$.spec.service", "keep one of them and delete the other", "service %s already has the placement pattern %s", service, first)
		return
	}
	patterns[service] = ref
}

// site checks that a site of a pattern exists and may serve.
func (c *linker) site(path string, site SiteID, svc *Service) {
	if !c.exists(path, KindSite, string(site)) || svc == nil || len(svc.Spec.Residency) == 0 {
		return
	}
	s, _ := c.set[Ref{KindSite, string(site)}].(*Site)
	if s != nil && !slices.Contains(svc.Spec.Residency, s.Spec.Jurisdiction) {
		c.add(CodeResidencySite, path, "take the site out, or add its jurisdiction to residency", "%s lies in jurisdiction %q; %s may be served from %s only",
			site, s.Spec.Jurisdiction, svc.Metadata.Name, strings.Join(svc.Spec.Residency, ", "))
	}
}

func (c *linker) activePassive(s ActivePassiveSpec) {
	c.exists("$.spec.service", KindService, string(s.Service))
	svc := c.set.service(s.Service)
	for i, site := range s.Order {
		c.site(index("$.spec.order", i), site, svc)
	}
	if svc == nil || svc.Spec.Data != Stateful {
		return
	}
	if s.Reflex != nil && *s.Reflex {
		c.add(CodeReflex, "$.spec.reflex", "remove it", "%s is stateful: no proxy may move its writes to another site by itself", s.Service)
	}
	c.notAutomatic("$.spec.failover.mode", s.Failover.Mode, s.Service)
}

func (c *linker) notAutomatic(path, mode string, service ServiceID) {
	if mode == Automatic {
		c.add(CodeAutomatic, path, "mode: approved", "%s is stateful: automatic needs fencing of the old site, which does not exist yet", service)
	}
}

func (c *linker) activeActive(s ActiveActiveSpec) {
	c.exists("$.spec.service", KindService, string(s.Service))
	svc := c.set.service(s.Service)
	for _, site := range sortedKeys(s.Weights) {
		c.site(child("$.spec.weights", string(site)), site, svc)
	}
	if svc != nil && svc.Spec.Data == Stateful {
		c.notAutomatic("$.spec.evacuate.mode", s.Evacuate.Mode, s.Service)
	}
}

func (c *linker) drill(s DrillSpec) {
	c.exists("$.spec.scope.site", KindSite, string(s.Scope.Site))
	for i, svc := range s.Scope.Services {
		c.exists(index("$.spec.scope.services", i), KindService, string(svc))
	}
	for i, p := range s.Probes {
		path := index("$.spec.probes", i)
		c.exists(path+".from", KindSite, string(p.From))
		if !c.exists(path+".service", KindService, string(p.Service)) {
			continue
		}
		if w := p.Window(c.set.service(p.Service).Spec.Objectives.Success); s.Hold < w {
			c.add(CodeHold, "$.spec.hold", "at least "+w.String()+", or a higher rate", "%s is shorter than the window of %s (%s): no recovery could be shown", s.Hold, p.Service, w)
		}
	}
	for i, g := range s.Guardrails {
		c.exists(index("$.spec.guardrails", i)+".service", KindService, string(g.Service))
	}
	if c.exists("$.spec.scenario", KindScenario, s.Scenario) {
		if sc, ok := c.set[Ref{KindScenario, s.Scenario}].(*Scenario); ok {
			c.parameters(s, sc.Spec)
			c.deadline(s, sc.Spec)
		}
	}
}

// parameters: each is one that the scenario declares, with a value that it allows.
func (c *linker) parameters(s DrillSpec, sc ScenarioSpec) {
	const path = "$.spec.parameters"
	for _, name := range sortedKeys(s.Parameters) {
		p, ok := sc.Parameters[name]
		v := s.Parameters[name]
		switch {
		case !ok && len(sc.Parameters) == 0:
			c.add(CodeParameter, child(path, name), "remove it", "scenario %s has no parameter", s.Scenario)
		case !ok:
			c.add(CodeParameter, child(path, name), nearestHint(name, sortedKeys(sc.Parameters)), "scenario %s has no parameter %q", s.Scenario, name)
		case len(p.Enum) > 0 && !slices.Contains(p.Enum, v):
			c.add(CodeParameter, child(path, name), nearestHint(v, p.Enum), "%q is not one of %s", v, strings.Join(p.Enum, ", "))
		}
	}
	for _, name := range sortedKeys(sc.Parameters) {
		if _, set := s.Parameters[name]; !set && sc.Parameters[name].Default == "" {
			c.add(CodeParameter, path, "write it under parameters", "scenario %s needs parameter %q", s.Scenario, name)
		}
	}
}

// deadline: the run must have time for all its parts, the way back included.
func (c *linker) deadline(s DrillSpec, sc ScenarioSpec) {
	parts := s.Baseline + s.Hold + s.Verify
	var last, back Duration
	for _, f := range sc.Faults {
		last = max(last, f.After)
	}
	for _, ref := range c.set.refs() {
		switch p := c.set[ref].(type) {
		case *ActivePassive:
			if slices.Contains(s.Scope.Services, p.Spec.Service) && p.Spec.Failback.Mode == Automatic {
				back = max(back, p.Spec.Failback.After+p.Spec.Failback.Ramp.Length())
			}
		case *ActiveActive:
			if slices.Contains(s.Scope.Services, p.Spec.Service) {
				back = max(back, p.Spec.Return.After+p.Spec.Return.Ramp.Length())
			}
		}
	}
	if whole := parts + last + back; s.Deadline >= parts && s.Deadline < whole {
		c.add(CodeDeadlineAll, "$.spec.deadline", "at least "+whole.String(), "%s is shorter than baseline, faults, hold, fail-back and verify together (%s)", s.Deadline, whole)
	}
}
