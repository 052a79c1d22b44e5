package api

import (
	"regexp"
	"strings"
)

func (o *DrillRun) TypeOf() Type    { return Type{Version, KindDrillRun} }
func (o *DrillRun) Meta() *Metadata { return &o.Metadata }
func (o *DrillRun) Default()        { setType(o) }

// Validate is for what the server wrote: a run's name ("<drill>-<yyyymmdd>-<n>") may be longer than a label.
func (o *DrillRun) Validate() []Problem {
	var c checker
	if !recordName.MatchString(o.Metadata.Name) {
		c.add(CodeName, "$.metadata.name", "<drill>-<yyyymmdd>-<n>", "%q is not the name of a run", o.Metadata.Name)
	}
	c.name("$.spec.drill", o.Spec.Drill)
	return c.problems
}

func (o *Finding) TypeOf() Type    { return Type{Version, KindFinding} }
func (o *Finding) Meta() *Metadata { return &o.Metadata }

func (o *Finding) Default() {
	setType(o)
	setZero(&o.Spec.Status, FindingOpen)
}

// recordName is the form of names that the server makes: of runs, and of findings ("F-<run>-<n>").
var recordName = regexp.MustCompile(`^(F-)?[a-z0-9][-a-z0-9]{0,120}$`)

var code = regexp.MustCompile(`^LF[0-9]{4}$`)

func (o *Finding) Validate() []Problem {
	var c checker
	if !recordName.MatchString(o.Metadata.Name) {
		c.add(CodeName, "$.metadata.name", "F-<run>-<n>", "%q is not the name of a finding", o.Metadata.Name)
	}
	s := o.Spec
	if !code.MatchString(s.Code) {
		c.add(CodeValue, "$.spec.code", "for example LF2107", "%q is not a code", s.Code)
	}
	c.oneOf("$.spec.severity", s.Severity, "high", "medium", "low", "info")
	c.oneOf("$.spec.status", s.Status, FindingOpen, FindingApplied, FindingClosed, FindingNotHelped, FindingWaived)
	if s.Change != nil {
		if kind, name, ok := strings.Cut(s.Change.Resource, "/"); !ok || rankOfKind(Kind(kind)) < 0 || !label.MatchString(name) {
			c.add(CodeValue, "$.spec.change.resource", "for example ActivePassive/orders", "%q does not name a resource", s.Change.Resource)
		}
		for i, op := range s.Change.Patch {
			path := index("$.spec.change.patch", i)
			c.oneOf(path+".op", op.Op, "replace", "add", "remove")
			if !strings.HasPrefix(op.Path, "/") {
				c.add(CodeValue, path+".path", "for example /spec/failover/after", "%q is not a JSON pointer", op.Path)
			}
		}
	}
	return c.problems
}
