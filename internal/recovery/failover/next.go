package failover

import (
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// Next is the earliest time at which a Tick would do something; zero if time alone changes nothing.
func (m Machine) Next() time.Time {
	state := m.State.clone()
	d := decision{Config: m.Config, State: &state, now: m.State.At}
	var next time.Time
	consider := func(t time.Time) {
		if t.After(d.now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if d.Mode != api.Manual {
		d.lossTimes(consider)
	}
	if d.Ramp != nil && d.Pending == nil {
		consider(d.Ramp.Since.Add(d.RampEvery))
	}
	for _, to := range d.returnTargets() {
		if due, ok := d.returnDue(to); ok {
			consider(due)
		}
	}
	return next
}

// lossTimes: the end of the dwell of each lost site in service, and the moment at which the limit of switches allows
// one again.
func (d *decision) lossTimes(consider func(time.Time)) {
	sites := []api.SiteID{d.Active}
	if d.activeActive() {
		sites = d.inService()
	}
	for _, site := range sites {
		if !d.Sites[site].lost() {
			continue
		}
		consider(d.Sites[site].LostSince.Add(d.After))
		if d.lostFor(site) {
			consider(d.limitUntil())
		}
	}
}
