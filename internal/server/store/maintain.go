package store

import (
	"context"
	"errors"
	"io"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/livefire-mesh/livefire/api"
)

// Compact forgets the history before the newest keep revisions, and returns the oldest revision that ListAt still reads.
// The present state is never touched.
func (s *Store) Compact(ctx context.Context, keep int64) (int64, error) {
	if keep < 0 {
		return 0, api.Errorf(api.Invalid, "history", "cannot keep %d revisions", keep)
	}
	now, err := s.Revision(ctx)
	if err != nil {
		return 0, err
	}
	oldest := max(now-keep, 1)
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if _, err := s.client.Compact(ctx, oldest); err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return 0, writeError(ctx, "history", err)
	}
	return oldest, nil
}

// Snapshot writes the whole store, as `etcdutl snapshot restore` reads it, to w. What was written before an error is of no use.
func (s *Store) Snapshot(ctx context.Context, w io.Writer) error {
	r, err := s.client.Snapshot(ctx)
	if err != nil {
		return readError(ctx, "snapshot", err)
	}
	_, err = io.Copy(w, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return readError(ctx, "snapshot", err)
	}
	return nil
}
