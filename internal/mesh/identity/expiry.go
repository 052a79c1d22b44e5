package identity

import (
	"crypto/tls"
	"io"
	"net"
	"sync"
	"time"
)

// CloseAtExpiry closes a connection at the instant when its peer's certificate ends. It is for whoever makes the handshake
// itself; servers that leave it to net/http or grpc use a Listener. Call stop when the connection is done with; it reports
// whether it was in time. A peer without a certificate is not closed.
func CloseAtExpiry(conn io.Closer, cs tls.ConnectionState) (stop func() bool) {
	if len(cs.PeerCertificates) == 0 {
		return func() bool { return true }
	}
	t := time.AfterFunc(time.Until(cs.PeerCertificates[0].NotAfter), func() {
		_ = conn.Close() // nobody waits for it; whoever reads or writes sees the end
	})
	return t.Stop
}

// Listener wraps the plain listener under a server whose configuration is ServerTLS or OptionalTLS, whoever makes the handshake
// (http.Server.ServeTLS, grpc's credentials, tls.NewListener): each accepted connection ends with its peer's certificate.
func Listener(l net.Listener) net.Listener { return expiringListener{l} }

type expiringListener struct{ net.Listener }

func (l expiringListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err // as it is: servers look at the type of an Accept error
	}
	return &expiringConn{Conn: c}, nil
}

// expiringConn is a plain connection that the handshake above it gives an end.
type expiringConn struct {
	net.Conn

	mu     sync.Mutex
	stop   func() bool // guarded by mu; nil before the handshake
	closed bool        // guarded by mu
}

func (c *expiringConn) closeAtExpiry(cs tls.ConnectionState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stop == nil && !c.closed {
		c.stop = CloseAtExpiry(c.Conn, cs)
	}
}

// Close also stops the timer: a busy server must not keep one a day for each connection it ever had.
func (c *expiringConn) Close() error {
	c.mu.Lock()
	c.closed = true
	if c.stop != nil {
		c.stop()
	}
	c.mu.Unlock()
	return c.Conn.Close()
}
