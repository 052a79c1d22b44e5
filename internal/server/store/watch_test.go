package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/testkit/testetcd"
)

// watching runs Watch until the test ends, and gives its batches as short texts.
func watching(t *testing.T, s *store.Store, prefix string) <-chan string {
	t.Helper()
	out, ended := make(chan string, 100), make(chan error, 1)
	stop := errors.New("the test is over")
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context()))
	go func() {
		ended <- s.Watch(ctx, prefix, func(b store.Batch) error {
			out <- text(b)
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel(stop)
		if err := receive(t, ended, "end of the watch"); !errors.Is(err, stop) {
			t.Errorf("Watch = %v, want its cause", err)
		}
	})
	return out
}

func text(b store.Batch) string {
	s := ""
	if b.Snapshot {
		s = "all"
	}
	for _, i := range b.Items {
		s += fmt.Sprintf(" %s=%s", i.Key, i.Value)
	}
	for _, k := range b.Deleted {
		s += " -" + k
	}
	return s
}

func expect(t *testing.T, batches <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := receive(t, batches, "batch"); got != w {
			t.Fatalf("batch = %q, want %q", got, w)
		}
	}
}

func TestWatchGivesASnapshotThenEachTransaction(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, s *store.Store) {
		put(t, s, "/w/b", "1")
		put(t, s, "/w/a", "2")
		put(t, s, "/other", "3")
		batches := watching(t, s, "/w/")
		expect(t, batches, "all /w/a=2 /w/b=1")
		_, err := s.Txn(within(t), store.Fence{}, store.Op{Key: "/w/c", Value: []byte("4")}, store.Op{Key: "/other", Delete: true, IfRevision: -1},
			store.Op{Key: "/w/a", Delete: true, IfRevision: -1})
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, "/other", "5")
		put(t, s, "/w/c", "6")
		put(t, s, "/w/c", "7")
		expect(t, batches, " /w/c=4 -/w/a", " /w/c=6", " /w/c=7")
	})
}

func TestWatchEndsWithItsFunction(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	enough := errors.New("enough")
	calls := 0
	err := s.Watch(within(t), "/w/", func(b store.Batch) error {
		if calls++; calls == 1 {
			put(t, s, "/w/a", "1")
			return nil
		}
		return enough
	})
	if !errors.Is(err, enough) || calls != 2 {
		t.Errorf("Watch = %v after %d batches, want its function's error after 2", err, calls)
	}
}

// Changes made while the watcher was cut off arrive in order, each once; only lost history costs a snapshot.
func TestWatchResumesAfterADisconnection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		compact bool
		want    []string
	}{
		{"history kept", false, []string{" /w/a=2", " /w/b=3", " /w/c=4"}},
		{"history compacted", true, []string{"all /w/a=2 /w/b=3", " /w/c=4"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := testetcd.Start(t)
			link := server.Link(t)
			direct := testetcd.Open(t, server.Endpoint())
			put(t, direct, "/w/a", "1")
			batches := watching(t, testetcd.Open(t, link.Endpoint()), "/w/")
			expect(t, batches, "all /w/a=1")
			link.Cut()
			put(t, direct, "/w/a", "2")
			put(t, direct, "/w/b", "3")
			if tt.compact {
				if _, err := direct.Compact(within(t), 0); err != nil {
					t.Fatal(err)
				}
			}
			link.Heal()
			if !tt.compact {
				put(t, direct, "/w/c", "4")
				expect(t, batches, tt.want...)
				return
			}
			expect(t, batches, tt.want[0])
			put(t, direct, "/w/c", "4")
			expect(t, batches, tt.want[1:]...)
		})
	}
}

func TestWatchResumesAfterACrashOfEtcd(t *testing.T) {
	t.Parallel()
	server := testetcd.Start(t)
	s := testetcd.Open(t, server.Link(t).Endpoint())
	put(t, s, "/w/a", "1")
	batches := watching(t, s, "/w/")
	expect(t, batches, "all /w/a=1")
	server.Crash()
	server.Restart(t)
	put(t, testetcd.Open(t, server.Endpoint()), "/w/a", "2")
	expect(t, batches, " /w/a=2")
}

// A slow function delays its own watch only, and loses nothing.
func TestSlowWatcherMissesNothing(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	ctx, cancel := context.WithCancel(within(t))
	started, proceed := make(chan struct{}), make(chan struct{})
	var got, want []string
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, "/w/", func(b store.Batch) error {
			if b.Snapshot {
				close(started)
				<-proceed
				return nil
			}
			if got = append(got, text(b)); len(got) == 500 {
				cancel()
			}
			return nil
		})
	}()
	receive(t, started, "snapshot")
	for i := range 500 {
		want = append(want, fmt.Sprintf(" /w/a=%d", i))
		put(t, s, "/w/a", fmt.Sprint(i))
	}
	close(proceed)
	if err := receive(t, ended, "end of the watch"); !errors.Is(err, context.Canceled) {
		t.Errorf("Watch = %v, want canceled", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("batches (-want +got):\n%s", diff)
	}
}
