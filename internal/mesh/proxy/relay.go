package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/livefire-mesh/livefire/internal/mesh/proxy/http1"
)

var (
	errRequestTimeout = errors.New("request timeout")
	errTryTimeout     = errors.New("try timeout")
	errStopped        = errors.New("the proxy has stopped")
)

// exchange is one request from its head to its line in the access log.
type exchange struct {
	p     *Proxy
	w     http.ResponseWriter
	r     *http.Request
	conn  *conn
	ctx   context.Context // ends with the caller, the request's timeout or the proxy
	log   entry
	start time.Time
	abort bool // the response was cut: the caller's connection must not look complete
}

// end writes the line and the numbers of the request.
func (x *exchange) end() {
	x.log.Duration = time.Since(x.start)
	if err := x.p.access.write(&x.log); err != nil {
		x.p.metrics.logErrors.Inc()
	}
	x.p.metrics.ended(&x.log)
	if x.abort {
		panic(http.ErrAbortHandler) // net/http's way to close the connection
	}
}

// reply answers without asking anybody.
func (x *exchange) reply(status int, flag, reason string) {
	x.log.Status, x.log.Reason = status, reason
	x.flag(flag)
	if status == statusGone {
		x.abort = true
		return
	}
	h := x.w.Header()
	h.Set(headerFlags, x.log.Flags)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	if x.log.Attempts > 0 && x.log.Direction == directionOut {
		h.Set(headerAttempts, fmt.Sprint(x.log.Attempts))
	}
	body := "livefire: " + reason + "\n"
	h.Set("Content-Length", fmt.Sprint(len(body)))
	if x.p.draining.Load() || flag == flagProtocol {
		h.Set("Connection", "close")
	}
	x.w.WriteHeader(status)
	if x.r.Method != http.MethodHead {
		n, _ := io.WriteString(x.w, body) // a caller that is gone needs no answer
		x.log.Sent = int64(n)
	}
}

func (x *exchange) flag(flag string) {
	switch {
	case flag == "":
	case x.log.Flags == "":
		x.log.Flags = flag
	default:
		x.log.Flags += "," + flag
	}
}

// replyEnded answers a request whose own context has ended, or whose body was refused; false if neither is so.
func (x *exchange) replyEnded() bool {
	if refusal := x.conn.guard.Refusal(); refusal != nil {
		x.reply(refusal.Status, flagProtocol, refusal.Reason)
		return true
	}
	switch cause := context.Cause(x.ctx); {
	case cause == nil:
		return false
	case errors.Is(cause, errRequestTimeout):
		x.reply(http.StatusGatewayTimeout, flagTimeout, "the request took longer than its timeout")
	case errors.Is(cause, errStopped):
		x.reply(http.StatusServiceUnavailable, flagDrain, "the proxy has stopped")
	default:
		x.reply(statusGone, flagGone, "the caller has gone")
	}
	return true
}

// outgoing makes the request that is sent on.
func (x *exchange) outgoing(h http.Header) *http.Request {
	r := x.r
	return &http.Request{
		Method: r.Method, Host: r.Host, Header: h, Close: false,
		URL:           &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery},
		ContentLength: r.ContentLength, TransferEncoding: r.TransferEncoding, Trailer: r.Trailer,
	}
}

// relay gives a response to the caller as it is, less what is for the hop.
func (x *exchange) relay(resp *http.Response, attempts int) {
	defer resp.Body.Close()
	stripHop(resp.Header)
	h := x.w.Header()
	for name, values := range resp.Header {
		h[name] = values
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // else net/http guesses one
	}
	if _, ok := h["Date"]; !ok {
		h["Date"] = nil
	}
	if attempts > 0 {
		h.Set(headerAttempts, fmt.Sprint(attempts))
	}
	if x.p.draining.Load() {
		h.Set("Connection", "close")
	}
	for name := range resp.Trailer {
		h.Add("Trailer", name)
	}
	x.log.Status = resp.StatusCode
	if flags := resp.Header.Get(headerFlags); flags != "" {
		x.flag(flags)
	}
	x.w.WriteHeader(resp.StatusCode)
	n, readErr, writeErr := x.copy(resp)
	x.log.Sent = n
	switch {
	case writeErr != nil || readErr != nil && errors.Is(context.Cause(x.r.Context()), context.Canceled):
		x.flag(flagGone)
		x.log.Reason, x.abort = "the caller has gone", true
	case readErr != nil:
		x.abort = true
		x.log.Reason = "the response was cut: " + describe(readErr)
		if errors.Is(readErr, errRequestTimeout) {
			x.flag(flagTimeout)
		} else {
			x.flag(flagTerminated)
		}
	default:
		for name, values := range resp.Trailer {
			h[name] = values
		}
	}
}

var buffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// copy sends the body on; one of unknown length is flushed piece by piece, because somebody may be waiting for each.
func (x *exchange) copy(resp *http.Response) (n int64, readErr, writeErr error) {
	buf := buffers.Get().(*[16 << 10]byte)
	defer buffers.Put(buf)
	flush := func() error { return nil }
	if resp.ContentLength < 0 {
		flush = http.NewResponseController(x.w).Flush
		if err := flush(); err != nil { // the head alone may be an event
			return 0, nil, err
		}
	}
	for {
		k, err := resp.Body.Read(buf[:])
		if k > 0 {
			m, werr := x.w.Write(buf[:k])
			n += int64(m)
			if werr == nil {
				werr = flush()
			}
			if werr != nil {
				return n, nil, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return n, nil, nil
		}
		if err != nil {
			return n, err, nil
		}
	}
}

// refusedByGuard answers what the guard in front of net/http has refused, and what net/http let pass.
func (x *exchange) refusedByGuard() bool {
	if refusal, ok := http1.Refused(x.r); ok {
		x.log.Method, x.log.Path = "", ""
		x.reply(refusal.Status, flagProtocol, refusal.Reason)
		return true
	}
	if x.r.Method == http.MethodConnect {
		x.reply(http.StatusMethodNotAllowed, flagProtocol, "CONNECT is not offered")
		return true
	}
	return false
}
