package api

import "slices"

// kinds are all kinds with a maker of each, in the order in which people read them: what there is, how it is
// placed, how it is rehearsed.
var kinds = []struct {
	kind Kind
	make func() Object
}{
	{KindSite, func() Object { return new(Site) }},
	{KindService, func() Object { return new(Service) }},
	{KindWorkload, func() Object { return new(Workload) }},
	{KindActivePassive, func() Object { return new(ActivePassive) }},
	{KindActiveActive, func() Object { return new(ActiveActive) }},
	{KindAuthorizationPolicy, func() Object { return new(AuthorizationPolicy) }},
	{KindScenario, func() Object { return new(Scenario) }},
	{KindDrill, func() Object { return new(Drill) }},
	{KindDrillRun, func() Object { return new(DrillRun) }},
	{KindFinding, func() Object { return new(Finding) }},
}

// Kinds are all kinds that this version knows.
func Kinds() []Kind {
	out := make([]Kind, len(kinds))
	for i, k := range kinds {
		out[i] = k.kind
	}
	return out
}

// New is an empty object of a kind with its apiVersion and kind set. Invalid: an unknown kind.
func New(k Kind) (Object, error) {
	for _, x := range kinds {
		if x.kind != k {
			continue
		}
		o := x.make()
		setType(o)
		return o, nil
	}
	e := Errorf(Invalid, string(k), "is not a kind that this livefire knows").WithCode(CodeKind)
	return nil, e.WithHint("%s", nearestHint(string(k), kindNames()))
}

func kindNames() []string {
	out := make([]string, len(kinds))
	for i, k := range kinds {
		out[i] = string(k.kind)
	}
	return out
}

func rankOfKind(k Kind) int { return slices.Index(Kinds(), k) }

// setType writes the apiVersion and kind that o's Go type says.
func setType(o Object) {
	t := o.TypeOf()
	switch o := o.(type) {
	case *Site:
		o.Type = t
	case *Service:
		o.Type = t
	case *Workload:
		o.Type = t
	case *ActivePassive:
		o.Type = t
	case *ActiveActive:
		o.Type = t
	case *AuthorizationPolicy:
		o.Type = t
	case *Scenario:
		o.Type = t
	case *Drill:
		o.Type = t
	case *DrillRun:
		o.Type = t
	case *Finding:
		o.Type = t
	}
}
