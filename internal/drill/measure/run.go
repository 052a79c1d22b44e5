package measure

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

// Run measures a run from its records and samples.
func Run(in Input) (Result, error) {
	f, err := gather(in)
	if err != nil {
		return Result{}, fmt.Errorf("measure %s: %w", in.Proposal.Run, err)
	}
	res := Result{Run: f.run, Span: f.span, Faults: f.faults(), MaxOffset: f.offset}
	for _, name := range services(in.Proposal) {
		svc, offset, err := measureService(name, in, f)
		if err != nil {
			return Result{}, fmt.Errorf("measure %s: %s: %w", in.Proposal.Run, name, err)
		}
		res.MaxOffset = max(res.MaxOffset, offset)
		res.Services = append(res.Services, svc)
	}
	res.Revert = f.revertTime(res.Faults)
	res.Blast = blast(in.Proposal, res)
	res.Verdict, res.Reason = overall(res.Services)
	return res, nil
}

// services are those in scope, then those that are only probed.
func services(p record.Proposal) []api.ServiceID {
	out := slices.Clone(p.Drill.Spec.Scope.Services)
	for _, x := range p.Drill.Spec.Probes {
		if !slices.Contains(out, x.Service) {
			out = append(out, x.Service)
		}
	}
	return out
}

func specOf(p record.Proposal, s api.ServiceID) api.ServiceSpec {
	for _, x := range p.Services {
		if api.ServiceID(x.Metadata.Name) == s {
			return x.Spec
		}
	}
	return api.ServiceSpec{}
}

// measureService measures one service; offset is the largest clock offset that entered.
func measureService(name api.ServiceID, in Input, f *facts) (svc Service, offset time.Duration, err error) {
	spec := specOf(in.Proposal, name)
	pattern, reflex, sites := patternOf(in.Proposal, name)
	j := judge{spans: f.tableSpans(), service: name, usable: sites}
	if l := spec.Objectives.Latency; l != nil {
		j.latency = l.P99.D()
	}
	st, err := streamOf(name, f, in.Chunks, j)
	if err != nil {
		return Service{}, 0, err
	}
	tI := f.injected()
	svc = Service{
		Name: name, Pattern: pattern, Reflex: reflex, Probed: len(st.points) > 0,
		InScope: slices.Contains(in.Proposal.Drill.Spec.Scope.Services, name),
		Window:  windowOf(st.interval, spec.Objectives.Success), Notes: st.notes,
	}
	svc.Epsilon = st.interval + max(f.offset, st.offset)
	if tI != nil {
		svc.Epsilon += tI.Uncertainty
	}
	t := newTally(st, spec.Objectives.Success, j.latency > 0)
	svc.marks(f, st, t, tI)
	svc.phases()
	svc.counts(f, st, t, in)
	svc.Objectives = objectives(spec.Objectives, &svc, st)
	svc.Series = seriesOf(st, f.span)
	return svc, max(f.offset, st.offset), nil
}

// marks fills in the marks, the result and the RTA.
func (svc *Service) marks(f *facts, st *stream, t *tally, tI *Mark) {
	if tI == nil {
		svc.Result, svc.Why = NotMeasured, "no fault took effect"
		return
	}
	m := &svc.Marks
	m.TI = tI
	if svc.InScope {
		svc.control(f, tI.At)
	}
	if f.span.Revert.IsZero() {
		svc.Result, svc.Why = NotMeasured, "the end of the hold is not on record"
		return
	}
	r := t.recover(tI.At, f.span.Revert, svc.Window)
	svc.Result, svc.Why = r.result, r.why
	mark := func(i int) *Mark {
		p := st.points[i]
		return &Mark{At: p.at, Uncertainty: st.interval, Source: "sample " + p.id, Record: -1}
	}
	if r.x >= 0 && r.result != Absorbed {
		m.TX = mark(r.x)
	}
	switch r.result {
	case Recovered:
		m.TR = mark(r.r)
		svc.RTA = m.TR.At.Sub(tI.At)
	case NotRecovered:
		svc.RTA = r.badTo.Sub(tI.At) // at least
	}
	svc.failback(f, t, st)
}

// control fills in the marks of the control clock.
func (svc *Service) control(f *facts, tI time.Time) {
	m := &svc.Marks
	for _, x := range f.reflexes {
		if x.T.Service == svc.Name && x.T.From == f.site && !x.T.At.Before(tI) && (m.TE == nil || x.T.At.Before(m.TE.At)) {
			m.TE = &Mark{At: x.T.At, Uncertainty: x.T.ClockError, Source: recordSource(x.Index), Record: x.Index}
		}
	}
	m.TD = f.lost(svc.Name, tI)
	table, tC := f.left(svc.Name, tI)
	m.TC = tC
	if tC == nil {
		return
	}
	acks, silent, index := f.acked(table.T.Epoch)
	p := &Propagation{Epoch: table.T.Epoch, Acked: len(acks), Silent: silent}
	if n := len(acks); n > 0 {
		last := acks[n-1]
		m.TP = &Mark{At: last.At, Source: recordSource(index), Record: index}
		p.P50, p.P99 = acks[(n+1)/2-1].At.Sub(tC.At), acks[rank99(n)-1].At.Sub(tC.At)
		p.Max, p.Slowest = last.At.Sub(tC.At), last.Node
	}
	svc.Propagation = p
}

// failback fills in tV, tF and tB.
func (svc *Service) failback(f *facts, t *tally, st *stream) {
	m := &svc.Marks
	for _, x := range f.faults() {
		if x.Ended != nil && (m.TV == nil || x.Ended.At.After(m.TV.At)) {
			m.TV = x.Ended
		}
		if !x.Proven {
			m.TV = nil // not confirmed on every target
			break
		}
	}
	if m.TC == nil {
		return
	}
	for _, b := range f.begun {
		if b.T.Service == svc.Name && b.T.At.After(m.TC.At) {
			m.TF = &Mark{At: b.T.At, Source: recordSource(b.Index), Record: b.Index}
			break
		}
	}
	for _, d := range f.done {
		if d.T.Service != svc.Name || !d.T.At.After(m.TC.At) {
			continue
		}
		if i := t.settled(d.T.At, svc.Window, f.verify); i >= 0 {
			at, source := st.points[i].at, "sample "+st.points[i].id
			m.TB = &Mark{At: at, Uncertainty: st.interval, Source: source, Record: d.Index}
		}
		break
	}
	if m.TF != nil && m.TB != nil {
		d := m.TB.At.Sub(m.TF.At)
		svc.Failback = &d
	}
}

// settled is the first sample at or after a moment from which every window within a span meets the objectives.
func (t *tally) settled(from time.Time, w, span time.Duration) int {
	if len(t.points) == 0 {
		return -1
	}
	end := t.points[len(t.points)-1].at.Add(t.interval)
	i := t.first(from)
	for i < len(t.points) && !t.points[i].at.Add(max(span, w)).After(end) {
		last, final := t.worst(t.points[i].at, t.points[i].at.Add(max(span, w)), w)
		if last < 0 && !final {
			return i
		}
		i = max(last, i) + 1
	}
	return -1
}

// phases cuts the RTA and the switch time into their parts. Each is a difference of two marks that are on record,
// so their sums are exact; a part whose marks are missing or in another order is joined to its neighbour.
func (svc *Service) phases() {
	m := svc.Marks
	if m.TI == nil || m.TC == nil {
		if m.TR != nil && svc.InScope {
			svc.Notes = append(svc.Notes, "users recovered without a switch")
		}
		return
	}
	parts := func(end time.Time) []Phase { // from tI to end, which is not before tC
		var out []Phase
		from := m.TI.At
		if m.TD != nil && !m.TD.At.After(m.TC.At) {
			out = append(out, Phase{Detect, m.TD.At.Sub(from)})
			from = m.TD.At
		}
		out = append(out, Phase{Decide, m.TC.At.Sub(from)})
		return append(out, Phase{Propagate, end.Sub(m.TC.At)})
	}
	if m.TD == nil || m.TD.At.After(m.TC.At) {
		svc.Notes = append(svc.Notes, "decided before the detector judged the site lost: no detect phase")
	}
	if m.TP != nil {
		svc.SwitchPhases = parts(m.TP.At)
		total := m.TP.At.Sub(m.TI.At)
		svc.Switch = &total
	} else {
		svc.Notes = append(svc.Notes, "no acknowledgement of the switch is on record")
	}
	if m.TR == nil {
		return
	}
	since := m.TR.At.Sub(m.TC.At)
	switch {
	case !m.TR.At.After(m.TC.At):
		svc.ReflexLead = m.TC.At.Sub(m.TR.At)
		return
	case m.TP != nil && m.TR.At.After(m.TP.At):
		svc.Phases = append(parts(m.TP.At), Phase{Settle, m.TR.At.Sub(m.TP.At)})
	default:
		svc.Phases = parts(m.TR.At)
		if m.TP != nil {
			svc.LateAck = m.TP.At.Sub(m.TR.At)
		}
	}
	svc.SinceDecided = &since
}

// counts fills in the accounts.
func (svc *Service) counts(f *facts, st *stream, t *tally, in Input) {
	m := svc.Marks
	always := func(time.Time) bool { return true }
	svc.hurtFrom, svc.hurtTo = svc.hurtSpan(f)
	svc.HurtSpan = svc.hurtTo.Sub(svc.hurtFrom)
	hurt := func(when time.Time) bool { return !when.Before(svc.hurtFrom) && when.Before(svc.hurtTo) }
	svc.Account = st.account(always)
	svc.Account.ExecutedTwice, svc.Account.Counted = executions(f.run, svc.Name, in.Executions)
	svc.Hurt = st.account(hurt)
	svc.Outside = st.account(func(when time.Time) bool { return !hurt(when) })
	svc.ServedBy = map[api.SiteID]int{}
	for _, p := range st.points {
		if p.class.good() || p.class == slow {
			svc.ServedBy[p.site]++
			if m.TI != nil && p.site != f.site && !p.at.Before(m.TI.At) && svc.InScope && beforeSwitch(m, f, p.at) {
				svc.ReflexServed++
			}
		}
	}
	if m.TI != nil && len(st.points) > 0 {
		svc.Downtime = t.downtime(m.TI.At, st.points[len(st.points)-1].at.Add(st.interval), svc.Window)
	}
}

// hurtSpan is [tI, tR), to the end of the hold if the service did not recover or nobody can tell, empty if users were
// not hurt.
func (svc *Service) hurtSpan(f *facts) (from, to time.Time) {
	switch m := svc.Marks; {
	case m.TI == nil || svc.Result == Absorbed || f.span.Revert.Before(m.TI.At):
		return time.Time{}, time.Time{}
	case m.TR != nil:
		return m.TI.At, m.TR.At
	default:
		return m.TI.At, f.span.Revert
	}
}

func beforeSwitch(m Marks, f *facts, when time.Time) bool {
	if m.TC != nil {
		return when.Before(m.TC.At)
	}
	return when.Before(f.span.Revert)
}

// revertTime is from the stop order, or from an earlier end by lease, to the last proof; nil if one is missing.
func (f *facts) revertTime(faults []Fault) *time.Duration {
	if f.revertAt.IsZero() {
		return nil
	}
	var last time.Time
	for _, x := range faults {
		if !x.Kind.HasUndo() {
			continue
		}
		if !x.Proven || x.Ended == nil {
			return nil
		}
		if x.Ended.At.After(last) {
			last = x.Ended.At
		}
	}
	if last.IsZero() || last.Before(f.revertAt) {
		return nil // every fault had ended by itself before the stop order
	}
	d := last.Sub(f.revertAt)
	return &d
}

func blast(p record.Proposal, r Result) Blast {
	b := Blast{
		Predicted: p.Blast.Processes, MaxTargets: p.Blast.MaxTargets, ErrorBudget: p.Blast.ErrorBudget,
		FailedShare: map[api.ServiceID]float64{},
	}
	targets := map[string]bool{}
	for _, x := range r.Faults {
		if x.Applied != nil && x.Kind.HasUndo() {
			targets[cmp.Or(x.Target, x.ID)] = true
		}
	}
	b.Actual = len(targets)
	for _, s := range r.Services {
		if n := s.Account.Admitted(); n > 0 {
			b.FailedShare[s.Name] = float64(s.Account.Failed()) / float64(n)
		}
	}
	return b
}
