package pattern

import (
	"cmp"
	"slices"
	"strings"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Allowed says whether a service's data may be served from a site. A site whose jurisdiction nobody declared may
// not serve a service that names jurisdictions.
func Allowed(svc api.Service, site api.Site) bool {
	return len(svc.Spec.Residency) == 0 || slices.Contains(svc.Spec.Residency, site.Spec.Jurisdiction)
}

// excluded is Allowed for a site by name: one that has no Site resource has no jurisdiction.
func (b *builder) excluded(svc api.Service, site api.SiteID) bool {
	return !Allowed(svc, b.sites[site])
}

// placeSites fills s.Sites: the sites in the order of the reflex, with these shares. Sites with a share have
// priority 0; the others follow in the order given, the excluded ones last.
func (b *builder) placeSites(s *route.Service, svc api.Service, order []api.SiteID, shares map[api.SiteID]route.Weight) {
	for _, name := range order {
		site := b.sites[name]
		s.Sites = append(s.Sites, route.Site{
			Name:      name,
			Region:    site.Spec.Region,
			Zone:      site.Spec.Zone,
			Share:     shares[name],
			Excluded:  b.excluded(svc, name),
			Endpoints: b.sortedEndpoints(s.Name, name),
		})
	}
	priority := 0
	for _, excluded := range []bool{false, true} {
		for i := range s.Sites {
			if s.Sites[i].Share == 0 && s.Sites[i].Excluded == excluded {
				priority++
				s.Sites[i].Priority = priority
			}
		}
	}
	slices.SortFunc(s.Sites, func(x, y route.Site) int {
		return cmp.Or(cmp.Compare(x.Priority, y.Priority), cmp.Compare(x.Name, y.Name))
	})
}

// permitted is the shares without those of sites that may not or can no longer serve, the rest made whole again.
// A share that residency forbids is refused with a problem. It is nil if no share is left.
func (b *builder) permitted(svc api.Service, order []api.SiteID, shares map[api.SiteID]route.Weight) map[api.SiteID]route.Weight {
	kept := map[api.SiteID]float64{}
	var refused []string
	for site, share := range shares {
		switch {
		case share == 0 || !slices.Contains(order, site):
		case b.excluded(svc, site):
			refused = append(refused, string(site))
		default:
			kept[site] = float64(share)
		}
	}
	if len(refused) > 0 {
		slices.Sort(refused)
		b.problem(api.ServiceID(svc.Metadata.Name), audit.CodeResidency, "residency [%s] excludes %s: it gets no share",
			strings.Join(svc.Spec.Residency, ", "), strings.Join(refused, ", "))
	}
	if len(kept) == 0 {
		return nil
	}
	return route.Shares(kept)
}

// uniqueSites is the order with each site once, at its first place.
func uniqueSites(order []api.SiteID) []api.SiteID {
	var out []api.SiteID
	for _, site := range order {
		if !slices.Contains(out, site) {
			out = append(out, site)
		}
	}
	return out
}

func (b *builder) sortedEndpoints(service api.ServiceID, site api.SiteID) []route.Endpoint {
	out := slices.Clone(b.endpoints[service][site])
	slices.SortFunc(out, func(x, y route.Endpoint) int { return cmp.Compare(x.Workload, y.Workload) })
	if out == nil {
		out = []route.Endpoint{}
	}
	return out
}
