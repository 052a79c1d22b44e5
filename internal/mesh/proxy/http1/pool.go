package http1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// ErrPoolFull says that a pool has as many connections as it may have.
var ErrPoolFull = errors.New("connection limit reached")

// maxIdle connections are kept per endpoint.
const maxIdle = 128

// PoolConfig of the connections to one endpoint.
type PoolConfig struct {
	// Dial makes a connection that is ready for requests, TLS included. Required.
	Dial func(ctx context.Context) (net.Conn, error)
	// Progress is called after each read that brought bytes. Nil = nobody listens.
	Progress func()
}

// Pool keeps connections to one endpoint alive between requests.
type Pool struct {
	cfg PoolConfig

	// guarded by mu
	mu     sync.Mutex
	idle   []*Conn // oldest first; the newest is taken first
	open   int
	closed bool
}

// NewPool makes an empty pool.
func NewPool(cfg PoolConfig) *Pool { return &Pool{cfg: cfg} }

// Take gives an idle connection that still lives, or dials one; reused says which. limit bounds the connections in all,
// 0 = none (ErrPoolFull).
func (p *Pool) Take(ctx context.Context, limit int) (c *Conn, reused bool, err error) {
	for {
		c, err := p.takeIdle(limit)
		if err != nil {
			return nil, false, err
		}
		if c == nil {
			break
		}
		if c.alive() {
			return c, true, nil
		}
		c.Close()
	}
	raw, err := p.cfg.Dial(ctx)
	if err != nil {
		p.forget()
		return nil, false, err
	}
	c = &Conn{pool: p, raw: raw}
	c.reader = bufio.NewReaderSize(progressReader{raw, p.cfg.Progress}, 4<<10)
	return c, false, nil
}

// takeIdle gives the newest idle connection; nil means that the caller may dial, which is counted already.
func (p *Pool) takeIdle(limit int) (*Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		return c, nil
	}
	if limit > 0 && p.open >= limit {
		return nil, ErrPoolFull
	}
	p.open++
	return nil, nil
}

// put keeps c for the next request, or closes it.
func (p *Pool) put(c *Conn) {
	c.since = time.Now()
	p.mu.Lock()
	keep := !p.closed && len(p.idle) < maxIdle
	if keep {
		p.idle = append(p.idle, c)
	}
	p.mu.Unlock()
	if !keep {
		c.Close()
	}
}

func (p *Pool) forget() {
	p.mu.Lock()
	p.open--
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
