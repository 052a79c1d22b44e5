package failover

import (
	"fmt"
	"slices"
	"strings"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
)

// refusal is why a site cannot be a target.
type refusal struct {
	code        string
	to          api.SiteID
	message     string
	overridable bool
	fix         string // instead of an override
}

func (r refusal) text() string {
	switch {
	case r.overridable:
		return fmt.Sprintf("%s; override: --override=%s", r.message, r.code)
	case r.code == audit.CodeNothingToDo:
		return fmt.Sprintf("%s; %s", r.message, r.fix)
	}
	return fmt.Sprintf("%s; no override: %s", r.message, r.fix)
}

// refusals lists the rules that forbid a move to a site, none if it may take over. The rules are those of the audit,
// so that what the audit calls good is what a failover accepts. What is not known refuses a planned move only.
func (d *decision) refusals(to api.SiteID, planned bool) []refusal {
	if !slices.Contains(d.Order, to) {
		return []refusal{{code: audit.CodeReference, to: to, message: fmt.Sprintf("%s is not a site of %s", to, d.Pattern), fix: "name one of " + d.orderText()}}
	}
	if slices.Contains(d.Excluded, to) {
		return []refusal{{code: audit.CodeResidency, to: to, message: fmt.Sprintf("residency: %s may not serve %s", to, d.Service),
			fix: fmt.Sprintf("change spec.residency of Service/%s", d.Service)}}
	}
	var out []refusal
	s := d.Sites[to]
	if d.RequireReady {
		ok, why := audit.Answers(s.Facts)
		if s.Declared != "" {
			ok, why = false, "it is declared lost by "+s.Declared
		}
		if !ok {
			out = append(out, refusal{code: audit.CodeTargetNotReady, to: to, message: fmt.Sprintf("target not ready: %s: %s", to, why), overridable: true})
		}
	}
	if ok, why := audit.Trusted(s.Facts); !ok {
		out = append(out, refusal{code: audit.CodeCertificates, to: to, message: fmt.Sprintf("certificate: %s: %s", to, why), overridable: true})
	}
	if d.activeActive() {
		return out // the survivors shed what they cannot carry
	}
	ok, known, why := audit.Carries(s.Facts, d.Demand, d.RequireCapacity)
	switch {
	case ok:
	case slices.ContainsFunc(out, func(r refusal) bool { return r.code == audit.CodeTargetNotReady }):
		// What is not ready carries nothing: that is said already.
	case known:
		out = append(out, refusal{code: audit.CodeTargetTooSmall, to: to, message: fmt.Sprintf("target too small: %s: %s", to, why), overridable: true})
	case planned && !d.Demand.Known:
		out = append(out, refusal{code: audit.CodeDemandUnknown, to: to, message: fmt.Sprintf("demand unknown: %s", why), overridable: true})
	case planned:
		out = append(out, refusal{code: audit.CodeTargetTooSmall, to: to, message: fmt.Sprintf("target too small: %s: %s", to, why), overridable: true})
	}
	return out
}

// warn says what is not known about a target that is taken all the same.
func (d *decision) warn(to api.SiteID) {
	if d.activeActive() {
		return
	}
	if ok, known, why := audit.Carries(d.Sites[to].Facts, d.Demand, d.RequireCapacity); !ok && !known {
		d.do(Finding{Code: audit.CodeDemandUnknown, Severity: "low", Service: d.Service, Site: to,
			What: fmt.Sprintf("moved to %s without knowing that it can carry the load: %s", to, why),
			Fix:  "declare spec.capacity of each Workload and let the sidecars report load"})
	}
}

// lostPlanned is the rule of a planned move: the site that is left must answer.
func (d *decision) lostPlanned(from api.SiteID) []refusal {
	if from == "" {
		return nil
	}
	state := d.Sites[from].state()
	if state == health.Ready || state == health.Degraded {
		return nil
	}
	return []refusal{{code: audit.CodeSiteLostUnplanned, to: from,
		message: fmt.Sprintf("a planned failover needs both sites to answer, and %s is %s", from, state), fix: "order it with --unplanned"}}
}

// candidates are the sites that may follow another, in the pattern's order.
func (d *decision) candidates(after api.SiteID) []api.SiteID {
	var out []api.SiteID
	for _, site := range d.siteNames() {
		if site != after && d.allowed(site) {
			out = append(out, site)
		}
	}
	return out
}

// pick is the first site that no rule forbids; without one, the refusals of each.
func (d *decision) pick(after api.SiteID, planned bool) (api.SiteID, []refusal) {
	var all []refusal
	for _, site := range d.candidates(after) {
		r := d.refusals(site, planned)
		if len(r) == 0 {
			return site, nil
		}
		all = append(all, r...)
	}
	if len(all) == 0 {
		all = []refusal{{code: audit.CodeTargetNotReady, message: "there is no other site", fix: fmt.Sprintf("add one to %s", d.Pattern)}}
	}
	return "", all
}

// refuseOrder answers a person.
func (d *decision) refuseOrder(actor string, refusals []refusal) {
	for _, r := range refusals {
		d.do(Record{Kind: RecordRefusal, At: d.now, Service: d.Service, To: r.to, Code: r.code, Message: r.text(),
			Overridable: r.overridable, Fix: r.fix, Actor: actor, Drill: d.run()})
	}
}

// refuseAutomatic is loud: a record and a finding for each rule. It is said again only when the rules that refuse change.
func (d *decision) refuseAutomatic(what Verb, refusals []refusal) {
	var keys []string
	for _, r := range refusals {
		keys = append(keys, strings.TrimSpace(r.code+" "+string(r.to)))
	}
	said := strings.Join(keys, ", ")
	last := &d.RefusedFailover
	if what == VerbFailback {
		last = &d.RefusedFailback
	}
	if *last == said {
		return
	}
	*last = said
	d.refuseOrder(d.policy(), refusals)
	for _, r := range refusals {
		fix := r.fix
		if r.overridable {
			fix = fmt.Sprintf("repair it, or order it: livefire failover %s --to %s --unplanned --override=%s", d.Service, r.to, r.code)
		}
		d.do(Finding{Code: r.code, Severity: "high", Service: d.Service, Site: r.to, What: "automatic " + string(what) + " refused: " + r.message, Fix: fix})
	}
}

// overridden splits refusals into those that the actor accepts and those that stand.
func overridden(refusals []refusal, codes []string) (accepted []string, standing []refusal) {
	for _, r := range refusals {
		switch {
		case !r.overridable || !slices.Contains(codes, r.code):
			standing = append(standing, r)
		case !slices.Contains(accepted, r.code):
			accepted = append(accepted, r.code)
		}
	}
	return accepted, standing
}

func (d *decision) orderText() string {
	var names []string
	for _, site := range d.siteNames() {
		names = append(names, string(site))
	}
	return strings.Join(names, ", ")
}
