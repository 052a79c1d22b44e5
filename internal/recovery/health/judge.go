package health

import (
	"fmt"
	"slices"

	"github.com/livefire-mesh/livefire/api"
)

// MinObservers is the least number of observers that can call a site lost.
const MinObservers = 2

// Judge says how a service is at a site, from the observations that are fresh at snap.At and not abstaining.
//
// endpoints are the workloads that the table holds there; what an observer says of others is ignored, and an
// observer that does not know an endpoint has no opinion on it. observers is how many must agree before the
// site is lost; less than MinObservers means MinObservers.
//
//   - Lost: at least that many observers outside the site each see every endpoint bad, and no observer outside
//     the site sees one healthy. What observers inside the site see does not count.
//   - Suspect: somebody sees every endpoint bad, or nobody sees one healthy, and it is not lost.
//   - Ready: every observer outside the site sees every endpoint healthy. If nobody outside reports at all, those
//     inside are believed: after the loss of the other site they are all that is left.
//   - Unknown: no endpoint, or nobody has an opinion. Degraded: anything else.
//
// The server is an observer outside every site. It sees leases end, so it can call an endpoint gone, but a living
// lease is no proof of health: its good opinion counts for nothing.
func Judge(snap Snapshot, service api.ServiceID, site api.SiteID, endpoints []string, observers int) Verdict {
	v := Verdict{Service: service, Site: site, Endpoints: len(endpoints)}
	if len(endpoints) == 0 {
		v.State, v.Reason = Unknown, "no endpoint"
		return v
	}
	opinions := opinionsOf(snap, service, site, endpoints)
	v.Healthy = len(healthy(opinions, endpoints))

	var outside, inside tally
	for _, o := range opinions {
		if !o.outside {
			inside.add(o)
			continue
		}
		outside.add(o)
		if o.bad == len(endpoints) {
			v.Agree = append(v.Agree, o.observer)
		}
		if o.good > 0 {
			v.Disagree = append(v.Disagree, o.observer)
		}
	}
	v.State, v.Reason = state(v, outside, inside, max(observers, MinObservers))
	return v
}

func state(v Verdict, outside, inside tally, observers int) (State, string) {
	switch {
	case outside.opinions+inside.opinions == 0:
		return Unknown, "no observer reports"
	case len(v.Agree) >= observers && len(v.Disagree) == 0:
		return Lost, fmt.Sprintf("%d observers outside the site see every endpoint bad", len(v.Agree))
	case len(v.Agree) > 0 && len(v.Disagree) > 0:
		return Suspect, fmt.Sprintf("%d see every endpoint bad, %d disagree", len(v.Agree), len(v.Disagree))
	case len(v.Agree) > 0:
		return Suspect, fmt.Sprintf("%d of %d observers see every endpoint bad", len(v.Agree), observers)
	case outside.good+inside.good == 0:
		return Suspect, "nobody outside the site sees every endpoint, and nobody sees a healthy one"
	case outside.watchers > 0 && outside.allGood(v.Endpoints):
		return Ready, ""
	case outside.watchers == 0 && outside.bad == 0 && inside.allGood(v.Endpoints):
		return Ready, "seen from inside the site only"
	}
	return Degraded, fmt.Sprintf("%d of %d endpoints healthy", v.Healthy, v.Endpoints)
}

// Healthy lists the endpoints that at least half of the observers see healthy, in the order given. It is what a
// verdict counts, by name: the sum of their capacities is what the site can carry.
func Healthy(snap Snapshot, service api.ServiceID, site api.SiteID, endpoints []string) []string {
	return healthy(opinionsOf(snap, service, site, endpoints), endpoints)
}

// Observers lists who outside the site reports on it now: those who could call it lost.
func Observers(snap Snapshot, service api.ServiceID, site api.SiteID) []api.NodeID {
	var out []api.NodeID
	for _, o := range latest(snap, service, site) {
		if outsideOf(o, site) {
			out = append(out, o.Observer)
		}
	}
	return out
}

// opinion is what one observer says of the endpoints that are asked for.
type opinion struct {
	observer  api.NodeID
	outside   bool
	views     map[string]bool // endpoint -> healthy
	good, bad int
}

type tally struct {
	opinions, watchers int // watchers: those that are not the server
	good, bad          int
	least              int // fewest good endpoints that a watcher sees
}

func (t *tally) add(o opinion) {
	t.opinions++
	t.good += o.good
	t.bad += o.bad
	if o.observer == ServerObserver {
		return
	}
	if t.watchers == 0 || o.good < t.least {
		t.least = o.good
	}
	t.watchers++
}

func (t tally) allGood(endpoints int) bool {
	return t.watchers > 0 && t.bad == 0 && t.least == endpoints
}

func opinionsOf(snap Snapshot, service api.ServiceID, site api.SiteID, endpoints []string) []opinion {
	var out []opinion
	for _, obs := range latest(snap, service, site) {
		o := opinion{observer: obs.Observer, outside: outsideOf(obs, site), views: map[string]bool{}}
		for _, e := range obs.Endpoints {
			if !slices.Contains(endpoints, e.Workload) || (e.Healthy && obs.Observer == ServerObserver) {
				continue
			}
			o.views[e.Workload] = e.Healthy
		}
		for _, ok := range o.views {
			if ok {
				o.good++
			} else {
				o.bad++
			}
		}
		if len(o.views) > 0 {
			out = append(out, o)
		}
	}
	return out
}

// latest is the last observation of each observer that counts now, sorted by observer.
func latest(snap Snapshot, service api.ServiceID, site api.SiteID) []Observation {
	var out []Observation
	first, _ := slices.BinarySearchFunc(snap.Observations, Observation{Service: service, Site: site}, compareObservations)
	for _, o := range snap.Observations[first:] {
		if o.Service != service || o.Site != site {
			break // sorted by service and site
		}
		i := slices.IndexFunc(out, func(x Observation) bool { return x.Observer == o.Observer })
		switch {
		case i < 0:
			out = append(out, o)
		case !o.At.Before(out[i].At):
			out[i] = o
		}
	}
	out = slices.DeleteFunc(out, func(o Observation) bool { return !o.counts(snap.At) })
	slices.SortFunc(out, compareObservations)
	return out
}

// outsideOf: an observer whose site nobody knows proves nothing about another site, unless it is the server.
func outsideOf(o Observation, site api.SiteID) bool {
	if o.Observer == ServerObserver {
		return true
	}
	return o.ObserverSite != "" && o.ObserverSite != site
}

func healthy(opinions []opinion, endpoints []string) []string {
	var out []string
	for _, e := range endpoints {
		good, all := 0, 0
		for _, o := range opinions {
			ok, known := o.views[e]
			if known {
				all++
			}
			if ok {
				good++
			}
		}
		if good > 0 && 2*good >= all {
			out = append(out, e)
		}
	}
	return out
}
