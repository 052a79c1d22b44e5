package ledger

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// steps is a run as the server writes it: intent, effect, outcome, one append each.
func steps() [][]Entry {
	return [][]Entry{
		{entry("run", evidence.KindProposed, 0)},
		{entry("run", evidence.KindIntent, 1), entry("", "lever", 2)},
		{entry("run", "run.outcome", 3)},
		{entry("run", evidence.KindClosed, 4), entry("", "finding", 5)},
	}
}

const stepRecords = 6

// stateKey is what a caller stores beside its records: how many steps are done.
const stateKey = "/livefire/drill/run"

func state(step int) []store.Op {
	return []store.Op{{Key: stateKey, Value: fmt.Append(nil, step), IfRevision: store.AnyRevision}}
}

// stepsDone reads the state back.
func stepsDone(t *testing.T, s Store) int {
	t.Helper()
	it, err := s.Get(t.Context(), stateKey)
	if notFound(err) {
		return 0
	}
	n, aerr := strconv.Atoi(string(it.Value))
	if err != nil || aerr != nil {
		t.Fatalf("state %q: %v, %v", it.Value, err, aerr)
	}
	return n
}

// replay writes the steps as a caller does who obeys the contract: repeat what surely did not happen, settle the rest.
func replay(ctx context.Context, l *Ledger, restart func() *Ledger) error {
	for i, entries := range steps() {
		for {
			_, err := l.AppendWith(ctx, state(i+1), entries...)
			var doubt *UnsettledError
			if errors.As(err, &doubt) {
				landed, err := l.Settle(ctx, doubt)
				if err != nil {
					return err
				}
				if landed {
					break
				}
				continue
			}
			if err == nil {
				break
			}
			if !errors.Is(err, errInjected) {
				return err
			}
			l = restart()
		}
	}
	return nil
}

// callsOf counts the calls to the store of a replay without failure.
func callsOf(t *testing.T) int {
	s := newSpace(t)
	l := openLedger(t, s, nil)
	s.fail(countsOnly, -1, 0)
	if err := replay(t.Context(), l, nil); err != nil {
		t.Fatal(err)
	}
	return s.calls
}

func TestEachFailedCallLeavesEveryRecordOnce(t *testing.T) {
	calls := callsOf(t)
	if want := 2 * len(steps()); calls != want { // the state of the run, then the write: the head is known
		t.Fatalf("%d calls without a failure, want %d", calls, want)
	}
	for _, f := range []form{notDone, notDoneUnsure, doneUnsure, lateUnsure, readFails} {
		for at := range calls + 2 {
			for after := range 4 { // when the late write arrives
				if after > 0 && f != lateUnsure {
					continue
				}
				t.Run(fmt.Sprintf("%s, call %d, %d", f, at, after), func(t *testing.T) {
					s := newSpace(t)
					l := openLedger(t, s, nil)
					s.fail(f, at, after)
					if err := replay(t.Context(), l, func() *Ledger { return openLedger(t, s, nil) }); err != nil {
						t.Fatal(err)
					}
					s.fail(countsOnly, -1, 0)
					checkSteps(t, openLedger(t, s, nil))
					if got := stepsDone(t, s); got != len(steps()) {
						t.Errorf("state says %d steps", got)
					}
				})
			}
		}
	}
}

func checkSteps(t *testing.T, l *Ledger) {
	t.Helper()
	records := checkLog(t, l)
	if len(records) != stepRecords {
		t.Fatalf("%d records, want %d", len(records), stepRecords)
	}
	for i, r := range records {
		if want := fmt.Sprintf(`{"n":%d}`, i); string(r.Data) != want {
			t.Errorf("record %d holds %s, want %s", i, r.Data, want)
		}
	}
}

// The process dies at each call: the log that the next one finds ends between two steps, never inside one.
func TestCrashLeavesWholeStepsOnly(t *testing.T) {
	whole := []int{0} // records after each step
	for i, entries := range steps() {
		whole = append(whole, whole[i]+len(entries))
	}
	calls := callsOf(t)
	for _, f := range []form{notDone, doneUnsure, readFails} {
		for at := range calls {
			t.Run(fmt.Sprintf("%s, call %d", f, at), func(t *testing.T) {
				s := newSpace(t)
				l := openLedger(t, s, nil)
				s.fail(f, at, 0)
				for i, entries := range steps() {
					if _, err := l.AppendWith(t.Context(), state(i+1), entries...); err != nil || s.calls > at {
						break // dead
					}
				}
				s.fail(countsOnly, -1, 0)
				if got, done := len(checkLog(t, openLedger(t, s, nil))), stepsDone(t, s); got != whole[done] {
					t.Errorf("%d records after %d steps: a step was torn", got, done)
				}
			})
		}
	}
}

// blind answers nothing once a write was made in doubt.
type blind struct {
	*space
	blinded bool
	done    bool // whether the write in doubt is made
}

func (b *blind) Get(ctx context.Context, key string) (store.Item, error) {
	if b.blinded {
		return store.Item{}, refused()
	}
	return b.space.Get(ctx, key)
}

func (b *blind) Txn(ctx context.Context, f store.Fence, ops ...store.Op) (int64, error) {
	b.blinded = true
	if b.done {
		if _, err := b.space.Txn(ctx, f, ops...); err != nil {
			return 0, err
		}
	}
	return 0, uncertain()
}

func TestUnsettledAppendIsSettledLater(t *testing.T) {
	for _, done := range []bool{true, false} {
		t.Run(fmt.Sprintf("done %v", done), func(t *testing.T) {
			s := newSpace(t)
			b := &blind{space: s, done: done}
			l := openLedger(t, b, nil)
			l.cfg.SettleTimeout = 30 * time.Millisecond
			_, err := l.Append(t.Context(), entry("", "lever", 0))
			var doubt *UnsettledError
			if !errors.As(err, &doubt) || !errors.Is(err, store.ErrUncertain) || len(doubt.Records) != 1 {
				t.Fatalf("Append = %v, want unsettled", err)
			}
			if _, err := l.Settle(t.Context(), doubt); !errors.As(err, &doubt) {
				t.Fatalf("Settle of a store that does not answer = %v, want unsettled", err)
			}
			l.cfg.Store = s // it answers again
			landed, err := l.Settle(t.Context(), doubt)
			if err != nil || landed != done {
				t.Errorf("Settle = %v, %v; want %v", landed, err, done)
			}
			if !landed {
				mustAppend(t, l, entry("", "lever", 0))
			}
			if got := checkLog(t, l); len(got) != 1 {
				t.Errorf("%d records, want 1", len(got))
			}
		})
	}
}

// impatient ends the caller's context while the write is under way.
type impatient struct {
	*space
	cancel context.CancelFunc
	form   form
}

func (i *impatient) Txn(ctx context.Context, f store.Fence, ops ...store.Op) (int64, error) {
	if i.cancel == nil {
		return i.space.Txn(ctx, f, ops...)
	}
	if i.form == doneUnsure {
		if _, err := i.space.Txn(ctx, f, ops...); err != nil {
			return 0, err
		}
	}
	i.cancel()
	i.cancel = nil
	return 0, uncertain()
}

func TestEndOfContextDuringTheWriteIsReadBack(t *testing.T) {
	for f, want := range map[form]int{doneUnsure: 1, notDoneUnsure: 0} {
		t.Run(string(f), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			i := &impatient{space: newSpace(t), cancel: cancel, form: f}
			l := openLedger(t, i, nil)
			records, err := l.Append(ctx, entry("", "lever", 0))
			if (err == nil) != (want == 1) || len(records) != want {
				t.Errorf("Append = %d records, %v; want %d", len(records), err, want)
			}
			if want == 0 && !errors.Is(err, context.Canceled) {
				t.Errorf("Append = %v, want canceled", err)
			}
			if got := checkLog(t, l); len(got) != want {
				t.Errorf("%d records, want %d", len(got), want)
			}
		})
	}
}

// The write in doubt belonged to a term that has ended: it can no longer arrive.
func TestDoubtAfterTheTermIsSettledByItsEnd(t *testing.T) {
	old, _ := fences(t)
	s := newSpace(t)
	l := openLedger(t, s, func() store.Fence { return old })
	s.fail(notDoneUnsure, 0, 0)
	_, err := l.Append(t.Context(), entry("", "lever", 0))
	if !errors.Is(err, store.ErrFenced) {
		t.Errorf("Append = %v, want ErrFenced", err)
	}
	if got := checkLog(t, l); len(got) != 0 {
		t.Errorf("%d records, want none", len(got))
	}
}
