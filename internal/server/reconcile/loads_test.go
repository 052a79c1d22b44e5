package reconcile

import (
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

// A steady rate is its own p95, however the reports fall into seconds: two of them often arrive within one.
func TestDemandOfASteadyRateIsThatRate(t *testing.T) {
	var l loads
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	spans := []time.Duration{400 * time.Millisecond, time.Second, 1600 * time.Millisecond, time.Second, 50 * time.Millisecond}
	for i := range 60 {
		span := spans[i%len(spans)]
		now = now.Add(span)
		l.add(now, nodeapi.Load{Service: "payments", Site: "eu-west", Requests: int64(200 * span.Seconds()), Span: span})
		l.add(now, nodeapi.Load{Service: "payments", Site: "eu-west", Inbound: true, Requests: 1000, Span: span})
	}
	if d := l.demand(now, "payments"); !d.Known || d.Rate != 200 {
		t.Errorf("demand = %+v, want 200", d)
	}
}

// "fewer [than 5 reports] = unknown"
func TestDemandOfFewerThanFiveSecondsIsUnknown(t *testing.T) {
	var l loads
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 8 {
		if d := l.demand(now, "payments"); d.Known != (i >= 6) {
			t.Errorf("after %d seconds demand = %+v", i, d)
		}
		now = now.Add(time.Second)
		l.add(now, nodeapi.Load{Service: "payments", Requests: 10, Span: time.Second})
	}
}

func TestSuccessNeedsTraffic(t *testing.T) {
	var l loads
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if _, known := l.success(now, "payments", time.Second); known {
		t.Error("success is known without a request")
	}
	l.add(now, nodeapi.Load{Service: "payments", Requests: 100, Failed: 25, Span: time.Second})
	if s, known := l.success(now, "payments", 2*time.Second); !known || s != 0.75 {
		t.Errorf("success = %g, %t, want 0.75", s, known)
	}
}
