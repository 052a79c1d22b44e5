package failover

import (
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
)

// lostFor says whether a site has been lost, without a break, for as long as a switch needs.
func (d *decision) lostFor(site api.SiteID) bool {
	s := d.Sites[site]
	return s.lost() && !d.now.Before(s.LostSince.Add(d.After))
}

// failOver leaves the active site of an ActivePassive when it has been lost for long enough.
func (d *decision) failOver() {
	from := d.Active
	if !d.Sites[from].lost() {
		d.forgetLoss()
		return
	}
	if !d.lostFor(from) || !d.mayMove([]api.SiteID{from}) {
		return
	}
	to, refusals := d.pick(from, false)
	if to == "" {
		d.refuseAutomatic(VerbFailover, refusals)
		return
	}
	d.countSwitch()
	d.moveTo(to, move{cause: CauseLost, actor: d.policy(), reason: fmt.Sprintf("%s lost for %s", from, d.After)})
	d.warn(to)
}

// evacuate takes the lost sites of an ActiveActive out of service, their shares going to the others in proportion.
func (d *decision) evacuate() {
	due := d.lostInService()
	if len(due) == 0 {
		d.forgetLoss()
		return
	}
	if !d.mayMove(due) {
		return
	}
	refusals := d.survivorRefusals(due)
	if len(refusals) > 0 {
		d.refuseAutomatic(VerbFailover, refusals)
		return
	}
	d.countSwitch()
	d.evacuateSites(due, move{cause: CauseLost, actor: d.policy(), reason: fmt.Sprintf("%s lost for %s", joinSites(due), d.After)})
}

// lostInService lists the sites in service that have been lost for long enough.
func (d *decision) lostInService() []api.SiteID {
	return slices.DeleteFunc(d.inService(), func(site api.SiteID) bool { return !d.lostFor(site) })
}

// inService lists the sites of an ActiveActive that carry their weight.
func (d *decision) inService() []api.SiteID {
	var out []api.SiteID
	for _, site := range d.siteNames() {
		if d.allowed(site) && d.Weights[site] > 0 && !slices.Contains(d.Evacuated, site) {
			out = append(out, site)
		}
	}
	return out
}

// survivorRefusals is empty if some site in service beside these may carry on.
func (d *decision) survivorRefusals(leaving []api.SiteID) []refusal {
	var all []refusal
	for _, site := range d.inService() {
		if slices.Contains(leaving, site) {
			continue
		}
		r := d.refusals(site, false)
		if len(r) == 0 {
			return nil
		}
		all = append(all, r...)
	}
	if len(all) == 0 {
		all = []refusal{{code: audit.CodeTargetNotReady, message: "target not ready: no other site is in service", fix: "bring one back"}}
	}
	return all
}

func (d *decision) evacuateSites(sites []api.SiteID, mv move) {
	d.Evacuated = append(d.Evacuated, sites...)
	slices.Sort(d.Evacuated)
	d.Evacuated = slices.Compact(d.Evacuated)
	mv.from = sites[0]
	for _, site := range sites[1:] {
		mv.extra = append(mv.extra, Record{Kind: RecordOrder, From: site, Cause: mv.cause, Actor: mv.actor, Reason: mv.reason, Override: mv.override})
	}
	d.moved()
	d.publish(mv)
}

// mayMove says whether the machine may act by itself on the loss of these sites. If not, it says so.
func (d *decision) mayMove(lost []api.SiteID) bool {
	switch {
	case d.Mode == api.Manual:
		return false
	case d.Mode == api.Approved:
		d.await(VerbFailover, lost[0], fmt.Sprintf("%s is lost: the failover of %s waits for approval", joinSites(lost), d.Service))
		return false
	case d.Stateful:
		d.Awaiting = VerbFailover
		d.refuseAutomatic(VerbFailover, []refusal{{code: audit.CodeNotFenced, to: "",
			message: fmt.Sprintf("not fenced: %s is stateful, and nothing stops %s from accepting writes", d.Service, joinSites(lost)),
			fix:     fmt.Sprintf("make sure that it is down, then: livefire failover %s --unplanned", d.Service)}})
		return false
	}
	if free := d.limitUntil(); !free.IsZero() {
		d.refuseAutomatic(VerbFailover, []refusal{{code: audit.CodeMaxSwitches,
			message: fmt.Sprintf("max switches: %d automatic switches in %s", d.MaxSwitches, d.SwitchWindow),
			fix:     fmt.Sprintf("find out why it flaps; by hand it always works: livefire failover %s --unplanned", d.Service)}})
		return false
	}
	return true
}

// limitUntil is when the next automatic switch is allowed again, zero if it is now.
func (d *decision) limitUntil() time.Time {
	var recent []time.Time
	for _, at := range d.Switches {
		if d.now.Before(at.Add(d.SwitchWindow)) {
			recent = append(recent, at)
		}
	}
	if d.MaxSwitches <= 0 || len(recent) < d.MaxSwitches {
		return time.Time{}
	}
	return recent[len(recent)-d.MaxSwitches].Add(d.SwitchWindow)
}

// countSwitch counts an automatic switch, unless a drill run made it necessary. Old ones are forgotten.
func (d *decision) countSwitch() {
	if d.State.Drill != nil || d.MaxSwitches <= 0 {
		return
	}
	d.Switches = slices.DeleteFunc(d.Switches, func(at time.Time) bool { return !d.now.Before(at.Add(d.SwitchWindow)) })
	d.Switches = append(d.Switches, d.now)
}

// moveTo makes a site of an ActivePassive the active one, whole and at once.
func (d *decision) moveTo(to api.SiteID, mv move) {
	mv.from, mv.to = d.Active, to
	if to == d.Active && d.Ramp != nil {
		mv.from = d.Ramp.To
	}
	d.Active = to
	d.moved()
	d.publish(mv)
}

// moved forgets what belonged to the placement that was left.
func (d *decision) moved() {
	d.MovedAt = d.now
	d.Ramp, d.Approved, d.Awaiting, d.Held = nil, nil, "", false
	d.RefusedFailover, d.RefusedFailback = "", ""
}

// forgetLoss: nothing is lost, so nothing is waited for and nothing is refused.
func (d *decision) forgetLoss() {
	d.RefusedFailover = ""
	if d.Awaiting == VerbFailover {
		d.Awaiting = ""
	}
}

// await says once that a person must speak.
func (d *decision) await(what Verb, site api.SiteID, message string) {
	if d.Awaiting == what {
		return
	}
	d.Awaiting = what
	order := fmt.Sprintf("livefire %s %s", what, d.Service)
	if what == VerbFailover {
		order += " --unplanned"
	}
	d.do(Finding{Code: audit.CodeApprovalOutstanding, Severity: "high", Service: d.Service, Site: site, What: message, Fix: order})
}

func joinSites(sites []api.SiteID) string {
	s := ""
	for i, site := range sites {
		if i > 0 {
			s += ", "
		}
		s += string(site)
	}
	return s
}

// setPhase names where the service stands.
func (d *decision) setPhase() {
	phase, reason := d.phase()
	d.Reason = reason
	if phase != d.Phase || d.Since.IsZero() {
		d.Phase, d.Since = phase, d.now
	}
}

func (d *decision) phase() (Phase, string) {
	watched := []api.SiteID{d.Active}
	if d.activeActive() {
		watched = d.inService()
	}
	switch {
	case d.Ramp != nil:
		return FailingBack, fmt.Sprintf("to %s, share %.4g", d.Ramp.To, d.rampShare())
	case d.Pending != nil:
		return Switching, d.Pending.Publish.Reason
	}
	for _, site := range watched {
		switch s := d.Sites[site]; {
		case s.lost() && d.RefusedFailover != "":
			return Refused, fmt.Sprintf("%s is lost; refused: %s", site, d.RefusedFailover)
		case s.lost() && d.Awaiting == VerbFailover:
			return Lost, fmt.Sprintf("%s is lost; waits for approval", site)
		case s.lost():
			return Lost, fmt.Sprintf("%s is lost", site)
		}
	}
	for _, site := range watched {
		if d.Sites[site].state() == health.Suspect {
			return Suspect, fmt.Sprintf("%s: %s", site, d.Sites[site].Facts.Verdict.Reason)
		}
	}
	return Steady, d.steadyReason()
}

func (d *decision) steadyReason() string {
	switch targets := d.returnTargets(); {
	case d.Held:
		return "placed by a person; livefire failback returns it"
	case len(targets) == 0:
		return ""
	case d.Awaiting == VerbFailback:
		return fmt.Sprintf("fail-back to %s waits for approval", targets[0])
	case d.RefusedFailback != "":
		return fmt.Sprintf("fail-back to %s refused: %s", targets[0], d.RefusedFailback)
	case d.Approved != nil:
		return fmt.Sprintf("fail-back to %s approved by %s; starts when it has been ready for %s", targets[0], d.Approved.Actor, d.failbackAfter(targets[0]))
	default:
		return fmt.Sprintf("fail-back to %s when it has been ready for %s", targets[0], d.failbackAfter(targets[0]))
	}
}
