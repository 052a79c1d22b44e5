package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// Limits of one transaction, for an etcd with its default of 128 operations and 1.5 MiB: one operation for the head,
// two for each record, one for each run, one for each further write. Writes that are more than fit go with one record:
// then etcd has to be told to take larger transactions, as the store's error says.
const (
	batchOps   = 128
	batchBytes = evidence.MaxRecordBytes
	fitWrites  = 64 // as many always fit
	maxWrites  = 1000
)

// Entry is a record that is not yet in the log.
type Entry struct {
	Run     string
	Kind    string
	Actor   string
	Subject string
	At      time.Time // zero: now
	Data    any       // payload of the kind, encoded as a JSON object; nil: none
}

// Append adds entries in order and returns them as records. Up to 40 entries of together 1 MiB are added all or none;
// of more, the records that were written are returned beside the error. It may outlast ctx by SettleTimeout.
//
// ErrClosed, Invalid: an entry cannot be a record. store.ErrFenced: this process no longer leads. In both cases nothing
// of the batch was written. *UnsettledError: it may have been; call Settle before appending the same again.
func (l *Ledger) Append(ctx context.Context, entries ...Entry) ([]evidence.Record, error) {
	return l.AppendWith(ctx, nil, entries...)
}

// AppendWith is Append with further writes, at most 1000 (more than 64 may need a larger etcd), of keys outside of Prefix in the transaction of the first batch:
// state and the records that speak of it are stored together or not at all, up to 20 entries of together 1 MiB with the
// writes. store.ErrConflict: a write is not at its IfRevision; nothing of the batch was written. Without entries the
// writes are one transaction of the store, with its errors.
func (l *Ledger) AppendWith(ctx context.Context, writes []store.Op, entries ...Entry) ([]evidence.Record, error) {
	if err := checkWrites(writes); err != nil {
		return nil, err
	}
	if len(entries) == 0 {
		if len(writes) == 0 {
			return nil, nil
		}
		_, err := l.cfg.Store.Txn(ctx, l.cfg.Fence(), writes...)
		return nil, err
	}
	drafts, err := draft(entries)
	if err != nil {
		return nil, err
	}
	if err := l.take(ctx); err != nil {
		return nil, err
	}
	defer l.give()
	var written []evidence.Record
	for len(drafts) > 0 {
		n := batchOf(drafts, writes)
		records, err := l.write(ctx, drafts[:n], writes)
		if err != nil {
			return written, err
		}
		writes = nil
		written, drafts = append(written, records...), drafts[n:]
	}
	return written, nil
}

func checkWrites(writes []store.Op) error {
	if len(writes) > maxWrites {
		return api.Errorf(api.Invalid, "ledger", "%d writes beside records, at most %d", len(writes), maxWrites)
	}
	for _, op := range writes {
		if strings.HasPrefix(op.Key, Prefix) {
			return api.Errorf(api.Invalid, op.Key, "only the ledger writes its own keys")
		}
	}
	return nil
}

// draft makes records that lack Index and RunSeq only.
func draft(entries []Entry) ([]evidence.Record, error) {
	now := time.Now().UTC()
	drafts := make([]evidence.Record, len(entries))
	for i, e := range entries {
		r := evidence.Record{Run: e.Run, At: e.At.UTC(), Kind: e.Kind, Actor: e.Actor, Subject: e.Subject}
		if e.At.IsZero() {
			r.At = now
		}
		if e.Data != nil {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(e.Data); err != nil {
				return nil, invalid(r, err)
			}
			r.Data = bytes.TrimSuffix(b.Bytes(), []byte("\n"))
		}
		if _, err := r.Encode(); err != nil {
			return nil, invalid(r, err)
		}
		drafts[i] = r
	}
	return drafts, nil
}

func invalid(r evidence.Record, err error) error {
	return fmt.Errorf("%w: %w", api.Errorf(api.Invalid, "ledger", "a %s record of run %q cannot be written", r.Kind, r.Run), err)
}

// batchOf is how many drafts fit one transaction beside writes: at least one.
func batchOf(drafts []evidence.Record, writes []store.Op) int {
	ops, size := 1+len(writes), 0
	for _, w := range writes {
		size += len(w.Key) + len(w.Value)
	}
	runs := map[string]bool{"": true}
	for n, d := range drafts {
		ops += 2
		if !runs[d.Run] {
			runs[d.Run] = true
			ops++
		}
		size += len(d.Data) + len(d.Run) + len(d.Actor) + len(d.Subject) + 512
		if n > 0 && (ops > batchOps || size > batchBytes) {
			return n
		}
	}
	return len(drafts)
}

func (l *Ledger) take(ctx context.Context) error {
	select {
	case <-l.turn:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", api.Errorf(api.Unavailable, "ledger", "nothing written"), context.Cause(ctx))
	}
}

func (l *Ledger) give() { l.turn <- struct{}{} }

// write brings one batch into the log. The caller has the turn.
func (l *Ledger) write(ctx context.Context, drafts []evidence.Record, writes []store.Op) ([]evidence.Record, error) {
	for {
		if !l.known {
			h, err := l.readHead(ctx)
			if err != nil {
				return nil, err
			}
			l.head, l.known = h, true
		}
		b, err := l.plan(ctx, l.head, drafts)
		if err != nil {
			return nil, err
		}
		revision, err := l.cfg.Store.Txn(ctx, l.cfg.Fence(), slices.Concat(b.ops, writes)...)
		switch {
		case err == nil:
			l.head = b.after
			l.head.revision = revision
			return b.records, nil
		case errors.Is(err, store.ErrUncertain):
			landed, serr := l.settle(ctx, b.records)
			if serr != nil {
				return nil, &UnsettledError{Records: b.records, Err: errors.Join(err, serr)}
			}
			if landed {
				return b.records, nil
			}
			l.cfg.Logger.Warn("log write repeated", "err", err) // it surely did not happen
		case errors.Is(err, store.ErrConflict):
			if err := l.reload(ctx, err, writes); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("append %d records to the log: %w", len(drafts), err)
		}
		if err := context.Cause(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", api.Errorf(api.Unavailable, "ledger", "nothing written"), err)
		}
	}
}

// reload reads the head after a conflict. If it moved, another process wrote, and the fence says whether we still may;
// if not, it was one of the writes that had changed.
func (l *Ledger) reload(ctx context.Context, conflict error, writes []store.Op) error {
	was := l.head.revision
	l.known = false
	h, err := l.readHead(ctx)
	if err != nil {
		return err
	}
	if h.revision == was {
		if slices.ContainsFunc(writes, func(op store.Op) bool { return op.IfRevision != store.AnyRevision }) {
			return fmt.Errorf("append to the log with %d writes: %w", len(writes), conflict)
		}
		return damaged("behind its head: %v", conflict)
	}
	l.head, l.known = h, true
	return nil
}

// batch is one transaction on the log.
type batch struct {
	records []evidence.Record
	ops     []store.Op
	after   head
}

// plan gives drafts their places behind h and lists the changes. Run states are read after h: if they are newer, h is
// old and the transaction will be refused.
func (l *Ledger) plan(ctx context.Context, h head, drafts []evidence.Record) (batch, error) {
	b := batch{after: h}
	runs := map[string]runState{}
	var order []string
	for _, r := range drafts {
		r.Index = b.after.Size
		if r.Run != "" {
			s, ok := runs[r.Run]
			if !ok {
				var err error
				if s, err = l.readRun(ctx, r.Run); err != nil {
					return batch{}, err
				}
				order = append(order, r.Run)
			}
			s, err := s.next(r)
			if err != nil {
				return batch{}, err
			}
			r.RunSeq = s.Next - 1
			runs[r.Run] = s
		}
		if err := b.add(r); err != nil {
			return batch{}, err
		}
	}
	for _, run := range order {
		if err := b.put(runKey(run), store.AnyRevision, runs[run]); err != nil { // the head guards it
			return batch{}, err
		}
	}
	if err := b.put(headKey, h.revision, b.after); err != nil {
		return batch{}, err
	}
	return b, nil
}

// add puts one record and its hashes behind the others of the batch.
func (b *batch) add(r evidence.Record) error {
	line, err := r.Encode()
	if err != nil {
		return invalid(r, err)
	}
	hashes, err := evidence.StoredHashes(r.Index, line, b.after)
	if err != nil {
		return damaged("hashes of record %d: %v", r.Index, err)
	}
	b.ops = append(b.ops,
		store.Op{Key: recordKey(r.Index), Value: line, IfRevision: store.NotExisting},
		store.Op{Key: hashKey(r.Index), Value: encodeHashes(hashes), IfRevision: store.NotExisting})
	b.records = append(b.records, r)
	b.after = b.after.grow(hashes)
	return nil
}

func (b *batch) put(key string, ifRevision int64, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	b.ops = append(b.ops, store.Op{Key: key, Value: value, IfRevision: ifRevision})
	return nil
}

// next is the state of the run after r, or why r cannot be its next record.
func (s runState) next(r evidence.Record) (runState, error) {
	switch {
	case s.Closed:
		return s, fmt.Errorf("%w: %w", api.Errorf(api.Conflict, "DrillRun/"+r.Run, "%s cannot be recorded", r.Kind), ErrClosed)
	case s.Next == 0 && r.Kind != evidence.KindProposed:
		return s, api.Errorf(api.Invalid, "DrillRun/"+r.Run, "the first record of a run must be %s, not %s", evidence.KindProposed, r.Kind)
	case s.Next == 0:
		s.First = r.Index
	}
	s.Last, s.Closed = r.Index, r.Kind == evidence.KindClosed
	s.Next++
	return s, nil
}
