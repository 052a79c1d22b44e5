package testetcd

import (
	"net"
	"sync"
	"testing"
)

// Link is a TCP relay to a Server at an address of its own, which stays the same.
type Link struct {
	server   *Server      // set once
	listener net.Listener // set once
	tasks    sync.WaitGroup

	mu       sync.Mutex
	cut      bool              // guarded by mu
	conns    map[net.Conn]bool // guarded by mu
	requests chan struct{}     // guarded by mu; closed while requests pass
	replies  chan struct{}     // guarded by mu; closed while replies pass
	ended    chan struct{}     // closed with the test
}

// Link makes a link to the server. It passes everything until told otherwise.
func (s *Server) Link(t testing.TB) *Link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	open := make(chan struct{})
	close(open)
	l := &Link{server: s, listener: listener, conns: map[net.Conn]bool{}, requests: open, replies: open, ended: make(chan struct{})}
	s.mu.Lock()
	s.links = append(s.links, l)
	s.mu.Unlock()
	l.tasks.Go(l.accept)
	t.Cleanup(func() {
		close(l.ended)
		_ = listener.Close() // nothing to lose
		l.Cut()
		l.tasks.Wait()
	})
	return l
}

// Endpoint is the address to connect to.
func (l *Link) Endpoint() string { return l.listener.Addr().String() }

// Cut breaks every connection, with what was held, and refuses new ones until Heal.
func (l *Link) Cut() {
	l.mu.Lock()
	l.cut = true
	l.mu.Unlock()
	l.drop()
}

// drop breaks every connection, with what was held; new ones are welcome.
func (l *Link) drop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.Close() // nothing to lose
	}
}

// Hold holds back everything in both directions until Heal. Connections stay open.
func (l *Link) Hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests, l.replies = shut(l.requests), shut(l.replies)
}

// HoldReplies lets requests through and holds back what the server says until Heal.
func (l *Link) HoldReplies() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replies = shut(l.replies)
}

// Heal passes everything again; first what was held, unless it was cut.
func (l *Link) Heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
	open(l.requests)
	open(l.replies)
}

func shut(gate chan struct{}) chan struct{} {
	select {
	case <-gate:
		return make(chan struct{})
	default:
		return gate
	}
}

func open(gate chan struct{}) {
	select {
	case <-gate:
	default:
		close(gate)
	}
}

func (l *Link) accept() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.tasks.Go(func() { l.relay(c) })
	}
}

func (l *Link) relay(client net.Conn) {
	defer client.Close()
	if !l.enter(client) {
		return
	}
	defer l.leave(client)
	server, err := net.Dial("tcp", l.server.Endpoint())
	if err != nil || !l.enter(server) {
		return
	}
	defer l.leave(server)
	var back sync.WaitGroup
	back.Go(func() { l.pass(client, server, l.repliesGate) })
	l.pass(server, client, l.requestsGate)
	back.Wait()
}

// enter registers a connection so that Cut closes it; false while cut.
func (l *Link) enter(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		_ = c.Close() // nothing to lose
		return false
	}
	l.conns[c] = true
	return true
}

func (l *Link) leave(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	_ = c.Close() // nothing to lose
}

// pass copies until either side ends, and then ends both.
func (l *Link) pass(to, from net.Conn, gate func() <-chan struct{}) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-gate():
		case <-l.ended:
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (l *Link) requestsGate() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests
}

func (l *Link) repliesGate() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.replies
}
