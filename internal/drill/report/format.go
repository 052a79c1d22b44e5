package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// exact is a span as report.json says it: every digit, in seconds ("2.311s").
func exact(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + "s"
}

// exactRatio is a ratio as report.json says it.
func exactRatio(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

// stamp is a moment as report.json says it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// span is a time for people: hundredths of a second, "0 s" only for nothing at all.
func span(seconds float64) string {
	switch {
	case seconds == 0:
		return "0 s"
	case math.Abs(seconds) < 0.005:
		return "< 0.01 s"
	}
	return fixed(seconds, 2) + " s"
}

// upTo is an uncertainty for people: rounded up, never shown smaller than it is.
func upTo(seconds float64) string {
	return fixed(max(0, math.Ceil(seconds*100-1e-9))/100, 2) + " s"
}

// limit is an objective for people, without digits that nobody wrote.
func limit(seconds float64) string { return strconv.FormatFloat(seconds, 'f', -1, 64) + " s" }

// millis is a latency for people.
func millis(micros int64) string {
	if micros < 10_000 {
		return fixed(float64(micros)/1000, 1) + " ms"
	}
	return count(int(math.Round(float64(micros)/1000))) + " ms"
}

// percent is a ratio for people: never rounded up to 100 %, never down to 0 %.
func percent(x float64) string {
	p := math.Floor(x*1e4+1e-9) / 100
	if x > 0 && p == 0 {
		return "< 0.01 %"
	}
	return fixed(p, 2) + " %"
}

// share is an objective that is a ratio, without digits that nobody wrote: "99 %".
func share(x float64) string {
	return strconv.FormatFloat(math.Round(x*1e8)/1e6, 'f', -1, 64) + " %"
}

// fixed is strconv's fixed form.
func fixed(x float64, digits int) string { return strconv.FormatFloat(x, 'f', digits, 64) }

// count groups thousands: 118,400.
func count(n int) string {
	s := strconv.Itoa(n)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// offset is a moment of a run for people: "+2.31 s".
func offset(seconds float64) string {
	return fmt.Sprintf("%+.2f s", seconds)
}

// shown are the phases as people see them: in hundredths, each rounded so that they add up to the rounded total
// (largest remainder).
func shown(phases []Phase, total float64) []string {
	if len(phases) == 0 {
		return nil
	}
	cents := make([]int, len(phases))
	rest := make([]float64, len(phases))
	left := int(math.Round(total * 100))
	for i, p := range phases {
		cents[i] = int(math.Floor(p.Seconds*100 + 1e-9))
		rest[i] = p.Seconds*100 - float64(cents[i])
		left -= cents[i]
	}
	order := make([]int, len(phases))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case rest[a] > rest[b]:
			return -1
		case rest[a] < rest[b]:
			return 1
		}
		return 0
	})
	for i := 0; left > 0 && i < len(order); i++ {
		cents[order[i]]++
		left--
	}
	out := make([]string, len(phases))
	for i, c := range cents {
		out[i] = fixed(float64(c)/100, 2)
	}
	return out
}

// bar is an RTA against its objective: "[####------]"; "[##########>" when it is beyond.
func bar(actual, limit float64, width int, full, empty string) string {
	if limit <= 0 {
		return ""
	}
	n := int(math.Ceil(actual/limit*float64(width) - 1e-9))
	if n > width {
		return "[" + strings.Repeat(full, width) + ">"
	}
	return "[" + strings.Repeat(full, n) + strings.Repeat(empty, width-n) + "]"
}

// plural adds an s.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return count(n) + " " + noun + "s"
}

// spanOf reads what exact wrote, to print it for people.
func spanOf(text string) (float64, bool) {
	x, err := strconv.ParseFloat(strings.TrimSuffix(text, "s"), 64)
	return x, err == nil && strings.HasSuffix(text, "s")
}
