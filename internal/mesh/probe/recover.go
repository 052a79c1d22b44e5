package probe

import (
	"context"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// closeUp completes what a probe that is over has left, the last chunk marked as the last. It tries until it
// succeeds or ctx ends.
func (p *probe) closeUp(ctx context.Context) {
	limit := p.reached()
	p.end(limit)
	for {
		err := p.closeOnce(limit)
		if err == nil {
			poke(p.complete)
			return
		}
		p.log.Error("probe of an earlier process not closed, tried again", "err", err)
		timer := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// closeOnce may be done again: what is complete stays as it is.
func (p *probe) closeOnce(limit time.Duration) error {
	last := int64(limit / time.Second)
	for k := int64(0); k <= last; k++ {
		if p.spool.exists(k) {
			if p.spool.isLast(k) {
				return nil
			}
			continue
		}
		c := p.rebuild(k, limit)
		c.last = k == last
		if err := p.spool.writeChunk(p.build(c)); err != nil {
			return err
		}
	}
	if p.spool.isLast(last) || p.spool.exists(last+1) {
		return nil
	}
	// The last second was complete when the process died: an empty one says that there are no more.
	c := p.rebuild(last+1, limit)
	c.last, c.to = true, p.pace.first(last+1)
	return p.spool.writeChunk(p.build(c))
}

// resume completes the seconds that went by and returns the one that runs now. Samples that were due meanwhile
// were not sent: they are unknown.
func (p *probe) resume() (*chunk, error) {
	limit := sinceBoot() - p.state().Start
	limit = max(limit, 0)
	now := int64(limit / time.Second)
	for k := int64(0); k < now; k++ {
		if p.spool.exists(k) {
			continue
		}
		if err := p.spool.writeChunk(p.build(p.rebuild(k, limit))); err != nil {
			return nil, err
		}
	}
	poke(p.complete)
	if p.spool.exists(now) {
		now++ // it was complete already: what is due before the next second is in it
	}
	if err := p.save(); err != nil { // the lease that Start has renewed
		return nil, err
	}
	return p.rebuild(now, limit), nil
}

// rebuild is a second as far as it is known, filled up with unknown samples up to the limit.
func (p *probe) rebuild(k int64, limit time.Duration) *chunk {
	m := p.state()
	head, ended, ok := p.spool.readOpen(k)
	if !ok {
		off, spread := p.cfg.Offset()
		head = opened{Wall: m.Wall, Offset: off, OffsetError: max(spread, 0)}
		ended = map[int64]sample.Sample{}
	}
	from, to := p.pace.first(k), min(p.pace.first(k+1), p.pace.due(limit))
	to = max(to, from)
	for n := range ended {
		if n < from || n >= p.pace.first(k+1) {
			delete(ended, n)
			continue
		}
		to = max(to, n+1)
	}
	for n := from; n < to; n++ {
		if _, ok := ended[n]; !ok {
			ended[n] = sample.Sample{
				Seq: n, Intended: sample.Due(head.Wall, p.order.Rate, n), Class: sample.Unknown,
				Request: sample.RequestID(p.order.ID, n),
			}
		}
	}
	return &chunk{number: k, head: head, ended: ended, fresh: !ok, to: to}
}

// reached is how far the probe had come when its process died, or when it ended. Samples that were due by then
// may have been sent: they are unknown if nothing else is known of them.
func (p *probe) reached() time.Duration {
	m := p.state()
	limit := p.spool.alive()
	for _, k := range p.spool.numbers(openPrefix) {
		limit = max(limit, time.Duration(k)*time.Second)
	}
	for _, prefix := range []string{chunkPrefix, sentPrefix, refusedPrefix} {
		for _, k := range p.spool.numbers(prefix) {
			limit = max(limit, time.Duration(k)*time.Second)
		}
	}
	if m.Ended {
		limit = min(limit, m.End)
	}
	if m.Boot == p.boot {
		limit = min(limit, m.Deadline-m.Start, sinceBoot()-m.Start)
	}
	return max(limit, 0)
}
