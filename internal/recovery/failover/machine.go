package failover

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/recovery/pattern"
)

// Machine decides for one service. Its JSON form is what is persisted.
type Machine struct {
	Config Config `json:"config"`
	State  State  `json:"state"`
}

// New is the machine of a service that was never placed: at the first site of its order, or by its weights.
func New(c Config) Machine {
	m := Machine{Config: c, State: State{Phase: Steady, Sites: map[api.SiteID]SiteState{}}}
	if !c.activeActive() {
		m.State.Active = c.preferred()
	}
	d := decision{Config: c, State: &m.State}
	m.State.Shares = d.target()
	return m
}

// Parse reads a persisted machine. It refuses one that no Step can have made.
func Parse(b []byte) (Machine, error) {
	var m Machine
	if err := json.Unmarshal(b, &m); err != nil {
		return Machine{}, fmt.Errorf("read failover machine: %w", err)
	}
	last := len(m.Config.RampShares) - 1
	if last < 0 {
		return Machine{}, fmt.Errorf("read failover machine of %q: the ramp has no steps", m.Config.Service)
	}
	if r := m.State.Ramp; r != nil && (r.Step < -1 || r.Step > last) {
		return Machine{}, fmt.Errorf("read failover machine of %q: the ramp has no step %d", m.Config.Service, r.Step)
	}
	return m, nil
}

// Step is the machine after an event, and what to do now.
func (m Machine) Step(ev Event) (Machine, []Action) {
	state := m.State.clone()
	d := decision{Config: m.Config, State: &state, now: ev.when()}
	d.At = d.now
	switch ev := ev.(type) {
	case Observed:
		d.observed(ev)
	case Ordered:
		d.ordered(ev)
		if ev.DryRun {
			return m, d.actions
		}
	case Committed:
		d.committed(ev)
	case Acked:
		if ev.AllReachable {
			d.AckedEpoch = max(d.AckedEpoch, ev.Epoch)
		}
	case Drill:
		d.drill(ev)
	case Configured:
		d.configured(ev)
	case Restarted:
		d.restarted(m.State.At)
	case Tick:
	default:
		panic(fmt.Sprintf("internal error: unknown failover event %T", ev))
	}
	d.evaluate()
	d.setPhase()
	state.normalise()
	return Machine{Config: d.Config, State: state}, d.actions
}

// Placement is what the table should carry.
func (m Machine) Placement() pattern.Placement {
	return pattern.Placement{Active: m.State.Active, Shares: maps.Clone(m.State.Shares)}
}

// Status is the machine's part of the pattern's status. The epoch is the loop's to add.
func (m Machine) Status() api.PlacementStatus {
	st := api.PlacementStatus{
		ActiveSite: m.State.Active,
		Shares:     map[api.SiteID]float64{},
		Phase:      string(m.State.Phase),
		Reason:     m.State.Reason,
	}
	for site, w := range m.State.Shares {
		st.Shares[site] = w.Ratio()
	}
	if !m.State.Since.IsZero() {
		st.Since = m.State.Since.UTC().Format(time.RFC3339Nano)
	}
	return st
}

// decision is one step: the state that it may write to, and the actions so far.
type decision struct {
	Config
	*State
	now     time.Time
	actions []Action
}

func (d *decision) do(a Action) { d.actions = append(d.actions, a) }

// evaluate does what the facts and the time now call for. A loss comes first: it ends a ramp. It is looked at again
// when a ramp has moved, because the site that came into service may be the one that can take over.
func (d *decision) evaluate() {
	d.rampLost()
	d.leaveLost()
	number := d.Number
	d.advanceRamp()
	d.failBack()
	if d.Number != number {
		d.leaveLost()
	}
}

func (d *decision) leaveLost() {
	if d.activeActive() {
		d.evacuate()
		return
	}
	d.failOver()
}

func (d *decision) observed(ev Observed) {
	d.Demand.Rate, d.Demand.Known = ev.Demand, ev.DemandKnown
	d.ObjectivesKnown, d.ObjectivesMet = ev.ObjectivesKnown, ev.ObjectivesMet
	for _, site := range d.siteNames() {
		s := d.Sites[site]
		s.Facts = ev.Sites[site]
		left := slices.Contains(ev.Left, site) || (ev.Reflexed && site == d.Active)
		switch {
		case !left:
			s.LeftSince = time.Time{}
		case s.LeftSince.IsZero():
			s.LeftSince = d.now
		}
		d.Sites[site] = s
		d.judge(site)
	}
}

// judge brings the marks of a site in line with its facts and a person's declaration, and records the verdict lost
// and its end.
func (d *decision) judge(site api.SiteID) {
	s := d.Sites[site]
	state := s.state()
	if state == health.Unknown && s.Recorded && s.Facts.Workloads == 0 {
		state = health.Lost // its workloads were forgotten meanwhile; that nobody came back is no recovery
	}
	switch {
	case state != health.Lost:
		s.LostSince = time.Time{}
	case !s.lost():
		s.LostSince = d.now
		d.recordVerdict(site, s, state)
		if !s.Recorded {
			d.countLoss(site, &s) // once, until it has been ready again
		}
		s.Recorded = true
	}
	switch {
	case state != health.Ready:
		s.ReadySince = time.Time{}
	case !s.ready():
		s.ReadySince = d.now
		if s.Recorded {
			s.Recorded = false
			d.recordVerdict(site, s, state)
		}
	}
	d.Sites[site] = s
}

func (d *decision) recordVerdict(site api.SiteID, s SiteState, state health.State) {
	d.do(Record{
		Kind: RecordVerdict, At: d.now, Service: d.Service, Site: site, State: state,
		Observers: slices.Clone(s.Facts.Verdict.Agree), Declared: s.Declared, Drill: d.run(),
	})
}

// countLoss damps a flapping site: each loss within an hour of the one before doubles failback.after. Losses that a
// drill makes are no sign of a bad site.
func (d *decision) countLoss(site api.SiteID, s *SiteState) {
	if slices.Contains(d.returnTargets(), site) {
		d.Approved = nil // the word was given for a site that was coming back
	}
	if d.State.Drill != nil && d.State.Drill.Site == site {
		return
	}
	if !s.LastLoss.IsZero() && d.now.Sub(s.LastLoss) <= damping {
		s.Doublings++
	} else {
		s.Doublings = 0
	}
	s.LastLoss = d.now
}

// damping is both the span in which losses add up and the longest wait that they add up to.
const damping = time.Hour

// failbackAfter is how long the site must have been ready.
func (d *decision) failbackAfter(site api.SiteID) time.Duration {
	after := d.FailbackAfter
	for range d.Sites[site].Doublings {
		if after <= 0 || after >= damping {
			break
		}
		after = min(2*after, damping)
	}
	return after
}

func (d *decision) committed(ev Committed) {
	if d.Pending == nil || (ev.Number != 0 && ev.Number != d.Pending.Publish.Number) {
		return // of a decision that a newer one has replaced
	}
	d.Pending = nil
	if d.Ramp == nil {
		return
	}
	d.Ramp.Since, d.Ramp.Epoch = d.now, ev.Epoch
	if d.Ramp.Step == d.lastStep() {
		d.do(Record{Kind: RecordFailbackDone, At: d.now, Number: d.Number, Service: d.Service, To: d.Ramp.To,
			Cause: d.Ramp.Cause, Shares: maps.Clone(d.Shares), Drill: d.run()})
		// A proxy that is still away has its chance to come back before anything begins anew.
		if s := d.Sites[d.Ramp.To]; !s.LeftSince.IsZero() {
			s.LeftSince = d.now
			d.Sites[d.Ramp.To] = s
		}
		d.Ramp = nil
	}
}

func (d *decision) drill(ev Drill) {
	switch {
	case ev.Begin:
		d.State.Drill = &DrillRun{Run: ev.Run, Site: ev.Site}
	case d.State.Drill != nil && d.State.Drill.Run == ev.Run:
		d.State.Drill = nil
	}
}

// run is the drill run that is on, empty if there is none.
func (d *decision) run() string {
	if d.State.Drill == nil {
		return ""
	}
	return d.State.Drill.Run
}

// restarted: nobody watched since the last event. After a longer gap than an observation lasts, nothing is known any
// more: every dwell begins anew, and so does the step of a ramp.
func (d *decision) restarted(last time.Time) {
	if d.now.Sub(last) > health.Fresh {
		d.forgetFacts()
	}
	if d.Pending != nil {
		for _, r := range d.Pending.Records {
			d.do(r)
		}
		d.do(d.Pending.Publish)
	}
}

func (d *decision) forgetFacts() {
	d.Demand, d.ObjectivesKnown, d.ObjectivesMet = audit.Demand{}, false, false
	for site, s := range d.Sites {
		s.Facts, s.LostSince, s.ReadySince, s.LeftSince = SiteFacts{}, time.Time{}, time.Time{}, time.Time{}
		if s.Declared != "" {
			s.LostSince = d.now // a person's word does not grow old
		}
		d.Sites[site] = s
	}
	if d.Ramp != nil && d.Pending == nil {
		d.Ramp.Since = d.now
	}
}

// configured takes over what the operator changed. An active site that is no longer one of the pattern, or that
// residency now forbids, is left at once.
func (d *decision) configured(ev Configured) {
	final := d.Ramp != nil && d.Ramp.Step == d.lastStep()
	d.Config = ev.Config
	for site := range d.Sites {
		if !slices.Contains(d.Order, site) {
			delete(d.Sites, site)
		}
	}
	d.Evacuated = slices.DeleteFunc(d.Evacuated, func(s api.SiteID) bool { return !slices.Contains(d.Order, s) })
	if d.Ramp != nil && (!d.allowed(d.Ramp.To) || (d.Ramp.From != "" && !d.allowed(d.Ramp.From))) {
		d.Ramp = nil
	}
	if d.Ramp != nil {
		d.Ramp.Step = min(d.Ramp.Step, d.lastStep()-1)
		if final {
			d.Ramp.Step = d.lastStep()
		}
	}
	from := d.Active
	if d.activeActive() {
		d.Active = ""
	} else if !d.allowed(d.Active) {
		d.Active = d.nextOf(d.Active)
	}
	if shares := d.target(); !maps.Equal(shares, d.Shares) {
		d.publish(move{from: from, to: d.Active, cause: CauseConfig, actor: d.policy(), reason: "the pattern changed"})
	}
}

// nextOf is the best site after one that can no longer be active: the first that answers, else the preferred one.
func (d *decision) nextOf(site api.SiteID) api.SiteID {
	for _, to := range d.candidates(site) {
		if len(d.refusals(to, false)) == 0 {
			return to
		}
	}
	return d.preferred()
}

// siteNames is every site of the pattern once, in its order.
func (d *decision) siteNames() []api.SiteID {
	var out []api.SiteID
	for _, site := range d.Order {
		if !slices.Contains(out, site) {
			out = append(out, site)
		}
	}
	return out
}
