package report

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"
)

func TestFormats(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{exact(2311 * time.Millisecond), "2.311s"}, {exact(0), "0s"}, {exact(1), "0.000000001s"}, {exact(5 * time.Second), "5s"},
		{span(0), "0 s"}, {span(0.001), "< 0.01 s"}, {span(2.311), "2.31 s"}, {span(12), "12.00 s"},
		{upTo(0.014), "0.02 s"}, {upTo(0.02), "0.02 s"}, {upTo(0), "0.00 s"},
		{percent(1), "100.00 %"}, {percent(0.999999), "99.99 %"}, {percent(0.0000001), "< 0.01 %"}, {percent(0), "0.00 %"}, {percent(0.9912), "99.12 %"},
		{share(0.99), "99 %"}, {share(0.999), "99.9 %"}, {share(1), "100 %"},
		{count(0), "0"}, {count(999), "999"}, {count(118400), "118,400"}, {count(-1234567), "-1,234,567"},
		{millis(950), "0.9 ms"}, {millis(38_400), "38 ms"}, {millis(1_234_000), "1,234 ms"},
		{bar(2.1, 5, 10, "#", "-"), "[#####-----]"}, {bar(0, 5, 10, "#", "-"), "[----------]"}, {bar(6, 5, 10, "#", "-"), "[##########>"},
		{plural(1, "fault"), "1 fault"}, {plural(1200, "fault"), "1,200 faults"},
		{offset(2.26), "+2.26 s"}, {offset(-1), "-1.00 s"}, {limit(5), "5 s"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
}

// The phases that people see add up to the RTA that they see, and each is off by less than a hundredth.
func TestShownPhasesAddUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var phases []Phase
		var sum time.Duration
		for range 1 + rng.IntN(4) {
			d := time.Duration(rng.Int64N(int64(3 * time.Second)))
			sum += d
			phases = append(phases, Phase{"x", d.Seconds()})
		}
		cents := 0
		for i, s := range shown(phases, sum.Seconds()) {
			x, err := strconv.ParseFloat(s, 64)
			if err != nil || math.Abs(x-phases[i].Seconds) >= 0.01 {
				t.Fatalf("phase of %v shown as %s", phases[i].Seconds, s)
			}
			cents += int(math.Round(x * 100))
		}
		if want := int(math.Round(sum.Seconds() * 100)); cents != want {
			t.Fatalf("phases %v add up to %d hundredths, the total is %d", phases, cents, want)
		}
	}
}
