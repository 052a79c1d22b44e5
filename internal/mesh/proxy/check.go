package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/livefire-mesh/livefire/internal/mesh/proxy/http1"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/outlier"
)

var errCheckTimeout = errors.New("check timeout")

// outcome of one check.
type outcome struct {
	ok     bool
	silent bool // there was no answer at all, not even a refusal
	reason string
	late   bool // this process was held up meanwhile: the outcome says nothing of the endpoint
}

// checkLoop checks one endpoint until ctx ends: at once, then every interval, traffic or not.
func (p *Proxy) checkLoop(ctx context.Context, e *endpoint) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		spec := e.spec.Load()
		interval := spec.health.Interval.D()
		if interval <= 0 {
			interval = 500 * time.Millisecond
		}
		timeout := spec.health.Timeout.D()
		if timeout <= 0 {
			timeout = 300 * time.Millisecond
		}
		e.mu.Lock()
		late := e.schedule.Due(time.Now(), interval)
		e.mu.Unlock()
		o := p.check(ctx, e, timeout)
		if ctx.Err() != nil {
			return
		}
		p.checked(e, o, late)
		e.mu.Lock()
		wait := e.schedule.Wait(time.Now())
		e.mu.Unlock()
		timer.Reset(wait)
	}
}

// checked feeds the outcome of a check to the endpoint.
func (p *Proxy) checked(e *endpoint, o outcome, late bool) {
	result := "failed"
	if o.ok {
		result = "ok"
	}
	now := time.Now()
	e.mu.Lock()
	e.late = late || o.late
	e.mu.Unlock()
	if o.late && !o.ok {
		p.metrics.checks.WithLabelValues(string(e.key.service), string(e.key.site), "late").Inc()
		return
	}
	p.metrics.checks.WithLabelValues(string(e.key.service), string(e.key.site), result).Inc()
	p.seen(e, e.observe(now, func(t *outlier.Tracker) outlier.Cause { return t.Check(o.ok, o.silent, o.reason, now) }))
}

// check asks an endpoint once for its health, through its inbound listener.
func (p *Proxy) check(ctx context.Context, e *endpoint, timeout time.Duration) outcome {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errCheckTimeout)
	defer cancel()
	status, err := p.ask(ctx, e)
	o := outcome{late: time.Since(start) > timeout+timeout/2 || p.late.since(start) > timeout/3}
	switch {
	case err == nil && status >= 200 && status < 300:
		o.ok = true
	case err == nil:
		o.reason = "status " + strconv.Itoa(status)
	default:
		o.reason = describe(err)
		o.silent = errors.Is(err, errCheckTimeout) || errors.Is(err, errConnectTimeout) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
	}
	return o
}

func (p *Proxy) ask(ctx context.Context, e *endpoint) (status int, err error) {
	spec := e.spec.Load()
	path := spec.health.Path
	if path == "" {
		path = "/healthz"
	}
	for {
		c, err := e.checks.Take(ctx, 0)
		if err != nil {
			return 0, err
		}
		req := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}, Host: spec.host, Header: http.Header{"User-Agent": {"livefire-check"}}}
		resp, err := c.RoundTrip(ctx, req, 0)
		if err != nil {
			var sent *http1.SendError
			if errors.As(err, &sent) && sent.Reused && ctx.Err() == nil {
				continue // the peer closed an idle connection; a new one tells
			}
			return 0, err
		}
		_, err = io.CopyN(io.Discard, resp.Body, 4<<10)
		_ = resp.Body.Close() // a longer body costs the connection, not the check
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		return resp.StatusCode, nil
	}
}
