package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

func TestAppendKeepsOrderOverPagesAndRestarts(t *testing.T) {
	s := newSpace(t)
	random := rand.New(rand.NewPCG(1, 2))
	n := 0
	for round := range 6 {
		l := openLedger(t, s, nil)
		for range 3 {
			var entries []Entry
			for range 1 + random.IntN(90) { // more than one transaction holds
				run, kind := "", "run.state"
				switch {
				case len(entries) == 0:
					run, kind = fmt.Sprintf("run-%d-%d", round, n), evidence.KindProposed
				case n%3 != 0:
					run = entries[0].Run
				}
				entries = append(entries, entry(run, kind, n))
				n++
			}
			records := mustAppend(t, l, entries...)
			if len(records) != len(entries) || records[len(records)-1].Index != int64(n-1) {
				t.Fatalf("Append of %d = %d records, last %d, want %d", len(entries), len(records), records[len(records)-1].Index, n-1)
			}
		}
	}
	records := checkLog(t, openLedger(t, s, nil))
	if len(records) != n || n < 2<<pageShift {
		t.Fatalf("%d records, want %d over at least two pages", len(records), n)
	}
	for i, r := range records {
		if want := fmt.Sprintf(`{"n":%d}`, i); string(r.Data) != want {
			t.Errorf("record %d holds %s, want %s", i, r.Data, want)
		}
	}
}

func TestRangeIsExact(t *testing.T) {
	l := openLedger(t, newSpace(t), nil)
	for i := range 10 {
		entries := make([]Entry, 30)
		for j := range entries {
			entries[j] = entry("", "lever", i*30+j)
		}
		mustAppend(t, l, entries...)
	}
	for _, c := range [][3]int64{{0, 0, 0}, {0, 1, 1}, {255, 257, 2}, {256, 300, 44}, {290, 400, 10}, {300, 400, 0}, {500, 600, 0}} {
		records, err := l.Range(t.Context(), c[0], c[1])
		if err != nil || int64(len(records)) != c[2] || c[2] > 0 && records[0].Index != c[0] {
			t.Errorf("Range(%d, %d) = %d records, %v; want %d", c[0], c[1], len(records), err, c[2])
		}
	}
	if _, err := l.Range(t.Context(), 5, 4); api.KindOf(err) != api.Invalid {
		t.Errorf("Range(5, 4): %v, want Invalid", err)
	}
}

func TestRunBeginsWithItsProposalAndEndsWhenClosed(t *testing.T) {
	l := openLedger(t, newSpace(t), nil)
	if _, err := l.Append(t.Context(), entry("run-1", "run.state", 0)); api.KindOf(err) != api.Invalid {
		t.Errorf("a run that begins with run.state: %v, want Invalid", err)
	}
	if _, err := l.Records(t.Context(), "run-1"); api.KindOf(err) != api.NotFound {
		t.Errorf("Records of no run: %v, want NotFound", err)
	}
	mustAppend(t, l, entry("run-1", evidence.KindProposed, 0), entry("", "lever", 1), entry("run-1", evidence.KindClosed, 2))
	for _, entries := range [][]Entry{
		{entry("run-1", "run.state", 3)},
		{entry("", "lever", 3), entry("run-1", "run.state", 4)},
	} {
		if _, err := l.Append(t.Context(), entries...); !errors.Is(err, ErrClosed) || api.KindOf(err) != api.Conflict {
			t.Errorf("a record after run.closed: %v, want ErrClosed", err)
		}
	}
	if _, err := l.Append(t.Context(), entry("run-2", evidence.KindProposed, 0), entry("run-2", evidence.KindClosed, 1),
		entry("run-2", "run.state", 2)); !errors.Is(err, ErrClosed) {
		t.Errorf("a record after run.closed in one batch: %v, want ErrClosed", err)
	}
	records, err := l.Records(t.Context(), "run-1")
	if err != nil || len(records) != 2 || records[1].Index != 2 || records[1].RunSeq != 1 {
		t.Errorf("Records = %+v, %v", records, err)
	}
	if got := checkLog(t, l); len(got) != 3 {
		t.Errorf("%d records, want 3: a refused batch left some", len(got))
	}
}

func TestEntryThatCannotBeARecordIsRefused(t *testing.T) {
	l := openLedger(t, newSpace(t), nil)
	for name, e := range map[string]Entry{
		"no kind":     {Actor: "server"},
		"no actor":    {Kind: "lever"},
		"not object":  {Kind: "lever", Actor: "server", Data: []int{1}},
		"not JSON":    {Kind: "lever", Actor: "server", Data: func() {}},
		"too large":   {Kind: "lever", Actor: "server", Data: map[string]string{"x": strings.Repeat("x", evidence.MaxRecordBytes)}},
		"bad subject": {Kind: "lever", Actor: "server", Subject: "\xff"},
	} {
		if _, err := l.Append(t.Context(), entry("", "lever", 0), e); api.KindOf(err) != api.Invalid {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
	if got := checkLog(t, l); len(got) != 0 {
		t.Errorf("%d records, want none", len(got))
	}
	if records := mustAppend(t, l); len(records) != 0 {
		t.Errorf("Append of nothing = %v", records)
	}
}

func TestLargeEntriesAreSplit(t *testing.T) {
	l := openLedger(t, newSpace(t), nil)
	var entries []Entry
	for range 5 {
		entries = append(entries, Entry{Kind: "lever", Actor: "server", Data: map[string]string{"x": strings.Repeat("<", evidence.MaxRecordBytes*9/10)}})
	}
	mustAppend(t, l, entries...)
	if got := checkLog(t, l); len(got) != 5 {
		t.Errorf("%d records, want 5", len(got))
	}
}

func TestWritesBesideRecordsAreStoredWithThemOrNotAtAll(t *testing.T) {
	s := newSpace(t)
	l := openLedger(t, s, nil)
	put := func(key string, ifRevision int64) store.Op {
		return store.Op{Key: key, Value: []byte("x"), IfRevision: ifRevision}
	}
	if _, err := l.AppendWith(t.Context(), []store.Op{put("/a", store.NotExisting)}, entry("", "lever", 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.AppendWith(t.Context(), []store.Op{put("/a", store.NotExisting)}, entry("", "lever", 1)); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a write that must be the first: %v, want ErrConflict", err)
	}
	if _, err := l.AppendWith(t.Context(), []store.Op{put("/b", store.AnyRevision)}, entry("run", "run.state", 1)); api.KindOf(err) != api.Invalid {
		t.Errorf("a write beside a refused entry: %v, want Invalid", err)
	}
	if _, err := s.Get(t.Context(), "/b"); !notFound(err) {
		t.Errorf("the write beside a refused entry was stored: %v", err)
	}
	for name, writes := range map[string][]store.Op{"own key": {put(headKey, store.AnyRevision)}, "too many": make([]store.Op, maxWrites+1)} {
		if _, err := l.AppendWith(t.Context(), writes, entry("", "lever", 1)); api.KindOf(err) != api.Invalid {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
	if _, err := l.AppendWith(t.Context(), []store.Op{put("/c", store.AnyRevision)}); err != nil {
		t.Errorf("writes without records: %v", err)
	}
	if _, err := s.Get(t.Context(), "/c"); err != nil {
		t.Errorf("writes without records are not stored: %v", err)
	}
	mustAppend(t, l, entry("", "lever", 1))
	if got := checkLog(t, l); len(got) != 2 {
		t.Errorf("%d records, want 2", len(got))
	}
}

// Another etcd than ours takes 128 operations in a transaction. What has up to 64 writes fits; a larger change of resources
// needs an etcd that is told so, as the store's error says.
func TestBatchFitsTheDefaultsOfEtcd(t *testing.T) {
	s := newSpace(t)
	l := openLedger(t, s, nil)
	var writes []store.Op
	for i := range fitWrites {
		writes = append(writes, store.Op{Key: fmt.Sprintf("/w/%d", i), IfRevision: store.AnyRevision})
	}
	var entries []Entry
	for i := range 130 {
		entries = append(entries, entry(fmt.Sprintf("run-%d", i), evidence.KindProposed, i))
	}
	if _, err := l.AppendWith(t.Context(), writes, entries...); err != nil {
		t.Fatal(err)
	}
	if s.largest > batchOps {
		t.Errorf("a transaction of %d operations, more than %d", s.largest, batchOps)
	}
	if got := checkLog(t, l); len(got) != len(entries) {
		t.Errorf("%d records, want %d", len(got), len(entries))
	}
}

// Two processes on one store: whatever the fence does, the head lets one in at a time.
func TestConcurrentWritersNeverShareAnIndex(t *testing.T) {
	s := newSpace(t)
	const writers, each = 4, 25
	ledgers := []*Ledger{openLedger(t, s, nil), openLedger(t, s, nil)}
	mustAppend(t, ledgers[0], entry("run", evidence.KindProposed, 0))
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := ledgers[w%2].Append(t.Context(), entry("run", "run.state", w*each+i), entry("", "lever", w)); err != nil {
					t.Errorf("writer %d: %v", w, err)
				}
			}
		})
	}
	wg.Wait()
	records := checkLog(t, ledgers[1])
	seen := map[string]int{}
	for _, r := range records {
		if r.Kind == "run.state" {
			seen[string(r.Data)]++
		}
	}
	if len(records) != 1+2*writers*each || len(seen) != writers*each {
		t.Errorf("%d records, %d different of %d", len(records), len(seen), writers*each)
	}
}

// fences returns the fence of a term that is over, and one of a term that lasts until the test ends.
func fences(t *testing.T) (old, present store.Fence) {
	t.Helper()
	over := errors.New("over")
	lead := func(fn func(store.Fence)) {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(t.Context())) // lasts until the cleanup
		err := etcd.Lead(ctx, t.Name(), "test", store.MinTTL, func(_ context.Context, f store.Fence) error {
			fn(f)
			cancel(over)
			return nil
		})
		if !errors.Is(err, over) {
			t.Errorf("Lead: %v", err)
		}
	}
	lead(func(f store.Fence) { old = f })
	got, end, ended := make(chan store.Fence), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		lead(func(f store.Fence) { got <- f; <-end })
	}()
	t.Cleanup(func() { close(end); <-ended })
	return old, <-got
}

func TestOldLeaderCannotAppend(t *testing.T) {
	old, present := fences(t)
	s := newSpace(t)
	deposed := openLedger(t, s, func() store.Fence { return old })
	leader := openLedger(t, s, func() store.Fence { return present })
	mustAppend(t, leader, entry("", "lever", 0))
	for range 2 { // with an old head, then with the present one
		if _, err := deposed.Append(t.Context(), entry("", "lever", 1)); !errors.Is(err, store.ErrFenced) {
			t.Errorf("Append of a deposed leader: %v, want ErrFenced", err)
		}
		deposed = openLedger(t, s, func() store.Fence { return old })
	}
	mustAppend(t, leader, entry("", "lever", 2))
	if got := checkLog(t, leader); len(got) != 2 {
		t.Errorf("%d records, want 2", len(got))
	}
}

func TestOpenRefusesWhatDoesNotFit(t *testing.T) {
	s := newSpace(t)
	cfg := Config{Store: s, Signer: testSigner(t), Origin: testOrigin, Logger: slog.New(slog.DiscardHandler)}
	bad := cfg
	bad.Origin = "other"
	if _, err := Open(t.Context(), bad); api.KindOf(err) != api.Invalid {
		t.Errorf("Open with another name than the key's: %v, want Invalid", err)
	}
	if _, err := Open(t.Context(), Config{}); api.KindOf(err) != api.Invalid {
		t.Errorf("Open of nothing: %v, want Invalid", err)
	}
	mustAppend(t, openLedger(t, s, nil), entry("", "lever", 0), entry("", "lever", 1))
	skey, _, err := evidence.NewKey("other")
	if err != nil {
		t.Fatal(err)
	}
	if bad.Signer, err = evidence.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), bad); api.KindOf(err) != api.Invalid {
		t.Errorf("Open of another's log: %v, want Invalid", err)
	}
	record, err := s.Get(t.Context(), recordKey(1))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(record.Value), "server", "nobody", 1)
	if _, err := s.Txn(t.Context(), store.Fence{}, store.Op{Key: recordKey(1), Value: []byte(changed), IfRevision: store.AnyRevision}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), cfg); api.KindOf(err) != api.Internal {
		t.Errorf("Open of a damaged log: %v, want Internal", err)
	}
}

// A key behind the head would be a conflict for ever.
func TestAppendReportsALogThatIsLongerThanItsHead(t *testing.T) {
	s := newSpace(t)
	l := openLedger(t, s, nil)
	mustAppend(t, l, entry("", "lever", 0))
	if _, err := s.Txn(t.Context(), store.Fence{}, store.Op{Key: recordKey(1), Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), entry("", "lever", 1)); api.KindOf(err) != api.Internal {
		t.Errorf("Append = %v, want Internal", err)
	}
}

func TestAppendWaitsForItsTurnOnlyAsLongAsItsContext(t *testing.T) {
	l := openLedger(t, newSpace(t), nil)
	if err := l.take(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Append(ctx, entry("", "lever", 0)); !errors.Is(err, context.Canceled) || api.KindOf(err) != api.Unavailable {
		t.Errorf("Append = %v, want canceled", err)
	}
	l.give()
	mustAppend(t, l, entry("", "lever", 0))
}

func TestBundleOfARunVerifies(t *testing.T) {
	l := openLedger(t, newSpace(t), nil)
	for i := range 9 {
		entries := make([]Entry, 35)
		for j := range entries {
			entries[j] = entry("", "lever", i*35+j)
		}
		mustAppend(t, l, entries...)
	}
	proposal := []byte("{}\n")
	mustAppend(t, l, Entry{Run: "run-1", Kind: evidence.KindProposed, Actor: "ops1", At: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		Data: map[string]any{"drill": "d", "scenario": "s", "by": "ops1", "proposalSha256": "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356", "groups": []string{}}})
	mustAppend(t, l, entry("", "lever", 0), Entry{Run: "run-1", Kind: evidence.KindClosed, Actor: "server", Data: map[string]any{"verdict": "passed", "restored": true}})
	mustAppend(t, l, entry("", "lever", 1))
	in, err := l.Bundle(t.Context(), "run-1")
	if err != nil {
		t.Fatalf("Bundle: %v", err)
	}
	in.Proposal, in.ReportJSON, in.ReportHTML = proposal, []byte("{}"), []byte("<p>")
	in.Open = func(evidence.SampleFile) (io.ReadCloser, error) { return nil, os.ErrNotExist }
	dir := filepath.Join(t.TempDir(), "run-1")
	if err := evidence.WriteBundle(dir, in); err != nil {
		t.Fatalf("WriteBundle: %v", err)
	}
	v, err := evidence.Verify(os.DirFS(dir), testSigner(t).VerifierKey())
	if err != nil || v.Run != "run-1" || len(v.Records) != 2 || v.Checkpoint.Size != 319 {
		t.Errorf("Verify = %+v, %v", v, err)
	}
	if _, err := l.Bundle(t.Context(), "run-2"); api.KindOf(err) != api.NotFound {
		t.Errorf("Bundle of no run: %v, want NotFound", err)
	}
}
