package reconcile

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
)

const (
	// demandSpan and demandLeast: "the p95 of the 1 s load reports of the last 5 min, or of what there is from 5 reports on".
	demandSpan  = 5 * time.Minute
	demandLeast = 5
	// objectiveSpan is the span over which a ramp step looks at success.
	objectiveSpan = 2 * time.Second
)

// loads is what callers' sidecars counted, by service and second. The zero value is empty.
type loads struct {
	seconds map[api.ServiceID][]second // oldest first, at most demandSpan
}

type second struct {
	at               int64 // Unix second
	requests, failed float64
}

// add takes one report. Only what a caller sent counts: what a workload received has been counted by its caller. The
// requests are spread over the span that the report speaks of, so that its second does not depend on when it arrived.
func (l *loads) add(now time.Time, load nodeapi.Load) {
	if load.Inbound || load.Requests <= 0 {
		return
	}
	span := min(max(load.Span, time.Millisecond), 10*time.Second)
	from := now.Add(-span)
	for at := from; at.Before(now); {
		end := at.Truncate(time.Second).Add(time.Second)
		if end.After(now) {
			end = now
		}
		part := float64(end.Sub(at)) / float64(span)
		l.put(load.Service, second{at: at.Unix(), requests: part * float64(load.Requests), failed: part * float64(load.Failed)}, now)
		at = end
	}
}

// put adds to one second, keeps the list in order and forgets what is too old.
func (l *loads) put(service api.ServiceID, more second, now time.Time) {
	if l.seconds == nil {
		l.seconds = map[api.ServiceID][]second{}
	}
	list := l.seconds[service]
	i, found := slices.BinarySearchFunc(list, more.at, func(s second, at int64) int { return cmp.Compare(s.at, at) })
	if !found {
		list = slices.Insert(list, i, second{at: more.at})
	}
	list[i].requests += more.requests
	list[i].failed += more.failed
	oldest := now.Add(-demandSpan).Unix()
	for len(list) > 0 && list[0].at < oldest {
		list = list[1:]
	}
	l.seconds[service] = list
}

// demand is the p95 of the seconds that are over and reported by everybody (a report comes within a second of its span).
func (l *loads) demand(now time.Time, service api.ServiceID) audit.Demand {
	var counts []float64
	for _, s := range l.seconds[service] {
		if s.at < now.Unix()-1 {
			counts = append(counts, s.requests)
		}
	}
	if len(counts) < demandLeast {
		return audit.Demand{}
	}
	slices.Sort(counts)
	// Nearest rank: the smallest value that at least 95 % of the seconds do not exceed.
	rank := (95*len(counts) + 99) / 100
	return audit.Demand{Rate: math.Round(counts[rank-1]), Known: true}
}

// success is the share of requests that did not fail over the last span; known is false without traffic.
func (l *loads) success(now time.Time, service api.ServiceID, span time.Duration) (ratio float64, known bool) {
	var requests, failed float64
	from := now.Add(-span).Unix()
	for _, s := range l.seconds[service] {
		if s.at >= from {
			requests += s.requests
			failed += s.failed
		}
	}
	if requests == 0 {
		return 0, false
	}
	return 1 - failed/requests, true
}
