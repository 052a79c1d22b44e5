package store

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/livefire-mesh/livefire/api"
)

// DefaultTimeout bounds one call to etcd.
const DefaultTimeout = 5 * time.Second

// Config says where the state is. Either Dir or Endpoints is set, never both.
type Config struct {
	Dir       string        // embedded: the data directory, owned by the store alone; made if it does not exist
	Endpoints []string      // external: "host:port" or URLs of the members of an etcd cluster
	TLS       *tls.Config   // external: nil means without TLS
	Timeout   time.Duration // of one call; zero means DefaultTimeout
	Logger    *slog.Logger  // required
}

// Store is one open connection to the state.
type Store struct {
	// Set once.
	client  *clientv3.Client
	member  *member // nil when external
	timeout time.Duration
	log     *slog.Logger

	closeOnce sync.Once
	closeErr  error // guarded by closeOnce
}

// Item is one key with its value. Revision is that of its last change, CreateRevision that of its creation.
type Item struct {
	Key            string
	Value          []byte
	Revision       int64
	CreateRevision int64
	Lease          LeaseID // zero: lives until deleted
}

// Open opens the store, waits until it answers or ctx ends, and says what to do when it cannot.
// Invalid: the configuration, or a data directory that is not ours or too new. Conflict: another process holds it.
// Unavailable: etcd does not answer.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Logger == nil {
		return nil, api.Errorf(api.Invalid, "store", "a logger is required")
	}
	if (cfg.Dir == "") == (len(cfg.Endpoints) == 0) {
		return nil, api.Errorf(api.Invalid, "store", "either a data directory or endpoints of an etcd are required, not both")
	}
	s := &Store{timeout: cfg.Timeout, log: cfg.Logger}
	if s.timeout <= 0 {
		s.timeout = DefaultTimeout
	}
	var err error
	if cfg.Dir != "" {
		s.member, err = startMember(ctx, cfg.Dir, cfg.Logger)
		if err != nil {
			return nil, err
		}
		s.client = s.member.client
		return s, s.forgetElections(ctx)
	}
	if s.client, err = connect(cfg); err != nil {
		return nil, err
	}
	if _, err := s.Revision(ctx); err != nil {
		_ = s.client.Close() // the reason is err
		return nil, &failure{api.Errorf(api.Unavailable, "store", "etcd at %s does not answer: %v", strings.Join(cfg.Endpoints, ", "), err).
			WithHint("check that it runs and that this host may reach it; with TLS check the certificates"), err}
	}
	return s, nil
}

// Close ends the embedded etcd or the connection and frees the data directory. Calls in progress fail.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		if s.member != nil {
			s.closeErr = s.member.close()
			return
		}
		if err := s.client.Close(); err != nil {
			s.closeErr = fmt.Errorf("close the connection to etcd: %w", err)
		}
	})
	return s.closeErr
}

// Revision is the store's newest revision, read through the quorum: an answer proves that writes can work.
func (s *Store) Revision(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.client.Get(ctx, "/livefire", clientv3.WithCountOnly())
	if err != nil {
		return 0, readError(ctx, "store", err)
	}
	return resp.Header.Revision, nil
}

func connect(cfg Config) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  cfg.TLS,
		DialTimeout:          DefaultTimeout,
		MaxCallSendMsgSize:   2 * maxRequestBytes, // let etcd judge
		DialKeepAliveTime:    6 * time.Second,     // etcd refuses pings more often than each 5 s
		DialKeepAliveTimeout: 2 * time.Second,
		Logger:               zap.New(&slogCore{log: cfg.Logger}),
		DialOptions:          []grpc.DialOption{grpc.WithChainStreamInterceptor(waitForLeaseStream)},
	})
	if err != nil {
		return nil, &failure{api.Errorf(api.Invalid, "store", "endpoints %s: %v", strings.Join(cfg.Endpoints, ", "), err), err}
	}
	return c, nil
}

// waitForLeaseStream makes a keep-alive wait for a connection. Without it the client's KeepAliveOnce asks again
// without pause, on a whole processor, while etcd cannot be reached.
func waitForLeaseStream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if strings.HasSuffix(method, "/LeaseKeepAlive") {
		opts = append(opts, grpc.WaitForReady(true))
	}
	return streamer(ctx, desc, cc, method, opts...)
}
