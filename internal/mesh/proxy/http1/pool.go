package http1

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	maxIdle  = 128 // connections kept per endpoint
	maxDials = 16  // at once per endpoint: after a failover every request wants a new connection at the same moment
)

// PoolConfig of the connections to one endpoint.
type PoolConfig struct {
	// Dial makes a connection that is ready for requests, TLS included. It ends by itself. Required.
	Dial func(ctx context.Context) (net.Conn, error)
	// Progress is called after each read that brought bytes. Nil = nobody listens.
	Progress func()
}

// Pool keeps connections to one endpoint alive between requests.
//
// A request takes an idle connection, or waits for the first that comes: one that another request gives back, or one of
// at most maxDials being made. A dial goes on when its request has gone, because the next one wants a connection too;
// that way a burst of handshakes never throws away its own work.
type Pool struct {
	cfg PoolConfig

	// guarded by mu
	mu      sync.Mutex
	idle    []*Conn // oldest first; the newest is taken first
	waiters []*waiter
	open    int // connections and dials
	dials   map[*waiter]context.CancelFunc
	limit   int
	closed  bool

	dialers sync.WaitGroup
}

// waiter is a request without a connection yet. It gets exactly one delivery while it is in the list.
type waiter struct {
	got   chan delivery
	since time.Time
}

type delivery struct {
	conn *Conn
	err  error
}

// NewPool makes an empty pool.
func NewPool(cfg PoolConfig) *Pool {
	return &Pool{cfg: cfg, dials: map[*waiter]context.CancelFunc{}}
}

// Take gives a connection that lives; limit bounds the connections in all, 0 = none. At the limit it waits for one to
// be given back. The error is a dial's, or the cause of ctx.
func (p *Pool) Take(ctx context.Context, limit int) (*Conn, error) {
	for {
		c, w := p.idleOrWait(limit)
		if w != nil {
			return p.await(ctx, w)
		}
		if c.alive() {
			return c, nil
		}
		c.Close()
	}
}

func (p *Pool) idleOrWait(limit int) (*Conn, *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = limit
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		return c, nil
	}
	w := &waiter{got: make(chan delivery, 1), since: time.Now()}
	p.waiters = append(p.waiters, w)
	p.dialMore()
	return nil, w
}

func (p *Pool) await(ctx context.Context, w *waiter) (*Conn, error) {
	select {
	case d := <-w.got:
		return d.conn, d.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	i := slices.Index(p.waiters, w)
	if i >= 0 {
		p.waiters = slices.Delete(p.waiters, i, i+1)
	}
	p.mu.Unlock()
	if i < 0 { // it was delivered at this moment
		if d := <-w.got; d.conn != nil {
			p.put(d.conn)
		}
	}
	return nil, context.Cause(ctx)
}

// dialMore starts as many dials as there are requests waiting, within the limits. Called with mu held.
func (p *Pool) dialMore() {
	for len(p.dials) < min(len(p.waiters), maxDials) && (p.limit <= 0 || p.open < p.limit) {
		ctx, cancel := context.WithCancel(context.Background())
		key := &waiter{since: time.Now()}
		p.dials[key] = cancel
		p.open++
		p.dialers.Go(func() {
			defer cancel()
			p.dial(ctx, key)
		})
	}
}

func (p *Pool) dial(ctx context.Context, key *waiter) {
	raw, err := p.cfg.Dial(ctx)
	p.mu.Lock()
	delete(p.dials, key)
	if err != nil {
		p.open--
		// What this dial met, every request has met that waited as long; those that came later get one more.
		var later []*waiter
		for _, w := range p.waiters {
			if w.since.After(key.since) {
				later = append(later, w)
				continue
			}
			w.got <- delivery{err: err}
		}
		p.waiters = later
		p.dialMore()
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	c := &Conn{pool: p, raw: raw}
	c.reader = bufio.NewReaderSize(progressReader{raw, p.cfg.Progress}, 4<<10)
	p.put(c)
}

// put gives c to the request that has waited longest, or keeps it for the next, or closes it.
func (p *Pool) put(c *Conn) {
	c.since = time.Now()
	p.mu.Lock()
	keep := false
	if len(p.waiters) > 0 {
		p.waiters[0].got <- delivery{conn: c}
		p.waiters = slices.Delete(p.waiters, 0, 1)
		p.dialMore()
		keep = true
	} else if !p.closed && len(p.idle) < maxIdle {
		p.idle = append(p.idle, c)
		keep = true
	}
	p.mu.Unlock()
	if !keep {
		c.Close()
	}
}

// forget takes a closed connection out of the count, which may make room for a dial.
func (p *Pool) forget() {
	p.mu.Lock()
	p.open--
	p.dialMore()
	p.mu.Unlock()
}

// Open is the number of connections, idle ones included.
func (p *Pool) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// CloseIdle closes the connections that have been idle for at least the span; 0 = all.
func (p *Pool) CloseIdle(now time.Time, span time.Duration) {
	p.mu.Lock()
	n := 0
	for n < len(p.idle) && now.Sub(p.idle[n].since) >= span {
		n++
	}
	if span == 0 {
		n = len(p.idle)
	}
	old := p.idle[:n:n]
	p.idle = append([]*Conn(nil), p.idle[n:]...)
	p.mu.Unlock()
	for _, c := range old {
		c.Close()
	}
}

// Close closes the idle connections and keeps none from now on; those in use end with their request.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.CloseIdle(time.Time{}, 0)
}

// Stop closes the idle connections, ends the dials and returns when they have ended.
func (p *Pool) Stop() {
	p.Close()
	p.mu.Lock()
	for _, cancel := range p.dials {
		cancel()
	}
	p.mu.Unlock()
	p.dialers.Wait()
	p.CloseIdle(time.Time{}, 0)
}

// progressReader tells of each read that brought bytes.
type progressReader struct {
	net.Conn
	progress func()
}

func (r progressReader) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	if n > 0 && r.progress != nil {
		r.progress()
	}
	return n, err
}

// SendError is an exchange that brought no response.
type SendError struct {
	Sent   bool // some byte of the request may have reached the peer
	Reused bool // the connection had served a request before
	Err    error
}

func (e *SendError) Error() string { return fmt.Sprintf("exchange: %v", e.Err) }
func (e *SendError) Unwrap() error { return e.Err }
