package xdsclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	backoffMin = 100 * time.Millisecond
	backoffMax = time.Second

	// A server that is stopped keeps its connections open. grpc-go sends HTTP/2 pings at most every 10 s, so a small
	// call asks instead; any answer, "unimplemented" too, comes from a server that lives.
	pingInterval = 500 * time.Millisecond
	pingTimeout  = 500 * time.Millisecond

	// incompleteLimit is how long the rest of a table may take before the stream is begun anew.
	incompleteLimit = 5 * time.Second

	maxMessage = 64 << 20 // bytes; a table of 10,000 endpoints has 5 MB
)

var (
	errUnknownType = errors.New("no such type was asked for")
	errSilent      = errors.New("the server does not answer")
)

// session is one stream. Its methods are called by the client's follow loop only.
type session struct {
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node   *corev3.Node // for the first request; nil afterwards
	end    context.CancelCauseFunc
}

// request sends; a stream that fails is ended, and its connector begins another.
func (s *session) request(req *discoveryv3.DeltaDiscoveryRequest) {
	req.Node, s.node = s.node, nil
	if err := s.stream.Send(req); err != nil {
		s.end(fmt.Errorf("send to server: %w", err))
	}
}

// answer is the ACK of a response, or its NACK.
func answer(url, nonce string, refused error) *discoveryv3.DeltaDiscoveryRequest {
	req := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: url, ResponseNonce: nonce}
	if refused != nil {
		req.ErrorDetail = &statuspb.Status{Code: int32(codes.InvalidArgument), Message: refused.Error()}
	}
	return req
}

// connector keeps one session at a time.
type connector struct {
	cfg       Config
	events    chan<- event
	rand      *rand.Rand
	connected *atomic.Bool
}

func (k *connector) run(ctx context.Context) error {
	failures := 0
	for i := 0; ; i++ {
		addr := k.cfg.Servers[i%len(k.cfg.Servers)]
		err := k.connect(ctx, addr)
		answered := k.connected.Swap(false)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		failures++
		if answered {
			failures = 0
		}
		k.cfg.Logger.Warn("connection to server ended", "server", addr, "err", err)
		if answered && len(k.cfg.Servers) > 1 {
			continue // another server may be there at once
		}
		if err := k.pause(ctx, failures); err != nil {
			return err
		}
	}
}

// pause waits between half of the back-off and all of it.
func (k *connector) pause(ctx context.Context, failures int) error {
	d := min(backoffMin<<min(failures, 10), backoffMax)
	d = d/2 + time.Duration(k.rand.Int64N(int64(d/2)))
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// connect runs one session until it fails.
func (k *connector) connect(ctx context.Context, addr string) error {
	conn, err := grpc.NewClient("passthrough:///"+addr, k.dialOptions()...)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", addr, err)
	}
	defer func() { _ = conn.Close() }() // its error would say that it is closed
	parent := ctx
	ctx, end := context.WithCancelCause(parent)
	defer end(nil)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return fmt.Errorf("open stream to %s: %w", addr, err)
	}
	s := &session{stream: stream, node: k.cfg.Node, end: end}
	if err := k.tell(ctx, event{opened: s}); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		err := k.receive(gctx, s)
		end(err)
		return err
	})
	g.Go(func() error {
		err := k.ping(gctx, conn)
		end(err) // unblocks receive
		return err
	})
	err = g.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause // the first failure; what followed is its echo
	}
	// The follow loop must not use the stream again.
	if told := k.tell(parent, event{closed: s}); told != nil {
		return told
	}
	return err
}

// tell hands an event to the follow loop.
func (k *connector) tell(ctx context.Context, e event) error {
	select {
	case k.events <- e:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (k *connector) receive(ctx context.Context, s *session) error {
	for {
		m, err := s.stream.Recv()
		if err != nil {
			return fmt.Errorf("receive from server: %w", err)
		}
		k.connected.Store(true)
		if err := k.tell(ctx, event{from: s, message: m, received: time.Now()}); err != nil {
			return err
		}
	}
}

// ping returns when the server does not answer in time.
func (k *connector) ping(ctx context.Context, conn *grpc.ClientConn) error {
	client := healthv1.NewHealthClient(conn)
	tick := time.NewTicker(pingInterval)
	defer tick.Stop()
	for {
		pctx, cancel := context.WithTimeout(ctx, pingTimeout)
		_, err := client.Check(pctx, &healthv1.HealthCheckRequest{})
		cancel()
		switch status.Code(err) {
		case codes.DeadlineExceeded, codes.Unavailable, codes.Canceled:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("%w: %w", errSilent, err)
		}
		k.connected.Store(true)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (k *connector) dialOptions() []grpc.DialOption {
	creds := insecure.NewCredentials()
	if k.cfg.TLS != nil {
		creds = tlsCredentials(k.cfg.TLS())
	}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return k.cfg.Dial(ctx, addr) }),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: backoffMin, Multiplier: 2, MaxDelay: backoffMax},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithIdleTimeout(0),
		grpc.WithDisableServiceConfig(),
	}
}

func tlsCredentials(c *tls.Config) credentials.TransportCredentials { return credentials.NewTLS(c) }
