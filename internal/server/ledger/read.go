package ledger

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// Records returns the records of a run, by RunSeq. NotFound: the log has none.
func (l *Ledger) Records(ctx context.Context, run string) ([]evidence.Record, error) {
	s, err := l.readRun(ctx, run)
	if err != nil {
		return nil, err
	}
	if run == "" || s.Next == 0 {
		return nil, api.Errorf(api.NotFound, "DrillRun/"+run, "the log holds no record of this run")
	}
	between, err := l.Range(ctx, s.First, s.Last+1)
	if err != nil {
		return nil, err
	}
	records := slices.DeleteFunc(between, func(r evidence.Record) bool { return r.Run != run })
	if int64(len(records)) != s.Next {
		return nil, damaged("%d records of run %s, want %d", len(records), run, s.Next)
	}
	return records, nil
}

// All returns the whole log.
func (l *Ledger) All(ctx context.Context) ([]evidence.Record, error) {
	size, err := l.Size(ctx)
	if err != nil {
		return nil, err
	}
	return l.Range(ctx, 0, size)
}

// Range returns the records at indexes from (included) to to (excluded); the end of the log ends it earlier.
func (l *Ledger) Range(ctx context.Context, from, to int64) ([]evidence.Record, error) {
	if from < 0 || to < from {
		return nil, api.Errorf(api.Invalid, "ledger", "no range from %d to %d", from, to)
	}
	size, err := l.Size(ctx)
	if err != nil {
		return nil, err
	}
	to = min(to, size)
	var records []evidence.Record
	for next := from; next < to; next = (next>>pageShift + 1) << pageShift {
		page, _, err := l.cfg.Store.List(ctx, recordPage(next>>pageShift))
		if err != nil {
			return nil, fmt.Errorf("read the log from record %d: %w", next, err)
		}
		for _, it := range page {
			n, err := indexOf(it)
			if err != nil {
				return nil, err
			}
			if n < from || n >= to {
				continue
			}
			r, err := evidence.DecodeRecord(it.Value)
			if err != nil || r.Index != n || n != from+int64(len(records)) {
				return nil, damaged("%s where record %d should be: %v", it.Key, from+int64(len(records)), err)
			}
			records = append(records, r)
		}
	}
	if want := max(0, to-from); int64(len(records)) != want {
		return nil, damaged("%d records from %d to %d", len(records), from, to)
	}
	return records, nil
}

// indexOf is the index of the record to which a key of a page belongs.
func indexOf(it store.Item) (int64, error) {
	n, err := strconv.ParseInt(it.Key[strings.LastIndex(it.Key, "/")+1:], 16, 64)
	if err != nil {
		return 0, damaged("key %s", it.Key)
	}
	return n, nil
}

// hashesOf returns the stored hashes of one record.
func (l *Ledger) hashesOf(ctx context.Context, n int64) ([]tlog.Hash, error) {
	it, err := l.cfg.Store.Get(ctx, hashKey(n))
	if notFound(err) {
		return nil, damaged("the hashes of record %d are missing", n)
	}
	if err != nil {
		return nil, fmt.Errorf("read the hashes of record %d: %w", n, err)
	}
	return decodeHashes(n, it)
}

// HashReader reads stored hashes for tiles and proofs. It keeps the pages that it read, which never change; ctx bounds
// every read. It is for one goroutine.
func (l *Ledger) HashReader(ctx context.Context) tlog.HashReader {
	pages := map[int64]map[int64][]tlog.Hash{}
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			level, n := tlog.SplitStoredHashIndex(x)
			record := (n+1)<<level - 1 // the one that closed the subtree
			page := record >> pageShift
			if _, ok := pages[page][record]; !ok {
				var err error
				if pages[page], err = l.readHashPage(ctx, page); err != nil {
					return nil, err
				}
			}
			hashes, ok := pages[page][record]
			if !ok {
				return nil, api.Errorf(api.NotFound, "ledger", "the log ends before record %d", record)
			}
			out[i] = hashes[level]
		}
		return out, nil
	})
}

func (l *Ledger) readHashPage(ctx context.Context, page int64) (map[int64][]tlog.Hash, error) {
	items, _, err := l.cfg.Store.List(ctx, hashPage(page))
	if err != nil {
		return nil, fmt.Errorf("read page %d of the log's hashes: %w", page, err)
	}
	hashes := make(map[int64][]tlog.Hash, len(items))
	for _, it := range items {
		n, err := indexOf(it)
		if err != nil {
			return nil, err
		}
		if hashes[n], err = decodeHashes(n, it); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}

// Bundle collects what the log knows of a run for evidence.WriteBundle: signer, records, a checkpoint that covers them,
// and the hashes, read under ctx. The caller adds proposal, approvals, samples, objectives and reports.
func (l *Ledger) Bundle(ctx context.Context, run string) (evidence.BundleInput, error) {
	records, err := l.Records(ctx, run)
	if err != nil {
		return evidence.BundleInput{}, err
	}
	checkpoint, err := l.Checkpoint(ctx) // after the records: it covers them
	if err != nil {
		return evidence.BundleInput{}, err
	}
	return evidence.BundleInput{
		Signer: l.cfg.Signer, Records: records, Checkpoint: checkpoint, Hashes: l.HashReader(ctx),
	}, nil
}
