package http1

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// RefusedHeader marks a request that a Guard made in place of one that it refused: "<status> <reason>". A handler asks
// Refused first. A peer that sends the field by itself is refused, which is what it asked for.
const RefusedHeader = "X-Livefire-Refused"

// Refused says whether r stands for a refused request, and why.
func Refused(r *http.Request) (*Refusal, bool) {
	v := r.Header.Get(RefusedHeader)
	if v == "" {
		return nil, false
	}
	if len(v) > 4 {
		if status, err := strconv.Atoi(v[:3]); err == nil && status >= 400 && status < 600 {
			return &Refusal{status, v[4:]}, true
		}
	}
	return bad("reserved field %s", RefusedHeader), true
}

// Guard is an accepted connection whose requests are checked before net/http sees them.
type Guard struct {
	net.Conn
	framer framer

	// owned by the reader
	raw     []byte // read, not yet in order
	ready   []byte // in order, not yet given
	readErr error

	refusal atomic.Pointer[Refusal]
}

// NewGuard wraps c.
func NewGuard(c net.Conn, limits Limits) *Guard {
	def := DefaultLimits()
	if limits.Head == 0 {
		limits.Head = def.Head
	}
	if limits.Target == 0 {
		limits.Target = def.Target
	}
	if limits.Fields == 0 {
		limits.Fields = def.Fields
	}
	return &Guard{Conn: c, framer: framer{limits: limits}}
}

// Refusal is what ended the connection's input, nil if nothing did.
func (g *Guard) Refusal() *Refusal { return g.refusal.Load() }

// Read gives bytes that are in order. A head is given whole, so that net/http never acts on the first half of a bad one.
func (g *Guard) Read(p []byte) (int, error) {
	for {
		if len(g.ready) > 0 {
			n := copy(p, g.ready)
			g.ready = g.ready[n:]
			return n, nil
		}
		if g.readErr != nil {
			return 0, g.readErr
		}
		n, err := g.Conn.Read(p)
		if n > 0 {
			if k := g.take(p[:n]); k > 0 {
				return k, nil
			}
		}
		if err != nil && len(g.ready) == 0 && g.readErr == nil {
			// One byte is asked for by net/http's background read, which is ended by a deadline on purpose.
			if errors.Is(err, os.ErrDeadlineExceeded) && len(p) > 1 && len(g.raw) > 0 && g.framer.midHead() {
				g.refuse(&Refusal{http.StatusRequestTimeout, "the head took too long"})
				continue
			}
			return 0, err
		}
	}
}

// take checks new bytes and returns how many of them can be given as they are.
func (g *Guard) take(b []byte) int {
	if len(g.raw) == 0 {
		k, refused := g.framer.next(b)
		if refused == nil && k == len(b) {
			return k
		}
		if k < len(b) {
			g.raw = append(g.raw[:0:0], b[k:]...)
		}
		if refused != nil {
			g.refuse(refused)
		}
		return k
	}
	g.raw = append(g.raw, b...)
	k, refused := g.framer.next(g.raw)
	g.ready, g.raw = g.raw[:k:k], g.raw[k:]
	if len(g.raw) == 0 {
		g.raw = nil
	}
	if refused != nil {
		g.refuse(refused)
	}
	return 0
}

// refuse ends the input: behind a complete request with one of ours that carries the refusal, inside a body with an error.
func (g *Guard) refuse(r *Refusal) {
	g.refusal.Store(r)
	g.raw = nil
	g.readErr = r
	if g.framer.midHead() {
		g.readErr = io.EOF
		g.ready = append(g.ready, "GET / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n"+
			RefusedHeader+": "+strconv.Itoa(r.Status)+" "+printable(r.Reason)+"\r\n\r\n"...)
	}
}

// Close lets the peer read the refusal: bytes of its that were never read would make the kernel reset the connection.
func (g *Guard) Close() error {
	if g.refusal.Load() != nil {
		if half, ok := g.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			_ = g.Conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)) // best effort
			_, _ = io.CopyN(io.Discard, g.Conn, 256<<10)
		}
	}
	return g.Conn.Close()
}

func printable(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c >= 0x7f {
			b[i] = '?'
		}
	}
	return string(b)
}
