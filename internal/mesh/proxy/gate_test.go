package proxy

import (
	"net"
	"sync"
	"testing"
)

type gate struct {
	addr string // set once

	mu     sync.Mutex // guards what follows
	target string
	l      net.Listener
	conns  map[net.Conn]struct{}
	life   int           // times killed; a connection of an earlier life is closed
	paused chan struct{} // closed while running; waits while paused
	wg     sync.WaitGroup
}

func newGate(t testing.TB, target string) *gate {
	g := &gate{target: target, conns: map[net.Conn]struct{}{}, paused: make(chan struct{})}
	close(g.paused)
	g.addr = "127.0.0.1:0"
	g.open(t)
	t.Cleanup(func() {
		g.resume()
		g.kill()
		g.wg.Wait()
	})
	return g
}

func (g *gate) open(t testing.TB) {
	l, err := net.Listen("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	g.addr, g.l = l.Addr().String(), l
	life := g.life // a listener has one; what it accepts while it is killed dies with it
	g.mu.Unlock()
	g.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.wg.Go(func() { g.serve(c, life) })
		}
	})
}

func (g *gate) wait() {
	g.mu.Lock()
	p := g.paused
	g.mu.Unlock()
	<-p
}

func (g *gate) track(c net.Conn, life int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.conns[c] = struct{}{}; life != g.life {
		_ = c.Close()
	}
}

func (g *gate) serve(c net.Conn, life int) {
	g.track(c, life)
	defer c.Close()
	g.wait()
	g.mu.Lock()
	target := g.target
	g.mu.Unlock()
	up, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	g.track(up, life)
	defer up.Close()
	done := make(chan struct{}, 2)
	pipe := func(dst, src net.Conn) {
		buf := make([]byte, 16<<10)
		for {
			n, err := src.Read(buf)
			g.wait()
			if n > 0 {
				if _, werr := dst.Write(buf[:n]); werr != nil {
					break
				}
			}
			if err != nil {
				break
			}
		}
		done <- struct{}{}
	}
	g.wg.Go(func() { pipe(up, c) })
	g.wg.Go(func() { pipe(c, up) })
	<-done
}

func (g *gate) lead(target string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.target = target
}

func (g *gate) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.life++
	_ = g.l.Close()
	for c := range g.conns {
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}
	clear(g.conns)
}

func (g *gate) pause() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.paused = make(chan struct{})
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.paused:
	default:
		close(g.paused)
	}
}
