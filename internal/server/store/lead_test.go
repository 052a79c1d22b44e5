package store_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/testkit/testetcd"
)

func TestKeysEndWithTheirLease(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, s *store.Store) {
		batches := watching(t, s, "/l/")
		expect(t, batches, "all")
		expiring, err := s.Grant(within(t), time.Millisecond) // raised to MinTTL
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := s.Txn(within(t), store.Fence{}, store.Op{Key: "/l/a", Value: []byte("1"), Lease: expiring}); err != nil {
			t.Fatal(err)
		}
		revoked, err := s.Grant(within(t), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Txn(within(t), store.Fence{}, store.Op{Key: "/l/b", Value: []byte("2"), Lease: revoked}); err != nil {
			t.Fatal(err)
		}
		if err := s.KeepAliveOnce(within(t), revoked); err != nil {
			t.Errorf("KeepAliveOnce = %v", err)
		}
		if err := s.Revoke(within(t), revoked); err != nil {
			t.Errorf("Revoke = %v", err)
		}
		expect(t, batches, " /l/a=1", " /l/b=2", " -/l/b", " -/l/a")
		if lived := time.Since(began); lived < store.MinTTL-100*time.Millisecond { // the grant was a moment before
			t.Errorf("the lease ended after %v, want at least %v", lived, store.MinTTL)
		}
		for what, id := range map[string]store.LeaseID{"expired": expiring, "revoked": revoked} {
			if err := s.KeepAliveOnce(within(t), id); outcome(err) != "Conflict, lease expired" {
				t.Errorf("KeepAliveOnce of an %s lease = %v, want ErrLeaseExpired", what, err)
			}
			if _, err := s.Txn(within(t), store.Fence{}, store.Op{Key: "/l/c", Lease: id}); outcome(err) != "Conflict, lease expired" {
				t.Errorf("Txn with an %s lease = %v, want ErrLeaseExpired", what, err)
			}
			if err := s.Revoke(within(t), id); err != nil {
				t.Errorf("Revoke of an %s lease = %v, want nil", what, err)
			}
		}
		if _, err := s.Grant(within(t), 0); api.KindOf(err) != api.Invalid {
			t.Errorf("Grant(0) = %v, want Invalid", err)
		}
	})
}

// candidate runs Lead in a goroutine. Each term is reported; it lasts until its context ends or resign is received from.
type candidate struct {
	terms  chan term
	resign chan struct{}
}

type term struct {
	fence store.Fence
	began time.Time
	ended chan ending
}

type ending struct {
	at    time.Time
	cause error
}

func campaigning(t *testing.T, s *store.Store, id string) candidate {
	t.Helper()
	c := candidate{make(chan term, 10), make(chan struct{})}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() {
		done <- s.Lead(ctx, "loop", id, store.MinTTL, func(ctx context.Context, f store.Fence) error {
			tm := term{f, time.Now(), make(chan ending, 1)}
			c.terms <- tm
			select {
			case <-ctx.Done():
			case <-c.resign:
			}
			tm.ended <- ending{time.Now(), context.Cause(ctx)}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := receive(t, done, "end of Lead"); !errors.Is(err, context.Canceled) {
			t.Errorf("Lead = %v, want canceled", err)
		}
	})
	return c
}

// The guarantee of leadership: the old leader has stopped before the new one begins, and what it still sends is refused.
func TestLeaderStopsBeforeTheNextBegins(t *testing.T) {
	t.Parallel()
	server := testetcd.Start(t)
	link := server.Link(t)
	a := testetcd.OpenConfig(t, store.Config{Endpoints: []string{link.Endpoint()}, Timeout: time.Second})
	b := testetcd.Open(t, server.Endpoint())

	first := receive(t, campaigning(t, a, "a").terms, "term of a")
	next := campaigning(t, b, "b")
	if _, err := a.Txn(within(t), first.fence, store.Op{Key: "/table", Value: []byte("a"), IfRevision: store.AnyRevision}); err != nil {
		t.Fatalf("write of the leader: %v", err)
	}
	if who, err := b.Leader(within(t), "loop"); err != nil || who != "a" {
		t.Errorf("Leader = %q, %v, want a", who, err)
	}
	link.Hold()
	second := receive(t, next.terms, "term of b")
	ended := receive(t, first.ended, "end of a's term")
	if !ended.at.Before(second.began) {
		t.Errorf("a stopped %v after b began", ended.at.Sub(second.began))
	}
	if !errors.Is(ended.cause, store.ErrLeaseExpired) {
		t.Errorf("a's term ended with %v, want ErrLeaseExpired", ended.cause)
	}
	if second.fence.Revision() <= first.fence.Revision() {
		t.Errorf("b's fence %d is not newer than a's %d", second.fence.Revision(), first.fence.Revision())
	}
	if _, err := b.Txn(within(t), second.fence, store.Op{Key: "/table", Value: []byte("b"), IfRevision: store.AnyRevision}); err != nil {
		t.Errorf("write of the new leader: %v", err)
	}
	// The old leader's belief is worth nothing, even through a good connection and with nothing else to object to.
	_, err := b.Txn(within(t), first.fence, store.Op{Key: "/table", Value: []byte("a"), IfRevision: store.AnyRevision})
	if outcome(err) != "Conflict, no longer the leader" {
		t.Errorf("write of the old leader = %v, want ErrFenced", err)
	}
	if item, err := b.Get(within(t), "/table"); err != nil || string(item.Value) != "b" {
		t.Errorf("the table is of %s, %v, want b", item.Value, err)
	}
}

func TestResigningLetsTheNextInAtOnce(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, s *store.Store) {
		a := campaigning(t, s, "a")
		first := receive(t, a.terms, "term of a")
		b := campaigning(t, s, "b")
		a.resign <- struct{}{}
		second := receive(t, b.terms, "term of b")
		if e := receive(t, first.ended, "end of a's term"); e.cause != nil {
			t.Errorf("a's context had ended with %v before it resigned", e.cause)
		}
		b.resign <- struct{}{}
		third := receive(t, a.terms, "second term of a")
		if third.fence.Revision() <= second.fence.Revision() || second.fence.Revision() <= first.fence.Revision() {
			t.Errorf("fences %d, %d, %d do not grow", first.fence.Revision(), second.fence.Revision(), third.fence.Revision())
		}
		if _, err := s.Txn(within(t), second.fence); outcome(err) != "Conflict, no longer the leader" {
			t.Errorf("the resigned leader asks whether it leads: %v, want ErrFenced", err)
		}
		if _, err := s.Txn(within(t), third.fence); err != nil {
			t.Errorf("the leader asks whether it leads: %v", err)
		}
	})
}

// A term outlives its lease's first time because it is renewed.
func TestLeaderStaysWhileItsLeaseIsRenewed(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	a := receive(t, campaigning(t, s, "a").terms, "term")
	select {
	case e := <-a.ended:
		t.Fatalf("the term ended after %v: %v", e.at.Sub(a.began), e.cause)
	case <-time.After(2 * store.MinTTL): // not a synchronisation: the span is the rule
	}
	if _, err := s.Txn(within(t), a.fence); err != nil {
		t.Errorf("the leader asks whether it leads: %v", err)
	}
}

func TestLeadRefusesATermBelowTheFloor(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	err := s.Lead(within(t), "loop", "a", store.MinTTL-1, func(context.Context, store.Fence) error { return nil })
	if api.KindOf(err) != api.Invalid {
		t.Errorf("Lead = %v, want Invalid", err)
	}
}

// What a leader's function fails with ends its term, not the campaign.
func TestFailedTermIsFollowedByAnother(t *testing.T) {
	t.Parallel()
	s := testetcd.Open(t)
	ctx, cancel := context.WithCancel(within(t))
	terms := 0
	err := s.Lead(ctx, "loop", "a", store.MinTTL, func(context.Context, store.Fence) error {
		if terms++; terms == 2 {
			cancel()
		}
		return errors.New("no luck")
	})
	if terms != 2 || !errors.Is(err, context.Canceled) {
		t.Errorf("Lead = %v after %d terms, want canceled after 2", err, terms)
	}
	if _, err := s.Leader(within(t), "loop"); api.KindOf(err) != api.NotFound {
		t.Errorf("Leader after the end = %v, want NotFound", err)
	}
}
