package probe

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// roleEnv makes the test binary a prober in a process of its own, which the test can kill.
const roleEnv = "PROBE_TEST_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "" {
		os.Exit(m.Run())
	}
	p, err := New(Config{
		Dir:    os.Args[1],
		Target: func(api.ServiceID) (string, bool) { return os.Args[2], true },
		Upload: func(context.Context, string, int64, []byte) error { return errors.New("no server") },
	})
	if err == nil {
		err = p.Start(order(50, time.Minute))
	}
	if err == nil {
		err = p.Run(context.Background())
	}
	slog.Error("prober ended", "err", err)
	os.Exit(1)
}

func order(rate float64, lease time.Duration) sample.Order {
	return sample.Order{
		ID: "pay-20260101-1/payments", Run: "pay-20260101-1", Service: "payments", From: "eu", Rate: rate,
		Timeout: 5 * time.Second, Method: "GET", Path: "/", Lease: lease,
	}
}

// sink is a server that takes chunks. fail, if set, says what one upload returns; the chunk counts as stored if
// stored is true, as after an answer that got lost.
type sink struct {
	t    *testing.T
	fail func(chunk int64, attempt int) (err error, stored bool)

	mu       sync.Mutex
	chunks   []sample.Chunk // guarded by mu, in the order of their arrival
	bytes    map[int64]string
	attempts map[int64]int
	last     chan struct{} // closed with the last chunk
}

func newSink(t *testing.T) *sink {
	return &sink{t: t, bytes: map[int64]string{}, attempts: map[int64]int{}, last: make(chan struct{})}
}

func (s *sink) upload(_ context.Context, _ string, chunk int64, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts[chunk]++
	var err error
	stored := true
	if s.fail != nil {
		if err, stored = s.fail(chunk, s.attempts[chunk]); err == nil {
			stored = true
		}
	}
	if !stored {
		return err
	}
	if old, ok := s.bytes[chunk]; ok {
		if old != string(data) {
			s.t.Errorf("chunk %d was uploaded twice, with other bytes", chunk)
		}
		return err
	}
	c, decodeErr := sample.DecodeChunk(data)
	if decodeErr != nil {
		s.t.Errorf("chunk %d: %v", chunk, decodeErr)
	}
	s.bytes[chunk] = string(data)
	s.chunks = append(s.chunks, c)
	if c.Header.Last {
		close(s.last)
	}
	return err
}

// all waits for the last chunk, checks that the account adds up and returns every sample.
func (s *sink) all() []sample.Sample {
	s.t.Helper()
	select {
	case <-s.last:
	case <-time.After(30 * time.Second):
		s.t.Fatal("no last chunk")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []sample.Sample
	for i, c := range s.chunks {
		if c.Header.Chunk != int64(i) {
			s.t.Errorf("chunk %d arrived in place %d", c.Header.Chunk, i)
		}
		if c.Header.Last != (i == len(s.chunks)-1) {
			s.t.Errorf("chunk %d of %d: last = %v", i, len(s.chunks), c.Header.Last)
		}
		out = append(out, c.Samples...)
	}
	for i, x := range out {
		if x.Seq != int64(i) {
			s.t.Fatalf("sample %d in place %d", x.Seq, i)
		}
		if x.Request != sample.RequestID(order(1, 1).ID, x.Seq) {
			s.t.Errorf("request id = %q", x.Request)
		}
	}
	return out
}

func begin(t *testing.T, cfg Config) (p *Prober, stop func()) {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return p, stop
}

func serve(t *testing.T, h http.HandlerFunc) func(api.ServiceID) (string, bool) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelError)
	srv.Start()
	t.Cleanup(srv.Close)
	return func(api.ServiceID) (string, bool) { return srv.URL, true }
}

// wait ends after d: for what must go on for a while.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// ids is a set of request ids that a server has seen, with their counts.
type ids struct {
	mu   sync.Mutex
	seen map[string]int
	news chan struct{}
}

func newIDs() *ids { return &ids{seen: map[string]int{}, news: make(chan struct{}, 1)} }

func (s *ids) add(r *http.Request) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[r.Header.Get(headerRequest)]++
	poke(s.news)
	return len(s.seen)
}

func (s *ids) count() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int{}
	for k, v := range s.seen {
		out[k] = v
	}
	return out
}

// until waits until a server has seen n requests.
func (s *ids) until(t *testing.T, n int) {
	t.Helper()
	late := time.NewTimer(30 * time.Second)
	defer late.Stop()
	for len(s.count()) < n {
		select {
		case <-s.news:
		case <-late.C:
			t.Fatalf("%d requests, want %d", len(s.count()), n)
		}
	}
}

func classes(xs []sample.Sample) map[sample.Class]int {
	out := map[sample.Class]int{}
	for _, x := range xs {
		out[x.Class]++
	}
	return out
}

func find(xs []sample.Sample, ok func(sample.Sample) bool) []sample.Sample {
	return slices.DeleteFunc(slices.Clone(xs), func(x sample.Sample) bool { return !ok(x) })
}
