package proxy

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

func TestRetriesByMethodAndAnswer(t *testing.T) {
	for _, tt := range []struct {
		name, method, body string
		answer             int // of the preferred site
		shed               bool
		edit               func(*route.Service)
		status             int
		attempts           string
	}{
		{"GET 503", "GET", "", 503, false, nil, 200, "2"},
		{"GET 502", "GET", "", 502, false, nil, 200, "2"},
		{"GET 504", "GET", "", 504, false, nil, 200, "2"},
		{"GET 500 is an answer", "GET", "", 500, false, nil, 500, "1"},
		{"POST 503", "POST", "x", 503, false, nil, 503, "1"},
		{"idempotent POST 503", "POST", "x", 503, false, func(s *route.Service) { s.Retries.Idempotent = true }, 200, "2"},
		{"idempotent POST, body too large to replay", "POST", strings.Repeat("x", 200<<10), 503, false, func(s *route.Service) { s.Retries.Idempotent = true }, 503, "1"},
		{"one attempt", "GET", "", 503, false, func(s *route.Service) { s.Retries.Attempts = 1 }, 503, "1"},
		{"reset", "GET", "", 0, false, nil, 200, "2"},
		{"POST reset", "POST", "x", 0, false, nil, 503, "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMesh(t)
			eu, us := m.workload("payments", "eu", "p-1"), m.workload("payments", "us", "p-2")
			var executed atomic.Int64
			eu.handle(func(rw http.ResponseWriter, r *http.Request) {
				executed.Add(1)
				_, _ = io.Copy(io.Discard, r.Body)
				if tt.answer == 0 {
					eu.gate.kill()
					return
				}
				rw.WriteHeader(tt.answer)
			})
			c := m.caller()
			edits := []func(*route.Service){}
			if tt.edit != nil {
				edits = append(edits, tt.edit)
			}
			m.apply(table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{eu}}, {name: "us", priority: 1, workloads: []*workload{us}}}, edits...), c.proxy, eu.proxy, us.proxy)
			c.healthy(t, "payments", 2)
			a := c.do(tt.method, "payments.mesh", "/", strings.NewReader(tt.body))
			if a.err != nil || a.status != tt.status || a.header.Get(headerAttempts) != tt.attempts {
				t.Errorf("%d after %s attempts (%v), want %d after %s", a.status, a.header.Get(headerAttempts), a.err, tt.status, tt.attempts)
			}
			if executed.Load() != 1 {
				t.Errorf("executed %d times at the preferred site, want once", executed.Load())
			}
			if tt.status != 200 && us.hits.Load() != 0 {
				t.Errorf("executed %d times at the standby, want 0", us.hits.Load())
			}
		})
	}
}

func TestUnsentPostGoesElsewhere(t *testing.T) {
	_, c, eu, us := primaryAndStandby(t)
	for _, w := range us {
		w.handle(func(rw http.ResponseWriter, r *http.Request) { _, _ = io.Copy(rw, r.Body) })
	}
	for _, w := range eu {
		w.gate.kill()
	}
	if a := c.do("POST", "payments.mesh", "/", strings.NewReader("pay 5")); a.status != 200 || a.body != "pay 5" {
		t.Errorf("POST: %d %q %v, want 200 and its body", a.status, a.body, a.err)
	}
}

func TestEjectionEndsRequestsInFlight(t *testing.T) {
	_, c, eu, us := primaryAndStandby(t)
	var waiting sync.WaitGroup
	waiting.Add(20)
	release := make(chan struct{})
	defer close(release)
	for _, w := range eu {
		w.handle(func(_ http.ResponseWriter, r *http.Request) {
			waiting.Done()
			<-release
		})
	}
	answers := make(chan answer, 20)
	for range 20 {
		go func() { answers <- c.get("payments.mesh", "/") }()
	}
	waiting.Wait()
	for _, w := range eu {
		w.gate.pause() // nothing ends these requests but the ejection
	}
	for range 20 {
		if a := <-answers; a.status != 200 || !strings.HasPrefix(a.body, "us/") || a.duration > 8*time.Second {
			t.Errorf("%d %q after %v (%v), want 200 from the standby", a.status, a.body, a.duration, a.err)
		}
	}
	if n := us[0].hits.Load() + us[1].hits.Load(); n != 20 {
		t.Errorf("the standby served %d, want 20", n)
	}
}

func TestHangWithoutAlternativeIsLeftToTheChecks(t *testing.T) {
	_, c, w := pair(t, func(s *route.Service) {
		s.Health.Timeout = api.Duration(5 * time.Second)
		s.Health.Interval = api.Duration(5 * time.Second)
	})
	a := make(chan answer, 1)
	in := make(chan struct{})
	w.handle(func(rw http.ResponseWriter, _ *http.Request) { close(in); _, _ = io.WriteString(rw, "late") })
	w.gate.pause()
	go func() { a <- c.get("payments.mesh", "/") }()
	e := c.proxy.current.Load().services[0].sites[0].endpoints[0]
	eventually(t, "a probe", 10*time.Second, func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return !e.probed.IsZero()
	})
	w.gate.resume()
	<-in
	if got := <-a; got.status != 200 || got.body != "late" {
		t.Errorf("%d %q %v, want the late answer", got.status, got.body, got.err)
	}
}

func TestTimeouts(t *testing.T) {
	t.Run("request", func(t *testing.T) {
		_, c, w := pair(t, func(s *route.Service) { s.Timeouts.Request = api.Duration(100 * time.Millisecond) })
		cancelled := make(chan struct{})
		w.handle(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); close(cancelled) })
		a := c.get("payments.mesh", "/")
		if a.status != 504 || a.header.Get(headerFlags) != "UT" {
			t.Errorf("%d %q, want 504 UT", a.status, a.header.Get(headerFlags))
		}
		<-cancelled
	})
	t.Run("try", func(t *testing.T) {
		m := newMesh(t)
		eu, us := m.workload("payments", "eu", "p-1"), m.workload("payments", "us", "p-2")
		eu.handle(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		c := m.caller()
		m.apply(table(1, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{eu}}, {name: "us", priority: 1, workloads: []*workload{us}}},
			func(s *route.Service) { s.Timeouts.Try = api.Duration(100 * time.Millisecond) }), c.proxy, eu.proxy, us.proxy)
		c.healthy(t, "payments", 2)
		if a := c.get("payments.mesh", "/"); a.status != 200 || a.header.Get(headerAttempts) != "2" {
			t.Errorf("%d after %s attempts, want 200 after 2", a.status, a.header.Get(headerAttempts))
		}
	})
}

func TestCallerThatHasGoneCancelsUpstream(t *testing.T) {
	_, c, w := pair(t)
	in, cancelled := make(chan struct{}), make(chan struct{})
	w.handle(func(_ http.ResponseWriter, r *http.Request) { close(in); <-r.Context().Done(); close(cancelled) })
	ctx, cancel := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "GET", "http://"+c.base+"/", nil)
	r.Host = "payments.mesh"
	go func() { <-in; cancel() }()
	if _, err := c.client.Do(r); err == nil {
		t.Fatal("the request succeeded")
	}
	<-cancelled
	eventually(t, "499 in the log", 5*time.Second, func() bool {
		for _, e := range c.log.entries(t) {
			if e.Status == 499 && e.Flags == "DC" {
				return true
			}
		}
		return false
	})
}

func TestLimitsRefuseWithUO(t *testing.T) {
	for _, side := range []string{"out", "in"} {
		_, c, w := pair(t, func(s *route.Service) { s.Limits.Requests = 1 })
		if side == "in" { // the caller's table has no limit
			tbl := table(2, "payments", []siteSpec{{name: "eu", share: route.Whole, workloads: []*workload{w}}})
			if err := c.proxy.Apply(tbl); err != nil {
				t.Fatal(err)
			}
		}
		in, release := make(chan struct{}, 10), make(chan struct{})
		w.handle(func(http.ResponseWriter, *http.Request) { in <- struct{}{}; <-release })
		first := make(chan answer, 1)
		go func() { first <- c.do("POST", "payments.mesh", "/", nil) }()
		<-in
		a := c.do("POST", "payments.mesh", "/", nil)
		if a.status != 503 || !strings.Contains(a.header.Get(headerFlags), "UO") {
			t.Errorf("%s: second request %d %q, want 503 UO", side, a.status, a.header.Get(headerFlags))
		}
		close(release)
		if a := <-first; a.status != 200 {
			t.Errorf("%s: first request %d, want 200", side, a.status)
		}
		if w.hits.Load() != 1 {
			t.Errorf("%s: the application saw %d requests, want 1", side, w.hits.Load())
		}
	}
}
