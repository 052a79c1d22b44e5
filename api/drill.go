package api

import (
	"slices"
	"time"
)

// Groups whose approval a drill may ask for.
const (
	GroupDevelopment = "development"
	GroupOperations  = "operations"
	GroupSecurity    = "security"
)

// Groups are all groups, in the order in which they are asked.
func Groups() []string { return []string{GroupDevelopment, GroupOperations, GroupSecurity} }

func (o *Drill) TypeOf() Type    { return Type{Version, KindDrill} }
func (o *Drill) Meta() *Metadata { return &o.Metadata }

func (o *Drill) Default() {
	setType(o)
	s := &o.Spec
	setZero(&s.Scope.MaxTargets, 10)
	for i := range s.Probes {
		p := &s.Probes[i]
		setZero(&p.Timeout, Duration(2*time.Second))
		setZero(&p.Method, "GET")
		setZero(&p.Path, "/")
	}
	for i := range s.Guardrails {
		setZero(&s.Guardrails[i].Over, Duration(10*time.Second))
	}
	setZero(&s.Baseline, Duration(30*time.Second))
	setZero(&s.Hold, Duration(time.Minute))
	setZero(&s.Verify, Duration(30*time.Second))
	setZero(&s.Lease, Duration(15*time.Second))
	setZero(&s.Deadline, Duration(15*time.Minute))
	if s.Approvals == nil {
		s.Approvals = Groups()
	}
}

func (o *Drill) Validate() []Problem {
	var c checker
	c.object(o)
	s := o.Spec
	c.name("$.spec.scenario", s.Scenario)
	c.scope(s.Scope)
	c.probes(s)
	for i, g := range s.Guardrails {
		path := index("$.spec.guardrails", i)
		c.name(path+".service", string(g.Service))
		c.ratio(path+".success.min", g.Success.Min)
		c.positive(path+".over", g.Over)
	}
	c.positive("$.spec.baseline", s.Baseline)
	c.positive("$.spec.hold", s.Hold)
	c.positive("$.spec.verify", s.Verify)
	c.span("$.spec.lease", s.Lease, Duration(time.Second), Duration(5*time.Minute))
	c.positive("$.spec.deadline", s.Deadline)
	if parts := s.Baseline + s.Hold + s.Verify; s.Deadline > 0 && s.Deadline < parts {
		c.add(CodeDeadline, "$.spec.deadline", "at least "+parts.String(), "%s is shorter than baseline, hold and verify together (%s)", s.Deadline, parts)
	}
	c.approvals(s.Approvals)
	return c.problems
}

func (c *checker) scope(s DrillScope) {
	c.name("$.spec.scope.site", string(s.Site))
	c.names("$.spec.scope.services", texts(s.Services))
	if len(s.Services) == 0 {
		c.add(CodeList, "$.spec.scope.services", "name the services that the drill is about", "no service in scope: the fault would have no target")
	}
	c.count("$.spec.scope.maxTargets", s.MaxTargets, 1, 1000)
}

// probes: each service in scope is watched by exactly one; what nobody watches could never pass.
func (c *checker) probes(s DrillSpec) {
	seen := map[ServiceID]bool{}
	for i, p := range s.Probes {
		path := index("$.spec.probes", i)
		c.name(path+".service", string(p.Service))
		c.name(path+".from", string(p.From))
		c.number(path+".rate", p.Rate, 0, 10000)
		c.span(path+".timeout", p.Timeout, Duration(time.Millisecond), Duration(time.Minute))
		if !httpToken.MatchString(p.Method) {
			c.add(CodeValue, path+".method", "for example GET", "%q is not a method", p.Method)
		}
		c.urlPath(path+".path", p.Path)
		if seen[p.Service] {
			c.add(CodeProbe, path+".service", "keep one of them", "two probes of %s: one is enough", p.Service)
		}
		seen[p.Service] = true
	}
	if len(s.Probes) == 0 {
		c.add(CodeProbe, "$.spec.probes", "one probe for each service in scope", "without a probe nothing would be measured")
		return
	}
	for i, svc := range s.Scope.Services {
		if !seen[svc] {
			c.add(CodeProbe, index("$.spec.scope.services", i), "add a probe of it, or take it out of the scope", "no probe watches %s: it could never pass", svc)
		}
	}
}

func (c *checker) approvals(groups []string) {
	if len(groups) == 0 {
		c.add(CodeList, "$.spec.approvals", "leave it out for all three groups", "nobody would have to approve")
	}
	for i, g := range groups {
		c.oneOf(index("$.spec.approvals", i), g, Groups()...)
		if slices.Contains(groups[:i], g) {
			c.add(CodeList, index("$.spec.approvals", i), "remove one of them", "%q is named twice", g)
		}
	}
}

// Window is W of a probe: the span that must meet every objective for the service to count as recovered.
// max(1 s, 10 probes, 1/(1 - success objective) probes), at most 10 s (docs/spec/measurement.md).
func (p Probe) Window(success *float64) Duration {
	const most = 10 * time.Second
	probes := 10.0
	if success != nil {
		probes = max(probes, 1/(1-*success)) // success 1: +Inf, hence the most
	}
	seconds := probes / p.Rate
	if !(seconds < most.Seconds()) {
		return Duration(most)
	}
	return Duration(max(time.Second, time.Duration(seconds*float64(time.Second))))
}
