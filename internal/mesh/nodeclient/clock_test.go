package nodeclient

import (
	"testing"
	"time"
)

// "smallest round trip of the last 16" (docs/spec/channels.md).
func TestOffsetIsThatOfTheSmallestRoundTrip(t *testing.T) {
	var c Clock
	if _, _, known := c.Offset(); known {
		t.Fatal("a clock without exchanges knows an offset")
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	exchange := func(offset, there, back time.Duration) {
		received := at.Add(there).Add(-offset)
		replied := received.Add(time.Millisecond)
		c.Add(at, received, replied, at.Add(there+time.Millisecond+back))
	}
	exchange(200*time.Millisecond, 9*time.Millisecond, time.Millisecond)
	exchange(200*time.Millisecond, 2*time.Millisecond, 2*time.Millisecond)
	off, spread, _ := c.Offset()
	if off != 200*time.Millisecond || spread != 2*time.Millisecond {
		t.Errorf("Offset = %v +- %v, want 200ms +- 2ms", off, spread)
	}
	for range window {
		exchange(-50*time.Millisecond, 4*time.Millisecond, 4*time.Millisecond)
	}
	off, spread, _ = c.Offset()
	if off != -50*time.Millisecond || spread != 4*time.Millisecond {
		t.Errorf("after 16 newer exchanges Offset = %v +- %v, want -50ms +- 4ms", off, spread)
	}
}

// The true offset lies within the stated error, however unequal the two ways are.
func TestTrueOffsetLiesWithinTheError(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for there := time.Duration(0); there <= 20*time.Millisecond; there += 5 * time.Millisecond {
		for back := time.Duration(0); back <= 20*time.Millisecond; back += 5 * time.Millisecond {
			const truth = 123 * time.Millisecond
			var c Clock
			received := at.Add(there).Add(-truth)
			c.Add(at, received, received, at.Add(there+back))
			off, spread, _ := c.Offset()
			if d := (off - truth).Abs(); d > spread {
				t.Errorf("ways %v and %v: offset %v is %v off, error says %v", there, back, off, d, spread)
			}
		}
	}
}
