package identity

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// serve runs an http.Server on loopback above a Listener until the test ends.
func serve(t *testing.T, cfg *tls.Config, handle http.HandlerFunc) (url string) {
	t.Helper()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handle, TLSConfig: cfg, ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan error, 1)
	go func() { ended <- srv.ServeTLS(Listener(plain), "", "") }()
	t.Cleanup(func() {
		if err := errors.Join(srv.Close(), <-ended); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the server ended with %v", err)
		}
	})
	return "https://" + plain.Addr().String()
}

// one is a listener that accepts a single connection, without a socket.
type one struct {
	conn chan net.Conn
}

func (l one) Accept() (net.Conn, error) { return <-l.conn, nil }
func (l one) Close() error              { return nil }
func (l one) Addr() net.Addr            { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// counting counts how often a connection is closed.
type counting struct {
	net.Conn
	closed atomic.Int32
}

func (c *counting) Close() error {
	c.closed.Add(1)
	return c.Conn.Close()
}

// TLS checks a certificate once; the connection ends at the very instant when the certificate does.
func TestConnectionEndsWithItsPeersCertificate(t *testing.T) {
	ca := newCA(t, domain, bubbleStart)
	for _, tt := range []struct {
		name string
		// accept makes the server's connection, and whatever ends it.
		accept func(raw net.Conn, cfg *tls.Config) (*tls.Conn, error)
	}{
		{"by the listener", func(raw net.Conn, cfg *tls.Config) (*tls.Conn, error) {
			l := one{make(chan net.Conn, 1)}
			l.conn <- raw
			c, err := Listener(l).Accept()
			if err != nil {
				return nil, err
			}
			conn := tls.Server(c, cfg)
			return conn, conn.Handshake()
		}},
		{"by whoever made the handshake", func(raw net.Conn, cfg *tls.Config) (*tls.Conn, error) {
			conn := tls.Server(raw, cfg)
			if err := conn.Handshake(); err != nil {
				return nil, err
			}
			CloseAtExpiry(raw, conn.ConnectionState())
			return conn, nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				server := NewSource(issueAt(t, ca, orders, start, DefaultTTL))
				client := NewSource(issueAt(t, ca, payments, start, 90*time.Second))
				a, b := net.Pipe()
				defer a.Close()
				raw := &counting{Conn: b}
				ended := make(chan time.Duration, 1)
				go func() {
					defer close(ended)
					conn, err := tt.accept(raw, ServerTLS(server, nil))
					if err != nil {
						t.Errorf("handshake: %v", err)
						return
					}
					if _, err := conn.Read(make([]byte, 1)); err == nil {
						t.Errorf("read something that nobody sent")
					}
					ended <- time.Since(start)
				}()
				conn := tls.Client(a, ClientTLS(client, Exactly(orders)))
				if err := conn.Handshake(); err != nil {
					t.Fatalf("handshake: %v", err)
				}
				if _, err := conn.Read(make([]byte, 1)); err == nil {
					t.Errorf("read something that nobody sent")
				}
				if got := <-ended; got != 90*time.Second || raw.closed.Load() == 0 {
					t.Errorf("the connection ended after %v (closed %d times), want 1m30s", got, raw.closed.Load())
				}
			})
		})
	}
}

// A busy server must not keep a timer and a connection until the certificate of each caller ends.
func TestClosedConnectionLeavesNoTimer(t *testing.T) {
	ca := newCA(t, domain, bubbleStart)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		peer := issueAt(t, ca, payments, start, time.Hour)
		cs := tls.ConnectionState{PeerCertificates: parsed(t, peer)}
		a, b := net.Pipe()
		defer a.Close()
		raw := &counting{Conn: b}
		conn := &expiringConn{Conn: raw}
		conn.closeAtExpiry(cs)
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		conn.closeAtExpiry(cs) // a handshake that ends after the close
		time.Sleep(2 * time.Hour)
		if got := raw.closed.Load(); got != 1 {
			t.Errorf("the connection was closed %d times, want once", got)
		}
		if stop := CloseAtExpiry(raw, tls.ConnectionState{}); !stop() {
			t.Errorf("a peer without a certificate has an end")
		}
		if stop := CloseAtExpiry(raw, cs); stop() {
			t.Errorf("an expired peer was not closed at once")
		}
		synctest.Wait()
		if got := raw.closed.Load(); got != 2 {
			t.Errorf("closed %d times, want at once for an expired peer", got)
		}
	})
}

// The real servers, above real sockets: a response that never ends is cut when the caller's certificate ends, not before.
func TestServersEndAtExpiry(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ca := newCA(t, domain, now)
	server := NewSource(issue(t, ca, orders))
	url := serve(t, ServerTLS(server, nil, "h2", "http/1.1"), func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("flush: %v", err)
		}
		<-r.Context().Done() // the connection's end
	})
	for _, h2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[h2], func(t *testing.T) {
			t.Parallel()
			client := NewSource(issueAt(t, ca, payments, time.Now(), 2*time.Second))
			tr := &http.Transport{TLSClientConfig: ClientTLS(client, Exactly(orders)), ForceAttemptHTTP2: h2}
			defer tr.CloseIdleConnections()
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if (resp.ProtoMajor == 2) != h2 {
				t.Errorf("protocol = %s", resp.Proto)
			}
			if _, err := io.ReadAll(resp.Body); err == nil {
				t.Errorf("the response ended in good order, want a broken connection")
			}
			if early := time.Until(client.Current().NotAfter()); early > 0 || ctx.Err() != nil {
				t.Errorf("ended %v before the certificate, %v", early, ctx.Err())
			}
		})
	}
}
