package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/http1"
)

const (
	headTimeout = 10 * time.Second // for a head, and for the TLS handshake before the first
	idleTimeout = 15 * time.Minute // longer than maxIdleSpan: the caller closes first, so no request meets a closing connection
)

// conn is an accepted connection, and what is known of who is at its other end.
type conn struct {
	net.Conn
	guard   *http1.Guard
	side    *side
	service api.ServiceID // of the listener that accepted it; "" = the shared one
	over    bool          // beyond the limit of connections
	tls     *tls.Conn     // nil for plaintext

	identify sync.Once
	// set by identify
	peer    string
	peerErr error
	expires time.Time
	timer   *time.Timer

	once sync.Once

	handshake sync.Once
	refused   func(addr string, err error) // called once if the TLS handshake fails
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.guard.Read(b)
	if err != nil && c.tls != nil && !c.tls.ConnectionState().HandshakeComplete {
		c.handshake.Do(func() { c.refused(c.RemoteAddr().String(), err) })
	}
	return n, err
}

func (c *conn) Close() error {
	c.once.Do(func() { c.side.open.Add(-1) })
	return c.guard.Close()
}

// identity is the peer's SPIFFE id. The first call starts the timer that ends the connection with the certificate.
func (c *conn) identity(peerID func(tls.ConnectionState) (string, error)) (string, error) {
	c.identify.Do(func() {
		state := c.tls.ConnectionState()
		switch {
		case !state.HandshakeComplete || len(state.PeerCertificates) == 0:
			c.peerErr = errors.New("no client certificate")
			return
		case state.Version < tls.VersionTLS13:
			c.peerErr = errors.New("TLS 1.3 is required")
			return
		}
		c.peer, c.peerErr = peerID(state)
		c.expires = state.PeerCertificates[0].NotAfter
		c.timer = time.AfterFunc(time.Until(c.expires), func() { _ = c.tls.NetConn().Close() })
	})
	if c.peerErr == nil && !time.Now().Before(c.expires) {
		return c.peer, errors.New("the client's certificate has ended")
	}
	return c.peer, c.peerErr
}

// side is one direction: its listeners' connections and its requests in flight.
type side struct {
	open     atomic.Int64
	inFlight atomic.Int64
	pending  atomic.Int64 // waiting for a connection to the application
	limit    func() int   // connections; nil = none
}

// listener accepts connections of one side.
type listener struct {
	net.Listener
	side    *side
	service api.ServiceID
	tls     *tls.Config // nil for plaintext
	refused func(addr string, err error)
}

func (l *listener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, side: l.side, service: l.service, refused: l.refused}
	inner := raw
	if l.tls != nil {
		c.tls = tls.Server(raw, l.tls) // the handshake runs with the first read, in the connection's own goroutine
		c.Conn, inner = c.tls, c.tls
	}
	c.guard = http1.NewGuard(inner, http1.Limits{})
	n := l.side.open.Add(1)
	if l.side.limit != nil {
		limit := l.side.limit()
		c.over = limit > 0 && n > int64(limit)
	}
	return c, nil
}

type connKey struct{}

// newServer makes net/http's server for one side. The guard in front of it has the strict rules and the limits.
func (p *Proxy) newServer(base context.Context, handle func(http.ResponseWriter, *http.Request, *conn)) *http.Server {
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := r.Context().Value(connKey{}).(*conn)
			if !p.begin(c.side) {
				panic(http.ErrAbortHandler) // closes the connection
			}
			defer p.finish(c.side)
			if r.ContentLength != 0 {
				_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/1.1 always can; an answer may come before the body's end
			}
			handle(w, r, c)
		}),
		BaseContext: func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState: func(nc net.Conn, state http.ConnState) {
			if c, ok := nc.(*conn); ok && state == http.StateClosed && c.timer != nil {
				c.timer.Stop()
			}
		},
		ReadHeaderTimeout:            headTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               2 * http1.DefaultLimits().Head,
		ErrorLog:                     log.New(discard{}, "", 0), // what matters is in the access log
		DisableGeneralOptionsHandler: true,
	}
}

// refused writes a refused handshake into the access log, with its reason. Somebody who only looked is no news.
func (p *Proxy) refused(addr string, err error) {
	why := err.Error()
	var header tls.RecordHeaderError
	switch {
	case errors.As(err, &header):
		why = "plaintext: " + why
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET), errors.Is(err, os.ErrDeadlineExceeded):
		return
	}
	if len(why) > maxReason {
		why = why[:maxReason]
	}
	e := entry{Time: time.Now().UTC(), Direction: directionIn, Service: p.cfg.Node.Service, Site: p.cfg.Node.Site,
		Flags: flagTLS, Peer: addr, Reason: why}
	if err := p.access.write(&e); err != nil {
		p.metrics.logErrors.Inc()
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// maxReason bounds what a stranger can write into the log.
const maxReason = 300

// bind opens every listener that the configuration asks for.
func (p *Proxy) bind() (err error) {
	defer func() {
		if err != nil {
			p.closeListeners()
		}
	}()
	open := func(addr string, l *listener) (*listener, error) {
		nl, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}
		l.Listener = nl
		return l, nil
	}
	if p.cfg.Outbound != "" {
		if p.outbound, err = open(p.cfg.Outbound, &listener{side: &p.out}); err != nil {
			return err
		}
	}
	for id, addr := range p.cfg.Ports {
		if p.ports[id], err = open(addr, &listener{side: &p.out, service: id}); err != nil {
			delete(p.ports, id)
			return err
		}
	}
	if p.cfg.Inbound != "" {
		cfg := p.cfg.ServerTLS.Clone()
		cfg.MinVersion = tls.VersionTLS13
		if p.inbound, err = open(p.cfg.Inbound, &listener{side: &p.in, tls: cfg, refused: p.refused}); err != nil {
			return err
		}
	}
	return nil
}

func (p *Proxy) closeListeners() {
	p.closeOutbound()
	p.closeInbound()
}

func (p *Proxy) closeOutbound() {
	if p.outbound != nil {
		_ = p.outbound.Close() // closed once by Drain and once by Run; the second says so
	}
	for _, l := range p.ports {
		_ = l.Close()
	}
}

func (p *Proxy) closeInbound() {
	if p.inbound != nil {
		_ = p.inbound.Close()
	}
}
