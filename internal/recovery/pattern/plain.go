package pattern

import (
	"maps"
	"slices"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// plain serves a service without a placement pattern from every site that has workloads, in equal shares. One that
// only calls has no site.
func (b *builder) plain(s *route.Service, svc api.Service) {
	order := slices.Sorted(maps.Keys(b.endpoints[s.Name]))
	weights := map[api.SiteID]float64{}
	for _, site := range order {
		weights[site] = 1
	}
	b.placeSites(s, svc, order, b.permitted(svc, order, route.Shares(weights)))
}
