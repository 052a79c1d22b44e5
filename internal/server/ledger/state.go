package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"net/url"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// Keys. Records and hashes are in pages of 256, so that a range of the log is read without the rest.
const (
	headKey   = Prefix + "head"
	pageShift = 8
)

func recordKey(n int64) string { return fmt.Sprintf("%s%016x", recordPage(n>>pageShift), n) }
func hashKey(n int64) string   { return fmt.Sprintf("%s%016x", hashPage(n>>pageShift), n) }
func recordPage(p int64) string {
	return fmt.Sprintf("%srecord/%014x/", Prefix, p)
}
func hashPage(p int64) string { return fmt.Sprintf("%shash/%014x/", Prefix, p) }

// runKey escapes the run: its name is data, not a path.
func runKey(run string) string { return Prefix + "run/" + url.PathEscape(run) }

// head is the right edge of the log. Peaks are the roots of the complete subtrees of the first Size records, from
// large to small: one for each bit of Size. They suffice to append and to compute the root.
type head struct {
	Origin string      `json:"origin"`
	Size   int64       `json:"size"`
	Peaks  []tlog.Hash `json:"peaks"`

	revision int64 // in the store; 0 = not there yet
}

// ReadHashes makes head a tlog.HashReader of its own peaks.
func (h head) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		level, n := tlog.SplitStoredHashIndex(x)
		above := bits.OnesCount64(uint64(h.Size) >> (level + 1)) // peaks that are larger
		if h.Size>>level&1 == 0 || n != h.Size>>level-1 || above >= len(h.Peaks) {
			return nil, fmt.Errorf("hash %d of level %d is no peak of %d records", n, level, h.Size)
		}
		out[i] = h.Peaks[above]
	}
	return out, nil
}

// grow is the head after one more record with these stored hashes.
func (h head) grow(stored []tlog.Hash) head {
	merged := len(stored) - 1 // complete subtrees that the record closes
	keep := h.Peaks[:len(h.Peaks)-merged]
	h.Peaks = append(keep[:len(keep):len(keep)], stored[merged])
	h.Size++
	return h
}

func (l *Ledger) readHead(ctx context.Context) (head, error) {
	it, err := l.cfg.Store.Get(ctx, headKey)
	if notFound(err) {
		return head{Origin: l.cfg.Origin}, nil
	}
	if err != nil {
		return head{}, fmt.Errorf("read the head of the log: %w", err)
	}
	h := head{revision: it.Revision}
	if err := json.Unmarshal(it.Value, &h); err != nil {
		return head{}, damaged("head: %v", err)
	}
	if h.Size < 0 || len(h.Peaks) != bits.OnesCount64(uint64(h.Size)) {
		return head{}, damaged("head: %d peaks for %d records", len(h.Peaks), h.Size)
	}
	return h, nil
}

// runState is where a run stands: between First and Last lie all its records.
type runState struct {
	First  int64 `json:"first"`
	Last   int64 `json:"last"`
	Next   int64 `json:"next"` // runSeq
	Closed bool  `json:"closed,omitempty"`
}

// readRun returns the state of a run; Next is 0 if the log has no record of it.
func (l *Ledger) readRun(ctx context.Context, run string) (runState, error) {
	it, err := l.cfg.Store.Get(ctx, runKey(run))
	if notFound(err) {
		return runState{}, nil
	}
	if err != nil {
		return runState{}, fmt.Errorf("read run %s of the log: %w", run, err)
	}
	var s runState
	if err := json.Unmarshal(it.Value, &s); err != nil {
		return runState{}, damaged("run %s: %v", run, err)
	}
	return s, nil
}

func notFound(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Kind == api.NotFound
}

func encodeHashes(hashes []tlog.Hash) []byte {
	var b bytes.Buffer
	for _, h := range hashes {
		b.Write(h[:])
	}
	return b.Bytes()
}

// decodeHashes splits the stored hashes of the record at index n: its leaf and what it closed.
func decodeHashes(n int64, it store.Item) ([]tlog.Hash, error) {
	want := 1 + bits.TrailingZeros64(uint64(n+1))
	if len(it.Value) != want*tlog.HashSize {
		return nil, damaged("%d bytes of hashes for record %d, want %d", len(it.Value), n, want*tlog.HashSize)
	}
	out := make([]tlog.Hash, want)
	for i := range out {
		out[i] = tlog.Hash(it.Value[i*tlog.HashSize : (i+1)*tlog.HashSize])
	}
	return out, nil
}
