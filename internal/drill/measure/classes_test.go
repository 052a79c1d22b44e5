package measure_test

import (
	"slices"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/drilltest"
	"github.com/livefire-mesh/livefire/internal/drill/measure"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// counted is the account of orders after one sample of the baseline was changed.
func counted(t *testing.T, edit func(*sample.Sample)) measure.Service {
	t.Helper()
	sc := only(drilltest.SiteLoss(), func(*drilltest.Service) {})
	sc.Edit = func(s *sample.Sample, _ api.ServiceID, _ time.Duration) {
		if s.Seq == 100 {
			edit(s)
		}
	}
	return run(t, sc.Build()).Services[0]
}

// "Precedence: unknown, shed, failed, slow, retried-ok, ok."
func TestClassOfASampleAndPrecedence(t *testing.T) {
	slowly := func(s *sample.Sample) { s.End = 201 * ms }
	class := func(c sample.Class) func(*sample.Sample) {
		return func(s *sample.Sample) { s.Class = c; s.Attempts = 2; slowly(s) }
	}
	base := counted(t, func(*sample.Sample) {}).Account
	for _, tc := range []struct {
		name string
		edit func(*sample.Sample)
		want func(measure.Account) int
	}{
		{"unknown before everything", class(sample.Unknown), func(a measure.Account) int { return a.Unknown }},
		{"shed before failed", class(sample.Shed), func(a measure.Account) int { return a.Shed }},
		{"refused before slow", class(sample.Refused), func(a measure.Account) int { return a.Refused }},
		{"reset", class(sample.Reset), func(a measure.Account) int { return a.Reset }},
		{"timeout", class(sample.Timeout), func(a measure.Account) int { return a.Timeout }},
		{"slow before retried", func(s *sample.Sample) { s.Attempts = 2; slowly(s) }, func(a measure.Account) int { return a.Slow }},
		{"at the objective is not slow", func(s *sample.Sample) { s.Attempts = 2; s.End = 200 * ms }, func(a measure.Account) int { return a.RetriedOK }},
		{"an answer without a site", func(s *sample.Sample) { s.Site = ""; slowly(s) }, func(a measure.Account) int { return a.WrongAnswer }},
		{"an answer from a site outside the table", func(s *sample.Sample) { s.Site = drilltest.Standby }, func(a measure.Account) int { return a.WrongAnswer }},
		{"an application that says it is another", func(s *sample.Sample) { s.Instance = "orders-9" }, func(a measure.Account) int { return a.WrongAnswer }},
	} {
		got := counted(t, tc.edit).Account
		if d := tc.want(got) - tc.want(base); d != 1 || got.OK != base.OK-1 || got.Sent != base.Sent {
			t.Errorf("%s: class grew by %d, ok by %d, sent by %d; want 1, -1, 0", tc.name, d, got.OK-base.OK, got.Sent-base.Sent)
		}
	}
}

// "a wrong site is one that the table in force at the proxy does not allow": tables are in flight between their
// commit and the acknowledgement of the next, and a request may be in flight between its start and its end.
func TestTablesInFlightAreTolerated(t *testing.T) {
	at := func(from time.Duration, site api.SiteID, took time.Duration) measure.Account {
		sc := only(drilltest.SiteLoss(), func(s *drilltest.Service) { s.HurtTo = 2010 * ms })
		sc.Propagate = 500 * ms
		sc.Edit = func(s *sample.Sample, _ api.ServiceID, when time.Duration) {
			s.Site, s.Class, s.Workload, s.Instance = drilltest.Home, sample.OK, "", ""
			if when >= 2230*ms {
				s.Site = drilltest.Standby
			}
			if when == from {
				s.Site, s.End = site, took
			}
		}
		return run(t, sc.Build()).Services[0].Account
	}
	// The switch is committed at +2.23 s and acknowledged by all at +2.73 s; after the fail-back it is the other way round.
	rest := at(0, drilltest.Home, ms).WrongAnswer
	for _, tc := range []struct {
		name string
		when time.Duration
		site api.SiteID
		took time.Duration
		want int
	}{
		{"old site just before the acknowledgement", 2720 * ms, drilltest.Home, ms, 0},
		{"old site after the acknowledgement", 2740 * ms, drilltest.Home, ms, 1},
		{"new site before the commit", 2200 * ms, drilltest.Standby, ms, 1},
		{"new site, answered after the commit", 2200 * ms, drilltest.Standby, 40 * ms, 0},
	} {
		if got := at(tc.when, tc.site, tc.took).WrongAnswer - rest; got != tc.want {
			t.Errorf("%s: %d wrong answers, want %d", tc.name, got, tc.want)
		}
	}
}

func TestWithoutATableThePatternJudges(t *testing.T) {
	b := only(drilltest.SiteLoss(), func(*drilltest.Service) {}).Build()
	i := slices.IndexFunc(b.Records, func(r evidence.Record) bool { return r.Kind == string(record.TableCommitted) })
	b.Records = slices.Delete(b.Records, i, i+1) // the table that was in force before the run
	a := run(t, b).Services[0].Account
	if a.WrongAnswer != 0 {
		t.Errorf("%d wrong answers from sites of the pattern, want 0", a.WrongAnswer)
	}
	b.Chunks[0].Samples[3].Site = "mars"
	if got := run(t, b).Services[0].Account.WrongAnswer; got != 1 {
		t.Errorf("an answer from a site outside the pattern: %d wrong, want 1", got)
	}
}

func TestExecutedTwiceIsCounted(t *testing.T) {
	b := only(drilltest.SiteLoss(), func(*drilltest.Service) {}).Build()
	if a := run(t, b).Services[0].Account; a.ExecutedTwice != 0 || a.Counted != 2 {
		t.Errorf("%d executed twice, lists of %d workloads; want 0 of 2", a.ExecutedTwice, a.Counted)
	}
	home := b.Executions["orders-1"]
	b.Executions["orders-2"] = append(b.Executions["orders-2"], home[7], home[9])
	b.Executions["orders-1"] = append(home, home[7], "checkout-site-loss-20261120-1.payments.7", "checkout-site-loss-20261120-1.payments.7")
	if got := run(t, b).Services[0].Account.ExecutedTwice; got != 2 {
		t.Errorf("%d executed twice, want 2: three times counts once, another service not at all", got)
	}
}

// "success and latency are judged over the admitted"
func TestShedSamplesAreNotJudged(t *testing.T) {
	sc := only(drilltest.SiteLoss(), func(s *drilltest.Service) { s.Reflex, s.HurtTo = true, -1 })
	sc.Edit = func(s *sample.Sample, _ api.ServiceID, at time.Duration) {
		if at > 0 && s.Seq%2 == 0 {
			s.Class, s.Site, s.Workload, s.Instance = sample.Shed, "", "", ""
		}
	}
	s := run(t, sc.Build()).Services[0]
	if o := objective(t, s, "success"); s.Result != measure.Absorbed || o.Verdict != measure.Pass || o.Actual != 1 {
		t.Errorf("half shed: %s, success %v %s; want absorbed, 1, pass", s.Result, o.Actual, o.Verdict)
	}
}

func TestSuccessWithUnknownSamplesIsAnInterval(t *testing.T) {
	judge := func(unknown, failed int) measure.Objective {
		sc := only(drilltest.SiteLoss(), func(s *drilltest.Service) { s.Reflex, s.HurtTo = true, -1 })
		sc.Edit = func(s *sample.Sample, _ api.ServiceID, at time.Duration) {
			switch i := int(s.Seq - 20); {
			case at > -time.Second || i < 0:
			case i < unknown:
				s.Class = sample.Unknown
			case i < unknown+failed:
				s.Class = sample.Reset
			}
		}
		return objective(t, run(t, sc.Build()).Services[0], "success")
	}
	// About 2,950 samples: 1 % are 29.
	for _, tc := range []struct {
		unknown, failed int
		want            string
	}{{20, 0, measure.Pass}, {0, 20, measure.Pass}, {60, 0, measure.Inconclusive}, {0, 60, measure.Fail}, {20, 20, measure.Inconclusive}} {
		if o := judge(tc.unknown, tc.failed); o.Verdict != tc.want {
			t.Errorf("%d unknown, %d failed: %s (%v +%v), want %s", tc.unknown, tc.failed, o.Verdict, o.Actual, o.Uncertainty, tc.want)
		}
	}
}

func TestSlowAnswersMissTheLatencyObjective(t *testing.T) {
	sc := only(drilltest.SiteLoss(), func(*drilltest.Service) {})
	sc.Edit = func(s *sample.Sample, _ api.ServiceID, at time.Duration) {
		if at < -time.Second && s.Seq%10 == 0 {
			s.End = 300 * ms
		}
	}
	r := run(t, sc.Build())
	o := objective(t, r.Services[0], "latency")
	if o.Verdict != measure.Fail || o.Actual != 0.3 || r.Verdict != measure.Failed {
		t.Errorf("p99 %v %s, run %s; want 0.3 fail, failed", o.Actual, o.Verdict, r.Verdict)
	}
}

// "An objective nobody wrote is not judged"; a run in which nothing is judged does not pass.
func TestWithoutObjectivesNothingPasses(t *testing.T) {
	r := run(t, only(drilltest.SiteLoss(), func(s *drilltest.Service) { s.RTO, s.Success, s.P99 = 0, 0, 0 }).Build())
	if n := len(r.Services[0].Objectives); n != 0 || r.Verdict != measure.Inconclusive {
		t.Errorf("%d objectives judged, run %s; want none, inconclusive", n, r.Verdict)
	}
}

func TestSeriesCountsEverySampleOnce(t *testing.T) {
	s := service(t, run(t, drilltest.SiteLoss().Build()), "orders")
	sum := 0
	for _, col := range s.Series.Sites {
		for _, n := range col {
			sum += n
		}
	}
	for i := range s.Series.Failed {
		sum += s.Series.Failed[i] + s.Series.Retry[i] + s.Series.Slow[i] + s.Series.Shed[i]
	}
	if want := s.Account.Sent - s.Account.Unknown; sum != want {
		t.Errorf("series count %d samples, the account %d", sum, want)
	}
	hole := s.Series.Start.Add(-s.Series.Start.Sub(s.Marks.TI.At)) // tI
	i := int(hole.Sub(s.Series.Start)/s.Series.Width) + 5
	if s.Series.P50[i] != -1 || s.Series.Failed[i] != 10 {
		t.Errorf("bucket %d in the outage: p50 %d, failed %d; want no latency and 10", i, s.Series.P50[i], s.Series.Failed[i])
	}
}
