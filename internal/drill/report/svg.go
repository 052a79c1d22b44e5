package report

import (
	"fmt"
	"html/template"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// Geometry of a chart, in the units of its viewBox.
const (
	chartWidth  = 960.0
	plotLeft    = 46.0
	plotRight   = 950.0
	plotHeight  = 120.0
	labelHeight = 13.0
	maxColumns  = 450
)

// band is a span of the time axis with a name.
type band struct {
	name     string
	from, to float64 // seconds from tI
	label    string
}

// axis maps seconds from tI to x.
type axis struct{ from, to float64 }

func (a axis) x(t float64) float64 {
	t = min(max(t, a.from), a.to)
	return plotLeft + (t-a.from)/(a.to-a.from)*(plotRight-plotLeft)
}

// layer is one part of the stacked chart.
type layer struct {
	name, class string
	n           []int
}

// chart draws one service over a span of time.
type chart struct {
	b        strings.Builder
	id       string
	axis     axis
	top      float64 // y of the plot
	bands    []band
	s        Service
	zero     float64 // seconds from tI of the first bucket
	per      int     // buckets per column
	sites    []api.SiteID
	title    string
	describe string
}

func newChart(id string, s Service, tI time.Time, a axis, bands []band, sites []api.SiteID) *chart {
	c := &chart{id: id, s: s, axis: a, bands: bands, sites: sites}
	if start, err := time.Parse(time.RFC3339Nano, s.Series.Start); err == nil {
		c.zero = start.Sub(tI).Seconds()
	}
	c.top = 6 + labelHeight*float64(max(1, len(bands)))
	c.per = max(1, int(math.Ceil((a.to-a.from)/s.Series.Seconds/maxColumns)))
	return c
}

// layers are the parts of the stack, from the bottom: each site, then what was not simply well, failed on top.
func (c *chart) layers() []layer {
	var out []layer
	for i, site := range c.sites {
		if col := c.s.Series.Sites[site]; col != nil {
			out = append(out, layer{string(site), fmt.Sprintf("site%d", i%4), col})
		}
	}
	for _, l := range []layer{
		{"retried-ok", "retried", c.s.Series.Retried}, {"slow", "slow", c.s.Series.Slow}, {"shed", "shed", c.s.Series.Shed},
		{"failed", "failed", c.s.Series.Failed},
	} {
		if slices.ContainsFunc(l.n, func(n int) bool { return n > 0 }) {
			out = append(out, l)
		}
	}
	return out
}

// columns sums the buckets of a layer per column of the chart.
func (c *chart) columns(n []int) []int {
	first := c.firstBucket()
	var out []int
	for i := first; i < len(n) && c.at(i) < c.axis.to-1e-9; i += c.per {
		sum := 0
		for _, x := range n[i:min(i+c.per, len(n))] {
			sum += x
		}
		out = append(out, sum)
	}
	return out
}

// at is the time of a bucket.
func (c *chart) at(i int) float64 { return c.zero + float64(i)*c.s.Series.Seconds }

func (c *chart) firstBucket() int {
	return max(0, int(math.Ceil((c.axis.from-c.zero)/c.s.Series.Seconds-1e-9)))
}

func (c *chart) begin(height float64) {
	fmt.Fprintf(&c.b, `<svg class="chart" viewBox="0 0 %g %g" role="img" aria-labelledby="%s-t %s-d" xmlns="http://www.w3.org/2000/svg">`, chartWidth, height, c.id, c.id)
	fmt.Fprintf(&c.b, `<title id="%s-t">%s</title><desc id="%s-d">%s</desc>`, c.id, esc(c.title), c.id, esc(c.describe))
	c.b.WriteString(hatching(c.id + "-h"))
	for i, d := range c.bands {
		if d.to <= c.axis.from || d.from >= c.axis.to {
			continue
		}
		x1, x2 := c.axis.x(d.from), c.axis.x(d.to)
		y := labelHeight * float64(i+1)
		anchor, tx := "start", x2+4
		if x2 > chartWidth*0.75 {
			anchor, tx = "end", x1-4
		}
		fmt.Fprintf(&c.b, `<rect class="band" x="%.1f" y="%.1f" width="%.1f" height="9"/>`, x1, y-8, max(1, x2-x1))
		fmt.Fprintf(&c.b, `<text class="tick" x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, tx, y, anchor, esc(d.label))
	}
}

// hatching is the pattern of what failed: told apart without colour.
func hatching(id string) string {
	return fmt.Sprintf(`<defs><pattern id="%s" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">`+
		`<rect width="6" height="6" class="failed"/><line x1="0" y1="0" x2="0" y2="6" class="hatch"/></pattern></defs>`, id)
}

// leads mark where each band begins and ends, over whatever is drawn there.
func (c *chart) leads() {
	for i, d := range c.bands {
		for _, t := range []float64{d.from, d.to} {
			if t < c.axis.from || t > c.axis.to {
				continue
			}
			x := c.axis.x(t)
			fmt.Fprintf(&c.b, `<line class="lead" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`, x, labelHeight*float64(i+1)+1, x, c.top+plotHeight)
		}
	}
}

// end draws the axes and closes the drawing.
func (c *chart) end(yMax float64, unit string) template.HTML {
	bottom := c.top + plotHeight
	c.leads()
	fmt.Fprintf(&c.b, `<line class="axis" x1="%g" y1="%.1f" x2="%g" y2="%.1f"/>`, plotLeft, bottom, plotRight, bottom)
	for _, f := range []float64{0, 0.5, 1} {
		y := bottom - f*plotHeight
		fmt.Fprintf(&c.b, `<text class="tick" x="%g" y="%.1f" text-anchor="end">%s</text>`, plotLeft-4, y+4, tick(f*yMax))
	}
	fmt.Fprintf(&c.b, `<text class="tick" x="2" y="%.1f">%s</text>`, c.top-4, esc(unit))
	step := tickStep(c.axis.to - c.axis.from)
	for t := math.Ceil(c.axis.from/step) * step; t <= c.axis.to+1e-9; t += step {
		x := c.axis.x(t)
		fmt.Fprintf(&c.b, `<line class="axis" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/><text class="tick" x="%.1f" y="%.1f" text-anchor="middle">%s</text>`,
			x, bottom, x, bottom+4, x, bottom+15, seconds0(t))
	}
	c.b.WriteString(`</svg>`)
	return template.HTML(c.b.String()) // every text in it went through esc
}

func seconds0(t float64) string {
	if math.Abs(t) < 1e-9 {
		return "0 s"
	}
	return fmt.Sprintf("%+g s", math.Round(t*10)/10)
}

func tick(x float64) string {
	if x >= 10 {
		return fixed(x, 0)
	}
	return fmt.Sprintf("%g", math.Round(x*10)/10)
}

// tickStep gives about ten round steps.
func tickStep(span float64) float64 {
	for _, s := range []float64{0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600} {
		if span/s <= 12 {
			return s
		}
	}
	return 1800
}

// requests is the stacked chart of samples by outcome.
func (c *chart) requests() template.HTML {
	layers := c.layers()
	var sums []int
	cols := make([][]int, len(layers))
	for i, l := range layers {
		cols[i] = c.columns(l.n)
		for j, n := range cols[i] {
			if j == len(sums) {
				sums = append(sums, 0)
			}
			sums[j] += n
		}
	}
	top := 1.0
	for _, n := range sums {
		top = max(top, float64(n))
	}
	width := c.s.Series.Seconds * float64(c.per)
	per := fmt.Sprintf("%g ms", math.Round(width*1000))
	c.title = fmt.Sprintf("%s: requests per %s, by the site that answered", c.s.Service, per)
	c.describe = c.words(layers, cols)
	c.begin(c.top + plotHeight + 20)
	base := make([]float64, len(sums))
	first := c.firstBucket()
	for i, l := range layers {
		var p strings.Builder
		for j, n := range cols[i] {
			if n == 0 {
				continue
			}
			x1, x2 := c.axis.x(c.at(first+j*c.per)), c.axis.x(c.at(first+(j+1)*c.per))
			h := float64(n) / top * plotHeight
			y := c.top + plotHeight - base[j]
			fmt.Fprintf(&p, "M%.1f %.1fH%.1fV%.1fH%.1fZ", x1, y, x2, y-h, x1)
			base[j] += h
		}
		fill := ""
		if l.class == "failed" {
			fill = fmt.Sprintf(` style="fill:url(#%s-h)"`, c.id)
		}
		fmt.Fprintf(&c.b, `<path class="%s"%s d="%s"/>`, l.class, fill, p.String())
	}
	return c.end(top, "per "+per)
}

// words says in a sentence what the chart shows.
func (c *chart) words(layers []layer, cols [][]int) string {
	var parts []string
	for i, l := range layers {
		sum := 0
		for _, n := range cols[i] {
			sum += n
		}
		parts = append(parts, l.name+" "+count(sum))
	}
	return fmt.Sprintf("From %s to %s around the fault: %s.", offset(c.axis.from), offset(c.axis.to), strings.Join(parts, ", "))
}

// latency is the chart of p50 and p99, with the objective; gaps stay gaps.
func (c *chart) latency() template.HTML {
	objective := 0.0
	if o, ok := c.s.objective("latency"); ok {
		objective, _ = spanOf(o.Objective)
		objective *= 1000
	}
	top := max(1, objective*1.1)
	p50, p99 := c.worst(c.s.Series.P50), c.worst(c.s.Series.P99)
	worst := 0.0
	for _, v := range p99 {
		worst = max(worst, v)
	}
	top = max(top, worst*1.05)
	c.title = fmt.Sprintf("%s: latency of the answers, p50 and p99", c.s.Service)
	c.describe = fmt.Sprintf("The highest p99 of a column is %s. Where no request was answered, there is a gap.", millis(int64(worst*1000)))
	c.begin(c.top + plotHeight + 20)
	y := func(v float64) float64 { return c.top + plotHeight - v/top*plotHeight }
	if objective > 0 {
		fmt.Fprintf(&c.b, `<line class="goal" x1="%g" y1="%.1f" x2="%g" y2="%.1f"/><text class="tick" x="%g" y="%.1f" text-anchor="end">p99 objective %s</text>`,
			plotLeft, y(objective), plotRight, y(objective), plotRight, y(objective)-3, millis(int64(objective*1000)))
	}
	first := c.firstBucket()
	for _, l := range []struct {
		class string
		v     []float64
	}{{"p99", p99}, {"p50", p50}} {
		var p strings.Builder
		pen := false
		for j, v := range l.v {
			if v < 0 {
				pen = false
				continue
			}
			x1, x2 := c.axis.x(c.at(first+j*c.per)), c.axis.x(c.at(first+(j+1)*c.per))
			if pen {
				fmt.Fprintf(&p, "L%.1f %.1f", (x1+x2)/2, y(v))
			} else {
				fmt.Fprintf(&p, "M%.1f %.1fL%.1f %.1f", x1, y(v), (x1+x2)/2, y(v))
			}
			pen = true
		}
		fmt.Fprintf(&c.b, `<path class="line %s" d="%s"/>`, l.class, p.String())
	}
	return c.end(top, "ms: p50 solid, p99 dashed")
}

// worst is the highest value of each column in milliseconds, -1 where there is none.
func (c *chart) worst(micros []int64) []float64 {
	var out []float64
	for i := c.firstBucket(); i < len(micros) && c.at(i) < c.axis.to-1e-9; i += c.per {
		v := int64(-1)
		for _, x := range micros[i:min(i+c.per, len(micros))] {
			v = max(v, x)
		}
		if v < 0 {
			out = append(out, -1)
			continue
		}
		out = append(out, float64(v)/1000)
	}
	return out
}

func esc(s string) string { return template.HTMLEscapeString(s) }

// sitesOf are all sites that answered, in any service: one colour per site in every chart.
func sitesOf(r Report) []api.SiteID {
	seen := map[api.SiteID]bool{}
	for _, s := range r.Services {
		for site := range s.Series.Sites {
			seen[site] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// rtaBar is an RTA against its objective, with the objective as a mark and the uncertainty as a whisker.
func rtaBar(id string, s Service) template.HTML {
	o, ok := s.objective("rto")
	if !ok || s.RTA == nil {
		return ""
	}
	limitSeconds, ok := spanOf(o.Objective)
	if !ok || limitSeconds <= 0 {
		return ""
	}
	top := max(limitSeconds, *s.RTA+s.Epsilon) * 1.05
	x := func(v float64) float64 { return 2 + min(max(v, 0), top)/top*196 }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg class="bar" viewBox="0 0 200 16" role="img" aria-labelledby="%s" xmlns="http://www.w3.org/2000/svg"><title id="%s">%s</title>`,
		id, id, esc(fmt.Sprintf("RTA %s against an RTO of %s: %s", rtaText(s), limit(limitSeconds), o.Verdict)))
	fmt.Fprintf(&b, `<rect class="rail" x="2" y="4" width="%.1f" height="8"/>`, x(limitSeconds)-2)
	fmt.Fprintf(&b, `<rect class="rta %s" x="2" y="4" width="%.1f" height="8"/>`, o.Verdict, max(0, x(*s.RTA)-2))
	fmt.Fprintf(&b, `<line class="whisker" x1="%.1f" y1="8" x2="%.1f" y2="8"/>`, x(*s.RTA-s.Epsilon), x(*s.RTA+s.Epsilon))
	fmt.Fprintf(&b, `<line class="rto" x1="%.1f" y1="1" x2="%.1f" y2="15"/></svg>`, x(limitSeconds), x(limitSeconds))
	return template.HTML(b.String())
}
