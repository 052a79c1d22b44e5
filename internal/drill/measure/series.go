package measure

import (
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// bucket is the width of one step of a chart.
const bucket = 100 * time.Millisecond

// maxBuckets bounds a chart: half an hour of it. What lies beyond is in the account all the same.
const maxBuckets = 18_000

// seriesOf counts the samples per bucket, from the first to the last of them.
func seriesOf(st *stream, span Span) Series {
	s := Series{Width: bucket, Sites: map[api.SiteID][]int{}}
	if len(st.points) == 0 {
		return s
	}
	s.Start = st.points[0].at.Truncate(bucket)
	if b := span.Baseline.Truncate(bucket); !span.Baseline.IsZero() && b.Before(s.Start) {
		s.Start = b
	}
	n := min(int(st.points[len(st.points)-1].at.Sub(s.Start)/bucket)+1, maxBuckets)
	s.Retry, s.Slow, s.Failed, s.Shed = make([]int, n), make([]int, n), make([]int, n), make([]int, n)
	s.P50, s.P99 = make([]int64, n), make([]int64, n)
	spans := make([][]time.Duration, n)
	for _, p := range st.points {
		i := int(p.at.Sub(s.Start) / bucket)
		if i >= n {
			break
		}
		switch {
		case p.class == ok:
			if s.Sites[p.site] == nil {
				s.Sites[p.site] = make([]int, n)
			}
			s.Sites[p.site][i]++
		case p.class == retriedOK:
			s.Retry[i]++
		case p.class == slow:
			s.Slow[i]++
		case p.class == shed:
			s.Shed[i]++
		case p.class.failed():
			s.Failed[i]++
		}
		if p.class.good() || p.class == slow {
			spans[i] = append(spans[i], p.latency)
		}
	}
	for i, x := range spans {
		s.P50[i], s.P99[i] = -1, -1
		if m := len(x); m > 0 {
			slices.Sort(x)
			s.P50[i], s.P99[i] = x[(m+1)/2-1].Microseconds(), x[rank99(m)-1].Microseconds()
		}
	}
	return s
}
