package http1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// peer is a server whose connections a test can see and cut.
type peer struct {
	addr  string
	l     net.Listener
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns []net.Conn
}

// newPeer answers every request of a connection with handle's bytes until handle returns "".
func newPeer(t *testing.T, handle func(conn int, r *http.Request) string) *peer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{addr: l.Addr().String(), l: l}
	p.wg.Go(func() {
		for i := 0; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, c)
			p.mu.Unlock()
			p.wg.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					_, _ = io.Copy(io.Discard, req.Body)
					answer := handle(i, req)
					if answer == "" {
						return
					}
					_, _ = io.WriteString(c, answer)
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *peer) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *peer) pool(t *testing.T, dials *atomic.Int64) *Pool {
	pool := NewPool(PoolConfig{Dial: func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", p.addr)
	}})
	t.Cleanup(pool.Stop)
	return pool
}

func get(ctx context.Context, pool *Pool, limit int) (string, error) {
	c, err := pool.Take(ctx, limit)
	if err != nil {
		return "", err
	}
	resp, err := c.RoundTrip(ctx, &http.Request{Method: "GET", URL: &url.URL{Path: "/"}, Host: "a", Header: http.Header{}}, 0)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestConnectionsAreKeptAlive(t *testing.T) {
	var dials atomic.Int64
	pool := newPeer(t, func(int, *http.Request) string { return ok }).pool(t, &dials)
	for range 5 {
		if got, err := get(t.Context(), pool, 0); err != nil || got != "ok" {
			t.Fatalf("get = %q, %v", got, err)
		}
	}
	if dials.Load() != 1 {
		t.Errorf("%d dials for 5 requests in a row, want 1", dials.Load())
	}
	pool.CloseIdle(time.Now().Add(time.Minute), time.Hour)
	if pool.Open() != 1 {
		t.Error("a connection was closed before its time")
	}
	pool.CloseIdle(time.Now().Add(time.Hour), time.Minute)
	if pool.Open() != 0 {
		t.Errorf("%d connections after their idle time, want 0", pool.Open())
	}
}

// A request must not be sent into a connection that the peer has closed already: a POST could not be repeated.
func TestDeadIdleConnectionIsNotUsed(t *testing.T) {
	var dials atomic.Int64
	p := newPeer(t, func(int, *http.Request) string { return ok })
	pool := p.pool(t, &dials)
	if _, err := get(t.Context(), pool, 0); err != nil {
		t.Fatal(err)
	}
	c, err := pool.Take(t.Context(), 0)
	if err != nil || !c.alive() {
		t.Fatalf("idle connection: alive %t, err %v", c.alive(), err)
	}
	p.cut()
	for start := time.Now(); c.alive(); {
		if time.Since(start) > 5*time.Second {
			t.Fatal("a connection that the peer has closed counts as alive")
		}
	}
	pool.put(c)
	if got, err := get(t.Context(), pool, 0); err != nil || got != "ok" || dials.Load() != 2 {
		t.Errorf("get = %q, %v with %d dials; want ok over a second connection", got, err, dials.Load())
	}
}

func TestConnectionsStayWithinTheLimit(t *testing.T) {
	var dials, most, now atomic.Int64
	p := newPeer(t, func(int, *http.Request) string {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		return ok
	})
	pool := p.pool(t, &dials)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got, err := get(t.Context(), pool, 2); err != nil || got != "ok" {
				t.Errorf("get = %q, %v", got, err)
			}
		})
	}
	wg.Wait()
	if dials.Load() > 2 {
		t.Errorf("%d dials with a limit of 2 connections", dials.Load())
	}
}

// After a failover hundreds of requests want a connection at once; each handshake costs both sides.
func TestDialsAtOnceAreBounded(t *testing.T) {
	var now, most atomic.Int64
	release := make(chan struct{})
	started := make(chan struct{}, 1000)
	pool := NewPool(PoolConfig{Dial: func(ctx context.Context) (net.Conn, error) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		started <- struct{}{}
		select {
		case <-release:
		case <-ctx.Done():
		}
		return nil, errors.New("refused")
	}})
	t.Cleanup(pool.Stop)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			if _, err := pool.Take(t.Context(), 0); err == nil || err.Error() != "refused" { // each, whenever it came
				t.Errorf("Take = %v, want the dial's error", err)
			}
		})
	}
	for range maxDials {
		<-started
	}
	close(release)
	wg.Wait()
	if most.Load() != maxDials {
		t.Errorf("%d dials at once, want %d", most.Load(), maxDials)
	}
}

func TestDialOutlivesTheRequestThatAskedForIt(t *testing.T) {
	p := newPeer(t, func(int, *http.Request) string { return ok })
	release := make(chan struct{})
	var dials atomic.Int64
	pool := NewPool(PoolConfig{Dial: func(ctx context.Context) (net.Conn, error) {
		dials.Add(1)
		<-release
		return new(net.Dialer).DialContext(ctx, "tcp", p.addr)
	}})
	t.Cleanup(pool.Stop)
	cause := errors.New("the caller has gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	taken := make(chan error, 1)
	go func() {
		_, err := pool.Take(ctx, 0)
		taken <- err
	}()
	cancel(cause)
	if err := <-taken; !errors.Is(err, cause) {
		t.Errorf("Take = %v, want the cause of its context", err)
	}
	close(release)
	if got, err := get(t.Context(), pool, 0); err != nil || got != "ok" || dials.Load() > 2 {
		t.Errorf("get = %q, %v with %d dials", got, err, dials.Load())
	}
}

func TestSendErrorSaysWhetherAnythingLeft(t *testing.T) {
	var dials atomic.Int64
	p := newPeer(t, func(int, *http.Request) string { return "" })
	pool := p.pool(t, &dials)
	_, err := get(t.Context(), pool, 0)
	var sent *SendError
	if !errors.As(err, &sent) || !sent.Sent || sent.Reused {
		t.Fatalf("get = %v (%+v), want a SendError of a request that was sent", err, sent)
	}
	c, err := pool.Take(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.raw.Close()
	_, err = c.RoundTrip(t.Context(), &http.Request{Method: "POST", URL: &url.URL{Path: "/"}, Host: "a", Header: http.Header{}}, 0)
	if !errors.As(err, &sent) || sent.Sent {
		t.Errorf("RoundTrip over a closed connection = %v, want a SendError that says that nothing was sent", err)
	}
}

func TestEndOfContextClosesTheConnectionUnderABody(t *testing.T) {
	var dials atomic.Int64
	p := newPeer(t, func(int, *http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf" })
	pool := p.pool(t, &dials)
	cause := errors.New("ejected")
	ctx, cancel := context.WithCancelCause(t.Context())
	c, err := pool.Take(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.RoundTrip(ctx, &http.Request{Method: "GET", URL: &url.URL{Path: "/"}, Host: "a", Header: http.Header{}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	cancel(cause)
	if _, err := io.ReadAll(resp.Body); !errors.Is(err, cause) {
		t.Errorf("reading the body = %v, want the cause", err)
	}
	if pool.Open() != 0 {
		t.Errorf("%d connections open, want 0", pool.Open())
	}
}

func TestBodyIsReplayedUpToItsLimit(t *testing.T) {
	for _, tt := range []struct {
		size   int
		whole  bool
		reason string
	}{{0, true, "empty"}, {ReplayLimit, true, "at the limit"}, {ReplayLimit + 1, false, "beyond the limit"}} {
		want := strings.Repeat("x", tt.size)
		r := NewReplay(strings.NewReader(want))
		first, _ := r.Attempt()
		if b, err := io.ReadAll(first); err != nil || string(b) != want {
			t.Fatalf("%s: first attempt read %d bytes, %v", tt.reason, len(b), err)
		}
		if r.Whole() != tt.whole {
			t.Errorf("%s: Whole = %t, want %t", tt.reason, r.Whole(), tt.whole)
		}
		second, ok := r.Attempt()
		if ok != tt.whole {
			t.Errorf("%s: second attempt ok = %t, want %t", tt.reason, ok, tt.whole)
		}
		if !ok {
			continue
		}
		if b, err := io.ReadAll(second); err != nil || string(b) != want {
			t.Errorf("%s: second attempt read %d bytes, %v; want %d", tt.reason, len(b), err, tt.size)
		}
		if _, err := first.Read(make([]byte, 1)); tt.size > 0 && !errors.Is(err, ErrBodyTaken) {
			t.Errorf("%s: the first attempt reads on: %v", tt.reason, err)
		}
	}
}

// What an earlier attempt is reading when the next one begins belongs to the next one too.
func TestReplayLosesNothingBetweenAttempts(t *testing.T) {
	pr, pw := io.Pipe()
	r := NewReplay(pr)
	first, _ := r.Attempt()
	go func() {
		_, _ = io.WriteString(pw, "hello ")
		_, _ = io.WriteString(pw, "world")
		_ = pw.Close()
	}()
	b := make([]byte, 6)
	if _, err := io.ReadFull(first, b); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { // may or may not be inside when the second attempt begins
		defer close(ended)
		_, _ = first.Read(make([]byte, 100))
	}()
	second, ok := r.Attempt()
	if !ok {
		t.Fatal("the body cannot be sent again")
	}
	if got, err := io.ReadAll(second); err != nil || string(got) != "hello world" {
		t.Errorf("second attempt read %q, %v; want all of it", got, err)
	}
	<-ended
}
