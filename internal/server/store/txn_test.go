package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/testkit/testetcd"
)

func TestTxnHoldsOnlyAtTheExpectedRevision(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, s *store.Store) {
		first := put(t, s, "/a", "1")
		second := put(t, s, "/a", "2")
		for _, tt := range []struct {
			name string
			op   store.Op
			want string
		}{
			{"an older revision", store.Op{Key: "/a", IfRevision: first}, "Conflict, changed meanwhile"},
			{"a revision to come", store.Op{Key: "/a", IfRevision: second + 100}, "Conflict, changed meanwhile"},
			{"must not exist but does", store.Op{Key: "/a", IfRevision: store.NotExisting}, "Conflict, changed meanwhile"},
			{"must exist but does not", store.Op{Key: "/none", IfRevision: second}, "Conflict, changed meanwhile"},
			{"delete of an older revision", store.Op{Key: "/a", Delete: true, IfRevision: first}, "Conflict, changed meanwhile"},
			{"no key", store.Op{}, "Invalid"},
			{"no such revision", store.Op{Key: "/a", IfRevision: -2}, "Invalid"},
			{"the present revision", store.Op{Key: "/a", Value: []byte("3"), IfRevision: second}, ""},
			{"whatever is there", store.Op{Key: "/a", Value: []byte("4"), IfRevision: store.AnyRevision}, ""},
			{"must not exist and does not", store.Op{Key: "/b", Value: []byte("5")}, ""},
			{"delete whatever is there", store.Op{Key: "/a", Delete: true, IfRevision: store.AnyRevision}, ""},
			{"delete of nothing", store.Op{Key: "/a", Delete: true, IfRevision: store.AnyRevision}, ""},
		} {
			if _, err := s.Txn(within(t), store.Fence{}, tt.op); outcome(err) != tt.want {
				t.Errorf("%s: Txn = %v (%s), want %q", tt.name, err, outcome(err), tt.want)
			}
		}
		items, _, err := s.List(within(t), "/")
		if err != nil || len(items) != 1 || items[0].Key != "/b" || string(items[0].Value) != "5" {
			t.Errorf("List(/) = %v, %v, want only /b = 5", items, err)
		}
	})
}

func TestTxnChangesEverythingOrNothing(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	old := put(t, s, "/b", "old")
	before, err := s.Revision(within(t))
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "/b", "other")
	_, err = s.Txn(within(t), store.Fence{}, store.Op{Key: "/a", Value: []byte("new")}, store.Op{Key: "/b", IfRevision: old}, store.Op{Key: "/c"})
	if !errors.Is(err, store.ErrConflict) {
		t.Fatalf("Txn = %v, want ErrConflict", err)
	}
	var shown *api.Error
	if !errors.As(err, &shown) || shown.Subject != "/b" {
		t.Errorf("the conflict names %v, want /b", shown)
	}
	items, now, err := s.List(within(t), "/")
	if err != nil || len(items) != 1 || now != before+1 {
		t.Errorf("List after the refusal = %v at %d, %v, want only /b at %d", items, now, err, before+1)
	}
	rev, err := s.Txn(within(t), store.Fence{}, store.Op{Key: "/a"}, store.Op{Key: "/c"}, store.Op{Key: "/b", Delete: true, IfRevision: store.AnyRevision})
	if err != nil {
		t.Fatal(err)
	}
	items, at, err := s.List(within(t), "/")
	want := []store.Item{
		{Key: "/a", Revision: rev, CreateRevision: rev},
		{Key: "/c", Revision: rev, CreateRevision: rev},
	}
	if diff := cmp.Diff(want, items); diff != "" || err != nil || at != rev {
		t.Errorf("List = revision %d, %v, want %d; items (-want +got):\n%s", at, err, rev, diff)
	}
	if _, err := s.Txn(within(t), store.Fence{}, store.Op{Key: "/x", IfRevision: -1}, store.Op{Key: "/x", IfRevision: -1}); api.KindOf(err) != api.Invalid {
		t.Errorf("Txn that changes /x twice = %v, want Invalid", err)
	}
}

// A whole mesh is applied in one transaction.
func TestTxnTakesThousandsOfChanges(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	ops := make([]store.Op, 4000)
	for i := range ops {
		ops[i] = store.Op{Key: fmt.Sprintf("/k/%04d", i), Value: make([]byte, 500)}
	}
	if _, err := s.Txn(within(t), store.Fence{}, ops...); err != nil {
		t.Fatalf("Txn of %d changes: %v", len(ops), err)
	}
	if items, _, err := s.List(within(t), "/k/"); err != nil || len(items) != len(ops) {
		t.Errorf("List = %d items, %v, want %d", len(items), err, len(ops))
	}
	external := testetcd.Open(t, testetcd.Start(t).Endpoint())
	for what, ops := range map[string][]store.Op{
		"129 changes": ops[:129],
		"1.6 MB":      {{Key: "/k", Value: make([]byte, 1_600_000)}},
		"10 MB":       {{Key: "/k", Value: make([]byte, 10_000_000)}},
		"20 MB":       {{Key: "/k", Value: make([]byte, 20_000_000)}},
	} {
		_, err := external.Txn(within(t), store.Fence{}, ops...)
		var shown *api.Error
		if !errors.As(err, &shown) || shown.Kind != api.Invalid || !strings.Contains(shown.Hint, "--max-txn-ops") || errors.Is(err, store.ErrUncertain) {
			t.Errorf("Txn of %s on an external etcd with its own limits = %v, want Invalid with a hint", what, err)
		}
	}
}

func TestGetOfNothingIsNotFound(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, s *store.Store) {
		if _, err := s.Get(within(t), "/none"); api.KindOf(err) != api.NotFound {
			t.Errorf("Get = %v, want NotFound", err)
		}
		rev := put(t, s, "/some", "v")
		if item, err := s.Get(within(t), "/some"); err != nil || string(item.Value) != "v" || item.Revision != rev || item.CreateRevision != rev {
			t.Errorf("Get = %+v, %v, want v at %d", item, err, rev)
		}
	})
}

// A write whose answer is lost is neither done nor not done: the caller must read it back.
func TestLostAnswerIsUncertain(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		hold func(*testetcd.Link)
		done bool
	}{
		{"done but reported failed", (*testetcd.Link).HoldReplies, true},
		{"not done", (*testetcd.Link).Hold, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := testetcd.Start(t)
			link := server.Link(t)
			s := testetcd.OpenConfig(t, store.Config{Endpoints: []string{link.Endpoint()}, Timeout: 300 * time.Millisecond})
			direct := testetcd.Open(t, server.Endpoint())
			tt.hold(link)
			_, err := s.Txn(within(t), store.Fence{}, store.Op{Key: "/k", Value: []byte("v")})
			if outcome(err) != "Unavailable, may have happened" {
				t.Errorf("Txn = %v (%s), want ErrUncertain", err, outcome(err))
			}
			if _, err := direct.Get(within(t), "/k"); (err == nil) != tt.done {
				t.Errorf("read back = %v, want done: %t", err, tt.done)
			}
		})
	}
}

func TestNothingIsSentAfterTheCallersEnd(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	stopped := errors.New("the server stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	_, err := s.Txn(ctx, store.Fence{}, store.Op{Key: "/k"})
	if errors.Is(err, store.ErrUncertain) || !errors.Is(err, stopped) {
		t.Errorf("Txn after the end = %v, want the cause and no doubt", err)
	}
	if _, err := s.Get(within(t), "/k"); api.KindOf(err) != api.NotFound {
		t.Errorf("Get = %v, want NotFound", err)
	}
}

func TestHistoryIsReadUntilCompacted(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, s *store.Store) {
		first := put(t, s, "/a", "1")
		put(t, s, "/a", "2")
		third := put(t, s, "/a", "3")
		if items, err := s.ListAt(within(t), "/", first); err != nil || len(items) != 1 || string(items[0].Value) != "1" {
			t.Errorf("ListAt(%d) = %v, %v, want 1", first, items, err)
		}
		oldest, err := s.Compact(within(t), 1)
		if err != nil || oldest != third-1 {
			t.Fatalf("Compact(keep 1) = %d, %v, want %d", oldest, err, third-1)
		}
		if _, err := s.ListAt(within(t), "/", first); outcome(err) != "NotFound, history no longer kept" {
			t.Errorf("ListAt(%d) after the compaction = %v, want ErrCompacted", first, err)
		}
		if items, err := s.ListAt(within(t), "/", oldest); err != nil || len(items) != 1 || string(items[0].Value) != "2" {
			t.Errorf("ListAt(oldest) = %v, %v, want 2", items, err)
		}
		if again, err := s.Compact(within(t), 1); err != nil || again != oldest {
			t.Errorf("Compact again = %d, %v, want %d", again, err, oldest)
		}
	})
}
