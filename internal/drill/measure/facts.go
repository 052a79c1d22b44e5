package measure

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// at is a payload with the index of its record.
type at[T any] struct {
	T     T
	Index int64
	When  time.Time // of the record
}

// facts is what the records of one run say, sorted out by kind.
type facts struct {
	run      string
	site     api.SiteID
	span     Span
	revertAt time.Time // first stop order
	applied  []at[fault.Report]
	ended    []at[fault.Report]
	orders   map[string]fault.Order
	probes   map[api.ServiceID]sample.Order // of the last attempt
	probeIDs map[string]bool                // orders that were ever replaced by a later attempt: false
	verdicts []at[record.Verdict]
	tables   []at[record.Table]
	acks     map[uint64][]at[record.Acks]
	reflexes []at[record.Reflex]
	begun    []at[record.Failback]
	done     []at[record.Failback]
	offset   time.Duration // largest, of any node
	verify   time.Duration // of the drill
}

func gather(in Input) (*facts, error) {
	f := &facts{
		run: in.Proposal.Run, site: in.Proposal.Drill.Spec.Scope.Site, verify: in.Proposal.Drill.Spec.Verify.D(),
		orders: map[string]fault.Order{},
		probes: map[api.ServiceID]sample.Order{}, probeIDs: map[string]bool{}, acks: map[uint64][]at[record.Acks]{},
	}
	for i, r := range in.Records {
		if i > 0 && r.Index <= in.Records[i-1].Index {
			return nil, fmt.Errorf("record %d follows record %d", r.Index, in.Records[i-1].Index)
		}
		if r.Run != f.run {
			continue // a bundle holds the records of its run alone: whoever measures must see the same
		}
		if err := f.take(r); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(f.tables, func(a, b at[record.Table]) int { return cmp.Compare(a.T.Epoch, b.T.Epoch) })
	return f, nil
}

func (f *facts) take(r evidence.Record) error {
	switch record.Kind(r.Kind) {
	case record.RunState:
		return with(r, func(s at[record.State]) { f.state(s.T, r.At) })
	case record.RunIntent:
		return with(r, func(i at[record.Intent]) { f.intent(i.T, r.At) })
	case record.FaultApplied:
		return with(r, func(x at[fault.Report]) { f.applied = append(f.applied, x); f.clock(x.T.ClockOffset) })
	case record.FaultEnded:
		return with(r, func(x at[fault.Report]) { f.ended = append(f.ended, x); f.clock(x.T.ClockOffset) })
	case record.SiteVerdict:
		return with(r, func(x at[record.Verdict]) { f.verdicts = append(f.verdicts, x) })
	case record.TableCommitted:
		return with(r, func(x at[record.Table]) { f.tables = append(f.tables, x) })
	case record.TableAcked:
		return with(r, func(x at[record.Acks]) { f.acks[x.T.Epoch] = append(f.acks[x.T.Epoch], x) })
	case record.ReflexLeft:
		return with(r, func(x at[record.Reflex]) { f.reflexes = append(f.reflexes, x) })
	case record.FailbackBegun:
		return with(r, func(x at[record.Failback]) { f.begun = append(f.begun, x) })
	case record.FailbackDone:
		return with(r, func(x at[record.Failback]) { f.done = append(f.done, x) })
	case record.Clocks:
		return with(r, func(x at[record.ClockOffsets]) {
			for _, n := range x.T.Nodes {
				f.clock(n.Offset)
			}
		})
	case record.RunClosed:
		f.span.End = r.At
	}
	return nil
}

func with[T any](r evidence.Record, use func(at[T])) error {
	v, err := record.Decode[T](r)
	if err != nil {
		return err
	}
	use(at[T]{T: v, Index: r.Index, When: r.At})
	return nil
}

func (f *facts) state(s record.State, when time.Time) {
	switch s.To {
	case "Baseline": // the last one: a restart begins a new baseline
		f.span.Baseline = when
	case "Injecting":
		f.span.Inject = when
	case "Holding":
		f.span.Hold = when
	case "Reverting":
		if f.span.Revert.IsZero() {
			f.span.Revert = when
		}
	case "Verifying":
		f.span.Verify = when
	}
}

func (f *facts) intent(i record.Intent, when time.Time) {
	switch {
	case i.What == "inject" && i.Fault != nil:
		f.orders[i.Fault.ID] = *i.Fault
	case i.What == "probe-start" && i.Probe != nil:
		if old, ok := f.probes[i.Probe.Service]; ok && old.ID != i.Probe.ID {
			f.probeIDs[old.ID] = false
		}
		f.probes[i.Probe.Service], f.probeIDs[i.Probe.ID] = *i.Probe, true
	case i.What == "revert" && f.revertAt.IsZero():
		f.revertAt = when
	}
}

func (f *facts) clock(offset time.Duration) { f.offset = max(f.offset, offset.Abs()) }

// injected is tI: the bracket of the first target whose fault ends by us, on the server's clock.
func (f *facts) injected() *Mark {
	var best *at[fault.Report]
	for i, a := range f.applied {
		if f.orders[a.T.Order].Kind == fault.ServerKill {
			continue
		}
		if _, to, _ := a.T.Bracket(); best == nil || to.Before(upper(best.T)) {
			best = &f.applied[i]
		}
	}
	if best == nil {
		return nil
	}
	from, to, _ := best.T.Bracket()
	return &Mark{At: from, Uncertainty: to.Sub(from), Source: recordSource(best.Index), Record: best.Index}
}

func upper(r fault.Report) time.Time {
	_, to, _ := r.Bracket()
	return to
}

func recordSource(i int64) string { return fmt.Sprintf("record %d", i) }

// faults joins what each target reported.
func (f *facts) faults() []Fault {
	byID := map[string]*Fault{}
	var ids []string
	get := func(r fault.Report) *Fault {
		if x, ok := byID[r.ID()]; ok {
			return x
		}
		o := f.orders[r.Order]
		x := &Fault{ID: r.ID(), Kind: o.Kind, Target: r.Target, Service: r.Service, Site: o.Site, Lease: o.Lease}
		byID[x.ID] = x
		ids = append(ids, x.ID)
		return x
	}
	mark := func(a at[fault.Report]) *Mark {
		from, to, _ := a.T.Bracket()
		return &Mark{At: to, Uncertainty: to.Sub(from), Source: recordSource(a.Index), Record: a.Index}
	}
	for _, a := range f.applied {
		x := get(a.T)
		if x.Applied == nil {
			x.Applied, x.AppliedProof = mark(a), a.T.Proof
		}
		if !x.Kind.HasUndo() {
			x.EndedBy, x.Proven = fault.ByNone, true
		}
	}
	for _, a := range f.ended {
		x := get(a.T)
		switch {
		case a.T.Phase == fault.Failed:
			x.Failed, x.Proven, x.Reason = true, false, a.T.Reason
		case a.T.Proven():
			x.Ended, x.EndedBy, x.Proof, x.Proven, x.Failed = mark(a), a.T.EndedBy, a.T.Proof, true, false
		default:
			x.Reason = a.T.Reason
		}
	}
	slices.Sort(ids)
	out := make([]Fault, len(ids))
	for i, id := range ids {
		out[i] = *byID[id]
	}
	return out
}

// lost is tD: the first verdict "lost" on the service at the drill's site at or after tI.
func (f *facts) lost(s api.ServiceID, tI time.Time) *Mark {
	for _, v := range f.verdicts {
		if v.T.Service == s && v.T.Site == f.site && v.T.State == "lost" && !v.T.At.Before(tI) {
			return &Mark{At: v.T.At, Source: recordSource(v.Index), Record: v.Index}
		}
	}
	return nil
}

// left is tC: the commit of the first table after tI in which the service has no share at the drill's site,
// though it had one before (or nobody knows what it had).
func (f *facts) left(s api.ServiceID, tI time.Time) (*at[record.Table], *Mark) {
	for i, t := range f.tables {
		shares, ok := t.T.Shares[s]
		if !ok || t.T.At.Before(tI) || shares[f.site] > 0 {
			continue
		}
		if i > 0 {
			if before, ok := f.tables[i-1].T.Shares[s]; ok && before[f.site] == 0 {
				continue
			}
		}
		return &f.tables[i], &Mark{At: t.T.At, Source: recordSource(t.Index), Record: t.Index}
	}
	return nil, nil
}

// acked joins the acknowledgements of an epoch that arrived before the faults were withdrawn: a proxy that came
// back with its site was not reachable when it counted.
func (f *facts) acked(epoch uint64) (acks []record.Ack, silent []api.NodeID, index int64) {
	first := map[api.NodeID]time.Time{}
	seen := map[api.NodeID]bool{}
	index = -1
	for _, r := range f.acks[epoch] {
		for _, a := range r.T.Acks {
			seen[a.Node] = true
			if !f.span.Revert.IsZero() && a.At.After(f.span.Revert) {
				continue
			}
			if t, ok := first[a.Node]; !ok || a.At.Before(t) {
				first[a.Node], index = a.At, r.Index
			}
		}
		for _, n := range r.T.Silent {
			seen[n] = true
		}
	}
	for n := range seen {
		if t, ok := first[n]; ok {
			acks = append(acks, record.Ack{Node: n, At: t})
		} else {
			silent = append(silent, n)
		}
	}
	slices.SortFunc(acks, func(a, b record.Ack) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Node, b.Node)) })
	slices.Sort(silent)
	return acks, silent, index
}

// tableSpan is when a table could be in force at a proxy: from its commit until a later one was acknowledged by all.
type tableSpan struct {
	from, to time.Time // to is zero if it was never replaced
	table    record.Table
}

func (f *facts) tableSpans() []tableSpan {
	var out []tableSpan
	for i, t := range f.tables {
		s := tableSpan{from: t.T.At, table: t.T}
		for _, next := range f.tables[i+1:] {
			var last time.Time
			for _, a := range f.acks[next.T.Epoch] {
				for _, x := range a.T.Acks {
					if x.At.After(last) {
						last = x.At
					}
				}
			}
			if !last.IsZero() {
				s.to = last
				break
			}
		}
		out = append(out, s)
	}
	return out
}
