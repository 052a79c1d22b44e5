package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// UnsettledError says that the store did not tell, for as long as we asked, whether Records are in the log.
type UnsettledError struct {
	Records []evidence.Record // as they would be
	Err     error
}

func (e *UnsettledError) Error() string {
	return fmt.Sprintf("ledger: %d records may or may not be in the log from index %d: %v", len(e.Records), e.Records[0].Index, e.Err)
}

// Unwrap gives the cause, which is store.ErrUncertain.
func (e *UnsettledError) Unwrap() error { return e.Err }

// Settle finds out what became of an append in doubt: true, its records are in the log; false, they are not and never
// will be, so that the same may be appended again. *UnsettledError: still unknown.
func (l *Ledger) Settle(ctx context.Context, doubt *UnsettledError) (bool, error) {
	if err := l.take(ctx); err != nil {
		return false, err
	}
	defer l.give()
	landed, err := l.settle(ctx, doubt.Records)
	if err != nil {
		return false, &UnsettledError{Records: doubt.Records, Err: errors.Join(store.ErrUncertain, err)}
	}
	return landed, nil
}

// settle asks until SettleTimeout after now, whatever becomes of ctx: a caller that gave up must still get an answer
// it can act on. The caller has the turn.
func (l *Ledger) settle(ctx context.Context, records []evidence.Record) (bool, error) {
	l.known = false
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.SettleTimeout)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		landed, err := l.resolve(ctx, records)
		if err == nil {
			return landed, nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false, err
		}
	}
}

// resolve asks once. A head that has not moved proves nothing while the write may still be on its way: it is written
// again as it is, which takes the revision that the write compares with.
func (l *Ledger) resolve(ctx context.Context, records []evidence.Record) (bool, error) {
	first := records[0]
	h, err := l.readHead(ctx)
	if err != nil {
		return false, err
	}
	if h.Size <= first.Index {
		value, err := json.Marshal(h)
		if err != nil {
			return false, fmt.Errorf("encode the head of the log: %w", err)
		}
		_, err = l.cfg.Store.Txn(ctx, l.cfg.Fence(), store.Op{Key: headKey, Value: value, IfRevision: h.revision})
		if err == nil {
			return false, nil
		}
		if !errors.Is(err, store.ErrFenced) {
			return false, err // conflict: somebody was faster, perhaps the write itself; ask again
		}
		// Our term is over, and so is the write's: it came before this or will be refused like this.
		if h, err = l.readHead(ctx); err != nil {
			return false, err
		}
	}
	if h.Size <= first.Index {
		return false, nil
	}
	want, err := first.Encode()
	if err != nil {
		return false, err
	}
	it, err := l.cfg.Store.Get(ctx, recordKey(first.Index))
	if notFound(err) {
		return false, damaged("record %d of %d is missing", first.Index, h.Size)
	}
	if err != nil {
		return false, fmt.Errorf("read record %d of the log: %w", first.Index, err)
	}
	return bytes.Equal(it.Value, want), nil // a batch is written whole: its first line stands for all
}
