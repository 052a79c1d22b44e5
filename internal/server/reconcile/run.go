package reconcile

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
	"github.com/livefire-mesh/livefire/internal/server/ledger"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const drillPrefix = "/livefire/drill/"

// run is one drill run with what the machine does not need to know. Only saved is stored.
type run struct {
	machine drill.Machine
	saved   savedRun
	parsed  record.Proposal

	chunks    map[string]*chunkState // by probe order
	live      []userapi.Live
	placed    map[string]api.NodeID // order name -> agent that holds it
	counting  bool
	counted   map[string]bool       // workloads whose executions are stored
	expected  map[string]api.NodeID // workloads that must be counted, with their agents
	renewedAt time.Time             // of probe and count orders
	working   bool                  // measuring or writing the bundle
	resumeBy  time.Time             // a new term tells the machine of itself by then; zero: it has
	steady    bool                  // last health that the machine was told
}

// savedRun is what is stored beside the machine.
type savedRun struct {
	Proposal  []byte                                        `json:"proposal"`
	Original  map[api.ServiceID]map[api.SiteID]route.Weight `json:"original"` // shares at the start
	StepAt    time.Time                                     `json:"stepAt"`
	Report    string                                        `json:"report,omitempty"` // directory of the bundle
	Findings  []string                                      `json:"findings,omitempty"`
	RTA       map[api.ServiceID]string                      `json:"rta,omitempty"` // as measured, for the status
	Approvals map[string][]byte                             `json:"approvals"`     // envelopes by group
}

func newRun(m drill.Machine, s savedRun) (*run, error) {
	r := &run{machine: m, saved: s, chunks: map[string]*chunkState{}, placed: map[string]api.NodeID{}, counted: map[string]bool{}}
	if r.saved.Approvals == nil {
		r.saved.Approvals = map[string][]byte{}
	}
	if err := json.Unmarshal(s.Proposal, &r.parsed); err != nil {
		return nil, fmt.Errorf("decode proposal: %w", err)
	}
	return r, nil
}

func (r *run) id() string        { return r.machine.Config.Run }
func (r *run) state() drill.Name { return r.machine.State.State }

// open says whether records may still be added to the run.
func (r *run) open() bool { return r.state() != drill.Done }

// object is the run as people read it.
func (r *run) object() *api.DrillRun {
	st := r.machine.State
	o := &api.DrillRun{
		Type:     api.Type{APIVersion: api.Version, Kind: api.KindDrillRun},
		Metadata: api.Metadata{Name: r.id()},
		Spec:     api.DrillRunSpec{Drill: r.machine.Config.Drill, RunBy: r.machine.Config.By, RunByKey: r.machine.Config.ByKey},
		Status: api.DrillRunStatus{State: string(st.State), Verdict: string(st.Verdict), Reason: st.Reason, Restored: st.Restored,
			ProposalSHA256: st.SHA256, Findings: r.saved.Findings, StartedAt: stamp(st.StartedAt), EndedAt: stamp(st.EndedAt), Report: r.saved.Report},
	}
	for _, a := range st.Approvals {
		o.Status.Approvals = append(o.Status.Approvals, api.Approval{Group: a.Group, By: a.By, Key: a.Key, At: stamp(a.At), Digest: "sha256:" + a.SHA256})
	}
	return o
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func (r *run) summary() userapi.RunSummary {
	st := r.machine.State
	return userapi.RunSummary{ID: r.id(), Drill: r.machine.Config.Drill, Scenario: r.machine.Config.Scenario, State: string(st.State),
		Verdict: string(st.Verdict), Reason: st.Reason, Started: stamp(st.StartedAt), Ended: stamp(st.EndedAt), Findings: len(r.saved.Findings)}
}

func (r *run) view() userapi.Run {
	return userapi.Run{Run: *r.object(), Proposal: r.saved.Proposal, Missing: r.machine.Missing(), Expect: string(r.machine.Config.Expect)}
}

func (r *run) ops() ([]store.Op, error) {
	machine, err := json.Marshal(r.machine)
	if err != nil {
		return nil, fmt.Errorf("encode run %s: %w", r.id(), err)
	}
	saved, err := json.Marshal(r.saved)
	if err != nil {
		return nil, fmt.Errorf("encode run %s: %w", r.id(), err)
	}
	object, err := putOp(r.object())
	if err != nil {
		return nil, err
	}
	return []store.Op{
		{Key: drillPrefix + r.id() + "/machine", Value: machine, IfRevision: store.AnyRevision},
		{Key: drillPrefix + r.id() + "/saved", Value: saved, IfRevision: store.AnyRevision},
		object,
	}, nil
}

// stepRun takes the active run one event further: what it decides is stored and recorded in one transaction, then done.
// The error is the machine's refusal of the event, or a failed write.
func (l *Loop) stepRun(ctx context.Context, ev drill.Event) error {
	r := l.run
	if r == nil {
		return nil
	}
	events := []drill.Event{ev}
	var refused error
	for len(events) > 0 {
		ev, events = events[0], events[1:]
		if ev.At.IsZero() {
			ev.At = l.cfg.Clock()
		}
		before := encode(r.machine)
		next, actions := r.machine.Step(ev)
		if len(actions) == 0 && encode(next) == before {
			continue
		}
		more, err := l.commitStep(ctx, r, ev, next, actions)
		if err != nil {
			return err
		}
		for _, a := range actions {
			if a.Kind == drill.ActRefuse {
				refused = a.Err
			}
		}
		events = append(events, more...)
	}
	return refused
}

// commitStep stores one step, then carries out its effects; it returns the events that these lead to at once.
func (l *Loop) commitStep(ctx context.Context, r *run, ev drill.Event, next drill.Machine, actions []drill.Action) ([]drill.Event, error) {
	from := r.state()
	var entries []ledger.Entry
	for _, a := range actions {
		if a.Kind == drill.ActRecord {
			actor := "server"
			if a.Actor != "" {
				actor = "user:" + a.Actor
			}
			e := l.entry(a.Record, actor, r.id(), a.Payload)
			e.At = ev.At
			entries = append(entries, e)
		}
	}
	r.machine = next
	r.saved.StepAt = ev.At
	if from != next.State.State {
		entries = slices.Concat(l.stateEntries(r, from), entries)
	}
	ops, err := r.ops()
	if err != nil {
		return nil, err
	}
	if _, err := l.commit(ctx, ops, entries...); err != nil {
		return nil, err
	}
	if from != next.State.State {
		l.cfg.Logger.Info("run changed state", "run", r.id(), "from", from, "to", next.State.State, "reason", next.State.Reason)
		if err := l.runStateChanged(ctx, r); err != nil {
			return nil, err
		}
	}
	var events []drill.Event
	for _, a := range actions {
		more, err := l.effect(ctx, r, a)
		if err != nil {
			return nil, err
		}
		events = append(events, more...)
	}
	if next.State.State == drill.Approved && from != drill.Approved {
		// Whoever opened the run wanted it to run: the last approval starts it.
		events = append(events, drill.Event{Kind: drill.Start, By: next.Config.By})
	}
	return events, nil
}

// stateEntries are the facts that a measurement needs at a change of state: the clocks, and the table in force at the start.
func (l *Loop) stateEntries(r *run, from drill.Name) []ledger.Entry {
	var out []ledger.Entry
	if r.state() == drill.Done || from == drill.Draft {
		return nil // run.proposed opens the run, run.closed ends it
	}
	if from == drill.Approved {
		out = append(out, l.entry(record.TableCommitted, "server", fmt.Sprintf("epoch/%d", l.table.Epoch), l.tableRecord(l.table, "in force when the run started")))
	}
	switch r.state() {
	case drill.Baseline, drill.Injecting, drill.Holding, drill.Reverting:
	default:
		// Nothing is measured yet, or no longer: nodes that the drill has just started again do not know their clocks well.
		return out
	}
	offsets := record.ClockOffsets{Nodes: []record.ClockOffset{}}
	for _, node := range sortedKeys(l.nodes) {
		if f := l.nodes[node]; !f.at.IsZero() {
			offsets.Nodes = append(offsets.Nodes, record.ClockOffset{Node: node, Offset: f.heartbeat.ClockOffset, Error: f.heartbeat.ClockError})
		}
	}
	return append(out, l.entry(record.Clocks, "server", r.id(), offsets))
}

// RunDrill renders a drill's proposal and opens a run that waits for approvals.
func (l *Loop) RunDrill(ctx context.Context, by, byKey, name string, req userapi.RunRequest) (out userapi.Run, err error) {
	err = l.do(ctx, func(ctx context.Context) error {
		if l.run != nil && l.run.open() && !req.PlanOnly {
			return api.Errorf(api.Conflict, "drill/"+name, "run %s is %s: one run at a time", l.run.id(), l.run.state()).
				WithHint("livefire drill watch %s; or livefire drill abort %s --reason TEXT", l.run.id(), l.run.id())
		}
		if l.lever.Engaged && !req.PlanOnly {
			return api.Errorf(api.Denied, "drill/"+name, "the safety lever is engaged by %s: %s", l.lever.By, l.lever.Reason).
				WithCode("LF3109").WithHint("livefire lever release --reason TEXT (role admin)")
		}
		id, err := l.nextRunID(ctx, name)
		if err != nil {
			return err
		}
		proposal, parsed, err := l.render(id, name, req.Parameters)
		if err != nil {
			return err
		}
		cfg, err := drill.Configure(parsed, by, byKey)
		if err != nil {
			return err
		}
		machine, _ := drill.New(cfg, l.cfg.Clock())
		r, err := newRun(machine, savedRun{Proposal: proposal})
		if err != nil {
			return err
		}
		if req.PlanOnly {
			out = r.view()
			return nil
		}
		l.retire()
		l.run = r
		if err := l.stepRun(ctx, drill.Event{Kind: drill.Rendered, SHA256: sha256Hex(proposal)}); err != nil {
			return err
		}
		out = r.view()
		return nil
	})
	return out, err
}

// retire keeps the finished run readable.
func (l *Loop) retire() {
	if l.run != nil {
		l.ended[l.run.id()] = l.run
		l.run = nil
	}
}

// nextRunID is "<drill>-<yyyymmdd>-<n>".
func (l *Loop) nextRunID(ctx context.Context, name string) (string, error) {
	base := name + "-" + l.cfg.Clock().Format("20060102") + "-"
	items, _, err := l.cfg.Store.List(ctx, drillPrefix+base)
	if err != nil {
		return "", err
	}
	n := 0
	for _, it := range items {
		rest, _, _ := strings.Cut(strings.TrimPrefix(it.Key, drillPrefix+base), "/")
		var k int
		if _, err := fmt.Sscanf(rest, "%d", &k); err == nil {
			n = max(n, k)
		}
	}
	return fmt.Sprintf("%s%d", base, n+1), nil
}

// render makes the proposal's bytes from what stands in the store now: the same input gives the same bytes.
func (l *Loop) render(id, name string, parameters map[string]string) ([]byte, record.Proposal, error) {
	var p record.Proposal
	d, ok := lookup[*api.Drill](l.res, api.KindDrill, name)
	if !ok {
		return nil, p, api.Errorf(api.NotFound, "drill/"+name, "does not exist").WithHint("livefire get Drill")
	}
	sc, ok := lookup[*api.Scenario](l.res, api.KindScenario, d.Spec.Scenario)
	if !ok {
		return nil, p, api.Errorf(api.Invalid, "drill/"+name, "scenario %s does not exist", d.Spec.Scenario).WithHint("livefire get Scenario")
	}
	p = record.Proposal{Run: id, Drill: *d, Software: l.cfg.Software}
	p.Drill.Metadata.Revision = 0
	p.Drill.Spec.Parameters = merged(d.Spec.Parameters, parameters)
	filled, err := drill.Fill(*sc, p.Drill.Spec)
	if err != nil {
		return nil, p, err
	}
	filled.Metadata.Revision = 0
	p.Scenario = filled
	l.renderServices(&p)
	targets := l.targets(d.Spec.Scope)
	p.Blast = record.BlastRadius{Site: d.Spec.Scope.Site, Services: d.Spec.Scope.Services, Processes: len(targets),
		MaxTargets: d.Spec.Scope.MaxTargets, LeasePath: "kept"}
	for _, f := range filled.Spec.Faults {
		if f.Kind == "server-kill" {
			p.Blast.LeasePath = "cut" // nobody renews the leases: their end is the revert
		}
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, p, fmt.Errorf("encode proposal: %w", err)
	}
	return append(b, '\n'), p, nil
}

func (l *Loop) renderServices(p *record.Proposal) {
	named := slices.Clone(p.Drill.Spec.Scope.Services)
	for _, pr := range p.Drill.Spec.Probes {
		named = append(named, pr.Service)
	}
	for _, g := range p.Drill.Spec.Guardrails {
		named = append(named, g.Service)
	}
	slices.Sort(named)
	for _, name := range slices.Compact(named) {
		if svc, ok := l.res.service(name); ok {
			s := *svc
			s.Metadata.Revision = 0
			p.Services = append(p.Services, s)
		}
		each(l.res, func(o *api.ActivePassive) {
			if o.Spec.Service == name {
				x := *o
				x.Metadata.Revision, x.Status = 0, nil
				p.ActivePassive = append(p.ActivePassive, x)
			}
		})
		each(l.res, func(o *api.ActiveActive) {
			if o.Spec.Service == name {
				x := *o
				x.Metadata.Revision, x.Status = 0, nil
				p.ActiveActive = append(p.ActiveActive, x)
			}
		})
	}
}

func merged(a, b map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range a {
		out[k] = v
	}
	for k, v := range b {
		out[k] = v
	}
	return out
}

// targets are the names of the processes that a fault at the scope's site would hit now, as its agents report them.
func (l *Loop) targets(scope api.DrillScope) []string {
	var out []string
	for _, node := range sortedKeys(l.nodes) {
		f := l.nodes[node]
		if f.heartbeat.Agent == nil || f.heartbeat.Agent.Site != scope.Site {
			continue
		}
		if _, alive := l.regs[node]; !alive {
			continue
		}
		for _, p := range f.heartbeat.Agent.Processes {
			if slices.Contains(scope.Services, p.Service) {
				out = append(out, p.Name)
			}
		}
	}
	slices.SortFunc(out, cmp.Compare[string])
	return out
}
