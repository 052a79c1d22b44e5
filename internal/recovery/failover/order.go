package failover

import (
	"fmt"
	"slices"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
)

// ordered does what a person asks for, or says which rules forbid it.
func (d *decision) ordered(ev Ordered) {
	switch ev.Verb {
	case VerbFailover:
		d.orderFailover(ev)
	case VerbFailback:
		d.orderFailback(ev)
	case VerbApprove:
		d.orderApproved(ev)
	case VerbDeclareLost:
		d.orderDeclared(ev)
	default:
		d.refuseIdle(ev, fmt.Sprintf("%q is not an order", ev.Verb), "order failover, failback, approve or declare-lost")
	}
}

// orderFailover moves everything to one site at once. It wins over a ramp and over the limit of switches.
func (d *decision) orderFailover(ev Ordered) {
	to := ev.To
	if to == "" && !d.activeActive() {
		to = d.firstFor(ev)
	}
	leaving := d.leaving(to)
	switch {
	case to == "":
		d.refuseIdle(ev, "the order names no site", "add --to, one of "+d.orderText())
		return
	case d.allowed(to) && len(leaving) == 0:
		d.refuseIdle(ev, fmt.Sprintf("%s already serves everything", to), "nothing is to be done")
		return
	}
	// Back to the site that a ramp is leaving: it carries the load already.
	stay := to == d.Active && d.Ramp != nil
	refusals := d.refusals(to, ev.Planned && !stay)
	if ev.Planned && !stay {
		for _, from := range leaving {
			refusals = append(refusals, d.lostPlanned(from)...)
		}
	}
	accepted, standing := overridden(refusals, ev.Override)
	if len(standing) > 0 {
		d.refuseOrder(ev.Actor, standing)
		return
	}
	mv := move{cause: CauseUnplanned, actor: ev.Actor, reason: ev.Reason, override: accepted}
	if ev.Planned {
		mv.cause = CausePlanned
	}
	if d.activeActive() {
		mv.to = to
		d.Evacuated = slices.DeleteFunc(d.Evacuated, func(s api.SiteID) bool { return s == to })
		d.evacuateSites(d.othersThan(to), mv)
	} else {
		d.moveTo(to, mv)
	}
	d.Held = ev.Planned && (d.activeActive() || to != d.preferred())
	if !ev.Planned {
		d.warn(to)
	}
}

// firstFor is the first site that the order may move to; if there is none, the first site, for its refusals.
func (d *decision) firstFor(ev Ordered) api.SiteID {
	sites := d.candidates(d.Active)
	for _, site := range sites {
		if _, standing := overridden(d.refusals(site, ev.Planned), ev.Override); len(standing) == 0 {
			return site
		}
	}
	if len(sites) == 0 {
		return ""
	}
	return sites[0]
}

// leaving lists the sites that have a share now and would have none if everything went to one site.
func (d *decision) leaving(to api.SiteID) []api.SiteID {
	var out []api.SiteID
	for _, site := range d.siteNames() {
		if site != to && d.Shares[site] > 0 {
			out = append(out, site)
		}
	}
	if len(out) == 0 && d.Shares[to] == 0 && to != "" {
		return []api.SiteID{""} // nobody serves it yet
	}
	return out
}

func (d *decision) othersThan(to api.SiteID) []api.SiteID {
	return slices.DeleteFunc(d.siteNames(), func(s api.SiteID) bool { return s == to })
}

// orderFailback is a person's word for the return, given before or after the site is ready for long enough. It also
// withdraws the declarations that keep the site lost.
func (d *decision) orderFailback(ev Ordered) {
	withdrawn := false
	for _, site := range d.siteNames() {
		if s := d.Sites[site]; s.Declared != "" && (ev.To == "" || ev.To == site) {
			s.Declared = ""
			d.Sites[site] = s
			d.judge(site)
			withdrawn = true
		}
	}
	targets := d.returnTargets()
	switch {
	case d.Ramp != nil:
		d.refuseIdle(ev, fmt.Sprintf("the fail-back to %s is on its way", d.Ramp.To), "wait, or stop it: livefire failover "+string(d.Service)+" --to "+string(d.Active))
		return
	case len(targets) == 0 && withdrawn:
		return
	case len(targets) == 0:
		d.refuseIdle(ev, "everything is where it belongs", "nothing is to be done")
		return
	case ev.To != "" && !slices.Contains(targets, ev.To):
		d.refuseIdle(ev, fmt.Sprintf("%s is not a site to return to", ev.To), "return to "+joinSites(targets))
		return
	}
	d.approveReturn(ev, targets[0])
}

func (d *decision) approveReturn(ev Ordered, to api.SiteID) {
	d.Held = false
	d.Approved = &Approval{Actor: ev.Actor, Reason: ev.Reason}
	cause := CauseFailback
	if d.isReflex(to) {
		cause = CauseReflex
	}
	d.do(Record{Kind: RecordOrder, At: d.now, Service: d.Service, From: d.Active, To: to, Cause: cause, Actor: ev.Actor, Reason: ev.Reason, Drill: d.run()})
}

// orderApproved is the word that an approved failover or fail-back waits for.
func (d *decision) orderApproved(ev Ordered) {
	targets := d.returnTargets()
	switch {
	case d.Awaiting == VerbFailback && len(targets) > 0:
		d.approveReturn(ev, targets[0])
	case d.Awaiting == VerbFailover && (!d.activeActive() || len(d.lostInService()) > 0):
		d.approveFailover(ev)
	default:
		d.refuseIdle(ev, "nothing waits for an approval", "see livefire status "+string(d.Service))
	}
}

func (d *decision) approveFailover(ev Ordered) {
	mv := move{cause: CauseLost, actor: ev.Actor, reason: ev.Reason}
	if d.activeActive() {
		due := d.lostInService()
		accepted, standing := overridden(d.survivorRefusals(due), ev.Override)
		if len(standing) > 0 {
			d.refuseOrder(ev.Actor, standing)
			return
		}
		mv.override = accepted
		d.evacuateSites(due, mv)
		return
	}
	ev.Planned = false
	to := ev.To
	if to == "" {
		to = d.firstFor(ev)
	}
	if to == d.Active {
		d.refuseIdle(ev, fmt.Sprintf("%s is the site that is lost", to), "approve another one of "+d.orderText())
		return
	}
	accepted, standing := overridden(d.refusals(to, false), ev.Override)
	if len(standing) > 0 {
		d.refuseOrder(ev.Actor, standing)
		return
	}
	mv.override = accepted
	d.moveTo(to, mv)
	d.warn(to)
}

// orderDeclared: a person says that a site is lost. The dwell and the mode hold as for observers.
func (d *decision) orderDeclared(ev Ordered) {
	switch s := d.Sites[ev.To]; {
	case !slices.Contains(d.Order, ev.To):
		d.refuseOrder(ev.Actor, d.refusals(ev.To, false))
	case s.Declared != "":
		d.refuseIdle(ev, fmt.Sprintf("%s is declared lost by %s already", ev.To, s.Declared), "nothing is to be done")
	default:
		s.Declared = ev.Actor
		d.Sites[ev.To] = s
		d.judge(ev.To)
	}
}

// refuseIdle answers an order that asks for nothing that could be done.
func (d *decision) refuseIdle(ev Ordered, message, fix string) {
	d.refuseOrder(ev.Actor, []refusal{{code: audit.CodeNothingToDo, to: ev.To, message: message, fix: fix}})
}
