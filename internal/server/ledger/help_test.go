package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// etcd is one embedded store for all tests; each test has its own space of keys in it.
var etcd *store.Store

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ledger-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // a temporary directory
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if etcd, err = store.Open(ctx, store.Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := etcd.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// form is how a call to the store fails.
type form string

const (
	notDone       form = "not done"                          // refused, and said so
	notDoneUnsure form = "not done but reported uncertain"   // lost on the way there
	doneUnsure    form = "done but reported uncertain"       // lost on the way back
	lateUnsure    form = "done later but reported uncertain" // still on its way when the caller reads back
	readFails     form = "read fails"                        // reads only
	countsOnly    form = "counts only"                       // nothing fails
)

// space is the real store under a prefix of its own, with one hook: call number failAt fails in a form.
type space struct {
	*store.Store
	prefix string

	mu      sync.Mutex
	calls   int    // guarded by mu
	failAt  int    // guarded by mu; -1: never
	form    form   // guarded by mu
	late    func() // guarded by mu: the write that is on its way
	after   int    // guarded by mu: calls until it arrives
	largest int    // operations of the largest transaction; guarded by mu
}

// spaces counts the spaces given out: a test that is run twice gets a new one.
var spaces atomic.Int64

func newSpace(t testing.TB) *space {
	return &space{Store: etcd, prefix: fmt.Sprintf("/test/%d/%s", spaces.Add(1), t.Name()), failAt: -1}
}

var errInjected = errors.New("injected")

func uncertain() error {
	return fmt.Errorf("%w: %w: %w", api.Errorf(api.Unavailable, "test", "uncertain"), store.ErrUncertain, errInjected)
}

func refused() error {
	return fmt.Errorf("%w: %w", api.Errorf(api.Unavailable, "test", "refused"), errInjected)
}

// next counts a call and tells whether it fails. It lets a late write arrive when its time has come.
func (s *space) next() (form, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.late != nil {
		if s.after--; s.after <= 0 {
			s.late()
			s.late = nil
		}
	}
	n := s.calls
	s.calls++
	return s.form, n == s.failAt
}

func (s *space) Get(ctx context.Context, key string) (store.Item, error) {
	if f, fails := s.next(); fails && f == readFails {
		return store.Item{}, refused()
	}
	it, err := s.Store.Get(ctx, s.prefix+key)
	it.Key = strings.TrimPrefix(it.Key, s.prefix)
	return it, err
}

func (s *space) List(ctx context.Context, prefix string) ([]store.Item, int64, error) {
	if f, fails := s.next(); fails && f == readFails {
		return nil, 0, refused()
	}
	items, rev, err := s.Store.List(ctx, s.prefix+prefix)
	for i := range items {
		items[i].Key = strings.TrimPrefix(items[i].Key, s.prefix)
	}
	return items, rev, err
}

func (s *space) Txn(ctx context.Context, fence store.Fence, ops ...store.Op) (int64, error) {
	moved := make([]store.Op, len(ops))
	for i, op := range ops {
		op.Key = s.prefix + op.Key
		moved[i] = op
	}
	s.mu.Lock()
	s.largest = max(s.largest, len(ops))
	s.mu.Unlock()
	f, fails := s.next()
	if !fails {
		return s.Store.Txn(ctx, fence, moved...)
	}
	switch f {
	case notDone:
		return 0, refused()
	case notDoneUnsure:
		return 0, uncertain()
	case doneUnsure:
		if _, err := s.Store.Txn(ctx, fence, moved...); err != nil {
			return 0, err
		}
		return 0, uncertain()
	case lateUnsure:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.late = func() { _, _ = s.Store.Txn(context.WithoutCancel(ctx), fence, moved...) } // nobody hears its answer
		return 0, uncertain()
	}
	return s.Store.Txn(ctx, fence, moved...)
}

func (s *space) fail(f form, at, after int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.form, s.failAt, s.calls, s.after = f, at, 0, after
}

const testOrigin = "livefire.example/log"

var testSkey = func() string {
	skey, _, err := evidence.NewKey(testOrigin)
	if err != nil {
		panic(err)
	}
	return skey
}()

func testSigner(t testing.TB) *evidence.Signer {
	t.Helper()
	s, err := evidence.NewSigner(testSkey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func openLedger(t testing.TB, s Store, fence func() store.Fence) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), Config{Store: s, Fence: fence, Signer: testSigner(t), Origin: testOrigin,
		Logger: slog.New(slog.DiscardHandler), SettleTimeout: 2 * time.Second})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return l
}

func entry(run, kind string, n int) Entry {
	return Entry{Run: run, Kind: kind, Actor: "server", Data: map[string]any{"n": n}}
}

func mustAppend(t testing.TB, l *Ledger, entries ...Entry) []evidence.Record {
	t.Helper()
	records, err := l.Append(t.Context(), entries...)
	if err != nil {
		t.Fatalf("Append: %v", err)
	}
	return records
}

// checkLog recomputes everything: indexes, sequences of runs, stored hashes, root and checkpoint.
func checkLog(t testing.TB, l *Ledger) []evidence.Record {
	t.Helper()
	records, err := l.All(t.Context())
	if err != nil {
		t.Fatalf("All: %v", err)
	}
	var hashes evidence.MemoryHashes
	next := map[string]int64{}
	for i, r := range records {
		if r.Index != int64(i) || r.Run != "" && r.RunSeq != next[r.Run] {
			t.Fatalf("record %d of run %q has index %d, runSeq %d", i, r.Run, r.Index, r.RunSeq)
		}
		next[r.Run]++
		line, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		more, err := evidence.StoredHashes(r.Index, line, hashes)
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, more...)
	}
	root, err := evidence.TreeHash(int64(len(records)), hashes)
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Checkpoint(t.Context())
	if err != nil {
		t.Fatalf("Checkpoint: %v", err)
	}
	c, err := evidence.OpenCheckpoint(b, testSigner(t).VerifierKey())
	if err != nil || c.Size != int64(len(records)) || c.Root != root {
		t.Fatalf("checkpoint %+v, %v; want size %d, root %v", c, err, len(records), root)
	}
	indexes := make([]int64, len(hashes))
	for i := range indexes {
		indexes[i] = int64(i)
	}
	stored, err := l.HashReader(t.Context()).ReadHashes(indexes)
	if err != nil {
		t.Fatalf("ReadHashes: %v", err)
	}
	for i, h := range stored {
		if h != hashes[i] {
			level, n := tlog.SplitStoredHashIndex(int64(i))
			t.Fatalf("stored hash %d of level %d differs", n, level)
		}
	}
	return records
}
