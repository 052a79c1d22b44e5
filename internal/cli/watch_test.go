package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// watched is a watch whose streams and signals a test holds.
type watched struct {
	*watch
	out, err   bytes.Buffer
	interrupts chan os.Signal
}

func watchOf(t *testing.T, s *testServer, state string, missing ...string) *watched {
	t.Helper()
	w := &watched{interrupts: make(chan os.Signal, 2)}
	var run userapi.Run
	run.Run.Metadata.Name, run.Run.Status.State, run.Missing = "r", state, missing
	w.watch = newWatch(&streams{in: strings.NewReader(""), out: &w.out, err: &w.err}, s.connect(t), run, "jsonl")
	w.watch.interrupts = w.interrupts
	return w
}

// ends runs the watch and gives the status of its command.
func (w *watched) ends(t *testing.T) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return exit(&w.err, w.run(ctx))
}

func rec(index int64) userapi.RunEvent {
	return userapi.RunEvent{State: "Holding", Record: &evidence.Record{Index: index, Run: "r", RunSeq: index, Kind: "run.state", Actor: "server", At: at}}
}

func done(verdict string) userapi.RunEvent {
	return userapi.RunEvent{State: "Done", Done: &userapi.RunSummary{ID: "r", Verdict: verdict}}
}

const (
	watchCall = "GET /v1alpha1/runs/r/watch"
	abortCall = "POST /v1alpha1/runs/r/abort"
)

// "The stream may break when the server restarts: reconnect"; what was shown is not shown again.
func TestABrokenStreamIsReadOnWithoutRepeating(t *testing.T) {
	s := newServer(t)
	live := func(second int) userapi.RunEvent {
		return userapi.RunEvent{Live: []userapi.Live{{Service: "orders", At: at.Add(time.Duration(second) * time.Second), OK: map[api.SiteID]int64{"eu-west": 100}}}}
	}
	s.stream(watchCall, func(n int, emit func(any), _ *http.Request) {
		emit(rec(7))
		emit(live(1))
		if n == 0 {
			return // the server restarts
		}
		emit(rec(8))
		emit(live(2))
		emit(done("passed"))
	})
	w := watchOf(t, s, "Holding")
	if got := w.ends(t); got != ExitOK {
		t.Fatalf("status = %d, want %d: %s", got, ExitOK, &w.err)
	}
	var records []int64
	var seconds []int
	for line := range strings.Lines(w.out.String()) {
		var e userapi.RunEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Record != nil {
			records = append(records, e.Record.Index)
		}
		for _, v := range e.Live {
			seconds = append(seconds, int(v.At.Sub(at).Seconds()))
		}
	}
	if len(records) != 2 || records[0] != 7 || records[1] != 8 || len(seconds) != 2 {
		t.Errorf("records %v and seconds %v were shown, want [7 8] and [1 2]", records, seconds)
	}
}

// Exit statuses of a run follow its verdict, through the whole command.
func TestARunsStatusIsThatOfItsVerdict(t *testing.T) {
	for verdict, want := range map[string]int{"passed": 0, "failed": 1, "inconclusive": 1, "aborted": 5, "dirty": 6} {
		s := newServer(t)
		s.stream(watchCall, func(_ int, emit func(any), _ *http.Request) { emit(done(verdict)) })
		if got := watchOf(t, s, "Holding").ends(t); got != want {
			t.Errorf("a run that ends %s gives status %d, want %d", verdict, got, want)
		}
	}
}

// "Ctrl-C of drill run = abort and restore (says so)"; 130 after restoring, 6 if that failed.
func TestCtrlCAbortsAndWaitsForTheRestore(t *testing.T) {
	for verdict, want := range map[string]int{"aborted": ExitInterrupted, "dirty": ExitNotRestored, "passed": ExitOK} {
		s := newServer(t)
		aborted := make(chan string, 1)
		w := watchOf(t, s, "Holding")
		w.mine = true
		s.stream(watchCall, func(_ int, emit func(any), r *http.Request) {
			emit(rec(1))
			w.interrupts <- os.Interrupt
			select {
			case <-aborted:
				emit(done(verdict))
			case <-r.Context().Done():
			}
		})
		s.answer(abortCall, func(r *http.Request) any {
			var in userapi.AbortRequest
			_ = json.NewDecoder(r.Body).Decode(&in)
			aborted <- in.Reason
			return userapi.Run{}
		})
		if got := w.ends(t); got != want {
			t.Errorf("interrupted, then %s: status %d, want %d", verdict, got, want)
		}
		if !strings.Contains(w.err.String(), "aborting the run and restoring") {
			t.Errorf("stderr does not say that the run is aborted: %q", &w.err)
		}
	}
}

// "a second one within 5 s detaches drill run while the server keeps restoring"
func TestASecondCtrlCDetachesOnceTheServerKnows(t *testing.T) {
	s := newServer(t)
	w := watchOf(t, s, "Holding")
	w.mine = true
	calls := 0
	s.stream(watchCall, func(_ int, emit func(any), r *http.Request) {
		w.interrupts <- os.Interrupt
		w.interrupts <- syscall.SIGTERM
		<-r.Context().Done()
	})
	s.answer(abortCall, func(*http.Request) any { calls++; return userapi.Run{} })
	if got := w.ends(t); got != ExitInterrupted {
		t.Errorf("status = %d, want %d", got, ExitInterrupted)
	}
	if calls == 0 || !strings.Contains(w.err.String(), "detached: the server goes on restoring") {
		t.Errorf("%d abort calls before detaching, want at least 1; stderr %q", calls, &w.err)
	}
}

// Who detaches from a run that nobody could be told to abort must know it.
func TestDetachingFromAnAbsentServerSaysThatNothingWasAborted(t *testing.T) {
	s := newServer(t)
	w := watchOf(t, s, "Holding")
	w.mine, w.grace = true, 20*time.Millisecond
	s.stream(watchCall, func(_ int, emit func(any), r *http.Request) {
		w.interrupts <- os.Interrupt
		w.interrupts <- os.Interrupt
		<-r.Context().Done()
	})
	s.answer(abortCall, func(*http.Request) any { return api.Errorf(api.Unavailable, "server", "does not lead now") })
	if got := w.ends(t); got != ExitNotRestored {
		t.Errorf("status = %d, want %d", got, ExitNotRestored)
	}
	if !strings.Contains(w.err.String(), "NOT told to abort") {
		t.Errorf("stderr = %q", &w.err)
	}
}

// "Of drill watch = detach only: the run goes on."
func TestCtrlCOfAWatchLeavesTheRun(t *testing.T) {
	s := newServer(t)
	w := watchOf(t, s, "Holding")
	s.stream(watchCall, func(_ int, emit func(any), r *http.Request) {
		w.interrupts <- os.Interrupt
		<-r.Context().Done()
	})
	s.answer(abortCall, func(*http.Request) any { t.Error("the run was aborted"); return userapi.Run{} })
	if got := w.ends(t); got != ExitOK {
		t.Errorf("status = %d, want %d", got, ExitOK)
	}
}

// "Deadlines: each wait prints what it waits for and the time left"
func TestARunThatNobodyApprovesEndsTheWait(t *testing.T) {
	s := newServer(t)
	w := watchOf(t, s, "Proposed", "operations", "security")
	w.mine, w.limit = true, 50*time.Millisecond
	s.stream(watchCall, func(_ int, emit func(any), r *http.Request) {
		data, _ := json.Marshal(map[string]any{"group": "operations", "decision": "approve"})
		emit(userapi.RunEvent{State: "Proposed", Record: &evidence.Record{Index: 1, Kind: "run.approved", Data: data, At: at, Actor: "user:ops1"}})
		<-r.Context().Done()
	})
	w.heartbeat(time.Now().Add(time.Minute))
	if got := w.ends(t); got != ExitUnavailable {
		t.Errorf("status = %d, want %d", got, ExitUnavailable)
	}
	for _, want := range []string{"waiting for the approval of operations, security", "left", "not approved within 50ms by security", "livefire drill abort r"} {
		if !strings.Contains(w.err.String(), want) {
			t.Errorf("stderr does not say %q: %q", want, &w.err)
		}
	}
}

// A run that is not there is not waited for.
func TestAnUnknownRunIsAnError(t *testing.T) {
	s := newServer(t)
	s.answer(watchCall, func(*http.Request) any { return api.Errorf(api.NotFound, "run/r", "does not exist") })
	if got := watchOf(t, s, "Holding").ends(t); got != ExitUsage {
		t.Errorf("status = %d, want %d", got, ExitUsage)
	}
}
