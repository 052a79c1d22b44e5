package pattern

import (
	"slices"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// activePassive places a service at one active site; the others follow in the pattern's order. During a fail-back
// ramp two sites have shares. Without a placement the first site that residency allows is active.
func (b *builder) activePassive(s *route.Service, p api.ActivePassive, svc api.Service) {
	if p.Spec.Reflex != nil {
		s.Reflex = *p.Spec.Reflex
	}
	if s.Reflex && s.Stateful {
		s.Reflex = false
		b.problem(s.Name, audit.CodeReflexStateful, "ActivePassive/%s: reflex across sites is refused for stateful data; write reflex: false",
			p.Metadata.Name)
	}
	order := uniqueSites(p.Spec.Order)
	placed := b.placed[s.Name]
	shares := placed.Shares
	if len(shares) == 0 && placed.Active != "" {
		shares = map[api.SiteID]route.Weight{placed.Active: route.Whole}
	}
	if !anyOf(order, shares) {
		// The machine has not spoken yet, or of sites that the pattern no longer has.
		shares = b.firstAllowed(svc, order)
	}
	b.placeSites(s, svc, order, b.permitted(svc, order, shares))
}

// firstAllowed gives everything to the first site of the order that residency allows.
func (b *builder) firstAllowed(svc api.Service, order []api.SiteID) map[api.SiteID]route.Weight {
	for i, site := range order {
		if b.excluded(svc, site) {
			continue
		}
		if i > 0 {
			b.problem(api.ServiceID(svc.Metadata.Name), audit.CodeResidency, "residency excludes %s, the preferred site: %s is active", order[0], site)
		}
		return map[api.SiteID]route.Weight{site: route.Whole}
	}
	if len(order) > 0 {
		b.problem(api.ServiceID(svc.Metadata.Name), audit.CodeResidency, "residency excludes every site of the pattern: nobody may serve it")
	}
	return nil
}

// anyOf says whether the shares name any site of the order.
func anyOf(order []api.SiteID, shares map[api.SiteID]route.Weight) bool {
	return slices.ContainsFunc(order, func(site api.SiteID) bool { return shares[site] > 0 })
}
