package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/http1"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/outlier"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/retry"
)

// serveOutbound carries one request of the local application to a service of the mesh.
func (p *Proxy) serveOutbound(w http.ResponseWriter, r *http.Request, c *conn) {
	v := p.current.Load() // the table that this request keeps
	x := p.newExchange(w, r, c, directionOut)
	defer x.end()
	if v != nil {
		x.log.Epoch = uint64(v.epoch)
	}
	if x.refusedByGuard() {
		return
	}
	s := v.lookup(r.Host)
	if c.service != "" {
		s = v.service(c.service)
	}
	switch {
	case s == nil && c.service != "":
		x.reply(http.StatusServiceUnavailable, flagNoRoute, "service "+string(c.service)+" is not in the table")
		return
	case s == nil:
		x.reply(http.StatusNotFound, flagNoRoute, fmt.Sprintf("no service has the host %q", r.Host))
		return
	}
	x.log.Service = s.spec.Name
	x.send(s)
	p.count(s.spec.Name, x.log.Site, false, x.log.Status >= 500 || x.log.Status == 0)
}

func (p *Proxy) newExchange(w http.ResponseWriter, r *http.Request, c *conn, direction string) *exchange {
	now := time.Now()
	id := requestID(r)
	return &exchange{p: p, w: w, r: r, conn: c, ctx: r.Context(), start: now,
		log: entry{Time: now.UTC(), Direction: direction, Method: r.Method, Path: r.URL.Path, RequestID: id}}
}

// sender is the state of one outbound request over its attempts.
type sender struct {
	*exchange
	service *service
	tried   tried
	replay  *http1.Replay // nil without a body
}

// result of one attempt: a response, or why there is none, or both for a gateway error.
type result struct {
	resp        *http.Response
	done        func() // to be called when the response was read
	cause       retry.Cause
	err         error
	undelivered bool
}

// send makes attempts until one succeeds or no more may be made.
func (x *exchange) send(s *service) {
	limits := s.spec.Limits
	if n := s.run.requests.Add(1); limits.Requests > 0 && n > int64(limits.Requests) {
		s.run.requests.Add(-1)
		x.reply(http.StatusServiceUnavailable, flagOverflow, "too many requests in flight to "+string(s.spec.Name))
		return
	}
	defer s.run.requests.Add(-1)
	if t := s.spec.Timeouts.Request.D(); t > 0 {
		ctx, cancel := context.WithTimeoutCause(x.ctx, t, errRequestTimeout)
		defer cancel()
		x.ctx = ctx
	}
	t := &sender{exchange: x, service: s}
	if x.r.ContentLength != 0 {
		t.replay = http1.NewReplay(x.r.Body)
	}
	s.run.budget.Request(x.start)
	t.run()
}

func (t *sender) run() {
	e, ok := t.next()
	if !ok {
		t.reply(http.StatusServiceUnavailable, flagNoHealthy, "no healthy endpoint of "+string(t.service.spec.Name))
		return
	}
	for {
		r := t.attempt(e)
		if r.cause == retry.None {
			t.relay(r.resp, t.log.Attempts)
			r.done()
			return
		}
		next, again := t.again(e, r)
		if !again {
			t.giveUp(r)
			return
		}
		r.discard()
		e = next
	}
}

// discard gives up a response that is not relayed.
func (r *result) discard() {
	if r.resp != nil {
		_ = r.resp.Body.Close() // its connection goes with it
		r.done()
	}
}

// next picks the endpoint of the next attempt and reports what the reflex did.
func (t *sender) next() (*endpoint, bool) {
	for range 3 { // an endpoint may be lost between the two choices
		e, i, moves := t.service.pick(&t.tried, t.p.random)
		t.p.moved(t.service, moves)
		if i < 0 {
			return nil, false
		}
		t.log.Site = t.service.sites[i].spec.Name
		if e != nil {
			t.tried.sites = append(t.tried.sites, i)
			return e, true
		}
	}
	return nil, false
}

// again decides whether the failed attempt is followed by another, and where.
func (t *sender) again(e *endpoint, r *result) (next *endpoint, again bool) {
	if t.ctx.Err() != nil || t.conn.guard.Refusal() != nil {
		return nil, false
	}
	policy := t.service.spec.Retries
	f := retry.Failure{Cause: r.cause, Method: t.r.Method, Attempts: t.log.Attempts, Undelivered: r.undelivered, Replayable: t.replay.Whole()}
	f.Shed = r.resp != nil && r.resp.Header.Get(headerShed) != ""
	if !retry.Allowed(policy, f) {
		return nil, false
	}
	failedAt := t.log.Site
	next, ok := t.next()
	if !ok {
		t.log.Site = failedAt
		t.flag(flagNoHealthy)
		return nil, false
	}
	if !t.service.run.budget.Retry(policy.Budget, !e.usable(), time.Now()) {
		t.log.Site = failedAt
		t.p.metrics.retries.WithLabelValues(string(t.service.spec.Name), string(r.cause), "budget").Inc()
		return nil, false
	}
	t.p.metrics.retries.WithLabelValues(string(t.service.spec.Name), string(r.cause), "made").Inc()
	if t.tried.endpoint(next) {
		backOff := time.Duration(float64(t.log.Attempts) * (0.5 + t.p.random.float()) * float64(10*time.Millisecond))
		timer := time.NewTimer(backOff)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-t.ctx.Done():
			return nil, false
		}
	}
	return next, true
}

// giveUp answers the caller with what the last attempt brought.
func (t *sender) giveUp(r *result) {
	if r.resp != nil {
		t.relay(r.resp, t.log.Attempts)
		r.done()
		return
	}
	if t.replyEnded() {
		return
	}
	if t.log.Attempts > 1 {
		t.flag(flagRetries)
	}
	status, flag := http.StatusServiceUnavailable, flagConnect
	switch r.cause {
	case retry.Reset, retry.Ejected:
		flag = flagTerminated
	case retry.TryTimeout:
		status, flag = http.StatusGatewayTimeout, flagTimeout
	case retry.Local:
		flag = flagOverflow
		if !errors.Is(r.err, errPending) {
			status, flag = http.StatusBadRequest, flagProtocol // the caller's body could not be read
		}
	}
	t.reply(status, flag, fmt.Sprintf("%s at %s: %s", t.log.Endpoint, t.log.Site, describe(r.err)))
}

var errPending = errors.New("too many requests wait for a connection")

// attempt sends the request to one endpoint, up to the head of the response.
func (t *sender) attempt(e *endpoint) *result {
	t.log.Attempts++
	t.log.Endpoint = e.key.workload
	t.tried.endpoints = append(t.tried.endpoints, e)
	ctx, cancel := context.WithCancelCause(t.ctx)
	a := &attempt{start: time.Now(), cancel: cancel, repeatable: retry.Safe(t.r.Method) || t.service.spec.Retries.Idempotent}
	e.begin(a)
	done := func() {
		e.finish(a)
		cancel(nil)
	}
	resp, err := t.exchangeWith(ctx, e, a)
	if err != nil {
		done()
		return t.failed(e, err)
	}
	a.answered.Store(true)
	e.answeredIn(time.Since(a.start))
	return t.answer(e, resp, done)
}

// exchangeWith connects and sends; a try timeout covers both, up to the response's head.
func (t *sender) exchangeWith(ctx context.Context, e *endpoint, a *attempt) (*http.Response, error) {
	spec := t.service.spec
	if try := spec.Timeouts.Try.D(); try > 0 {
		timer := time.AfterFunc(try, func() { a.cancel(errTryTimeout) })
		defer timer.Stop()
	}
	n := t.service.run.pending.Add(1)
	if spec.Limits.Pending > 0 && n > int64(spec.Limits.Pending) {
		t.service.run.pending.Add(-1)
		return nil, errPending
	}
	c, err := e.pool.Take(ctx, spec.Limits.Connections)
	t.service.run.pending.Add(-1)
	if err != nil {
		return nil, err
	}
	h := forwarded(t.r)
	h.Set(headerRequestID, t.log.RequestID)
	req := t.outgoing(h)
	if t.replay != nil {
		body, ok := t.replay.Attempt()
		if !ok {
			c.Close()
			return nil, fmt.Errorf("send the body again: %w", http1.ErrBodyTaken)
		}
		req.Body = body
	}
	return c.RoundTrip(ctx, req, spec.Timeouts.Idle.D())
}

// failed judges an attempt without a response.
func (t *sender) failed(e *endpoint, err error) *result {
	r := &result{err: err, cause: causeOf(err)}
	var sent *http1.SendError
	r.undelivered = !errors.As(err, &sent) || !sent.Sent || r.cause == retry.Connect
	if errors.Is(err, errPending) {
		r.cause = retry.Local
	}
	if t.ctx.Err() != nil || t.conn.guard.Refusal() != nil {
		r.cause = retry.Local
		return r
	}
	now := time.Now()
	switch {
	case errors.Is(err, errConnectTimeout):
		// Silence, or this host has too much to do: the watch asks the endpoint and another one, then decides.
	case r.cause == retry.Refused || r.cause == retry.Connect:
		t.p.eject(e, outlier.Refused)
	case r.cause == retry.Reset:
		t.p.report(e, outlier.Reset, now)
	}
	return r
}

// answer judges a response by its status.
func (t *sender) answer(e *endpoint, resp *http.Response, done func()) *result {
	r := &result{resp: resp, done: done, cause: retry.StatusCause(resp.StatusCode)}
	flags := resp.Header.Get(headerFlags)
	overloaded := resp.Header.Get(headerShed) != "" || hasFlag(flags, flagOverflow)
	if r.cause == retry.None || overloaded {
		e.mu.Lock()
		e.tracker.Answer()
		e.mu.Unlock()
	} else {
		t.p.report(e, outlier.Status, time.Now())
	}
	// The peer's sidecar says itself that its application has seen nothing; the application cannot say so in its name.
	r.undelivered = hasFlag(flags, flagConnect) || hasFlag(flags, flagOverflow) || hasFlag(flags, flagDrain)
	r.err = fmt.Errorf("status %d", resp.StatusCode)
	return r
}

func hasFlag(flags, want string) bool {
	for f := range strings.SplitSeq(flags, ",") {
		if f == want {
			return true
		}
	}
	return false
}

// report counts a reset or a gateway error, which may eject the endpoint.
func (p *Proxy) report(e *endpoint, cause outlier.Cause, now time.Time) {
	p.seen(e, e.observe(now, func(t *outlier.Tracker) outlier.Cause {
		if t.Error(cause, now) {
			return cause
		}
		return ""
	}))
}

// workloadOf names a workload as x-livefire-workload does.
func workloadOf(site api.SiteID, workload, version string) string {
	return string(site) + "/" + workload + "@" + version
}
