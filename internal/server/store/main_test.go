package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/testkit/testetcd"
)

// limit bounds every wait of these tests; none of them depends on how long it is.
const limit = time.Minute

// TestMain lets a test start this binary as another process with the store open: see hold in dir_test.go.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_TEST_HOLD"); dir != "" {
		os.Exit(holdStore(dir))
	}
	os.Exit(m.Run())
}

// both runs a test on an embedded store and on an external one: the same code is above them.
func both(t *testing.T, test func(*testing.T, *store.Store)) {
	t.Helper()
	t.Run("embedded", func(t *testing.T) { t.Parallel(); test(t, testetcd.Open(t)) })
	t.Run("external", func(t *testing.T) { t.Parallel(); test(t, testetcd.Open(t, testetcd.Start(t).Endpoint())) })
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func put(t *testing.T, s *store.Store, key, value string) int64 {
	t.Helper()
	rev, err := s.Txn(within(t), store.Fence{}, store.Op{Key: key, Value: []byte(value), IfRevision: store.AnyRevision})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return rev
}

// receive takes one value, or fails the test when none comes.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(limit):
		t.Fatalf("no %s within %v", what, limit)
		panic("unreachable")
	}
}

// outcome is what a caller of the store branches on.
func outcome(err error) string {
	for _, s := range []error{store.ErrConflict, store.ErrFenced, store.ErrUncertain, store.ErrLeaseExpired, store.ErrCompacted} {
		if errors.Is(err, s) {
			return fmt.Sprintf("%s, %s", api.KindOf(err), s)
		}
	}
	return string(api.KindOf(err))
}
