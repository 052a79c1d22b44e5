// Package retry decides whether a failed attempt is made again.
//
// Allowed is the rule for one failure; Budget bounds retries over time. Both are pure: time arrives as an argument.
//
// A failure that comes with the ejection of its endpoint is retried even when the budget is spent: such failures are at
// most the requests that were in flight at the ejection, after which the endpoint gets none. They are charged all the
// same, so that they crowd out the ordinary ones and never the other way round.
//
// Units: the budget is retries per request over Window, plus Floor retries per second.
// Errors: none.
// Concurrency: Allowed is pure; a Budget is safe from any goroutine.
// Sources: docs of Envoy's retry budget, which bounds concurrency; differs: this bounds the rate.
package retry

import (
	"net/http"
	"slices"

	"github.com/livefire-mesh/livefire/api"
)

// Cause is why an attempt failed.
type Cause string

const (
	None       Cause = ""
	Refused    Cause = "refused" // the peer's host refused the connection
	Connect    Cause = "connect" // no connection: timeout, unreachable, TLS
	Reset      Cause = "reset"   // the connection ended before the response's head
	Ejected    Cause = "ejected" // the endpoint was ejected while the attempt waited
	TryTimeout Cause = "try timeout"
	Status502  Cause = "502"
	Status503  Cause = "503"
	Status504  Cause = "504"
	Local      Cause = "local" // not the endpoint's doing: client gone, request timeout, body unreadable
)

// StatusCause is the cause that a response's status is, None if it is no failure of the endpoint.
func StatusCause(status int) Cause {
	switch status {
	case http.StatusBadGateway:
		return Status502
	case http.StatusServiceUnavailable:
		return Status503
	case http.StatusGatewayTimeout:
		return Status504
	}
	return None
}

// Failure is one failed attempt, as far as the decision depends on it.
type Failure struct {
	Cause       Cause
	Method      string
	Attempts    int  // made so far, this one included
	Undelivered bool // the application has provably seen nothing of the request
	Replayable  bool // the body can be sent again from its beginning
	Shed        bool // refused for capacity
}

// Safe says whether a method may be sent twice.
func Safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// Allowed says whether the failure may be tried again, the budget aside.
func Allowed(policy api.Retries, f Failure) bool {
	if f.Cause == None || f.Cause == Local || f.Shed || !f.Replayable || f.Attempts >= policy.Attempts {
		return false
	}
	if !Safe(f.Method) && !policy.Idempotent && !f.Undelivered {
		return false
	}
	return slices.ContainsFunc(policy.On, func(on string) bool { return covers(on, f.Cause) })
}

// covers says whether a word of the policy names the cause. A connection that is refused is also one that failed; an
// ejection ends a wait as a reset would; a try timeout is what a gateway would call 504.
func covers(on string, c Cause) bool {
	switch on {
	case "connect":
		return c == Connect || c == Refused
	case "reset":
		return c == Reset || c == Ejected
	case "504":
		return c == Status504 || c == TryTimeout
	}
	return on == string(c)
}
