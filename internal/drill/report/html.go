package report

import (
	_ "embed" // the page and its style
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/measure"
)

//go:embed page.html
var pageHTML string

//go:embed style.css
var styleCSS string

// HTML writes the report as one page: no script, no reference to anything outside, light and dark, fit for A4.
func HTML(w io.Writer, r Report) error {
	t, err := template.New("report").Parse(pageHTML)
	if err != nil {
		return fmt.Errorf("report page: %w", err)
	}
	p, err := newPage(r)
	if err != nil {
		return fmt.Errorf("report page of %s: %w", r.Run.ID, err)
	}
	if err := t.Execute(w, p); err != nil {
		return fmt.Errorf("report page of %s: %w", r.Run.ID, err)
	}
	return nil
}

// page is the report as the template prints it: every number is a text already.
type page struct {
	R                              Report
	CSS                            template.CSS
	Subject, When, Met             string
	Approved, Key, Safety, Clock   string
	Rows                           []serviceRow
	First, Findings                []findingRow
	Legend                         []legendRow
	Charts                         []chartRow
	Objectives                     []objectiveRow
	PhaseNames, AccountHead, Notes []string
	Phases, Accounts               [][]string
	Marks                          []markRow
	Faults                         []faultRow
	Timeline                       []eventRow
	Absent                         []string
}

type serviceRow struct {
	S                           Service
	Kind, Sentence, Phases, RTA string
	RTO                         string
	Bar                         template.HTML
}

type findingRow struct {
	ID, Severity, Code, What, Change, Predicted, Status, Evidence string
}

type legendRow struct {
	Name   string
	Swatch template.HTML
}

type chartRow struct {
	Service               string
	Focus, Whole, Latency template.HTML
	Step                  string
	Columns               []string
	Table                 [][]string
}

type objectiveRow struct {
	Service                                        api.ServiceID
	Name, Actual, Limit, Uncertainty, Verdict, Why string
}

type markRow struct {
	Service                                     api.ServiceID
	Name, What, Offset, At, Uncertainty, Source string
}

type faultRow struct{ Target, Kind, Applied, Ended, By, Proof string }

type eventRow struct {
	Offset, At, Actor, What string
	Record                  int64
}

func newPage(r Report) (*page, error) {
	p := &page{
		R: r, CSS: template.CSS(styleCSS), Subject: r.Run.Scenario + " at " + string(r.Run.Site), Met: r.mostlyMet(),
		Approved: approvedBy(r), Key: r.Log.Key, Clock: span(r.Environment.MaxClockOffset),
		PhaseNames:  []string{measure.Detect, measure.Decide, measure.Propagate, measure.Settle},
		AccountHead: []string{"service", "sent", "ok", "retried-ok", "slow", "shed", "unknown", "refused", "reset", "timeout", "status", "wrong answer", "executed twice"},
	}
	if p.Key == "" {
		p.Key = "not signed"
	}
	start, err := time.Parse(time.RFC3339Nano, r.Run.StartedAt)
	if err != nil {
		return nil, err
	}
	p.When = start.UTC().Format("2006-01-02 15:04:05") + " UTC, " + fixed(r.Run.Seconds, 0) + " s"
	for i, s := range r.Services {
		p.Rows = append(p.Rows, rowOf(i, s))
		p.results(s)
		for _, n := range s.Notes {
			p.Notes = append(p.Notes, string(s.Service)+": "+n)
		}
	}
	for _, f := range r.Findings {
		row := findingRow{ID: f.ID, Severity: f.Severity, Code: f.Code, What: f.What, Status: f.Status, Predicted: predictedText(f), Evidence: recordsText(f.Evidence)}
		if f.Change != nil {
			row.Change = f.Change.Resource + ": " + changeText(f.Change)
		}
		p.Findings = append(p.Findings, row)
		if len(p.First) == 0 && f.Change != nil {
			p.First = append(p.First, row)
		}
	}
	if len(p.First) == 0 && len(p.Findings) > 0 && p.Findings[0].Severity == "high" {
		p.First = p.Findings[:1]
	}
	p.safety(r)
	p.absent(r)
	if err := p.timeline(r); err != nil {
		return nil, err
	}
	return p, p.charts(r)
}

func approvedBy(r Report) string {
	var out []string
	for _, a := range r.Approvals {
		if a.Decision == "approve" {
			out = append(out, a.Group+" ("+a.By+")")
		}
	}
	if len(out) == 0 {
		return "not approved"
	}
	return "approved by " + strings.Join(out, ", ")
}

func recordsText(in []int64) string {
	if len(in) == 0 {
		return "none"
	}
	out := make([]string, len(in))
	for i, n := range in {
		out[i] = fmt.Sprintf("record %d", n)
	}
	return strings.Join(out, ", ")
}

func rowOf(i int, s Service) serviceRow {
	row := serviceRow{S: s, Kind: "decided", RTA: "RTA " + rtaText(s), Bar: rtaBar(fmt.Sprintf("bar%d", i), s)}
	if s.Reflex.Allowed {
		row.Kind = "reflex"
	}
	if s.RTA != nil {
		row.RTA += " ± " + upTo(s.Epsilon)
	}
	if o, ok := s.objective("rto"); ok {
		if x, ok := spanOf(o.Objective); ok {
			row.RTO = limit(x)
		}
	}
	failed := fmt.Sprintf("%s failed of %s", count(s.Account.Failed.Sum()), count(s.Account.Sent))
	switch s.Result {
	case measure.Absorbed:
		row.Sentence = "users saw nothing: " + failed
		if s.Account.Failed.Sum() > 0 {
			row.Sentence = "no bad window: " + failed
		}
	case measure.Recovered:
		row.Sentence = fmt.Sprintf("users hurt for %s ± %s: %s", span(*s.RTA), upTo(s.Epsilon), failed)
	case measure.NotRecovered:
		row.Sentence = fmt.Sprintf("users hurt for more than %s, to the end of the hold: %s", span(*s.RTA), failed)
	default:
		row.Sentence = s.Why
	}
	row.Phases = phaseLine(s)
	return row
}

// phaseLine is "detect 1.21 s | decide 1.02 s | ...", of the RTA, or else of the switch.
func phaseLine(s Service) string {
	var out []string
	switch {
	case s.BeforeSwitchSeconds != nil:
		out = append(out, "users recovered by reflex, "+span(*s.BeforeSwitchSeconds)+" before the switch")
	case len(s.Phases) > 0:
		for i, v := range shown(s.Phases, *s.RTA) {
			out = append(out, s.Phases[i].Name+" "+v+" s")
		}
		if s.LateAckSeconds != nil {
			out = append(out, "last acknowledgement "+span(*s.LateAckSeconds)+" later")
		}
		return strings.Join(out, " | ")
	}
	if s.SwitchSeconds != nil {
		out = append(out, "switch at "+offset(*s.SwitchSeconds))
		for i, v := range shown(s.Switch, *s.SwitchSeconds) {
			out = append(out, s.Switch[i].Name+" "+v+" s")
		}
	}
	return strings.Join(out, " | ")
}

// results fills the tables of one service.
func (p *page) results(s Service) {
	for _, o := range s.Verdicts {
		row := objectiveRow{Service: s.Service, Name: o.Name, Verdict: o.Verdict, Why: o.Why}
		row.Actual, row.Limit, row.Uncertainty = objectiveCells(o)
		p.Objectives = append(p.Objectives, row)
	}
	cells := append([]string{string(s.Service)}, phaseCells(s)...)
	rta := rtaText(s)
	if s.RTA != nil {
		rta += " ± " + upTo(s.Epsilon)
	}
	p.Phases = append(p.Phases, append(cells, rta, optional(s.SwitchSeconds), optional(s.SinceDecidedSeconds), optional(s.FailbackSeconds), span(s.Downtime.Total)))
	a := s.Account
	twice := "not counted"
	if a.Counted > 0 {
		twice = count(a.ExecutedTwice)
	}
	p.Accounts = append(p.Accounts, []string{string(s.Service), count(a.Sent), count(a.OK), count(a.RetriedOK), count(a.Slow), count(a.Shed), count(a.Unknown),
		count(a.Failed.Refused), count(a.Failed.Reset), count(a.Failed.Timeout), count(a.Failed.Status), count(a.Failed.WrongAnswer), twice})
	p.marks(s)
}

func optional(x *float64) string {
	if x == nil {
		return "-"
	}
	return span(*x)
}

// objectiveCells are the actual, the objective and the uncertainty of one objective.
func objectiveCells(o Objective) (actual, want, uncertainty string) {
	actual, uncertainty = "not measured", "-"
	w, isSpan := spanOf(o.Objective)
	a, _ := spanOf(o.Actual)
	u, _ := spanOf(o.Uncertainty)
	switch {
	case isSpan && o.Name == "latency":
		want = millis(int64(w*1e6 + 0.5))
		if o.Actual != "" {
			actual = millis(int64(a*1e6 + 0.5))
		}
	case isSpan:
		want = limit(w)
		if o.Actual != "" {
			actual, uncertainty = span(a), upTo(u)
		}
	default:
		var ratio, bound, wide float64
		_, _ = fmt.Sscan(o.Objective, &bound) // written by exactRatio
		want = share(bound)
		if o.Actual != "" {
			_, _ = fmt.Sscan(o.Actual, &ratio)
			_, _ = fmt.Sscan(o.Uncertainty, &wide)
			actual = percent(ratio)
			if wide > 0 {
				uncertainty = "+" + percent(wide)
			}
		}
	}
	return actual, want, uncertainty
}
