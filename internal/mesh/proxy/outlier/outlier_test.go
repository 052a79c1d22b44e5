package outlier

import (
	"testing"
	"time"
)

var t0 = time.Unix(1000, 0)

func healthy(t *testing.T) *Tracker {
	t.Helper()
	k := New(Config{})
	k.Check(true, false, "", t0)
	if got := k.State(t0); got != Usable {
		t.Fatalf("State after the first success = %d, want Usable", got)
	}
	return k
}

func TestFirstCheckDecidesAlone(t *testing.T) {
	k := New(Config{})
	if got := k.State(t0); got != Unknown {
		t.Errorf("State before any check = %d, want Unknown", got)
	}
	if lost := k.Check(false, true, "timeout", t0); lost != Silence || k.State(t0) != Unusable {
		t.Errorf("first failure: lost %q, state %d; want silence, Unusable", lost, k.State(t0))
	}
	if got := k.Reason(t0); got != "timeout" {
		t.Errorf("Reason = %q, want timeout", got)
	}
}

func TestAnswersOutweighOneLateFirstCheck(t *testing.T) {
	k := New(Config{})
	k.Answer()
	if lost := k.Check(false, true, "timeout", t0); lost != "" || k.State(t0) != Usable {
		t.Errorf("first check failed after answers: lost %q, state %d; want it to stay Usable", lost, k.State(t0))
	}
}

func TestFailuresInARowMakeUnhealthy(t *testing.T) {
	k := healthy(t)
	for i := range 2 {
		if lost := k.Check(false, false, "status 503", t0); lost != "" {
			t.Fatalf("lost after %d failures, want 3", i+1)
		}
	}
	k.Check(true, false, "", t0)
	k.Check(false, false, "status 503", t0)
	k.Check(false, false, "status 503", t0)
	if lost := k.Check(false, false, "status 503", t0); lost != Checks || k.State(t0) != Unusable {
		t.Errorf("third failure in a row: lost %q, state %d; want checks, Unusable", lost, k.State(t0))
	}
	k.Check(true, false, "", t0)
	if k.State(t0) != Unusable {
		t.Error("healthy after one success, want two in a row")
	}
	k.Check(true, false, "", t0)
	if k.State(t0) != Usable {
		t.Error("not healthy after two successes in a row")
	}
}

func TestTwoErrorsInARowEject(t *testing.T) {
	k := healthy(t)
	if k.Error(Reset, t0) {
		t.Error("ejected after one reset")
	}
	k.Answer()
	if k.Error(Status, t0) {
		t.Error("ejected although an answer came between")
	}
	if !k.Error(Status, t0) || k.Ejected(t0) != Status {
		t.Errorf("second error in a row: ejected %q, want status", k.Ejected(t0))
	}
}

// An ejection lasts base x times ejected, up to max.
func TestEjectionLastsBaseTimesEjected(t *testing.T) {
	k := healthy(t)
	now := t0
	for n := 1; n <= 70; n++ {
		if !k.Eject(Refused, now) {
			t.Fatalf("ejection %d refused", n)
		}
		want := min(300*time.Second, time.Duration(n)*5*time.Second)
		if k.State(now.Add(want-1)) != Unusable {
			t.Fatalf("ejection %d ended before %v", n, want)
		}
		now = now.Add(want)
		if k.State(now) != Usable {
			t.Fatalf("ejection %d lasts longer than %v", n, want)
		}
	}
	now = now.Add(time.Hour) // all is forgotten
	k.Eject(Refused, now)
	if k.State(now.Add(5*time.Second)) != Usable {
		t.Error("an ejection long after the others lasts longer than the base")
	}
}

func TestEjectedTwiceAtOnceCountsOnce(t *testing.T) {
	k := healthy(t)
	k.Eject(Refused, t0)
	if k.Eject(Hang, t0.Add(time.Second)) {
		t.Error("ejected while ejected")
	}
	if k.State(t0.Add(5*time.Second)) != Usable {
		t.Error("the second ejection made the first longer")
	}
}

func TestSuccessfulChecksEndAnEjection(t *testing.T) {
	k := healthy(t)
	k.Eject(Hang, t0)
	k.Check(true, false, "", t0)
	k.Check(false, true, "timeout", t0)
	k.Check(true, false, "", t0)
	if k.State(t0) != Unusable {
		t.Error("two successes that are not in a row ended the ejection")
	}
	k.Check(true, false, "", t0)
	if k.State(t0) != Usable {
		t.Error("two successes in a row did not end the ejection")
	}
}

// An application that answers its checks and fails its requests would come back every second.
func TestChecksProveLessAfterEachStatusEjection(t *testing.T) {
	k := healthy(t)
	for times := 1; times <= 3; times++ {
		k.Eject(Status, t0)
		for i := range 2 * times {
			if k.State(t0) != Unusable {
				t.Fatalf("ejection %d for its answers ended after %d checks, want %d", times, i, 2*times)
			}
			k.Check(true, false, "", t0)
		}
		if k.State(t0) != Usable {
			t.Fatalf("ejection %d did not end after %d checks", times, 2*times)
		}
	}
}

func TestScheduleSaysWhenItIsLate(t *testing.T) {
	const interval = 500 * time.Millisecond
	var s Schedule
	for i, step := range []struct {
		at   time.Duration
		late bool
		wait time.Duration
	}{
		{0, false, interval},
		{500 * time.Millisecond, false, interval},
		{1240 * time.Millisecond, false, 260 * time.Millisecond}, // 240 ms late: less than half
		{1760 * time.Millisecond, true, 240 * time.Millisecond},
		{9 * time.Second, true, interval}, // missed checks are left out
		{9500 * time.Millisecond, false, interval},
	} {
		now := t0.Add(step.at)
		if late := s.Due(now, interval); late != step.late {
			t.Errorf("step %d: late = %t, want %t", i, late, step.late)
		}
		if got := s.Wait(now); got != step.wait {
			t.Errorf("step %d: Wait = %v, want %v", i, got, step.wait)
		}
	}
	if s.Overdue(t0.Add(10*time.Second), interval) || !s.Overdue(t0.Add(10251*time.Millisecond), interval) {
		t.Error("Overdue does not begin at half an interval after the check was due")
	}
}
