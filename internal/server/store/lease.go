package store

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/livefire-mesh/livefire/api"
)

// MinTTL is etcd's floor: a shorter lease lasts this long all the same. An expired lease is swept within 0.5 s more.
const MinTTL = 2 * time.Second

// LeaseID names a lease; zero is none.
type LeaseID int64

// Grant makes a lease of at least ttl, rounded up to whole seconds and to MinTTL. The holder counts from before this call.
// ErrUncertain: a lease may have been made that nobody holds; it ends by itself.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (LeaseID, error) {
	id, _, err := s.grant(ctx, ttl)
	return id, err
}

func (s *Store) grant(ctx context.Context, ttl time.Duration) (LeaseID, time.Duration, error) {
	if ttl <= 0 {
		return 0, 0, api.Errorf(api.Invalid, "lease", "a lease of %v is over at once", ttl)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	seconds := int64((max(ttl, MinTTL) + time.Second - 1) / time.Second)
	resp, err := s.client.Grant(ctx, seconds)
	if err != nil {
		return 0, 0, writeError(ctx, "lease", err)
	}
	return LeaseID(resp.ID), time.Duration(resp.TTL) * time.Second, nil
}

// KeepAliveOnce renews a lease for its whole time. ErrLeaseExpired: it is gone, with its keys.
func (s *Store) KeepAliveOnce(ctx context.Context, id LeaseID) error {
	_, err := s.renew(ctx, id)
	return err
}

func (s *Store) renew(ctx context.Context, id LeaseID) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	resp, err := s.client.KeepAliveOnce(ctx, clientv3.LeaseID(id))
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return 0, &failure{api.Errorf(api.Conflict, "lease", "has expired"), ErrLeaseExpired}
	case err != nil:
		return 0, readError(ctx, "lease", err)
	}
	return time.Duration(resp.TTL) * time.Second, nil
}

// Revoke ends a lease and deletes its keys. One that is gone already is no error.
func (s *Store) Revoke(ctx context.Context, id LeaseID) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if _, err := s.client.Revoke(ctx, clientv3.LeaseID(id)); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return writeError(ctx, "lease", err)
	}
	return nil
}
