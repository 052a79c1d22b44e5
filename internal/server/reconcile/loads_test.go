package reconcile

import (
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

func TestDemandIsTheRateThoughReportsDriftOverTheSecond(t *testing.T) {
	const rate = 200
	for _, every := range []time.Duration{250 * time.Millisecond, 970 * time.Millisecond, time.Second, 1030 * time.Millisecond} {
		var l loads
		now := time.Unix(1_800_000_000, 400_000_000)
		total := int64(0)
		for range 30 {
			now = now.Add(every)
			n := int64(rate * every.Seconds())
			total += n
			l.add(now, nodeapi.Load{Service: "orders", Requests: n, Failed: n / 2, Span: every})
		}
		d := l.demand(now, "orders")
		if !d.Known || d.Rate < rate*0.95 || d.Rate > rate*1.05 {
			t.Errorf("reports each %v: demand %.0f/s (known %t), want %d/s", every, d.Rate, d.Known, rate)
		}
		sum := int64(0)
		for _, s := range l.seconds["orders"] {
			sum += s.requests
		}
		if sum != total {
			t.Errorf("reports each %v: %d requests counted of %d", every, sum, total)
		}
		if ratio, known := l.success(now, "orders", 2*time.Second); !known || ratio < 0.45 || ratio > 0.55 {
			t.Errorf("reports each %v: success %.2f, want 0.5", every, ratio)
		}
	}
}

func TestDemandOfTwoCallersAddsUp(t *testing.T) {
	var l loads
	now := time.Unix(1_800_000_000, 0)
	for i := range 20 {
		at := now.Add(time.Duration(i) * time.Second)
		l.add(at.Add(300*time.Millisecond), nodeapi.Load{Service: "orders", Requests: 100, Span: time.Second})
		l.add(at.Add(800*time.Millisecond), nodeapi.Load{Service: "orders", Requests: 50, Span: time.Second})
		l.add(at.Add(900*time.Millisecond), nodeapi.Load{Service: "orders", Requests: 150, Span: time.Second, Inbound: true})
	}
	if d := l.demand(now.Add(20*time.Second), "orders"); d.Rate < 145 || d.Rate > 155 {
		t.Errorf("demand %.0f/s, want 150/s: what a workload received was counted by its caller", d.Rate)
	}
}
