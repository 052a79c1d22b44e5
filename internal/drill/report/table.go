package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/livefire-mesh/livefire/internal/drill/measure"
)

// Table writes one row per service, what `livefire drill run` and `livefire demo` end with: phases, RTA against RTO and
// the result. The lines begin with a space, as those of the phases above them.
func Table(w io.Writer, r Report, opts TextOptions) error {
	t := &textWriter{opts: opts}
	rows := [][]string{{"SERVICE", "REFLEX", "DETECT", "DECIDE", "PROPAGATE", "SETTLE", "RTA", "RTO", "", "RESULT"}}
	for _, s := range r.Services {
		rows = append(rows, tableRow(s))
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for n, row := range rows {
		var b strings.Builder
		for i, c := range row {
			if i == len(row)-1 && n > 0 {
				s := r.Services[n-1]
				c = t.colour(resultColour(s.Result), sign(s)+" "+c)
			}
			b.WriteString(" " + c)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+1))
			}
		}
		t.line("%s", b.String())
	}
	_, err := io.WriteString(w, t.symbols(t.b.String()))
	return err
}

// sign stands beside a result, which says it in words too. A recovery that missed its objective is no success.
func sign(s Service) string {
	o, judged := s.objective("rto")
	switch {
	case s.Result == measure.NotRecovered || judged && o.Verdict == measure.Fail:
		return "×"
	case s.Result == measure.NotMeasured || judged && o.Verdict == measure.Inconclusive:
		return "?"
	}
	return "√"
}

// namedPhases are the phases that a service shows, in the texts of people: those of the RTA; those of the switch where
// users did not wait for it or did not recover; none where they recovered by reflex.
func namedPhases(s Service) ([]Phase, []string) {
	switch {
	case len(s.Phases) > 0:
		return s.Phases, shown(s.Phases, *s.RTA)
	case s.SwitchSeconds != nil && s.Result != measure.Recovered:
		return s.Switch, shown(s.Switch, *s.SwitchSeconds)
	}
	return nil, nil
}

// phaseCells are the four phases, "-" where there is none.
func phaseCells(s Service) []string {
	phases, texts := namedPhases(s)
	var out []string
	for _, name := range []string{measure.Detect, measure.Decide, measure.Propagate, measure.Settle} {
		i := slices.IndexFunc(phases, func(p Phase) bool { return p.Name == name })
		if i < 0 {
			out = append(out, "-")
			continue
		}
		out = append(out, texts[i]+" s")
	}
	return out
}

func tableRow(s Service) []string {
	row := []string{string(s.Service), fmt.Sprint(s.Reflex.Allowed)}
	row = append(row, phaseCells(s)...)
	row = append(row, rtaText(s))
	o, ok := s.objective("rto")
	bound, isSpan := spanOf(o.Objective)
	if !ok || !isSpan {
		return append(row, "-", "", s.Result)
	}
	gauge := ""
	if s.RTA != nil {
		gauge = bar(*s.RTA, bound, 10, "#", "-")
	}
	return append(row, limit(bound), gauge, s.Result)
}
