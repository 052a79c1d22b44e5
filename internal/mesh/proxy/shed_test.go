package proxy

import (
	"net/http"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// shedding makes the service shed above a share of the capacity of each workload.
func shedding(share, capacity float64) func(*route.Service) {
	return func(s *route.Service) {
		s.Shed = share
		s.Retries.Attempts = 3
		for i := range s.Sites {
			for j := range s.Sites[i].Endpoints {
				s.Sites[i].Endpoints[j].Capacity = capacity
			}
		}
	}
}

// patterns.md: "With `shed`, the inbound sidecar admits its workload's capacity (token bucket), else 503 with
// `retry-after` and `x-livefire-shed`, which is never retried." A capacity of 0.01/s admits one request in this test.
func TestInboundShedsWhatTheWorkloadCannotCarry(t *testing.T) {
	_, c, w := pair(t, shedding(0.5, 0.02))
	if a := c.get("payments.mesh", "/"); a.status != 200 || a.header.Get(headerShed) != "" {
		t.Fatalf("first request: %d %v, want 200", a.status, a.header)
	}
	for range 5 {
		a := c.get("payments.mesh", "/")
		if a.err != nil || a.status != 503 {
			t.Fatalf("beyond the capacity: %d %v, want 503", a.status, a.err)
		}
		for name, want := range map[string]string{
			headerShed: "1", "Retry-After": "1", "X-Envoy-Ratelimited": "true", headerFlags: "RL",
			headerWorkload: "eu/payments-1@v1", headerAttempts: "1",
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
	}
	if n := w.hits.Load(); n != 1 {
		t.Errorf("the application saw %d requests, want 1", n)
	}
	if n := usable(c.proxy, "payments", "eu"); n != 1 {
		t.Errorf("%d endpoints usable after shedding, want 1: an overloaded workload is not a lost one", n)
	}
	eventually(t, "6 lines at each sidecar", 10*time.Second, func() bool {
		return len(w.log.entries(t)) >= 6 && len(c.log.entries(t)) >= 6
	})
	shed := 0
	for _, e := range w.log.entries(t) {
		if e.Flags == "RL" && e.Status == 503 && e.Direction == "in" {
			shed++
		}
	}
	for _, e := range c.log.entries(t) {
		if e.Attempts > 1 {
			t.Errorf("%d attempts for %d %s, want 1: what was shed is never retried", e.Attempts, e.Status, e.Flags)
		}
	}
	if shed != 5 {
		t.Errorf("%d lines with flag RL, want 5", shed)
	}
}

func TestSheddingNeedsAKnownCapacityAndTheOwnWorkload(t *testing.T) {
	for _, tt := range []struct {
		rule string
		edit func(*route.Service)
		want float64
	}{
		{"share of the capacity", shedding(0.8, 300), 240},
		{"more than declared", shedding(1.5, 200), 300},
		{"no shed", shedding(0, 300), 0},
		{"capacity unknown", shedding(1, 0), 0},
		{"capacity of another workload", func(s *route.Service) {
			shedding(1, 300)(s)
			s.Sites[0].Endpoints[0].Workload = "payments-2"
		}, 0},
		{"capacity of its namesake at another site", func(s *route.Service) {
			shedding(1, 300)(s)
			s.Sites[0].Name = "us"
		}, 0},
	} {
		t.Run(tt.rule, func(t *testing.T) {
			m := newMesh(t)
			w := m.workload("payments", "eu", "payments-1")
			m.apply(table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{w}}}, tt.edit), w.proxy)
			if got := w.proxy.current.Load().service("payments").admit; got != tt.want {
				t.Errorf("admits %v requests/s, want %v", got, tt.want)
			}
		})
	}
}

// Health checks are not counted, and those who may not call cannot use up what others are admitted.
func TestOnlyAllowedRequestsTakeFromTheCapacity(t *testing.T) {
	m, c, w := pair(t, shedding(1, 0.01))
	for range 20 {
		resp, err := direct(t, m, w, identityOf("client", "stranger"), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if err != nil || resp.StatusCode != http.StatusForbidden {
			t.Fatalf("a stranger: %v, %v; want 403", resp, err)
		}
		resp, err = direct(t, m, w, identityOf("client", "caller"), "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("health: %v, %v; want 200", resp, err)
		}
	}
	if a := c.get("payments.mesh", "/"); a.status != 200 {
		t.Errorf("the first request: %d, want 200", a.status)
	}
	if a := c.get("payments.mesh", "/"); a.status != 503 {
		t.Errorf("the second request: %d, want 503", a.status)
	}
	resp, err := direct(t, m, w, identityOf("client", "caller"), "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("health while shedding: %v, %v; want 200", resp, err)
	}
}

// A new table must not hand out a new burst: what is left is of the workload, not of the table.
func TestCapacityIsNotGivenAgainByANewTable(t *testing.T) {
	m, c, w := pair(t, shedding(1, 0.01))
	c.get("payments.mesh", "/")
	for epoch := route.Epoch(2); epoch < 6; epoch++ {
		sites := []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{w}}}
		m.apply(table(epoch, "payments", sites, shedding(1, 0.01*float64(epoch))), w.proxy)
		if a := c.get("payments.mesh", "/"); a.status != 503 {
			t.Errorf("epoch %d: %d, want 503", epoch, a.status)
		}
	}
}
