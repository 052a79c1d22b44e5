package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/livefire-mesh/livefire/internal/mesh/proxy/http1"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/outlier"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy/retry"
)

// connectTimeout bounds a connection, its TLS handshake included. It is long on purpose: the watch leaves an endpoint
// that stays silent within half a second, and on a host that is short of processors a shorter limit throws away
// handshakes that were almost done, which makes the shortage worse.
const connectTimeout = 3 * time.Second

// errConnectTimeout is the cause of a connection that took longer than connectTimeout.
var errConnectTimeout = errors.New("connect timeout")

func (p *Proxy) newEndpoint(key endpointKey) *endpoint {
	self := key.service == p.cfg.Node.Service && key.site == p.cfg.Node.Site && key.workload == p.cfg.Node.Workload && p.cfg.Node.Workload != ""
	e := &endpoint{key: key, self: self, tracker: outlier.New(outlier.Config{}), attempts: map[*attempt]struct{}{}}
	dial := func(ctx context.Context) (net.Conn, error) { return p.dialPeer(ctx, key) }
	e.pool = http1.NewPool(http1.PoolConfig{Dial: dial, Progress: func() { e.progress.Store(time.Now().UnixNano()) }})
	e.checks = http1.NewPool(http1.PoolConfig{Dial: dial})
	if self {
		e.tracker.Check(true, false, "", time.Now()) // it is this process: nothing to ask
	}
	return e
}

// dialPeer connects to a peer's inbound listener and verifies that it is who the table says.
func (p *Proxy) dialPeer(ctx context.Context, key endpointKey) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errConnectTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", key.address.String())
	if err != nil {
		return nil, dialError(ctx, err)
	}
	cfg := p.cfg.ClientTLS(key.identity).Clone()
	cfg.MinVersion = tls.VersionTLS13
	c := tls.Client(raw, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake's error is the one to report
		return nil, fmt.Errorf("tls: %w", dialError(ctx, err))
	}
	return newExpiring(c, c.ConnectionState()), nil
}

// dialApp connects to the local application.
func (p *Proxy) dialApp(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errConnectTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", p.cfg.App)
	if err != nil {
		return nil, dialError(ctx, err)
	}
	return c, nil
}

func dialError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// expiring is a connection that ends with its peer's certificate: TLS does not look again.
type expiring struct {
	*tls.Conn
	timer *time.Timer
}

func newExpiring(c *tls.Conn, state tls.ConnectionState) *expiring {
	x := &expiring{Conn: c}
	if len(state.PeerCertificates) > 0 {
		x.timer = time.AfterFunc(time.Until(state.PeerCertificates[0].NotAfter), func() { _ = x.Conn.NetConn().Close() })
	}
	return x
}

func (x *expiring) Close() error {
	if x.timer != nil {
		x.timer.Stop()
	}
	return x.Conn.Close()
}

// causeOf says what kind of failure an error of a dial or an exchange is.
func causeOf(err error) retry.Cause {
	var alert tls.AlertError
	var sent *http1.SendError
	switch {
	case errors.Is(err, errEjected), errors.Is(err, errRemoved):
		return retry.Ejected
	case errors.Is(err, errTryTimeout):
		return retry.TryTimeout
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errRequestTimeout), errors.Is(err, errStopped):
		return retry.Local
	case errors.Is(err, syscall.ECONNREFUSED):
		return retry.Refused
	case errors.As(err, &alert):
		return retry.Connect // the peer refused our certificate after the handshake was over for us
	case errors.As(err, &sent):
		return retry.Reset
	}
	return retry.Connect
}

// describe is an error as an observer of health reports it.
func describe(err error) string {
	var alert tls.AlertError
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connect: refused"
	case errors.Is(err, errConnectTimeout):
		return "connect: timeout"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errCheckTimeout):
		return "timeout"
	case errors.Is(err, syscall.ECONNRESET):
		return "reset"
	case errors.As(err, &alert):
		return "tls: " + alert.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	return err.Error()
}
