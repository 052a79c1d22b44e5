package report

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/measure"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

// Input is everything that a report is computed from.
type Input struct {
	measure.Input
	Checkpoint []byte // signed note that covers the last record
	Log        evidence.Checkpoint
}

// Build computes the report of a run. It fails for records or samples that contradict themselves.
func Build(in Input) (Report, error) {
	res, err := measure.Run(in.Input)
	if err != nil {
		return Report{}, fmt.Errorf("report: %w", err)
	}
	b := &builder{in: in, res: res}
	if len(in.Records) == 0 {
		return Report{}, fmt.Errorf("report %s: no records", in.Proposal.Run)
	}
	b.out = Report{
		APIVersion: api.Version, Kind: Kind, Findings: []Finding{}, Approvals: []Approval{}, Prechecks: []record.Rule{},
		Log: Log{
			Size: in.Log.Size, Checkpoint: string(in.Checkpoint), Key: in.Log.Origin,
			First: in.Records[0].Index, Last: in.Records[len(in.Records)-1].Index,
		},
	}
	b.safety()
	if err := b.run(); err != nil {
		return Report{}, fmt.Errorf("report %s: %w", in.Proposal.Run, err)
	}
	b.services()
	b.findings()
	if err := b.environment(); err != nil {
		return Report{}, fmt.Errorf("report %s: %w", in.Proposal.Run, err)
	}
	return b.out, nil
}

// Encode is the bytes of report.json: one line, one line feed at the end. Equal reports give equal bytes.
func (r Report) Encode() ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode report %s: %w", r.Run.ID, err)
	}
	return append(b, '\n'), nil
}

// Objectives are the lines that the statement of a bundle carries, with the texts of the report.
func (r Report) Objectives() []evidence.Objective {
	var out []evidence.Objective
	for _, s := range r.Services {
		for _, o := range s.Verdicts {
			out = append(out, evidence.Objective{
				Service: string(s.Service), Name: o.Name, Objective: o.Objective, Actual: o.Actual,
				Uncertainty: o.Uncertainty, Verdict: o.Verdict,
			})
		}
	}
	return out
}

type builder struct {
	in      Input
	res     measure.Result
	out     Report
	closed  *record.Closed
	started time.Time
}

// betterThanMeasured is a deviation with which no bundle is verified.
const betterThanMeasured = "closed as passed, though the samples give"

// run reads what the records say of the run as a whole.
func (b *builder) run() error {
	p, recs := b.in.Proposal, b.in.Records
	r := &b.out.Run
	*r = Run{
		ID: p.Run, Drill: p.Drill.Metadata.Name, Scenario: p.Drill.Spec.Scenario, Parameters: p.Drill.Spec.Parameters,
		Site: p.Drill.Spec.Scope.Site, Measured: b.res.Verdict, ProposedAt: stamp(recs[0].At), EndedAt: stamp(recs[len(recs)-1].At),
		Verdict: "incomplete", Reason: "the terminal record is missing",
	}
	b.started = recs[0].At
	for _, e := range recs {
		if err := b.event(e); err != nil {
			return err
		}
	}
	r.StartedAt, r.Seconds = stamp(b.started), recs[len(recs)-1].At.Sub(b.started).Seconds()
	if tI := b.injected(); !tI.IsZero() {
		r.InjectedAt = stamp(tI)
		for i := range b.out.Timeline {
			at, err := time.Parse(time.RFC3339Nano, b.out.Timeline[i].At)
			if err != nil {
				return err
			}
			s := at.Sub(tI).Seconds()
			b.out.Timeline[i].Offset = &s
		}
	}
	if b.closed == nil {
		return nil
	}
	r.Verdict, r.Reason, r.Restored, r.Deviations = b.closed.Verdict, b.closed.Reason, b.closed.Restored, b.closed.Deviations
	if r.Verdict == measure.Passed && r.Measured != measure.Passed {
		r.Deviations = append(slices.Clone(r.Deviations), fmt.Sprintf("%s: %s (%s)", betterThanMeasured, r.Measured, b.res.Reason))
	}
	if r.Reason == "" && r.Verdict == r.Measured {
		r.Reason = b.res.Reason
	}
	return nil
}

func (b *builder) injected() time.Time {
	for _, s := range b.res.Services {
		if s.Marks.TI != nil {
			return s.Marks.TI.At
		}
	}
	return time.Time{}
}

func seconds(d *time.Duration) *float64 {
	if d == nil {
		return nil
	}
	s := d.Seconds()
	return &s
}

func positive(d time.Duration) *float64 {
	if d <= 0 {
		return nil
	}
	return seconds(&d)
}

func (b *builder) services() {
	for _, s := range b.res.Services {
		x := Service{
			Service: s.Name, Pattern: s.Pattern, Reflex: Reflex{s.Reflex, s.ReflexServed}, InScope: s.InScope, Result: s.Result,
			Why: s.Why, Epsilon: s.Epsilon.Seconds(), Window: s.Window.Seconds(), Verdicts: []Objective{},
			Phases: phasesOf(s.Phases), Switch: phasesOf(s.SwitchPhases), SwitchSeconds: seconds(s.Switch),
			SinceDecidedSeconds: seconds(s.SinceDecided), LateAckSeconds: positive(s.LateAck), BeforeSwitchSeconds: positive(s.ReflexLead),
			FailbackSeconds: seconds(s.Failback), HurtSeconds: positive(s.HurtSpan), BudgetConsumed: s.Budget, Notes: s.Notes,
			Downtime: Downtime{s.Downtime.Total.Seconds(), s.Downtime.Longest.Seconds()},
			Account:  accountOf(s.Account), Hurt: accountOf(s.Hurt), Outside: accountOf(s.Outside), ServedBy: s.ServedBy,
			Series: seriesOf(s.Series), Marks: marksOf(s.Marks),
		}
		if s.Result != measure.NotMeasured {
			x.RTA = seconds(&s.RTA)
		}
		if s.Result == measure.Recovered {
			x.By = "switch"
			if len(s.Phases) == 0 {
				x.By = "reflex"
			}
		}
		if p := s.Propagation; p != nil {
			x.Propagation = &Propagation{Epoch: p.Epoch, P50: p.P50.Seconds(), P99: p.P99.Seconds(), Max: p.Max.Seconds(),
				Acked: p.Acked, Slowest: p.Slowest, Silent: append([]api.NodeID{}, p.Silent...)}
		}
		for _, o := range s.Objectives {
			x.Verdicts = append(x.Verdicts, objectiveOf(o))
		}
		b.out.Services = append(b.out.Services, x)
	}
}

func objectiveOf(o measure.Objective) Objective {
	text := exactRatio
	if o.Unit == "s" {
		text = func(x float64) string { return exact(time.Duration(x*1e9 + 0.5)) }
	}
	out := Objective{Name: o.Name, Objective: text(o.Limit), Verdict: o.Verdict, Why: o.Why}
	if o.Measured {
		out.Actual, out.Uncertainty = text(o.Actual), text(o.Uncertainty)
	}
	return out
}

func phasesOf(in []measure.Phase) []Phase {
	out := []Phase{}
	for _, p := range in {
		out = append(out, Phase{p.Name, p.Took.Seconds()})
	}
	return out
}

func marksOf(m measure.Marks) Marks {
	one := func(x *measure.Mark) *Mark {
		if x == nil {
			return nil
		}
		return &Mark{At: stamp(x.At), Uncertainty: exact(x.Uncertainty), Source: x.Source}
	}
	return Marks{TI: one(m.TI), TX: one(m.TX), TE: one(m.TE), TD: one(m.TD), TC: one(m.TC), TP: one(m.TP), TR: one(m.TR),
		TV: one(m.TV), TF: one(m.TF), TB: one(m.TB)}
}

func accountOf(a measure.Account) Account {
	return Account{
		Sent: a.Sent, OK: a.OK, RetriedOK: a.RetriedOK, Slow: a.Slow, Shed: a.Shed, Unknown: a.Unknown,
		Failed:        Failed{a.Refused, a.Reset, a.Timeout, a.Status, a.WrongAnswer},
		ExecutedTwice: a.ExecutedTwice, Counted: a.Counted,
	}
}

func seriesOf(s measure.Series) Series {
	return Series{Start: stamp(s.Start), Seconds: s.Width.Seconds(), Sites: s.Sites, Retried: s.Retry, Slow: s.Slow,
		Failed: s.Failed, Shed: s.Shed, P50: s.P50, P99: s.P99}
}

func (b *builder) findings() {
	for i, f := range measure.Findings(b.res, b.in.Proposal) {
		x := Finding{
			ID: FindingID(b.res.Run, i+1), Service: f.Service, Severity: f.Severity, Code: f.Code, What: f.What,
			Evidence: append([]int64{}, f.Evidence...), Change: f.Change, Status: f.Status,
		}
		if p := f.Predicted; p != nil {
			x.Predicted = fmt.Sprintf("RTA %s", exact(time.Duration(p.After*1e9+0.5)))
		}
		b.out.Findings = append(b.out.Findings, x)
	}
}

// FindingID names the n-th finding of a run, from 1, in the order of measure.Findings.
func FindingID(run string, n int) string { return fmt.Sprintf("F-%s-%d", run, n) }

func (b *builder) safety() {
	s := Safety{Faults: []Fault{}, Guardrails: []string{}, Restarts: []string{}, RevertSeconds: seconds(b.res.Revert)}
	for _, f := range b.res.Faults {
		x := Fault{ID: f.ID, Kind: string(f.Kind), Target: f.Target, Service: f.Service, Site: f.Site, Lease: f.Lease.Seconds(),
			EndedBy: f.EndedBy, Check: f.Proof, Proven: f.Proven, Reason: f.Reason}
		if f.Applied != nil {
			x.AppliedAt = stamp(f.Applied.At)
		}
		if f.Ended != nil {
			x.EndedAt, x.Proof = stamp(f.Ended.At), f.Ended.Source
		}
		s.Faults = append(s.Faults, x)
	}
	bl := b.res.Blast
	s.Blast = Blast{Predicted: bl.Predicted, Actual: bl.Actual, MaxTargets: bl.MaxTargets, PredictedFailed: bl.ErrorBudget, ActualFailed: bl.FailedShare}
	b.out.Safety = s
}

func (b *builder) environment() error {
	p := b.in.Proposal
	e := Environment{Software: p.Software, MaxClockOffset: b.res.MaxOffset.Seconds(), Timezone: "UTC", Records: len(b.in.Records), Chunks: len(b.in.Chunks)}
	var err error
	add := func(kind api.Kind, name string, spec any) {
		raw, e2 := json.Marshal(spec)
		err = errors.Join(err, e2)
		sum := sha256.Sum256(raw)
		e.Digests = append(e.Digests, Digest{string(kind) + "/" + name, hex.EncodeToString(sum[:])})
	}
	add(api.KindDrill, p.Drill.Metadata.Name, p.Drill.Spec)
	add(api.KindScenario, p.Scenario.Metadata.Name, p.Scenario.Spec)
	for _, x := range p.Services {
		add(api.KindService, x.Metadata.Name, x.Spec)
	}
	for _, x := range p.ActivePassive {
		add(api.KindActivePassive, x.Metadata.Name, x.Spec)
	}
	for _, x := range p.ActiveActive {
		add(api.KindActiveActive, x.Metadata.Name, x.Spec)
	}
	b.out.Environment = e
	return err
}
