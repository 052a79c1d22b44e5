package failover

import (
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
)

// returnTargets lists the sites that traffic should return to, the most wanted first: the preferred or the evacuated
// ones, then those that proxies left by reflex.
func (d *decision) returnTargets() []api.SiteID {
	var out []api.SiteID
	if d.activeActive() {
		for _, site := range d.siteNames() {
			if slices.Contains(d.Evacuated, site) && d.allowed(site) && d.Weights[site] > 0 {
				out = append(out, site)
			}
		}
		for _, site := range d.inService() {
			if !d.Sites[site].LeftSince.IsZero() {
				out = append(out, site)
			}
		}
		return out
	}
	if p := d.preferred(); p != "" && p != d.Active {
		out = append(out, p)
	}
	if d.Active != "" && !d.Sites[d.Active].LeftSince.IsZero() {
		out = append(out, d.Active)
	}
	return out
}

// isReflex: the site never lost its place; only proxies left it.
func (d *decision) isReflex(to api.SiteID) bool {
	if d.activeActive() {
		return !slices.Contains(d.Evacuated, to)
	}
	return to == d.Active
}

// returnDue is when a return to a site may begin; ok is false if time alone will not bring it.
func (d *decision) returnDue(to api.SiteID) (due time.Time, ok bool) {
	s := d.Sites[to]
	if !s.ready() || d.Ramp != nil || d.Pending != nil {
		return time.Time{}, false
	}
	if d.Approved == nil && (d.Held || d.FailbackMode == api.Manual) {
		return time.Time{}, false
	}
	if !d.activeActive() && d.Sites[d.Active].lost() {
		return time.Time{}, false // what is left is lost: that is a switch, not a ramp
	}
	from := s.ReadySince
	if d.Approved == nil && d.MovedAt.After(from) {
		from = d.MovedAt // somebody has just chosen to be away from it
	}
	if d.isReflex(to) && s.LeftSince.After(from) {
		from = s.LeftSince
	}
	return from.Add(d.failbackAfter(to)), true
}

// failBack begins the return to a site that has been ready for long enough.
func (d *decision) failBack() {
	targets := d.returnTargets()
	due := slices.DeleteFunc(slices.Clone(targets), func(to api.SiteID) bool {
		at, ok := d.returnDue(to)
		return !ok || d.now.Before(at)
	})
	if len(due) == 0 && d.Ramp == nil {
		d.RefusedFailback = ""
		if d.Awaiting == VerbFailback {
			d.Awaiting = ""
		}
		if len(targets) == 0 {
			d.Approved = nil
		}
	}
	var refused []refusal
	for _, to := range due {
		begun, why := d.beginReturn(to)
		if begun {
			return
		}
		refused = append(refused, why...)
	}
	if len(refused) > 0 {
		d.refuseAutomatic(VerbFailback, refused)
	}
}

// beginReturn starts the ramp to a site, unless a person must speak first or a rule refuses it.
func (d *decision) beginReturn(to api.SiteID) (begun bool, why []refusal) {
	if d.Approved == nil && d.FailbackMode == api.Approved {
		if d.Awaiting == VerbFailover {
			return false, nil // one question at a time, the worse one first
		}
		d.await(VerbFailback, to, fmt.Sprintf("%s has been ready for %s: the fail-back of %s waits for approval", to, d.failbackAfter(to), d.Service))
		return false, nil
	}
	if why := d.refusals(to, false); len(why) > 0 {
		return false, why
	}
	mv := move{to: to, from: d.Active, cause: CauseFailback, actor: d.policy(), reason: fmt.Sprintf("%s ready for %s", to, d.failbackAfter(to))}
	if d.Approved != nil {
		mv.actor, mv.reason, mv.silent = d.Approved.Actor, d.Approved.Reason, true
	}
	step := 0
	if d.isReflex(to) {
		mv.cause = CauseReflex
		mv.from = d.refuge(to)
		if mv.from == "" {
			step = d.lastStep() // nowhere to ramp from: a new table alone brings the proxies back
		}
	}
	d.Ramp = &Ramp{To: to, From: mv.from, Step: step, Cause: mv.cause, Actor: mv.actor}
	if d.activeActive() {
		d.Ramp.From = ""
	}
	d.Approved, d.Held, d.RefusedFailback = nil, false, ""
	if d.Awaiting == VerbFailback {
		d.Awaiting = ""
	}
	d.settleRamp()
	mv.renew = mv.cause == CauseReflex && step == d.lastStep()
	mv.extra = []Record{{Kind: RecordFailbackBegun, To: to, Cause: mv.cause, Actor: mv.actor, Reason: mv.reason}}
	d.publish(mv)
	return true, nil
}

// refuge is where the proxies that left a site by reflex are: the next site that answers; empty if there is none.
func (d *decision) refuge(left api.SiteID) api.SiteID {
	sites := d.candidates(left)
	if d.activeActive() {
		sites = d.inService()
	}
	for _, site := range sites {
		if ok, _ := audit.Answers(d.Sites[site].Facts); ok && site != left && !d.Sites[site].lost() {
			return site
		}
	}
	return ""
}

// settleRamp brings the active site, or the evacuated ones, in line with the step: only the last step makes the
// returning site the one that counts.
func (d *decision) settleRamp() {
	last := d.Ramp.Step == d.lastStep()
	if !d.activeActive() {
		d.Active = d.Ramp.From
		if last {
			d.Active = d.Ramp.To
		}
		return
	}
	d.Evacuated = slices.DeleteFunc(d.Evacuated, func(s api.SiteID) bool { return s == d.Ramp.To })
	if !last {
		d.Evacuated = append(d.Evacuated, d.Ramp.To)
		slices.Sort(d.Evacuated)
	}
}

// rampLost ends a ramp at once when the site that it leads to is lost: every share goes back, without a dwell, and
// the switch does not count.
func (d *decision) rampLost() {
	if d.Ramp == nil || !d.Sites[d.Ramp.To].lost() {
		return
	}
	r := *d.Ramp
	if d.activeActive() {
		if len(d.survivorRefusals([]api.SiteID{r.To})) > 0 && d.Ramp.Step == d.lastStep() {
			return // it is all there is
		}
		d.Ramp.Step = -1
		d.settleRamp()
	} else if r.From != "" {
		d.Active = r.From
	}
	d.moved()
	d.publish(move{from: r.To, to: r.From, cause: CauseLost, actor: d.policy(), reason: fmt.Sprintf("%s lost during the fail-back", r.To)})
}

// advanceRamp takes the next step when RampEvery has passed since the last one was committed, every reachable proxy
// has acknowledged it, the site is ready and the objectives are met; else it goes one step back. Objectives that are
// not known are not waited for.
func (d *decision) advanceRamp() {
	if d.Ramp == nil || d.Pending != nil || d.now.Before(d.Ramp.Since.Add(d.RampEvery)) {
		return
	}
	why := d.rampObjection()
	switch {
	case why == "":
		d.Ramp.Step++
		why = "next share"
	case d.Ramp.Step >= 0:
		d.Ramp.Step--
		why = "one step back: " + why
	case !d.Sites[d.Ramp.To].ready():
		d.Ramp = nil // nothing is there any more, and it is not ready: it begins anew when it has been ready for long enough
		return
	default:
		d.Ramp.Since = d.now
		return
	}
	d.settleRamp()
	d.publish(move{from: d.Ramp.From, to: d.Ramp.To, cause: d.Ramp.Cause, actor: d.Ramp.Actor, reason: why, silent: true,
		extra: []Record{{Kind: RecordFailbackStep, To: d.Ramp.To, Cause: d.Ramp.Cause, Actor: d.Ramp.Actor, Message: why}}})
}

// rampObjection is why the next step may not be taken, empty if it may.
func (d *decision) rampObjection() string {
	switch {
	case !d.Sites[d.Ramp.To].ready():
		return fmt.Sprintf("%s is %s", d.Ramp.To, d.Sites[d.Ramp.To].state())
	case d.AckedEpoch < d.Ramp.Epoch:
		return fmt.Sprintf("not every reachable proxy has acknowledged epoch %d", d.Ramp.Epoch)
	case d.ObjectivesKnown && !d.ObjectivesMet:
		return "the objectives are not met"
	}
	return ""
}
