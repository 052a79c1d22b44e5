package retry

import (
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

var defaults = api.Retries{On: []string{"connect", "reset", "refused", "502", "503", "504"}, Attempts: 3, Budget: 0.2}

// dataplane.md: retries "for safe or declared idempotent requests; never re-sends a request body that was partly sent
// and not replayable"; patterns.md: x-livefire-shed "is never retried".
func TestRetryOnlyWhatMayBeSentTwice(t *testing.T) {
	idempotent := defaults
	idempotent.Idempotent = true
	narrow := api.Retries{On: []string{"connect"}, Attempts: 3}
	for _, tt := range []struct {
		name   string
		policy api.Retries
		f      Failure
		want   bool
	}{
		{"safe after reset", defaults, Failure{Cause: Reset, Method: "GET", Attempts: 1, Replayable: true}, true},
		{"safe after 503", defaults, Failure{Cause: Status503, Method: "HEAD", Attempts: 1, Replayable: true}, true},
		{"safe after ejection", defaults, Failure{Cause: Ejected, Method: "OPTIONS", Attempts: 2, Replayable: true}, true},
		{"safe after try timeout", defaults, Failure{Cause: TryTimeout, Method: "GET", Attempts: 1, Replayable: true}, true},
		{"attempts are used up", defaults, Failure{Cause: Reset, Method: "GET", Attempts: 3, Replayable: true}, false},
		{"shed is final", defaults, Failure{Cause: Status503, Method: "GET", Attempts: 1, Replayable: true, Shed: true}, false},
		{"POST that was sent", defaults, Failure{Cause: Reset, Method: "POST", Attempts: 1, Replayable: true}, false},
		{"POST that was answered 503", defaults, Failure{Cause: Status503, Method: "POST", Attempts: 1, Replayable: true}, false},
		{"POST that was provably not sent", defaults, Failure{Cause: Refused, Method: "POST", Attempts: 1, Replayable: true, Undelivered: true}, true},
		{"POST whose endpoint went while it connected", defaults, Failure{Cause: Ejected, Method: "POST", Attempts: 1, Replayable: true, Undelivered: true}, true},
		{"idempotent POST", idempotent, Failure{Cause: Reset, Method: "POST", Attempts: 1, Replayable: true}, true},
		{"idempotent POST whose body is gone", idempotent, Failure{Cause: Reset, Method: "POST", Attempts: 1}, false},
		{"not the endpoint's doing", defaults, Failure{Cause: Local, Method: "GET", Attempts: 1, Replayable: true}, false},
		{"success", defaults, Failure{Cause: None, Method: "GET", Attempts: 1, Replayable: true}, false},
		{"connect covers refused", narrow, Failure{Cause: Refused, Method: "GET", Attempts: 1, Replayable: true}, true},
		{"the policy does not name it", narrow, Failure{Cause: Reset, Method: "GET", Attempts: 1, Replayable: true}, false},
		{"no policy", api.Retries{}, Failure{Cause: Reset, Method: "GET", Attempts: 1, Replayable: true}, false},
	} {
		if got := Allowed(tt.policy, tt.f); got != tt.want {
			t.Errorf("%s: Allowed = %t, want %t", tt.name, got, tt.want)
		}
	}
}

func TestStatusCauseIsAGatewayErrorOnly(t *testing.T) {
	for status, want := range map[int]Cause{200: None, 404: None, 500: None, 502: Status502, 503: Status503, 504: Status504} {
		if got := StatusCause(status); got != want {
			t.Errorf("StatusCause(%d) = %q, want %q", status, got, want)
		}
	}
}

// dataplane.md: "budget on by default (20 % of requests): at most 1.2x in a total outage".
func TestBudgetBoundsATotalOutage(t *testing.T) {
	var b Budget
	start := time.Unix(1000, 0)
	requests, retries := 0, 0
	for i := range 60 * 500 { // 500 requests/s for a minute, each of which fails and asks for two retries
		now := start.Add(time.Duration(i) * 2 * time.Millisecond)
		b.Request(now)
		requests++
		for range 2 {
			if b.Retry(0.2, false, now) {
				retries++
			}
		}
	}
	most := 0.2*float64(requests) + Floor*60 + Floor*Window.Seconds()
	if got := float64(retries); got > most || got < 0.15*float64(requests) {
		t.Errorf("%d retries for %d requests, want between 15 %% and 20 %% and the floor (%.0f)", retries, requests, most)
	}
}

func TestBudgetFloorServesQuietServices(t *testing.T) {
	var b Budget
	now := time.Unix(1000, 0)
	n := 0
	for b.Retry(0.2, false, now) {
		n++
	}
	if want := int(Floor * Window.Seconds()); n != want {
		t.Errorf("%d retries without requests, want the floor of one window, %d", n, want)
	}
	if b.Retry(0.2, false, now.Add(Window/2)) {
		t.Error("a retry was allowed while the window is full")
	}
	if !b.Retry(0.2, false, now.Add(Window+time.Second)) {
		t.Error("no retry was allowed after the window has passed")
	}
}

// An ejection ends many requests at once: those retries are charged, never refused.
func TestBudgetNeverStarvesEjections(t *testing.T) {
	var b Budget
	now := time.Unix(1000, 0)
	for range 5000 {
		if !b.Retry(0.2, true, now) {
			t.Fatal("a forced retry was refused")
		}
	}
	if b.Retry(0.2, false, now) {
		t.Error("an ordinary retry was allowed although forced ones have used the budget")
	}
}

func TestBudgetSurvivesAClockThatStandsOrJumps(t *testing.T) {
	var b Budget
	now := time.Unix(1000, 0)
	b.Request(now)
	b.Request(now.Add(-time.Hour))
	b.Request(now.Add(1000 * time.Hour))
	if !b.Retry(0, false, now) {
		t.Error("no retry within the floor after the clock went back")
	}
}
