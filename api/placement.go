package api

import (
	"slices"
	"time"
)

func (o *ActivePassive) TypeOf() Type    { return Type{Version, KindActivePassive} }
func (o *ActivePassive) Meta() *Metadata { return &o.Metadata }

// Default leaves reflex and failover.mode alone when they were not written: their value depends on the
// service, see ReflexFor and ModeFor.
func (o *ActivePassive) Default() {
	setType(o)
	s := &o.Spec
	setZero(&s.Failover.After, Duration(5*time.Second))
	setZero(&s.Failover.Observers, 2)
	setZero(&s.Failover.MaxSwitches.Count, 2)
	setZero(&s.Failover.MaxSwitches.Per, Duration(time.Hour))
	if s.Require.Ready == nil {
		s.Require.Ready = new(true)
	}
	if s.Require.Capacity == nil {
		s.Require.Capacity = new(1.0)
	}
	setZero(&s.Failback.Mode, Approved)
	setZero(&s.Failback.After, Duration(5*time.Minute))
	s.Failback.Ramp.fill(time.Minute)
}

// ReflexFor is whether proxies may cross sites by themselves: as written, else true for a stateless service.
func (s ActivePassiveSpec) ReflexFor(svc ServiceSpec) bool {
	if s.Reflex != nil {
		return *s.Reflex && svc.Data != Stateful
	}
	return svc.Data == Stateless
}

// ModeFor is the mode of failover: as written, else automatic for a stateless service and approved for a stateful one.
func (f Failover) ModeFor(svc ServiceSpec) string {
	switch {
	case f.Mode != "":
		return f.Mode
	case svc.Data == Stateless:
		return Automatic
	}
	return Approved
}

func (r *Ramp) fill(every time.Duration) {
	if r.Shares == nil {
		r.Shares = []float64{0.1, 0.5, 1}
	}
	setZero(&r.Every, Duration(every))
}

// Length is the time from the first share to the last one.
func (r Ramp) Length() Duration { return Duration(max(len(r.Shares)-1, 0)) * r.Every }

func (o *ActivePassive) Validate() []Problem {
	var c checker
	c.object(o)
	s := o.Spec
	c.name("$.spec.service", string(s.Service))
	c.names("$.spec.order", texts(s.Order))
	if len(s.Order) < 2 {
		c.add(CodeList, "$.spec.order", "preferred first, for example [eu-west, us-east]", "%d sites: without a second one there is nowhere to go", len(s.Order))
	}
	if s.Failover.Mode != "" {
		c.oneOf("$.spec.failover.mode", s.Failover.Mode, Automatic, Approved, Manual)
	}
	c.positive("$.spec.failover.after", s.Failover.After)
	c.observers("$.spec.failover.observers", s.Failover.Observers)
	c.count("$.spec.failover.maxSwitches.count", s.Failover.MaxSwitches.Count, 1, 1000)
	c.positive("$.spec.failover.maxSwitches.per", s.Failover.MaxSwitches.Per)
	if x := s.Require.Capacity; x != nil && (*x < 0 || *x > 100 || !finite(*x)) {
		c.add(CodeValue, "$.spec.require.capacity", "1.0 = the target can serve the observed demand", "%v is out of range", *x)
	}
	c.oneOf("$.spec.failback.mode", s.Failback.Mode, Automatic, Approved, Manual)
	c.positive("$.spec.failback.after", s.Failback.After)
	c.ramp("$.spec.failback.ramp", s.Failback.Ramp)
	return c.problems
}

// observers: one observer is not a disaster.
func (c *checker) observers(path string, n int) {
	if n < 2 || n > 100 {
		c.add(CodeValue, path, "2 or more: one observer alone may be the one that is cut off", "%d observers", n)
	}
}

func (o *ActiveActive) TypeOf() Type    { return Type{Version, KindActiveActive} }
func (o *ActiveActive) Meta() *Metadata { return &o.Metadata }

func (o *ActiveActive) Default() {
	setType(o)
	s := &o.Spec
	setZero(&s.Evacuate.Mode, Automatic)
	setZero(&s.Evacuate.After, Duration(5*time.Second))
	setZero(&s.Evacuate.Observers, 2)
	setZero(&s.Shed.Capacity, 1)
	setZero(&s.Return.After, Duration(time.Minute))
	s.Return.Ramp.fill(30 * time.Second)
}

func (o *ActiveActive) Validate() []Problem {
	var c checker
	c.object(o)
	s := o.Spec
	c.name("$.spec.service", string(s.Service))
	c.weights(s.Weights)
	c.oneOf("$.spec.evacuate.mode", s.Evacuate.Mode, Automatic, Approved, Manual)
	c.positive("$.spec.evacuate.after", s.Evacuate.After)
	c.observers("$.spec.evacuate.observers", s.Evacuate.Observers)
	c.number("$.spec.shed.capacity", s.Shed.Capacity, 0, 10)
	c.positive("$.spec.return.after", s.Return.After)
	c.ramp("$.spec.return.ramp", s.Return.Ramp)
	return c.problems
}

func (c *checker) weights(weights map[SiteID]float64) {
	const path = "$.spec.weights"
	if len(weights) < 2 {
		c.add(CodeList, path, "for example {eu-west: 1, us-east: 1}", "%d sites: without a second one there is nowhere to go", len(weights))
	}
	sites := sortedKeys(weights)
	for _, site := range sites {
		c.name(child(path, string(site)), string(site))
		if w := weights[site]; !(w >= 0 && w <= 1e6) {
			c.add(CodeValue, child(path, string(site)), "a weight from 0 to 1000000", "%v is out of range", w)
		}
	}
	if len(weights) > 0 && !slices.ContainsFunc(sites, func(s SiteID) bool { return weights[s] > 0 }) {
		c.add(CodeValue, path, "give at least one site a weight above 0", "no site would get traffic")
	}
}
