package failover

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/pattern"
)

// Config is what an operator wrote, after defaults, for one service. Order or Weights is set, never both.
type Config struct {
	Service  api.ServiceID          `json:"service"`
	Pattern  string                 `json:"pattern"`           // "ActivePassive/payments"
	Order    []api.SiteID           `json:"order"`             // preferred first; of ActiveActive by falling weight
	Weights  map[api.SiteID]float64 `json:"weights,omitempty"` // ActiveActive only
	Excluded []api.SiteID           `json:"excluded,omitempty"`
	Stateful bool                   `json:"stateful,omitempty"`

	Mode            string        `json:"mode"`
	After           time.Duration `json:"after"`
	Observers       int           `json:"observers"`   // for health.Judge
	MaxSwitches     int           `json:"maxSwitches"` // automatic ones in SwitchWindow; zero = no limit
	SwitchWindow    time.Duration `json:"switchWindow"`
	RequireReady    bool          `json:"requireReady"`
	RequireCapacity float64       `json:"requireCapacity"` // ratio; zero = not asked for

	FailbackMode  string        `json:"failbackMode"`
	FailbackAfter time.Duration `json:"failbackAfter"`
	RampShares    []float64     `json:"rampShares"` // ends with 1
	RampEvery     time.Duration `json:"rampEvery"`
}

// ActivePassive is the configuration of a service with that pattern.
func ActivePassive(p api.ActivePassive, svc api.Service, sites []api.Site) Config {
	c := Config{
		Service:         p.Spec.Service,
		Pattern:         string(api.KindActivePassive) + "/" + p.Metadata.Name,
		Order:           slices.Clone(p.Spec.Order),
		Excluded:        excluded(svc, sites, p.Spec.Order),
		Stateful:        svc.Spec.Data == "stateful",
		Mode:            p.Spec.Failover.Mode,
		After:           p.Spec.Failover.After.D(),
		Observers:       p.Spec.Failover.Observers,
		MaxSwitches:     p.Spec.Failover.MaxSwitches.Count,
		SwitchWindow:    p.Spec.Failover.MaxSwitches.Per.D(),
		RequireReady:    p.Spec.Require.Ready == nil || *p.Spec.Require.Ready,
		RequireCapacity: 1,
		FailbackMode:    p.Spec.Failback.Mode,
		FailbackAfter:   p.Spec.Failback.After.D(),
		RampShares:      slices.Clone(p.Spec.Failback.Ramp.Shares),
		RampEvery:       p.Spec.Failback.Ramp.Every.D(),
	}
	if p.Spec.Require.Capacity != nil {
		c.RequireCapacity = *p.Spec.Require.Capacity
	}
	return c.complete()
}

// ActiveActive is the configuration of a service with that pattern. What the survivors cannot carry is shed by their
// sidecars, so no capacity is asked of them before an evacuation.
func ActiveActive(p api.ActiveActive, svc api.Service, sites []api.Site) Config {
	order := slices.SortedFunc(maps.Keys(p.Spec.Weights), func(x, y api.SiteID) int {
		return cmp.Or(cmp.Compare(p.Spec.Weights[y], p.Spec.Weights[x]), cmp.Compare(x, y))
	})
	c := Config{
		Service:       p.Spec.Service,
		Pattern:       string(api.KindActiveActive) + "/" + p.Metadata.Name,
		Order:         order,
		Weights:       maps.Clone(p.Spec.Weights),
		Excluded:      excluded(svc, sites, order),
		Stateful:      svc.Spec.Data == "stateful",
		Mode:          p.Spec.Evacuate.Mode,
		After:         p.Spec.Evacuate.After.D(),
		Observers:     p.Spec.Evacuate.Observers,
		RequireReady:  true,
		FailbackMode:  api.Automatic,
		FailbackAfter: p.Spec.Return.After.D(),
		RampShares:    slices.Clone(p.Spec.Return.Ramp.Shares),
		RampEvery:     p.Spec.Return.Ramp.Every.D(),
	}
	if c.Weights == nil {
		c.Weights = map[api.SiteID]float64{}
	}
	return c.complete()
}

// complete makes the ramp usable as it stands: its last step is the whole, and stateful data moves in one step.
func (c Config) complete() Config {
	switch {
	case c.Stateful:
		c.RampShares = []float64{1}
	case len(c.RampShares) == 0 || c.RampShares[len(c.RampShares)-1] < 1:
		c.RampShares = append(c.RampShares, 1)
	}
	return c
}

// activeActive: the service has weights instead of one active site.
func (c Config) activeActive() bool { return c.Weights != nil }

func (c Config) allowed(site api.SiteID) bool {
	return slices.Contains(c.Order, site) && !slices.Contains(c.Excluded, site)
}

// preferred is the first site of the order that residency allows; empty if there is none.
func (c Config) preferred() api.SiteID {
	for _, site := range c.Order {
		if c.allowed(site) {
			return site
		}
	}
	return ""
}

func (c Config) policy() string { return "policy:" + c.Pattern }

func excluded(svc api.Service, sites []api.Site, order []api.SiteID) []api.SiteID {
	var out []api.SiteID
	for _, name := range order {
		var site api.Site // without a resource: without a jurisdiction
		for _, s := range sites {
			if s.Metadata.Name == string(name) {
				site = s
			}
		}
		if !pattern.Allowed(svc, site) && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
