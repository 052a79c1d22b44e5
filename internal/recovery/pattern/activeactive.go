package pattern

import (
	"cmp"
	"maps"
	"slices"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// activeActive spreads a service over sites: by its placement, or else by the weights. Sites without a share, as
// evacuated ones, follow by falling weight, then name.
func (b *builder) activeActive(s *route.Service, p api.ActiveActive, svc api.Service) {
	order := slices.SortedFunc(maps.Keys(p.Spec.Weights), func(x, y api.SiteID) int {
		return cmp.Or(cmp.Compare(p.Spec.Weights[y], p.Spec.Weights[x]), cmp.Compare(x, y))
	})
	shares := b.placed[s.Name].Shares
	if !anyOf(order, shares) {
		shares = route.Shares(p.Spec.Weights)
	}
	s.Shed = p.Spec.Shed.Capacity
	b.placeSites(s, svc, order, b.permitted(svc, order, shares))
}
