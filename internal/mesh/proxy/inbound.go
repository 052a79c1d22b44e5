package proxy

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/livefire-mesh/livefire/internal/mesh/proxy/http1"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/retry"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// serveInbound carries one request of a peer to the local application, if a rule allows it. The application sees no
// byte of a request that is refused.
func (p *Proxy) serveInbound(w http.ResponseWriter, r *http.Request, c *conn) {
	v := p.current.Load()
	x := p.newExchange(w, r, c, directionIn)
	defer x.end()
	x.log.Service, x.log.Site, x.log.Endpoint = p.cfg.Node.Service, p.cfg.Node.Site, p.cfg.Node.Workload
	s := v.service(p.cfg.Node.Service)
	if v != nil {
		x.log.Epoch = uint64(v.epoch)
	}
	w.Header().Set(headerWorkload, p.self(s))
	if x.refusedByGuard() {
		return
	}
	peer, err := c.identity(p.cfg.PeerID)
	x.log.Peer = peer
	if err != nil {
		w.Header().Set("Connection", "close")
		x.reply(http.StatusForbidden, flagDenied, "the caller's identity is not accepted: "+err.Error())
		return
	}
	if s == nil {
		x.reply(http.StatusServiceUnavailable, flagNoRoute, "no table names this service yet")
		return
	}
	healthPath := s.spec.Health.Path
	if healthPath == "" {
		healthPath = "/healthz"
	}
	// The exemption is for the bare question: a query, a body or a header that overrides the method is a request like any other.
	isHealth := r.Method == http.MethodGet && r.URL.EscapedPath() == healthPath && r.URL.RawQuery == "" && r.ContentLength == 0
	if isHealth {
		bareHead(r.Header)
		x.serveHealth(s, peer)
		return
	}
	if ok, reason := allowed(s.spec.Callers, peer, r.Method, r.URL.Path, r.URL.EscapedPath()); !ok {
		x.reply(http.StatusForbidden, flagDenied, reason)
		return
	}
	x.admit(s, peer)
	p.count(s.spec.Name, p.cfg.Node.Site, true, x.log.Status >= 500 || x.log.Status == 0)
}

// self is this workload as x-livefire-workload names it; the version is the table's, once it has one.
func (p *Proxy) self(s *service) string {
	n := p.cfg.Node
	version := p.cfg.Version
	if s != nil {
		if e, ok := p.own(s.spec); ok && e.Version != "" {
			version = e.Version
		}
	}
	return workloadOf(n.Site, n.Workload, version)
}

// own is the endpoint of the workload beside this proxy; ok is false if the service has none.
func (p *Proxy) own(s route.Service) (e route.Endpoint, ok bool) {
	n := p.cfg.Node
	if s.Name != n.Service {
		return e, false
	}
	for _, st := range s.Sites {
		for _, e := range st.Endpoints {
			if st.Name == n.Site && e.Workload == n.Workload {
				return e, true
			}
		}
	}
	return e, false
}

// serveHealth answers for the application's health. Any identity of the trust domain may ask, beyond every limit: an
// application that is busy is not dead. While draining the answer is no.
// bareHead leaves only what a health check needs: frameworks honour headers that override method or path.
func bareHead(h http.Header) {
	for name := range h {
		switch name {
		case "User-Agent", "Accept", "Connection", "X-Request-Id", "Traceparent":
		default:
			delete(h, name)
		}
	}
}

func (x *exchange) serveHealth(s *service, peer string) {
	if x.p.draining.Load() {
		x.reply(http.StatusServiceUnavailable, flagDrain, "draining")
		return
	}
	x.forward(s, peer, 0)
}

// admit holds the limits of the service, and of the workload: what it cannot carry is shed, never queued.
func (x *exchange) admit(s *service, peer string) {
	if x.conn.over {
		x.w.Header().Set("Connection", "close")
		x.reply(http.StatusServiceUnavailable, flagOverflow, "too many connections")
		return
	}
	limits := s.spec.Limits
	n := s.run.requests.Add(1)
	defer s.run.requests.Add(-1)
	if limits.Requests > 0 && n > int64(limits.Requests) {
		x.reply(http.StatusServiceUnavailable, flagOverflow, "too many requests in flight")
		return
	}
	if !s.run.admitted.Admit(time.Now(), s.admit) {
		h := x.w.Header()
		h.Set(headerShed, "1")
		h.Set("Retry-After", "1")
		h.Set("X-Envoy-Ratelimited", "true")
		x.reply(http.StatusServiceUnavailable, flagShed, "more requests than this workload has capacity for")
		return
	}
	x.forward(s, peer, limits.Connections)
}

// forward sends the request to the application and relays its answer.
func (x *exchange) forward(s *service, peer string, connections int) {
	ctx, cancel := x.r.Context(), context.CancelFunc(func() {})
	if t := s.spec.Timeouts.Request.D(); t > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, t, errRequestTimeout)
	}
	defer cancel()
	x.ctx = ctx
	h := forwarded(x.r)
	h.Set(headerRequestID, x.log.RequestID)
	h.Set(headerPeer, "By="+x.p.cfg.Node.Identity+";URI="+peer)
	for {
		x.log.Attempts++
		resp, err := x.askApp(ctx, h, connections, s)
		if err == nil {
			stripOurs(resp.Header) // the application does not speak for the mesh
			x.relay(resp, 0)
			return
		}
		var sent *http1.SendError
		stale := errors.As(err, &sent) && sent.Reused && causeOf(err) == retry.Reset
		if stale && x.log.Attempts < 3 && ctx.Err() == nil && x.r.ContentLength == 0 && (!sent.Sent || retry.Safe(x.r.Method)) {
			continue // the application closed an idle connection at this moment
		}
		x.appFailed(err)
		return
	}
}

func (x *exchange) askApp(ctx context.Context, h http.Header, connections int, s *service) (*http.Response, error) {
	pending := x.p.in.pending.Add(1)
	if limit := s.spec.Limits.Pending; connections > 0 && limit > 0 && pending > int64(limit) {
		x.p.in.pending.Add(-1)
		return nil, errPending
	}
	c, err := x.p.app.Take(ctx, connections)
	x.p.in.pending.Add(-1)
	if err != nil {
		return nil, err
	}
	req := x.outgoing(h.Clone())
	if x.r.ContentLength != 0 {
		req.Body = x.r.Body
	}
	return c.RoundTrip(ctx, req, s.spec.Timeouts.Idle.D())
}

// appFailed answers for an application that did not.
func (x *exchange) appFailed(err error) {
	if x.replyEnded() {
		return
	}
	reason := "the application: " + describe(err)
	switch {
	case errors.Is(err, errPending):
		x.reply(http.StatusServiceUnavailable, flagOverflow, err.Error())
	case causeOf(err) == retry.Reset:
		x.reply(http.StatusServiceUnavailable, flagTerminated, reason)
	default:
		x.reply(http.StatusServiceUnavailable, flagConnect, reason)
	}
}
