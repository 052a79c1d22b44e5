package api

import (
	"regexp"
	"slices"
	"strings"
)

// Fault kinds that a scenario can name.
const (
	FaultKill       = "kill"
	FaultPause      = "pause"
	FaultServerKill = "server-kill"
)

var faultKinds = []string{FaultKill, FaultPause, FaultServerKill}

// Verdicts that a scenario may expect.
const (
	VerdictPassed  = "passed"
	VerdictFailed  = "failed"
	VerdictAborted = "aborted"
)

// SiteParameter is known to every scenario: the drill's scope.site.
const SiteParameter = "site"

var (
	placeholder   = regexp.MustCompile(`\{([^{}]*)\}`)
	parameterName = regexp.MustCompile(`^[a-z][a-zA-Z0-9]{0,62}$`)
)

func (o *Scenario) TypeOf() Type    { return Type{Version, KindScenario} }
func (o *Scenario) Meta() *Metadata { return &o.Metadata }

func (o *Scenario) Default() {
	setType(o)
	setZero(&o.Spec.Expect.Verdict, VerdictPassed)
}

func (o *Scenario) Validate() []Problem {
	var c checker
	c.object(o)
	s := o.Spec
	for _, name := range sortedKeys(s.Parameters) {
		c.parameter(child("$.spec.parameters", name), name, s.Parameters[name])
	}
	if len(s.Faults) == 0 {
		c.add(CodeList, "$.spec.faults", "for example [{kind: kill, target: {site: \"{site}\"}}]", "a scenario without a fault rehearses nothing")
	}
	first := Duration(-1)
	for i, f := range s.Faults {
		c.fault(index("$.spec.faults", i), f, s.Parameters)
		if first < 0 || f.After < first {
			first = f.After
		}
	}
	if first > 0 {
		c.add(CodeScenario, "$.spec.faults[0].after", "after counts from the first fault: leave it out there", "no fault comes first")
	}
	c.oneOf("$.spec.expect.verdict", s.Expect.Verdict, VerdictPassed, VerdictFailed, VerdictAborted)
	return c.problems
}

func (c *checker) parameter(path, name string, p Parameter) {
	switch {
	case name == SiteParameter:
		c.add(CodeScenario, path, "remove it: {site} is always the drill's scope.site", "%q is a parameter of every scenario", name)
	case !parameterName.MatchString(name):
		c.add(CodeScenario, path, "a lower-case letter, then letters and digits", "%q is not a parameter name", name)
	}
	for i, e := range p.Enum {
		if e == "" || slices.Contains(p.Enum[:i], e) {
			c.add(CodeList, index(path+".enum", i), "name each value once", "%q is empty or named twice", e)
		}
	}
	if p.Default != "" && len(p.Enum) > 0 && !slices.Contains(p.Enum, p.Default) {
		c.add(CodeScenario, path+".default", "one of "+strings.Join(p.Enum, ", "), "the default %q is not in enum", p.Default)
	}
}

func (c *checker) fault(path string, f FaultTemplate, params map[string]Parameter) {
	if f.After < 0 {
		c.add(CodeValue, path+".after", "a span after the first fault", "%s is negative", f.After)
	}
	c.placeholders(path+".kind", f.Kind, params)
	c.placeholders(path+".target.site", f.Target.Site, params)
	kinds, closed := expand(f.Kind, params)
	if !closed {
		c.add(CodeScenario, path+".kind", "give the parameter an enum of fault kinds", "%q could be filled with any word", f.Kind)
	}
	server := 0
	for _, k := range kinds {
		if !slices.Contains(faultKinds, k) {
			c.add(CodeScenario, path+".kind", nearestHint(k, faultKinds), "%q is not a fault kind", k)
			return
		}
		if k == FaultServerKill {
			server++
		}
	}
	switch t := f.Target; {
	case server > 0 && server < len(kinds):
		c.add(CodeScenario, path+".kind", "write the server's fault as one of its own", "%s acts on the server, the other kinds on a site", FaultServerKill)
	case server > 0 && (!t.Server || t.Site != ""):
		c.add(CodeScenario, path+".target", "{server: true}", "the target of %s is the server alone", FaultServerKill)
	case len(kinds) > 0 && server == 0 && (t.Server || t.Site == ""):
		c.add(CodeScenario, path+".target", `{site: "{site}"}`, "the target of %s is a site", strings.Join(kinds, " or "))
	}
	if s := f.Target.Site; s != "" && !strings.ContainsAny(s, "{}") {
		c.name(path+".target.site", s)
	}
}

func (c *checker) placeholders(path, text string, params map[string]Parameter) {
	for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
		if _, ok := params[m[1]]; !ok && m[1] != SiteParameter {
			known := append(texts(sortedKeys(params)), SiteParameter)
			c.add(CodeScenario, path, nearestHint(m[1], known), "{%s} is not a parameter of the scenario", m[1])
		}
	}
	if strings.ContainsAny(placeholder.ReplaceAllString(text, ""), "{}") {
		c.add(CodeScenario, path, "for example {fault}", "%q has a brace without its partner", text)
	}
}

// expand gives every text that a template of at most one placeholder can become. closed is false if the
// placeholder has no enum.
func expand(text string, params map[string]Parameter) (all []string, closed bool) {
	m := placeholder.FindStringSubmatch(text)
	if m == nil {
		return []string{text}, true
	}
	p, ok := params[m[1]]
	if !ok {
		return nil, true // reported as unknown
	}
	for _, e := range p.Enum {
		all = append(all, strings.Replace(text, m[0], e, 1))
	}
	return all, len(p.Enum) > 0
}
