package failover

import (
	"maps"
	"slices"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// move is why the shares change.
type move struct {
	from, to             api.SiteID
	cause, actor, reason string
	override             []string
	renew                bool
	silent               bool // the order is in the log already
	extra                []Record
}

// publish sets the shares that the state calls for and orders the table that carries them.
func (d *decision) publish(mv move) {
	d.Shares = d.target()
	d.Number++
	var records []Record
	if !mv.silent {
		records = append(records, Record{Kind: RecordOrder, At: d.now, Number: d.Number, Service: d.Service, From: mv.from, To: mv.to,
			Cause: mv.cause, Actor: mv.actor, Reason: mv.reason, Override: mv.override, Drill: d.run()})
	}
	for _, r := range mv.extra {
		r.At, r.Number, r.Service, r.Shares, r.Drill = d.now, d.Number, d.Service, maps.Clone(d.Shares), d.run()
		records = append(records, r)
	}
	p := Publish{Number: d.Number, Service: d.Service, Active: d.Active, Shares: maps.Clone(d.Shares), Renew: mv.renew,
		Cause: mv.cause, Actor: mv.actor, Reason: mv.reason, Drill: d.run()}
	d.Pending = &Pending{Publish: p, Records: records}
	for _, r := range records {
		d.do(r)
	}
	d.do(p)
}

// target is the shares that the active site, the evacuated sites and the ramp add up to.
func (d *decision) target() map[api.SiteID]route.Weight {
	if d.activeActive() {
		return d.activeActiveShares()
	}
	if d.Active == "" {
		return map[api.SiteID]route.Weight{}
	}
	if d.Ramp == nil {
		return map[api.SiteID]route.Weight{d.Active: route.Whole}
	}
	f := d.rampShare()
	return nonZero(route.Shares(map[api.SiteID]float64{d.Ramp.To: f, d.Ramp.From: 1 - f}))
}

// activeActiveShares: the weights of the sites in service; the site on the ramp gets its share of that times the
// ramp's, and the others carry the rest in proportion.
func (d *decision) activeActiveShares() map[api.SiteID]route.Weight {
	weights := map[api.SiteID]float64{}
	others := 0.0
	for _, site := range d.siteNames() {
		if d.allowed(site) && !slices.Contains(d.Evacuated, site) {
			weights[site] = d.Weights[site]
			others += d.Weights[site]
		}
	}
	if d.Ramp != nil && d.Ramp.Step < d.lastStep() {
		back := d.Weights[d.Ramp.To]
		full := back / (back + others)
		share := full * d.rampShare()
		if others == 0 || share >= 1 {
			return map[api.SiteID]route.Weight{d.Ramp.To: route.Whole}
		}
		weights[d.Ramp.To] = others * share / (1 - share)
	}
	return nonZero(route.Shares(weights))
}

// rampShare is the share of the whole that the ramp has reached.
func (d *decision) rampShare() float64 {
	if d.Ramp.Step < 0 {
		return 0
	}
	return d.RampShares[d.Ramp.Step]
}

func (d *decision) lastStep() int { return len(d.RampShares) - 1 }

func nonZero(shares map[api.SiteID]route.Weight) map[api.SiteID]route.Weight {
	maps.DeleteFunc(shares, func(_ api.SiteID, w route.Weight) bool { return w == 0 })
	return shares
}
