package failover

import (
	"math"
	"slices"
	"time"
)

// What Demand is made of.
const (
	DemandWindow  = 5 * time.Minute
	DemandReports = 5 // fewer: not known
)

// Load is what a service was asked for in one second, over all its sites.
type Load struct {
	At   time.Time
	Rate float64 // requests/s
}

// Demand is the 95th percentile (nearest rank) of the loads of the last DemandWindow. It is not known with fewer
// than DemandReports of them.
func Demand(now time.Time, loads []Load) (rate float64, known bool) {
	var rates []float64
	for _, l := range loads {
		if age := now.Sub(l.At); age >= 0 && age < DemandWindow {
			rates = append(rates, l.Rate)
		}
	}
	if len(rates) < DemandReports {
		return 0, false
	}
	slices.Sort(rates)
	return rates[int(math.Ceil(0.95*float64(len(rates))))-1], true
}
