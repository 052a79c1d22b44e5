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
	probeGap      = 500 * time.Millisecond // between probes of one endpoint
	sweepInterval = time.Second
	maxIdleSpan   = 5 * time.Minute // of a connection to a peer; peers keep theirs longer
)

// watch looks for endpoints that have stopped to answer, ends ejections that have lasted their time, and tidies up.
//
// A hang is not an error that comes back: a stopped process accepts connections and says nothing. So an endpoint whose
// oldest request has waited longer than max(stallFloor, 4 x its recent p99) without any byte from the endpoint is asked
// for its health at once, beside the regular checks, and ejected if it does not answer that either. Progress elsewhere
// is not asked for: when the only endpoint in use hangs there is none.
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
		if now.Sub(last) > 2*watchInterval+stallFloor/2 {
			p.heldUp.Store(now.UnixNano())
		}
		last = now
		heldUp := p.heldUpSince(now.Add(-stallFloor))
		for _, e := range p.all() {
			p.refresh(e, now)
			if !heldUp && e.stalled(now, stallFloor) {
				p.probe(ctx, e, now)
			}
		}
		if now.Sub(swept) >= sweepInterval {
			swept = now
			p.sweep(now)
		}
	}
}

// heldUpSince says whether this process itself was late since then: what looked like silence may have been ours.
func (p *Proxy) heldUpSince(t time.Time) bool { return p.heldUp.Load() > t.UnixNano() }

// refresh notices an ejection that has ended by time.
func (p *Proxy) refresh(e *endpoint, now time.Time) {
	if outlier.State(e.state.Load()) == outlier.Unusable {
		p.seen(e, e.observe(now, func(*outlier.Tracker) outlier.Cause { return "" }))
	}
}

// probe asks a stalled endpoint for its health, in a goroutine of its own, and ejects it if it stays silent.
func (p *Proxy) probe(ctx context.Context, e *endpoint, now time.Time) {
	e.mu.Lock()
	due := now.Sub(e.probed) >= probeGap
	e.mu.Unlock()
	if !due || !e.usable() || e.self || !e.probing.CompareAndSwap(false, true) {
		return
	}
	p.tasks.Go(func() {
		defer e.probing.Store(false)
		o := p.check(ctx, e, probeTimeout)
		if !o.ok && (o.late || p.heldUpSince(now)) {
			o = p.check(ctx, e, probeTimeout) // this process was held up: ask once more
		}
		e.mu.Lock()
		e.probed = time.Now()
		e.mu.Unlock()
		switch {
		case ctx.Err() != nil || o.ok:
		case o.silent && !o.late:
			p.eject(e, outlier.Hang)
		case !o.silent:
			p.checked(e, o, false)
		}
	})
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
