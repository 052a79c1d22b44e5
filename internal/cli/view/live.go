package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/internal/userapi"
)

// Style is how the terminal wants it.
type Style struct {
	TTY   bool // redraw a live block
	Color bool
	ASCII bool
}

func (s Style) paint(code, text string) string {
	if !s.Color {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s Style) pick(symbol, ascii, code string) string {
	if s.ASCII {
		return s.paint(code, ascii)
	}
	return s.paint(code, symbol)
}

// OK, Warn and Bad are the marks of a line; never colour alone.
func (s Style) OK() string   { return s.pick("√", "+", "32") }
func (s Style) Warn() string { return s.pick("‼", "!", "33") }
func (s Style) Bad() string  { return s.pick("×", "x", "31") }

// Mark is OK or Bad.
func (s Style) Mark(ok bool) string {
	if ok {
		return s.OK()
	}
	return s.Bad()
}

func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// seconds is how many the bars show, so that a line of n bars keeps to its columns: a service, the names of the bars, a p99.
func seconds(bars, names int) int {
	return min(14, max(4, (columns-1-10-names-3*bars-12)/bars))
}

// clear removes the live block, so that lines can be printed above it.
func (d *Drill) clear() {
	if d.block > 0 {
		d.printf("\x1b[%dA\x1b[J", d.block)
		d.block = 0
	}
}

// draw prints the live block on a TTY, and elsewhere a heartbeat each 10 s.
func (d *Drill) draw() {
	if !d.Style.TTY {
		d.heartbeat()
		return
	}
	for _, service := range sorted(d.live) {
		d.printf("%s\n", d.bars(string(service), d.live[service]))
		d.block++
	}
}

func (d *Drill) heartbeat() {
	now := time.Now()
	if d.beat.IsZero() || now.Sub(d.beat) < 10*time.Second || len(d.live) == 0 {
		if d.beat.IsZero() {
			d.beat = now
		}
		return
	}
	d.beat = now
	var out []string
	for _, service := range sorted(d.live) {
		v := d.live[service][len(d.live[service])-1]
		out = append(out, fmt.Sprintf("%s %s", service, account(v)))
	}
	d.printf("   ... %s: %s\n", d.state, strings.Join(out, "; "))
}

func account(v userapi.Live) string {
	var ok []string
	for _, site := range sorted(v.OK) {
		ok = append(ok, fmt.Sprintf("%d/s from %s", v.OK[site], site))
	}
	if v.RetriedOK > 0 {
		ok = append(ok, fmt.Sprintf("%d retried", v.RetriedOK))
	}
	if v.Failed > 0 {
		ok = append(ok, fmt.Sprintf("%d failed", v.Failed))
	}
	return strings.Join(ok, ", ")
}

// bars is one service's last seconds: answers by site, retried, failed.
func (d *Drill) bars(service string, all []userapi.Live) string {
	sites := map[string]bool{}
	names := len("retried") + len("failed")
	for _, v := range all {
		for site := range v.OK {
			if !sites[string(site)] {
				names += len(site)
			}
			sites[string(site)] = true
		}
	}
	last := all[max(0, len(all)-seconds(len(sites)+2, names)):]
	most := int64(1)
	for _, v := range last {
		sum := v.RetriedOK + v.Failed + v.Shed
		for _, n := range v.OK {
			sum += n
		}
		most = max(most, sum)
	}
	var parts []string
	for _, site := range sorted(sites) {
		parts = append(parts, site+" "+d.Style.paint("34", d.bar(last, most, func(v userapi.Live) int64 {
			for s, n := range v.OK {
				if string(s) == site {
					return n
				}
			}
			return 0
		})))
	}
	parts = append(parts, "retried "+d.Style.paint("33", d.bar(last, most, func(v userapi.Live) int64 { return v.RetriedOK })))
	parts = append(parts, "failed "+d.Style.paint("31", d.bar(last, most, func(v userapi.Live) int64 { return v.Failed })))
	return fmt.Sprintf(" %-9s %s  p99 %.0fms", service, strings.Join(parts, "  "), last[len(last)-1].P99)
}

func (d *Drill) bar(list []userapi.Live, most int64, of func(userapi.Live) int64) string {
	steps := []rune("▁▂▃▄▅▆▇█")
	if d.Style.ASCII {
		steps = []rune("_.:-=+*#")
	}
	var b strings.Builder
	for _, v := range list {
		n := of(v)
		i := int(n * int64(len(steps)-1) / most)
		if n > 0 && i == 0 {
			i = 1
		}
		b.WriteRune(steps[min(i, len(steps)-1)])
	}
	return b.String()
}

// End removes what is only for a running drill.
func (d *Drill) End() { d.clear() }
