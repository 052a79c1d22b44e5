package http1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conn is one client connection, used by one request at a time.
type Conn struct {
	pool   *Pool
	raw    net.Conn
	reader *bufio.Reader
	used   bool      // has served a request
	since  time.Time // idle since
	once   sync.Once
}

// Close ends the connection. It may be called more than once and from any goroutine.
func (c *Conn) Close() {
	c.once.Do(func() {
		_ = c.raw.Close() // the connection is given up; there is nobody to tell
		c.pool.forget()
	})
}

// alive looks, without waiting, whether the peer has closed an idle connection or sent what nobody asked for.
func (c *Conn) alive() bool {
	if c.reader.Buffered() > 0 {
		return false
	}
	raw := c.raw
	for {
		inner, ok := raw.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		raw = inner.NetConn()
	}
	sc, ok := raw.(syscall.Conn)
	if !ok {
		return true
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = rc.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		alive = errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EWOULDBLOCK)
		return true
	})
	return alive && err == nil
}

// RoundTrip sends req and returns the response's head; its body returns the connection to the pool when it was read to
// the end and closes it otherwise. When ctx ends the connection is closed, also under a body that is still read. Every
// error is a *SendError with the cause of ctx if that is what ended it. idle bounds the wait for the next bytes of the body.
func (c *Conn) RoundTrip(ctx context.Context, req *http.Request, idle time.Duration) (*http.Response, error) {
	x := &exchange{conn: c, ctx: ctx, idle: idle}
	reused := c.used
	c.used = true
	x.stop = context.AfterFunc(ctx, c.Close)
	x.send(req)
	resp, err := x.receive(req)
	if err != nil {
		x.stop()
		c.Close()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		} else if werr := x.writeError(); werr != nil && !isPeerGone(werr) {
			err = werr // the body of the request could not be read: that is the reason
		}
		return nil, &SendError{Sent: x.sent.Load(), Reused: reused, Err: err}
	}
	x.keep = !resp.Close && !req.Close
	resp.Body = &body{x: x, ReadCloser: resp.Body}
	return resp, nil
}

// exchange is one request and its response on a connection.
type exchange struct {
	conn    *Conn
	ctx     context.Context
	idle    time.Duration
	stop    func() bool
	keep    bool
	sent    atomic.Bool
	written chan error // gives the end of a body that is sent beside the response; nil if the request was sent at once
	werr    error
}

func (x *exchange) send(req *http.Request) {
	write := func() error {
		w := writers.Get().(*bufio.Writer)
		defer writers.Put(w)
		w.Reset(sentWriter{x})
		err := req.Write(w)
		if err == nil {
			err = w.Flush()
		}
		w.Reset(nil)
		return err
	}
	if req.Body == nil || req.Body == http.NoBody {
		x.werr = write()
		return
	}
	// The peer may answer before it has read the whole body, so both directions run at once.
	x.written = make(chan error, 1)
	go func() { x.written <- write() }()
}

var writers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, 4<<10) }}

type sentWriter struct{ x *exchange }

// Write takes bytes for sent from before they are written until it is known that none was: a peer cannot read half of
// a TLS record.
func (w sentWriter) Write(b []byte) (int, error) {
	first := w.x.sent.CompareAndSwap(false, true)
	n, err := w.x.conn.raw.Write(b)
	if first && n == 0 && err != nil {
		w.x.sent.Store(false)
	}
	return n, err
}

// writeError is the error of the writing side if it has ended.
func (x *exchange) writeError() error {
	if x.written != nil {
		select {
		case x.werr = <-x.written:
			x.written = nil
		default:
		}
	}
	return x.werr
}

func (x *exchange) receive(req *http.Request) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(x.conn.reader, req)
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
				err = errEOF
			}
			return nil, err
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, errors.New("the peer switched protocols without being asked")
		}
		if resp.StatusCode >= 200 {
			return resp, nil
		}
	}
}

// errEOF is a peer that closed the connection instead of answering.
var errEOF = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}

func isPeerGone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

// done gives the connection back, or closes it when its state is not known to be clean.
func (x *exchange) done(clean bool) {
	if !x.stop() {
		clean = false // ctx has ended and is closing the connection
	}
	if clean && x.keep && x.writeError() == nil && x.written == nil && x.conn.reader.Buffered() == 0 {
		_ = x.conn.raw.SetReadDeadline(time.Time{}) // a connection that cannot be set fails at its next use
		x.conn.pool.put(x.conn)
		return
	}
	x.conn.Close()
}

// body is a response's body that gives its connection back.
type body struct {
	io.ReadCloser
	x     *exchange
	ended bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.ended {
		return 0, io.EOF
	}
	if b.x.idle > 0 {
		_ = b.x.conn.raw.SetReadDeadline(time.Now().Add(b.x.idle)) // if it fails, so does the read
	}
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		b.end(true)
		return n, io.EOF
	}
	if err != nil {
		if cause := context.Cause(b.x.ctx); cause != nil {
			err = cause
		}
		b.end(false)
	}
	return n, err
}

// Close gives up what was not read.
func (b *body) Close() error {
	b.end(false)
	return nil
}

func (b *body) end(clean bool) {
	if !b.ended {
		b.ended = true
		b.x.done(clean)
	}
}
