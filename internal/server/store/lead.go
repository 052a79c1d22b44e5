package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/livefire-mesh/livefire/api"
)

// electionPrefix holds one key for each candidate of each election.
const electionPrefix = "/livefire/election/"

// errTermOver ends the keep-alive of a term whose work is done.
var errTermOver = errors.New("the term is over")

// Lead campaigns in the election of a name and runs fn while this process is its leader. fn's ctx ends, with ErrLeaseExpired
// as its cause, before the lease can have ended in etcd: our count starts before each request is sent, and stops early by
// a tenth of ttl for clocks that do not run alike. Lead then waits for fn, resigns, and campaigns again, until ctx ends; it
// returns ctx's cause. An error of fn is logged. id names this process in the election.
func (s *Store) Lead(ctx context.Context, name, id string, ttl time.Duration, fn func(context.Context, Fence) error) error {
	if ttl < MinTTL {
		return api.Errorf(api.Invalid, name, "a term of %v is shorter than etcd's shortest lease, %v", ttl, MinTTL)
	}
	pause := newPause()
	for {
		began := time.Now()
		err := s.term(ctx, name, id, ttl, fn)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			s.log.Warn("leadership ended", "election", name, "err", err)
		}
		if time.Since(began) > ttl {
			pause.reset()
		}
		if err := pause.wait(ctx); err != nil {
			return err
		}
	}
}

// Leader is the id that the present leader gave to Lead. NotFound: nobody leads.
func (s *Store) Leader(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.client.Get(ctx, electionPrefix+name+"/", clientv3.WithFirstCreate()...)
	if err != nil {
		return "", readError(ctx, name, err)
	}
	if len(resp.Kvs) == 0 {
		return "", api.Errorf(api.NotFound, name, "nobody leads")
	}
	return string(resp.Kvs[0].Value), nil
}

// forgetElections deletes the candidates that a process before this one has left in an embedded store. The directory is
// ours alone, so they are dead; without this a restarted server would wait for its own old lease to end.
func (s *Store) forgetElections(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if _, err := s.client.Delete(ctx, electionPrefix, clientv3.WithPrefix()); err != nil {
		return fmt.Errorf("forget old elections: %w", err)
	}
	return nil
}

// term is one lease: candidate, leader, resigned.
func (s *Store) term(ctx context.Context, name, id string, ttl time.Duration, fn func(context.Context, Fence) error) error {
	sent := time.Now()
	lease, granted, err := s.grant(ctx, ttl)
	if err != nil {
		return err
	}
	defer s.resign(ctx, lease)
	tctx, cancel := context.WithCancelCause(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() { s.hold(tctx, cancel, lease, granted, sent) })
	defer keeper.Wait()
	defer cancel(errTermOver)

	f, err := s.campaign(tctx, name, id, lease)
	if err != nil {
		return reason(tctx, err)
	}
	if tctx.Err() != nil {
		return context.Cause(tctx)
	}
	s.log.Info("elected", "election", name, "revision", f.revision)
	return fn(tctx, f)
}

// resign lets the next candidate in at once. When etcd does not answer, the lease ends by itself.
func (s *Store) resign(ctx context.Context, lease LeaseID) {
	if err := s.Revoke(context.WithoutCancel(ctx), lease); err != nil {
		s.log.Debug("lease not revoked", "err", err)
	}
}

// hold keeps the lease alive each third of its time, and ends the term when no answer came in time.
func (s *Store) hold(ctx context.Context, end context.CancelCauseFunc, lease LeaseID, ttl time.Duration, sent time.Time) {
	safe := func(sent time.Time, ttl time.Duration) time.Duration { return time.Until(sent.Add(ttl - ttl/10)) }
	// The guard runs beside the request: an answer that never comes must not hold up the end of the term.
	guard := time.AfterFunc(safe(sent, ttl), func() { end(ErrLeaseExpired) })
	defer guard.Stop()
	tick := time.NewTicker(ttl / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		sent := time.Now()
		renewed, err := s.renew(ctx, lease)
		switch {
		case errors.Is(err, ErrLeaseExpired):
			end(ErrLeaseExpired)
			return
		case err != nil:
			s.log.Warn("lease not renewed", "err", err)
		case !guard.Stop():
			return // the term has ended already
		default:
			guard.Reset(safe(sent, renewed))
		}
	}
}

// campaign makes this candidate's key and waits until every older one is gone.
func (s *Store) campaign(ctx context.Context, name, id string, lease LeaseID) (Fence, error) {
	prefix := electionPrefix + name + "/"
	key := fmt.Sprintf("%s%016x", prefix, int64(lease))
	revision, err := s.Txn(ctx, Fence{}, Op{Key: key, Value: []byte(id), Lease: lease})
	if err != nil {
		return Fence{}, err
	}
	for {
		before, at, err := s.newestBefore(ctx, prefix, revision)
		if err != nil {
			return Fence{}, err
		}
		if before == "" {
			return Fence{key, revision}, nil
		}
		if err := s.waitGone(ctx, before, at+1); err != nil {
			return Fence{}, err
		}
	}
}

// newestBefore is the youngest candidate that is older than revision, "" if there is none, and the store's revision.
func (s *Store) newestBefore(ctx context.Context, prefix string, revision int64) (string, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.client.Get(ctx, prefix, append(clientv3.WithLastCreate(), clientv3.WithMaxCreateRev(revision-1))...)
	if err != nil {
		return "", 0, readError(ctx, prefix, err)
	}
	if len(resp.Kvs) == 0 {
		return "", resp.Header.Revision, nil
	}
	return string(resp.Kvs[0].Key), resp.Header.Revision, nil
}

// waitGone returns when the key may be gone: it was deleted, or the watch broke and the caller looks again.
func (s *Store) waitGone(ctx context.Context, key string, from int64) error {
	wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range s.client.Watch(wctx, key, clientv3.WithRev(from), clientv3.WithFilterPut()) {
		if resp.CompactRevision != 0 || len(resp.Events) > 0 {
			return nil
		}
		if err := resp.Err(); err != nil {
			return readError(ctx, key, err)
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return api.Errorf(api.Unavailable, key, "the watch of the candidate before us ended")
}
