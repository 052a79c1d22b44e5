package probe

import (
	"testing"
	"testing/quick"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

func TestSamplesAreDueByRateAlone(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		rate    float64
		elapsed time.Duration
		due     int64
	}{
		{10, -1, 0},
		{10, 0, 1}, // the first at once
		{10, 99 * ms, 1},
		{10, 100 * ms, 2},
		{10, 1000 * ms, 11},
		{0.5, 1999 * ms, 1},
		{0.5, 2000 * ms, 2},
		{3, 333333333, 2},
		{3, 333333332, 1},
		{10_000, time.Second, 10_001},
		{200, time.Hour, 720_001},
	} {
		if got := (pace{c.rate}).due(c.elapsed); got != c.due {
			t.Errorf("rate %v: due after %v = %d, want %d", c.rate, c.elapsed, got, c.due)
		}
	}
}

func TestChunkHoldsTheSamplesOfItsSecond(t *testing.T) {
	for _, c := range []struct {
		rate  float64
		chunk int64
		first int64
	}{
		{10, 0, 0}, {10, 1, 10}, {10, 7, 70}, {0.5, 0, 0}, {0.5, 1, 1}, {0.5, 2, 1}, {0.5, 3, 2}, {1.5, 1, 2}, {1.5, 2, 3},
	} {
		if got := (pace{c.rate}).first(c.chunk); got != c.first {
			t.Errorf("rate %v: first sample of chunk %d = %d, want %d", c.rate, c.chunk, got, c.first)
		}
	}
}

// The count, the chunk and the time of a sample must agree for every rate, against counting one by one.
func TestPaceAgreesWithItself(t *testing.T) {
	agree := func(rateSeed uint16, second uint8) bool {
		p := pace{rate: float64(rateSeed%2000+1) / 7}
		k := int64(second % 30)
		from, to := p.first(k), p.first(k+1)
		start := time.Unix(1_700_000_000, 0).UTC()
		for n := from; n < to; n++ {
			if p.second(n) != k || p.due(p.offset(n)) != n+1 || !sample.Due(start, p.rate, n).Equal(start.Add(p.offset(n))) {
				t.Logf("rate %v, chunk %d, sample %d", p.rate, k, n)
				return false
			}
		}
		return from == 0 || p.second(from-1) < k
	}
	if err := quick.Check(agree, &quick.Config{MaxCount: 300}); err != nil {
		t.Error(err)
	}
}
