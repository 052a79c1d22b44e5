package reconcile

import (
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
	at               int64 // Unix second, on this server's clock
	requests, failed int64
}

// add takes one report. Only what a caller sent counts: what a workload received has been counted by its caller.
// A report covers the span before it: put into the second of its receipt, two reports that are a little less than a second
// apart would make one second of twice the demand, and the p95 of a young mesh would be that second.
func (l *loads) add(now time.Time, load nodeapi.Load) {
	if load.Inbound {
		return
	}
	if l.seconds == nil {
		l.seconds = map[api.ServiceID][]second{}
	}
	span := min(max(load.Span, time.Nanosecond), demandSpan)
	list := l.seconds[load.Service]
	var requests, failed int64 // put so far
	for at := now.Add(-span); at.Before(now); {
		next := time.Unix(at.Unix()+1, 0)
		if next.After(now) {
			next = now
		}
		done := 1 - float64(now.Sub(next))/float64(span)
		r, f := int64(done*float64(load.Requests)+0.5)-requests, int64(done*float64(load.Failed)+0.5)-failed
		list = put(list, second{at: at.Unix(), requests: r, failed: f})
		requests, failed, at = requests+r, failed+f, next
	}
	oldest := now.Add(-demandSpan).Unix()
	for len(list) > 0 && list[0].at < oldest {
		list = list[1:]
	}
	l.seconds[load.Service] = list
}

// put adds to a second of a list that is sorted by it.
func put(list []second, s second) []second {
	i := len(list)
	for i > 0 && list[i-1].at > s.at {
		i--
	}
	if i > 0 && list[i-1].at == s.at {
		list[i-1].requests += s.requests
		list[i-1].failed += s.failed
		return list
	}
	return slices.Insert(list, i, s)
}

// demand is the p95 of the seconds that are over.
func (l *loads) demand(now time.Time, service api.ServiceID) audit.Demand {
	var counts []int64
	for _, s := range l.seconds[service] {
		if s.at < now.Unix() {
			counts = append(counts, s.requests)
		}
	}
	if len(counts) < demandLeast {
		return audit.Demand{}
	}
	slices.Sort(counts)
	// Nearest rank: the smallest value that at least 95 % of the seconds do not exceed.
	rank := (95*len(counts) + 99) / 100
	return audit.Demand{Rate: float64(counts[rank-1]), Known: true}
}

// success is the share of requests that did not fail over the last span; known is false without traffic.
func (l *loads) success(now time.Time, service api.ServiceID, span time.Duration) (ratio float64, known bool) {
	var requests, failed int64
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
	return 1 - float64(failed)/float64(requests), true
}
