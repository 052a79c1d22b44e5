package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
)

// shortKinds are the short names of kinds.
var shortKinds = map[string]api.Kind{
	"svc": api.KindService, "wl": api.KindWorkload, "ap": api.KindActivePassive, "aa": api.KindActiveActive,
	"authz": api.KindAuthorizationPolicy, "policy": api.KindAuthorizationPolicy, "policies": api.KindAuthorizationPolicy,
	"run": api.KindDrillRun, "runs": api.KindDrillRun,
}

// kindOf reads the name of a kind as people write it: any case, singular, plural or short.
func kindOf(cmd *cobra.Command, word string) (api.Kind, error) {
	if k, ok := lookupKind(word); ok {
		return k, nil
	}
	var names []string
	for _, k := range api.Kinds() {
		names = append(names, strings.ToLower(string(k)))
	}
	return "", usagef(cmd, "%q is not a kind; one of %s", word, strings.Join(names, ", "))
}

func lookupKind(word string) (api.Kind, bool) {
	word = strings.ToLower(strings.ReplaceAll(word, "-", ""))
	if k, ok := shortKinds[word]; ok {
		return k, true
	}
	for _, k := range api.Kinds() {
		name := strings.ToLower(string(k))
		plural := name + "s"
		if stem, ok := strings.CutSuffix(name, "y"); ok {
			plural = stem + "ies"
		}
		if word == name || word == plural {
			return k, true
		}
	}
	return "", false
}

// columns are what a table shows of each kind; wide is how many at the end are for -o wide.
func columns(k api.Kind) (head []string, wide int) {
	switch k {
	case api.KindSite:
		return []string{"NAME", "REGION", "ZONE", "JURISDICTION"}, 0
	case api.KindService:
		return []string{"NAME", "PROTOCOL", "DATA", "RTO", "RPO", "SUCCESS", "OWNER", "HOSTS", "HEALTH"}, 2
	case api.KindWorkload:
		return []string{"NAME", "SERVICE", "SITE", "ADDRESS", "CAPACITY", "REGISTERED", "VERSION", "IDENTITY"}, 2
	case api.KindActivePassive:
		return []string{"NAME", "SERVICE", "ORDER", "ACTIVE", "SHARES", "PHASE", "REFLEX", "FAILOVER", "REASON"}, 3
	case api.KindActiveActive:
		return []string{"NAME", "SERVICE", "WEIGHTS", "SHARES", "PHASE", "REASON"}, 1
	case api.KindAuthorizationPolicy:
		return []string{"NAME", "SERVICE", "RULES", "IDENTITIES"}, 1
	case api.KindScenario:
		return []string{"NAME", "FAULTS", "PARAMETERS", "EXPECTS", "DESCRIPTION"}, 1
	case api.KindDrill:
		return []string{"NAME", "SCENARIO", "SITE", "SERVICES", "APPROVALS", "HOLD", "LEASE", "DEADLINE"}, 3
	case api.KindDrillRun:
		return []string{"NAME", "DRILL", "STATE", "VERDICT", "STARTED", "RUN BY", "FINDINGS", "REASON"}, 2
	case api.KindFinding:
		return []string{"NAME", "SEVERITY", "CODE", "SERVICE", "STATUS", "WHAT", "CHANGE", "RUN"}, 2
	}
	return []string{"NAME"}, 0
}

// row is one object in the columns of its kind.
func row(o api.Object) []string {
	name := o.Meta().Name
	switch o := o.(type) {
	case *api.Site:
		return dashed(name, o.Spec.Region, o.Spec.Zone, o.Spec.Jurisdiction)
	case *api.Service:
		v := o.Spec.Objectives
		return dashed(name, o.Spec.Protocol, o.Spec.Data, span(v.RTO), span(v.RPO), percent(v.Success), o.Spec.Owner,
			strings.Join(o.Spec.Hosts, ","), fmt.Sprintf("%s each %s", o.Spec.Health.Path, o.Spec.Health.Interval))
	case *api.Workload:
		return workloadRow(o)
	case *api.ActivePassive:
		st := placement(o.Status)
		return dashed(name, string(o.Spec.Service), joined(o.Spec.Order), string(st.ActiveSite), shares(st.Shares), st.Phase,
			truth(o.Spec.Reflex), o.Spec.Failover.Mode+" after "+o.Spec.Failover.After.String(), st.Reason)
	case *api.ActiveActive:
		st := placement(o.Status)
		return dashed(name, string(o.Spec.Service), weights(o.Spec.Weights), shares(st.Shares), st.Phase, st.Reason)
	case *api.AuthorizationPolicy:
		var ids []string
		for _, r := range o.Spec.Allow {
			ids = append(ids, r.Identity)
		}
		return dashed(name, string(o.Spec.Service), strconv.Itoa(len(o.Spec.Allow)), strings.Join(ids, ","))
	case *api.Scenario:
		var faults []string
		for _, f := range o.Spec.Faults {
			faults = append(faults, f.Kind)
		}
		return dashed(name, strings.Join(faults, ","), strings.Join(slices.Sorted(maps.Keys(o.Spec.Parameters)), ","), o.Spec.Expect.Verdict, o.Spec.Description)
	case *api.Drill:
		return dashed(name, o.Spec.Scenario, string(o.Spec.Scope.Site), joined(o.Spec.Scope.Services), strings.Join(o.Spec.Approvals, ","),
			o.Spec.Hold.String(), o.Spec.Lease.String(), o.Spec.Deadline.String())
	case *api.DrillRun:
		return dashed(name, o.Spec.Drill, o.Status.State, o.Status.Verdict, seconds(o.Status.StartedAt), o.Spec.RunBy,
			strconv.Itoa(len(o.Status.Findings)), o.Status.Reason)
	case *api.Finding:
		change := ""
		if o.Spec.Change != nil {
			change = o.Spec.Change.Resource
		}
		return dashed(name, o.Spec.Severity, o.Spec.Code, string(o.Spec.Service), o.Spec.Status, o.Spec.What, change, o.Spec.Run)
	}
	return []string{name}
}

func workloadRow(o *api.Workload) []string {
	registered, capacity := "by hand", ""
	if o.Status != nil && o.Status.Node != "" {
		registered = "yes"
		if !o.Status.Registered {
			registered = "lost " + seconds(o.Status.LostAt)
		}
	}
	if o.Spec.Capacity > 0 {
		capacity = strconv.FormatFloat(o.Spec.Capacity, 'g', -1, 64) + "/s"
	}
	return dashed(o.Metadata.Name, string(o.Spec.Service), string(o.Spec.Site), o.Spec.Address, capacity, registered, o.Spec.Version, o.Spec.Identity)
}

func dashed(cells ...string) []string {
	for i, c := range cells {
		cells[i] = dash(c)
	}
	return cells
}

func span(d *api.Duration) string {
	if d == nil {
		return ""
	}
	return d.String()
}

func percent(ratio *float64) string {
	if ratio == nil {
		return ""
	}
	return strconv.FormatFloat(100**ratio, 'g', 6, 64) + " %"
}

func truth(b *bool) string {
	if b == nil {
		return ""
	}
	return strconv.FormatBool(*b)
}

func placement(s *api.PlacementStatus) api.PlacementStatus {
	if s == nil {
		return api.PlacementStatus{}
	}
	return *s
}

func joined[T ~string](list []T) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return strings.Join(out, ",")
}

// shares is "us-east 50 eu-west 50", in percent, sites with nothing left out.
func shares(m map[api.SiteID]float64) string {
	var out []string
	for _, site := range slices.Sorted(maps.Keys(m)) {
		if m[site] > 0 {
			out = append(out, fmt.Sprintf("%s %.3g", site, 100*m[site]))
		}
	}
	return strings.Join(out, " ")
}

func weights(m map[api.SiteID]float64) string {
	var out []string
	for _, site := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s %g", site, m[site]))
	}
	return strings.Join(out, " ")
}

// seconds is a time of the API without its fractions.
func seconds(stamp string) string {
	head, tail, cut := strings.Cut(stamp, ".")
	if !cut {
		return stamp
	}
	if strings.HasSuffix(tail, "Z") {
		return head + "Z"
	}
	return stamp
}
