package measure

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// class of a sample once objectives and tables have been applied.
type class uint8

const (
	unknown class = iota
	shed
	refused
	reset
	timeout
	status
	wrongAnswer
	slow
	retriedOK
	ok
)

func (c class) failed() bool { return c >= refused && c <= wrongAnswer }
func (c class) bad() bool    { return c.failed() || c == slow }
func (c class) good() bool   { return c == ok || c == retriedOK }

// point is one sample on the server's clock.
type point struct {
	at      time.Time
	class   class
	latency time.Duration // from the intended time
	site    api.SiteID
	id      string
}

// stream is every sample of one service, in the order of their intended times.
type stream struct {
	service  api.ServiceID
	points   []point
	interval time.Duration // between two samples
	offset   time.Duration // largest, of the probing agent
	missing  int           // chunks that must have been there
	closed   bool          // the probe said that its last chunk is the last
	notes    []string
}

// judge knows what makes an answer wrong or slow.
type judge struct {
	latency time.Duration // p99 objective; 0 = nobody wrote one
	spans   []tableSpan
	service api.ServiceID
	usable  []api.SiteID // of the pattern: judged by it while no table is known; empty = any
}

// streamOf reads the chunks of a service's probe in order. Samples of a probe that a restart replaced are left out.
func streamOf(s api.ServiceID, f *facts, chunks []sample.Chunk, j judge) (*stream, error) {
	st := &stream{service: s}
	var own []sample.Chunk
	for _, c := range chunks {
		if c.Header.Service != s {
			continue
		}
		if current, known := f.probeIDs[c.Header.Order]; !current && (known || len(f.probeIDs) > 0) {
			continue
		}
		own = append(own, c)
	}
	slices.SortFunc(own, func(a, b sample.Chunk) int {
		return cmp.Or(cmp.Compare(a.Header.Order, b.Header.Order), cmp.Compare(a.Header.Chunk, b.Header.Chunk))
	})
	seen := map[string]bool{}
	next := map[string]int64{} // chunk number per order
	for _, c := range own {
		h := c.Header
		if h.Chunk < next[h.Order] {
			return nil, fmt.Errorf("chunk %d of %s is there twice", h.Chunk, h.Order)
		}
		if gap := int(h.Chunk - next[h.Order]); gap > 0 {
			st.missing += gap
			st.notes = append(st.notes, fmt.Sprintf("%d chunks before chunk %d of %s are missing", gap, h.Chunk, h.Order))
		}
		next[h.Order] = h.Chunk + 1
		st.interval = max(st.interval, time.Duration(float64(time.Second)/h.Rate))
		st.offset = max(st.offset, h.Offset.Abs())
		st.closed = st.closed || h.Last
		for _, x := range c.Samples {
			if seen[x.Request] {
				return nil, fmt.Errorf("sample %s is there twice", x.Request)
			}
			seen[x.Request] = true
			st.points = append(st.points, j.point(h, x))
		}
	}
	if p, ordered := f.probes[s]; ordered && p.Rate > 0 {
		st.interval = max(st.interval, time.Duration(float64(time.Second)/p.Rate))
	}
	slices.SortStableFunc(st.points, func(a, b point) int { return a.at.Compare(b.at) })
	return st, nil
}

func (j judge) point(h sample.Header, x sample.Sample) point {
	p := point{at: x.Intended.Add(-h.Offset), latency: x.End, site: x.Site, id: x.Request}
	switch x.Class {
	case sample.Shed:
		p.class = shed
	case sample.Refused:
		p.class = refused
	case sample.Reset:
		p.class = reset
	case sample.Timeout:
		p.class = timeout
	case sample.Status:
		p.class = status
	case sample.OK:
		p.class = j.answer(h, x)
	default:
		p.class = unknown
	}
	return p
}

func (j judge) answer(h sample.Header, x sample.Sample) class {
	switch {
	case x.Site == "" || !j.allowed(h, x):
		return wrongAnswer
	case x.Instance != "" && x.Workload != "" && x.Instance != x.Workload:
		return wrongAnswer // the application says that it is another one than its sidecar says
	case j.latency > 0 && x.End > j.latency:
		return slow
	case x.Attempts > 1:
		return retriedOK
	}
	return ok
}

// allowed says whether any table that could be in force at the proxy between the sample's start and its end lets
// it be answered by that site. Tables are in flight: one counts from its commit until a later one was acknowledged.
func (j judge) allowed(h sample.Header, x sample.Sample) bool {
	from := x.Intended.Add(x.Start - h.Offset - h.OffsetError)
	to := x.Intended.Add(x.End - h.Offset + h.OffsetError)
	known := false
	for _, s := range j.spans {
		if s.from.After(to) || !s.to.IsZero() && s.to.Before(from) {
			continue
		}
		if _, in := s.table.Shares[j.service]; !in {
			continue
		}
		known = known || !s.from.After(from)
		if s.table.Shares[j.service][x.Site] > 0 || slices.Contains(s.table.Usable[j.service], x.Site) {
			return true
		}
	}
	if known {
		return false
	}
	return len(j.usable) == 0 || slices.Contains(j.usable, x.Site)
}

// account counts the points for which in says yes; each is in exactly one class.
func (st *stream) account(in func(time.Time) bool) Account {
	var a Account
	for _, p := range st.points {
		if in(p.at) {
			a.add(p.class)
		}
	}
	return a
}

func (a *Account) add(c class) {
	a.Sent++
	switch c {
	case unknown:
		a.Unknown++
	case shed:
		a.Shed++
	case refused:
		a.Refused++
	case reset:
		a.Reset++
	case timeout:
		a.Timeout++
	case status:
		a.Status++
	case wrongAnswer:
		a.WrongAnswer++
	case slow:
		a.Slow++
	case retriedOK:
		a.RetriedOK++
	default:
		a.OK++
	}
}

// executions counts what the applications wrote about requests of this run's probe of a service.
func executions(run string, s api.ServiceID, lists map[string][]string) (twice, counted int) {
	prefix := strings.TrimSuffix(sample.RequestID(run+"/"+string(s), 0), "0")
	times := map[string]int{}
	for _, ids := range lists {
		mine := false
		for _, id := range ids {
			if strings.HasPrefix(id, prefix) {
				times[id]++
				mine = true
			}
		}
		if mine {
			counted++
		}
	}
	for _, n := range times {
		if n > 1 {
			twice++
		}
	}
	return twice, counted
}

// patternOf is the pattern of a service in the proposal: its kind, reflex, and the sites that it may use.
func patternOf(p record.Proposal, s api.ServiceID) (kind string, reflex bool, sites []api.SiteID) {
	reflex = true
	for _, x := range p.Services {
		if api.ServiceID(x.Metadata.Name) == s && x.Spec.Data == "stateful" {
			reflex = false
		}
	}
	for _, x := range p.ActivePassive {
		if x.Spec.Service == s {
			if x.Spec.Reflex != nil {
				reflex = *x.Spec.Reflex
			}
			return string(api.KindActivePassive), reflex, slices.Clone(x.Spec.Order)
		}
	}
	for _, x := range p.ActiveActive {
		if x.Spec.Service == s {
			for site := range x.Spec.Weights {
				sites = append(sites, site)
			}
			slices.Sort(sites)
			return string(api.KindActiveActive), reflex, sites
		}
	}
	return "", reflex, nil
}
