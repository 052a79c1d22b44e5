package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

type load struct {
	mu      sync.Mutex
	answers []timed
	wg      sync.WaitGroup
	cancel  context.CancelFunc
}

type timed struct {
	due time.Time
	answer
}

func (c *caller) load(host string, rate int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	l.wg.Go(func() {
		start := time.Now()
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for i := 0; ; i++ {
			due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
			for time.Until(due) > 0 {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
			if ctx.Err() != nil {
				return
			}
			l.wg.Go(func() {
				a := c.get(host, "/")
				a.duration = time.Since(due)
				l.mu.Lock()
				l.answers = append(l.answers, timed{due, a})
				l.mu.Unlock()
			})
		}
	})
	return l
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.answers)
}

func (l *load) stop() []timed {
	l.cancel()
	l.wg.Wait()
	return l.answers
}

func failures(as []timed) (n int, first string) {
	for _, a := range as {
		if a.err != nil || a.status >= 400 {
			if n++; first == "" {
				first = a.body
				if a.err != nil {
					first = a.err.Error()
				}
			}
		}
	}
	return n, first
}

func raw(t testing.TB, addr, request string) (*http.Response, error) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		return nil, err
	}
	return http.ReadResponse(bufio.NewReader(c), nil)
}
