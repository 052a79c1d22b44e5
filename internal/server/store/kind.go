package store

import "github.com/livefire-mesh/livefire/api"

// newObject is an empty resource of a kind, nil for an unknown one.
func newObject(k api.Kind) any {
	switch k {
	case api.KindSite:
		return new(api.Site)
	case api.KindService:
		return new(api.Service)
	case api.KindWorkload:
		return new(api.Workload)
	case api.KindActivePassive:
		return new(api.ActivePassive)
	case api.KindActiveActive:
		return new(api.ActiveActive)
	case api.KindAuthorizationPolicy:
		return new(api.AuthorizationPolicy)
	case api.KindScenario:
		return new(api.Scenario)
	case api.KindDrill:
		return new(api.Drill)
	case api.KindDrillRun:
		return new(api.DrillRun)
	case api.KindFinding:
		return new(api.Finding)
	}
	return nil
}

// kindOf is the kind of an object by its Go type: an object that was never defaulted has no kind written in it.
func kindOf(o any) (api.Kind, error) {
	switch o := o.(type) {
	case *api.Site:
		return api.KindSite, nil
	case *api.Service:
		return api.KindService, nil
	case *api.Workload:
		return api.KindWorkload, nil
	case *api.ActivePassive:
		return api.KindActivePassive, nil
	case *api.ActiveActive:
		return api.KindActiveActive, nil
	case *api.AuthorizationPolicy:
		return api.KindAuthorizationPolicy, nil
	case *api.Scenario:
		return api.KindScenario, nil
	case *api.Drill:
		return api.KindDrill, nil
	case *api.DrillRun:
		return api.KindDrillRun, nil
	case *api.Finding:
		return api.KindFinding, nil
	default:
		return "", api.Errorf(api.Invalid, "resource", "%T is not a resource", o)
	}
}
