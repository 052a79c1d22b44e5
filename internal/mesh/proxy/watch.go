package proxy

import (
	"context"
	"time"

	"github.com/livefire-mesh/livefire/internal/mesh/proxy/outlier"
)

const (
	watchInterval = 25 * time.Millisecond
	stallFloor    = 100 * time.Millisecond // a request younger than this is never suspicious
	probeTimeout  = 250 * time.Millisecond
	probeGap      = 200 * time.Millisecond // between probes of one endpoint
	sweepInterval = time.Second
	maxIdleSpan   = 5 * time.Minute // of a connection to a peer; peers keep theirs longer
)

// watch looks for endpoints that have stopped to answer, ends ejections that have lasted their time, and tidies up.
//
// A hang is not an error that comes back: a stopped process accepts connections and says nothing. So an endpoint whose
// oldest request has waited longer than max(stallFloor, 4 x its recent p99) without any byte from the endpoint is asked
// for its health at once, beside the regular checks. It is ejected if it does not answer that either while another
// endpoint, where its requests could go, does: silence everywhere is this host's own trouble, or leaves nowhere to go,
// and ejecting everybody would turn a slow moment into an outage. The regular checks decide then.
func (p *Proxy) watch(ctx context.Context) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	last := time.Now()
	swept := last
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if by := now.Sub(last) - watchInterval; by > watchInterval/5 {
			p.late.note(now, by)
		}
		last = now
		for _, e := range p.all() {
			p.refresh(e, now)
			if e.stalled(now, stallFloor) {
				p.probe(ctx, e, now)
			}
		}
		if now.Sub(swept) >= sweepInterval {
			swept = now
			p.sweep(now)
		}
	}
}

// refresh notices an ejection that has ended by time.
func (p *Proxy) refresh(e *endpoint, now time.Time) {
	if outlier.State(e.state.Load()) == outlier.Unusable {
		p.seen(e, e.observe(now, func(*outlier.Tracker) outlier.Cause { return "" }))
	}
}

// probe asks a stalled endpoint for its health, in a goroutine of its own, and ejects it if it stays silent while
// another endpoint that could serve instead answers.
func (p *Proxy) probe(ctx context.Context, e *endpoint, now time.Time) {
	e.mu.Lock()
	due := now.Sub(e.probed) >= probeGap
	timeout := probeTimeout << min(e.undecided, 2) // nobody answered in time: this host is slow, so wait longer
	e.mu.Unlock()
	if !due || !e.usable() || e.self || !e.probing.CompareAndSwap(false, true) {
		return
	}
	p.tasks.Go(func() {
		defer e.probing.Store(false)
		instead := make(chan bool, 1)
		p.tasks.Go(func() { instead <- p.otherAnswers(ctx, e, now, timeout) })
		o := p.check(ctx, e, timeout)
		other := <-instead
		e.mu.Lock()
		e.probed = time.Now()
		e.undecided++
		if o.ok || !o.silent || other {
			e.undecided = 0
		}
		e.mu.Unlock()
		switch {
		case ctx.Err() != nil || o.ok:
		case !o.silent:
			p.checked(e, o, false)
		case other:
			p.eject(e, outlier.Hang)
		}
	})
}

// otherAnswers asks the endpoints that could take over from e, one after the other within one probe's time, and says
// whether one answers. Another site comes first, because a site is lost as a whole more often than half.
func (p *Proxy) otherAnswers(ctx context.Context, e *endpoint, now time.Time, timeout time.Duration) bool {
	s := p.current.Load().service(e.key.service)
	if s == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for _, o := range s.instead(e) {
		if ctx.Err() != nil {
			return false
		}
		if !o.stalled(now, stallFloor) && p.check(ctx, o, timeout).ok {
			return true
		}
	}
	return false
}

// instead gives the usable endpoints that requests could go to if e were lost, those of other sites first.
func (s *service) instead(e *endpoint) (others []*endpoint) {
	var here []*endpoint
	for _, st := range s.sites {
		if st.spec.Excluded || !s.spec.Reflex && st.spec.Name != e.key.site {
			continue
		}
		for _, o := range st.endpoints {
			switch {
			case o == e || !o.usable():
			case st.spec.Name == e.key.site:
				here = append(here, o)
			default:
				others = append(others, o)
			}
		}
	}
	return append(others, here...)
}

// sweep closes connections that have been idle for long, and ends what remains at endpoints that left the table.
func (p *Proxy) sweep(now time.Time) {
	if v := p.current.Load(); v != nil {
		for _, s := range v.services {
			idle := s.spec.Timeouts.Idle.D()
			if idle <= 0 || idle > maxIdleSpan {
				idle = maxIdleSpan
			}
			for _, st := range s.sites {
				for _, e := range st.endpoints {
					e.pool.CloseIdle(now, idle)
				}
			}
		}
	}
	p.app.CloseIdle(now, maxIdleSpan)
	p.endpointsMu.Lock()
	var over []*endpoint
	for e, until := range p.leaving {
		if e.inFlight.Load() == 0 || now.After(until) {
			delete(p.leaving, e)
			over = append(over, e)
		}
	}
	p.endpointsMu.Unlock()
	for _, e := range over {
		e.cancelAll(errRemoved)
	}
	p.metrics.observe(p)
}
