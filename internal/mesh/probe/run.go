package probe

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// probe is one order.
type probe struct {
	// set once
	*Prober
	order    sample.Order
	pace     pace
	spool    spool
	slots    chan struct{} // one per request in flight
	target   func(api.ServiceID) (string, bool)
	log      *slog.Logger
	wake     chan struct{} // capacity 1: lease or stop has changed
	complete chan struct{} // capacity 1: there is a chunk to upload

	// guarded by Prober.mu
	meta      meta
	inherited bool // found in the spool
	resumed   bool // inherited, and ordered again in time
	ready     bool // its order is on disk
	begun     bool // Run has it
	stopped   bool

	disk sync.Mutex // held while meta is copied and written, so that the file never goes back in time
}

// overdue says whether the lease is over. Prober.mu is held.
func (p *probe) overdue() bool { return p.meta.Boot != p.boot || sinceBoot() >= p.meta.Deadline }

func (p *probe) save() error {
	p.disk.Lock()
	defer p.disk.Unlock()
	return p.spool.writeMeta(p.state())
}

func (p *probe) state() meta {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.meta
}

// live takes a probe from its start, or from what the spool holds of it, to the upload of its last chunk.
func (p *probe) live(ctx context.Context) {
	uploaded := make(chan struct{})
	go func() {
		defer close(uploaded)
		p.upload(ctx)
	}()
	p.sample(ctx)
	<-uploaded
}

// sample does everything up to the last chunk on disk.
func (p *probe) sample(ctx context.Context) {
	p.mu.Lock()
	inherited := p.inherited
	p.mu.Unlock()
	if !inherited {
		p.drive(ctx, nil)
		return
	}
	switch p.awaitResume(ctx) {
	case gone:
	case over:
		p.closeUp(ctx)
	case again:
		first, err := p.resume()
		if err != nil {
			p.log.Error("probe not continued", "err", err)
			p.closeUp(ctx)
			return
		}
		p.log.Info("probe continued after a restart")
		p.drive(ctx, first)
	}
}

type fate int

const (
	gone  fate = iota // ctx has ended
	over              // ended, or its lease has
	again             // ordered again in time
)

// awaitResume waits until it is clear what becomes of a probe that a crash has interrupted.
func (p *probe) awaitResume(ctx context.Context) fate {
	for {
		p.mu.Lock()
		ended := p.meta.Ended || p.stopped || p.overdue()
		resumed := p.resumed
		left := p.meta.Deadline - sinceBoot()
		p.mu.Unlock()
		switch {
		case ended:
			return over
		case resumed:
			return again
		}
		timer := time.NewTimer(left)
		select {
		case <-ctx.Done():
			timer.Stop()
			return gone
		case <-timer.C:
		case <-p.wake:
		}
		timer.Stop()
	}
}

// origin is the start of the probe on this process's monotonic clock.
func (p *probe) origin() time.Time { return time.Now().Add(p.state().Start - sinceBoot()) }

// driver sends samples at their times. It has one goroutine; what has ended goes to the book.
type driver struct {
	*probe
	origin time.Time
	book   *book
	next   int64 // sample to send
	second int64 // chunk that is open
	head   opened
	flight sync.WaitGroup
}

// drive sends samples until the probe is stopped, its lease ends, or ctx does. first is the chunk that a continued
// probe begins in; nil = a new probe.
func (p *probe) drive(ctx context.Context, first *chunk) {
	d := &driver{probe: p, origin: p.origin(), book: newBook(p)}
	if first != nil {
		d.second, d.head, d.next = first.number, first.head, first.to
		d.book.chunks[first.number] = first
		if first.fresh {
			d.book.events <- event{kind: began, number: first.number, head: first.head}
		}
	} else {
		d.open(0)
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		d.book.keep(ctx, d.origin)
	}()
	end, stopped := d.loop(ctx)
	if stopped {
		p.end(end)
		d.book.events <- event{kind: sealed, number: d.second, to: d.next, last: true}
		p.log.Info("probe ended, samples in flight end", "samples", d.next)
	}
	d.flight.Wait()
	close(d.book.events)
	<-written
}

// loop returns when the probe ended, and whether it did or ctx.
func (d *driver) loop(ctx context.Context) (end time.Duration, stopped bool) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, false
		case <-timer.C:
		case <-d.wake:
		}
		elapsed := time.Since(d.origin)
		end, stop := d.limit(elapsed)
		d.sendDue(ctx, end)
		d.turn(int64(max(end, 0) / time.Second))
		if stop {
			return max(end, 0), true
		}
		timer.Reset(d.nap())
	}
}

// limit is until when samples are due: now, or the end of the lease if that is over.
func (d *driver) limit(elapsed time.Duration) (until time.Duration, stop bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	lease := d.meta.Deadline - d.meta.Start
	switch {
	case elapsed >= lease:
		return lease, true
	case d.stopped:
		return elapsed, true
	}
	return elapsed, false
}

// nap is until the next sample is due, the second is full, or the lease ends.
func (d *driver) nap() time.Duration {
	until := min(d.pace.offset(d.next), time.Duration(d.second+1)*time.Second, d.leaseEnd())
	return max(until-time.Since(d.origin), 0)
}

func (d *driver) leaseEnd() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta.Deadline - d.meta.Start
}

// sendDue sends everything that is due, late ones in a burst: each counts from its own time.
func (d *driver) sendDue(ctx context.Context, until time.Duration) {
	for to := d.pace.due(until); d.next < to; d.next++ {
		n := d.next
		d.turn(d.pace.second(n))
		s := sample.Sample{
			Seq: n, Intended: sample.Due(d.head.Wall, d.order.Rate, n), Request: sample.RequestID(d.order.ID, n),
		}
		due := d.origin.Add(d.pace.offset(n))
		d.flight.Go(func() {
			if out, ok := d.send(ctx, s, due); ok {
				d.book.events <- event{kind: ended, number: d.pace.second(n), sample: out}
			}
		})
	}
}

// turn closes seconds that are over and opens the one that has begun.
func (d *driver) turn(second int64) {
	for d.second < second {
		d.book.events <- event{kind: sealed, number: d.second, to: d.pace.first(d.second + 1)}
		d.open(d.second + 1)
	}
}

// open begins a second. Its intended times and its clock offset are taken at the same moment, so that a jump of the
// wall clock falls between two chunks.
func (d *driver) open(second int64) {
	off, spread := d.cfg.Offset()
	now := time.Now()
	d.second = second
	d.head = opened{Wall: now.Round(0).Add(-now.Sub(d.origin)).UTC(), Offset: off, OffsetError: max(spread, 0)}
	d.book.events <- event{kind: began, number: second, head: d.head}
}

// end makes sure that the probe is never started again.
func (p *probe) end(at time.Duration) {
	p.mu.Lock()
	p.meta.Ended, p.meta.End = true, at
	p.dead[p.order.ID] = true
	p.mu.Unlock()
	if err := p.save(); err != nil {
		p.log.Error("end of probe not written", "err", err)
	}
}
