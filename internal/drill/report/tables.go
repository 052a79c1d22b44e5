package report

import (
	"fmt"
	"html/template"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/measure"
)

// marks fills the table of marks of one service.
func (p *page) marks(s Service) {
	m := s.Marks
	if m.TI == nil {
		return
	}
	zero, err := time.Parse(time.RFC3339Nano, m.TI.At)
	if err != nil {
		return // Build wrote it; a report from elsewhere shows no marks then
	}
	for _, x := range []struct {
		name, what string
		m          *Mark
	}{
		{"tI", "fault effective on the first target", m.TI}, {"tX", "first bad sample", m.TX}, {"tE", "first proxy left by reflex", m.TE},
		{"tD", "site judged lost", m.TD}, {"tC", "first table that leaves the site committed", m.TC},
		{"tP", "last reachable proxy acknowledged it", m.TP}, {"tR", "users well again", m.TR}, {"tV", "last fault proven gone", m.TV},
		{"tF", "fail-back decided", m.TF}, {"tB", "original shares restored, objectives met", m.TB},
	} {
		if x.m == nil {
			continue
		}
		row := markRow{Service: s.Service, Name: x.name, What: x.what, At: clock(x.m.At), Source: x.m.Source}
		if at, err := time.Parse(time.RFC3339Nano, x.m.At); err == nil {
			row.Offset = offset(at.Sub(zero).Seconds())
		}
		if u, ok := spanOf(x.m.Uncertainty); ok {
			row.Uncertainty = upTo(u)
		}
		p.Marks = append(p.Marks, row)
	}
}

// clock is a stamp for people, to the millisecond.
func clock(stamped string) string {
	t, err := time.Parse(time.RFC3339Nano, stamped)
	if err != nil {
		return stamped
	}
	return t.UTC().Format("15:04:05.000")
}

func (p *page) safety(r Report) {
	proven := 0
	for _, f := range r.Safety.Faults {
		row := faultRow{Target: f.Target, Kind: fmt.Sprintf("%s, lease %s", f.Kind, limit(f.Lease)), Applied: clock(f.AppliedAt), By: f.EndedBy, Proof: "not proven"}
		if f.EndedAt != "" {
			row.Ended = clock(f.EndedAt)
		}
		if f.Proven {
			proven++
			row.Proof = f.Proof + ": " + f.Check
			if f.Proof == "" {
				row.Proof = "no undo of its own: its supervisor starts it again"
			}
		} else if f.Reason != "" {
			row.Proof += ": " + f.Reason
		}
		p.Faults = append(p.Faults, row)
	}
	b := r.Safety.Blast
	p.Safety = fmt.Sprintf("%d of %s proven gone. Blast radius: %d processes, %d predicted, at most %d allowed.",
		proven, plural(len(r.Safety.Faults), "fault"), b.Actual, b.Predicted, b.MaxTargets)
	if s := r.Safety.RevertSeconds; s != nil {
		p.Safety += " The last proof came " + span(*s) + " after the stop order."
	}
}

func (p *page) timeline(r Report) error {
	for _, e := range r.Timeline {
		row := eventRow{At: clock(e.At), Actor: e.Actor, What: e.What, Record: e.Record}
		if e.Offset != nil {
			row.Offset = offset(*e.Offset)
		}
		p.Timeline = append(p.Timeline, row)
	}
	return nil
}

// absent says what an auditor would look for and this run has no data of.
func (p *page) absent(r Report) {
	p.Absent = []string{
		"Data loss (RPA) was not measured: no data probe took part.",
		"Users are a synthetic probe at a fixed rate; no real traffic is in these numbers.",
		"Restores, security checks and the standby's service at planned load were not part of this run.",
		"No earlier run is compared here.",
		"Participants, roles beyond the approvals, and conditions on people were not recorded.",
	}
	if !slices.ContainsFunc(r.Services, func(s Service) bool { return s.FailbackSeconds != nil }) {
		p.Absent = append(p.Absent, "Fail-back time was not measured.")
	}
	for _, s := range r.Services {
		if s.Account.Counted == 0 {
			p.Absent = append(p.Absent, fmt.Sprintf("%s: what the workloads executed was not handed over, so requests executed twice are not counted.", s.Service))
		}
	}
}

// charts draws every service that was probed: around the fault, the whole run, latency. The axes are the same for
// all services.
func (p *page) charts(r Report) error {
	tI, err := time.Parse(time.RFC3339Nano, r.Run.InjectedAt)
	if err != nil {
		tI = time.Time{} // no fault took effect: nothing to centre on
	}
	focus, whole := axis{-2, 2}, axis{0, 0}
	for _, s := range r.Services {
		n := len(s.Series.Failed)
		if n == 0 {
			continue
		}
		start, err := time.Parse(time.RFC3339Nano, s.Series.Start)
		if err != nil {
			return err
		}
		if tI.IsZero() {
			tI = start
		}
		from := start.Sub(tI).Seconds()
		whole.from, whole.to = min(whole.from, from), max(whole.to, from+float64(n)*s.Series.Seconds)
		for _, x := range []*float64{s.RTA, s.SwitchSeconds} {
			if x != nil {
				focus.to = max(focus.to, *x*1.15+1)
			}
		}
	}
	if whole.to <= whole.from {
		return nil
	}
	focus.from, focus.to = max(focus.from, whole.from), min(focus.to, whole.to)
	sites := sitesOf(r)
	used := map[string]bool{}
	for i, s := range r.Services {
		if len(s.Series.Failed) == 0 {
			continue
		}
		row := chartRow{Service: string(s.Service)}
		if r.Run.InjectedAt != "" {
			row.Focus = newChart(fmt.Sprintf("f%d", i), s, tI, focus, switchBands(s), sites).requests()
		}
		c := newChart(fmt.Sprintf("w%d", i), s, tI, whole, runBands(r, s), sites)
		row.Whole = c.requests()
		row.Latency = newChart(fmt.Sprintf("l%d", i), s, tI, whole, nil, sites).latency()
		row.numbers(c)
		for _, l := range c.layers() {
			if !used[l.name] {
				used[l.name] = true
				p.Legend = append(p.Legend, legendRow{Name: l.name, Swatch: swatch(l.class, fmt.Sprintf("k%d", len(p.Legend)))})
			}
		}
		p.Charts = append(p.Charts, row)
	}
	return nil
}

func swatch(class, id string) template.HTML {
	const open = `<svg viewBox="0 0 14 14" aria-hidden="true">`
	if class != "failed" {
		return template.HTML(fmt.Sprintf(open+`<rect width="14" height="14" class="%s"/></svg>`, class))
	}
	return template.HTML(open + hatching(id) + fmt.Sprintf(`<rect width="14" height="14" style="fill:url(#%s)"/></svg>`, id))
}

// switchBands are the phases of the recovery, or of the switch where users did not wait for it.
func switchBands(s Service) []band {
	phases, texts := namedPhases(s)
	var out []band
	at := 0.0
	for i, ph := range phases {
		out = append(out, band{ph.Name, at, at + ph.Seconds, ph.Name + " " + texts[i] + " s"})
		at += ph.Seconds
	}
	if len(out) == 0 && s.RTA != nil && s.Result == measure.Recovered {
		out = append(out, band{"hurt", 0, *s.RTA, "users hurt " + span(*s.RTA)})
	}
	return out
}

// runBands are the hold, the revert and the fail-back.
func runBands(r Report, s Service) []band {
	var out []band
	zero, err := time.Parse(time.RFC3339Nano, r.Run.InjectedAt)
	if err != nil {
		return nil
	}
	at := func(m *Mark) (float64, bool) {
		if m == nil {
			return 0, false
		}
		t, err := time.Parse(time.RFC3339Nano, m.At)
		return t.Sub(zero).Seconds(), err == nil
	}
	v, reverted := at(s.Marks.TV)
	if reverted {
		begin := v
		if r.Safety.RevertSeconds != nil {
			begin = v - *r.Safety.RevertSeconds
		}
		out = append(out, band{"inject", 0, begin, "inject and hold " + span(begin)}, band{"revert", begin, v, "revert " + span(v-begin)})
	}
	f, begun := at(s.Marks.TF)
	b, back := at(s.Marks.TB)
	if begun && back {
		out = append(out, band{"fail-back", f, b, "fail-back " + span(b-f)})
	}
	return out
}

// numbers fills the table below the charts: one line per second, or per ten.
func (row *chartRow) numbers(c *chart) {
	n := len(c.s.Series.Failed)
	per := int(1/c.s.Series.Seconds + 0.5)
	if n/per > 200 {
		per *= 10
	}
	row.Step = fixed(float64(per)*c.s.Series.Seconds, 0) + " s"
	layers := c.layers()
	for _, l := range layers {
		row.Columns = append(row.Columns, l.name)
	}
	row.Columns = append(row.Columns, "highest p99")
	for i := 0; i < n; i += per {
		cells := []string{offset(c.at(i))}
		for _, l := range layers {
			sum := 0
			for _, x := range l.n[i:min(i+per, n)] {
				sum += x
			}
			cells = append(cells, count(sum))
		}
		worst := int64(-1)
		for _, x := range c.s.Series.P99[i:min(i+per, n)] {
			worst = max(worst, x)
		}
		if worst < 0 {
			cells = append(cells, "no answer")
		} else {
			cells = append(cells, millis(worst))
		}
		row.Table = append(row.Table, cells)
	}
}
