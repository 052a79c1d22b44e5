package route

import (
	"cmp"
	"math"
	"slices"

	"github.com/livefire-mesh/livefire/api"
)

// Ratio is the weight as a share between 0 and 1.
func (w Weight) Ratio() float64 { return float64(w) / float64(Whole) }

// Shares divides Whole in proportion to the weights, exactly: what rounding leaves over goes to the largest
// remainders, the first by name among equals. Weights that are not positive and finite count as zero; the site
// is then in the result with zero. If there is none other, every share is zero.
func Shares(weights map[api.SiteID]float64) map[api.SiteID]Weight {
	type part struct {
		site      api.SiteID
		remainder float64
	}
	out := make(map[api.SiteID]Weight, len(weights))
	largest := 0.0
	for site, w := range weights {
		out[site] = 0
		if positive(w) {
			largest = max(largest, w)
		}
	}
	if largest == 0 {
		return out
	}
	// Weights are taken relative to the largest, so that their sum is finite. The sum is made in the order of the
	// names: another order could round to another last digit.
	var parts []part
	sum := 0.0
	for _, site := range sortedSites(weights) {
		if w := weights[site]; positive(w) {
			parts = append(parts, part{site: site})
			sum += w / largest
		}
	}
	left := Whole
	for i, p := range parts {
		exact := weights[p.site] / largest / sum * float64(Whole)
		whole := min(Weight(math.Floor(exact)), left)
		out[p.site] = whole
		left -= whole
		parts[i].remainder = exact - float64(whole)
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(b.remainder, a.remainder) })
	for i := 0; left > 0; i++ {
		out[parts[i%len(parts)].site]++
		left--
	}
	return out
}

func positive(w float64) bool { return w > 0 && !math.IsInf(w, 1) }

func sortedSites(weights map[api.SiteID]float64) []api.SiteID {
	sites := make([]api.SiteID, 0, len(weights))
	for site := range weights {
		sites = append(sites, site)
	}
	slices.Sort(sites)
	return sites
}
