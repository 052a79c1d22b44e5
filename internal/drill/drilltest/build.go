package drilltest

import (
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// begin writes everything up to the baseline.
func (b *builder) begin() {
	at := T0.Add(-time.Minute)
	raw, err := json.Marshal(b.out.Proposal)
	if err != nil {
		panic(err)
	}
	b.out.ProposalJSON = append(raw, '\n')
	sha := digest(b.out.ProposalJSON)
	b.add(record.RunProposed, at, "dev1", "", record.Proposed{
		Drill: "checkout-site-loss", Scenario: "site-loss", By: "dev1", ByKey: evidence.KeyID(key("dev1").Public().(ed25519.PublicKey)), ProposalSHA256: sha,
		Groups: b.out.Proposal.Drill.Spec.Approvals, Expect: "passed", Software: "v0.1.0",
	})
	b.state(at, "Draft", "Proposed", "")
	for i, g := range b.out.Proposal.Drill.Spec.Approvals {
		when := at.Add(time.Duration(i+1) * time.Second)
		by := strings.ToLower(g[:3]) + "2"
		k := key(by)
		env, err := evidence.SignApproval(k, evidence.Approval{Run: b.Run, ProposalSHA256: sha, Group: g, Decision: evidence.Approve, By: by, At: when})
		if err != nil {
			panic(err)
		}
		b.out.Approvals[g] = env
		pub := k.Public().(ed25519.PublicKey)
		b.add(record.RunApproved, when, by, "", record.Approved{
			Group: g, By: by, At: when, Key: evidence.KeyID(pub), PublicKey: pub, ProposalSHA256: sha, EnvelopeSHA256: digest(env), Decision: "approve",
		})
	}
	b.state(at.Add(4*time.Second), "Proposed", "Approved", "")
	start := T0.Add(-2 * time.Second)
	b.state(start, "Approved", "Scheduled", "started by dev1")
	b.add(record.RunPrecheck, start, "server", "", record.Precheck{Rules: []record.Rule{
		{Code: "LF3101", Name: "lever-released", OK: true}, {Code: "LF3104", Name: "clocks-agree", OK: true, Message: "worst skew 2 ms"},
	}})
	// The table that is in force is written down again in each run: its bundle holds no other records.
	b.add(record.TableCommitted, start, "server", "", b.table(41, T0.Add(-time.Hour), Home))
	b.add(record.TableAcked, start, "server", "", record.Acks{Epoch: 41, Acks: []record.Ack{{Node: "client-1", At: T0.Add(-time.Hour)}}})
	b.state(start, "Scheduled", "Prechecked", "")
	for _, svc := range b.Services {
		p := sample.Order{ID: b.Run + "/" + string(svc.Name), Run: b.Run, Service: svc.Name, From: Client, Rate: svc.Rate, Timeout: 2 * time.Second, Method: "GET", Path: "/", Lease: time.Minute}
		b.add(record.RunIntent, start, "server", "", record.Intent{Step: b.step("01-probe-start"), What: "probe-start", Probe: &p, Lease: p.Lease})
	}
	b.add(record.RunOutcome, T0, "server", "", record.Outcome{Step: b.step("01-probe-start"), OK: true})
	b.state(T0, "Prechecked", "Baseline", "")
	b.add(record.Clocks, T0, "server", "", record.ClockOffsets{Nodes: []record.ClockOffset{{Node: "client-agent", Offset: b.Offset, Error: 200 * time.Microsecond}}})
}

func (b *builder) table(epoch uint64, at time.Time, active api.SiteID) record.Table {
	t := record.Table{Epoch: epoch, At: at, Shares: map[api.ServiceID]map[api.SiteID]float64{}, Usable: map[api.ServiceID][]api.SiteID{}}
	for _, svc := range b.Services {
		t.Shares[svc.Name] = map[api.SiteID]float64{active: 1}
		t.Usable[svc.Name] = []api.SiteID{}
		if svc.Reflex {
			t.Usable[svc.Name] = []api.SiteID{Home, Standby}
		}
	}
	return t
}

// targets are the processes that die: each service's workload and its sidecar.
func (b *builder) targets() (names []string, of []api.ServiceID) {
	for _, svc := range b.Services {
		names = append(names, string(svc.Name)+"-1", string(svc.Name)+"-1/sidecar")
		of = append(of, svc.Name, svc.Name)
	}
	return names, of
}

// hurt writes the fault, the detection and the switch.
func (b *builder) hurt() {
	tI := b.TI()
	b.state(tI.Add(-20*time.Millisecond), "Baseline", "Injecting", "")
	o := b.order()
	b.add(record.RunIntent, tI.Add(-20*time.Millisecond), "server", "", record.Intent{Step: o.ID, What: "inject", Fault: &o, Lease: o.Lease})
	names, of := b.targets()
	for i, n := range names {
		// Each target a little later; the first one is tI.
		before := tI.Add(time.Duration(i) * time.Millisecond)
		b.add(record.FaultApplied, before.Add(b.Bracket), "agent-eu", "", fault.Report{
			Order: o.ID, Target: n, Service: of[i], Phase: fault.Applied, Before: before.Add(b.Offset), After: before.Add(b.Bracket + b.Offset),
			ClockOffset: b.Offset, ClockError: 100 * time.Microsecond, Proof: fmt.Sprintf("pid %d gone (pidfd)", 4711+i),
		})
	}
	b.add(record.RunOutcome, tI.Add(b.Bracket), "server", "", record.Outcome{Step: o.ID, OK: true, Message: fmt.Sprintf("%d targets", len(names))})
	b.state(tI.Add(b.Bracket), "Injecting", "Holding", "all faults applied")
	for _, svc := range b.Services {
		if svc.Reflex {
			b.add(record.ReflexLeft, tI.Add(150*time.Millisecond), "server", "", record.Reflex{
				Service: svc.Name, Node: "client-1", From: Home, To: Standby, At: tI.Add(120 * time.Millisecond), ClockError: time.Millisecond})
		}
	}
	tD := tI.Add(b.Detect)
	for _, svc := range b.Services {
		b.add(record.SiteVerdict, tD, "server", "", record.Verdict{Service: svc.Name, Site: Home, State: "lost", At: tD, Observers: []api.NodeID{"client-1", "us-1", "us-2"}, Of: 3})
	}
	if b.Decide < 0 {
		return
	}
	tC := tD.Add(b.Decide)
	for _, svc := range b.Services {
		b.add(record.FailoverOrder, tC, "policy:ActivePassive/"+string(svc.Name), "", record.Order{Service: svc.Name, From: Home, To: Standby, Cause: "lost", Actor: "policy:ActivePassive/" + string(svc.Name), At: tC})
	}
	b.add(record.TableCommitted, tC, "server", "", b.table(42, tC, Standby))
	tP := tC.Add(b.Propagate)
	b.add(record.TableAcked, tP, "server", "", record.Acks{Epoch: 42, Silent: b.Silent, Acks: []record.Ack{
		{Node: "client-1", At: tC.Add(b.Propagate / 3)}, {Node: "us-1", At: tC.Add(b.Propagate / 2)}, {Node: "us-2", At: tP},
	}})
}

// end writes the revert, the fail-back and the verification.
func (b *builder) end() {
	at := b.Reverted()
	b.state(at, "Holding", "Reverting", "hold ended")
	b.add(record.RunIntent, at, "server", "", record.Intent{Step: b.step("03-revert"), What: "revert"})
	names, of := b.targets()
	for i, n := range names {
		up := at.Add(time.Duration(i+1) * 100 * time.Millisecond)
		b.add(record.FaultEnded, up, "agent-eu", "", fault.Report{
			Order: b.step("02-kill"), Target: n, Service: of[i], Phase: fault.Reverted, Before: up.Add(-20*time.Millisecond + b.Offset), After: up.Add(b.Offset),
			ClockOffset: b.Offset, EndedBy: fault.ByRevert, Proof: fmt.Sprintf("pid %d started, ready", 4800+i),
		})
	}
	b.add(record.RunOutcome, at.Add(time.Second), "server", "", record.Outcome{Step: b.step("03-revert"), OK: true, Message: "every fault proven gone"})
	b.state(at.Add(time.Second), "Reverting", "FailingBack", "")
	if b.Decide >= 0 {
		for _, svc := range b.Services {
			b.add(record.FailbackBegun, at.Add(2*time.Second), "policy:ActivePassive/"+string(svc.Name), "", record.Failback{Service: svc.Name, To: Home, At: at.Add(2 * time.Second)})
		}
		b.add(record.TableCommitted, b.back().Add(-100*time.Millisecond), "server", "", b.table(43, b.back().Add(-100*time.Millisecond), Home))
		b.add(record.TableAcked, b.back(), "server", "", record.Acks{Epoch: 43, Acks: []record.Ack{{Node: "client-1", At: b.back()}}})
		for _, svc := range b.Services {
			b.add(record.FailbackDone, b.back(), "server", "", record.Failback{Service: svc.Name, To: Home, Shares: map[api.SiteID]float64{Home: 1}, At: b.back()})
		}
	}
	b.state(b.back(), "FailingBack", "Verifying", "")
}

// executed writes down what each workload's application executed.
func (b *builder) executed() {
	for _, w := range slices.Sorted(maps.Keys(b.out.Executions)) {
		raw := []byte(strings.Join(b.out.Executions[w], "\n") + "\n")
		b.out.Files[digest(raw)] = raw
		b.add(record.Executions, b.stop().Add(500*time.Millisecond), "server", "", record.Executed{
			Workload: w, SHA256: digest(raw), Bytes: int64(len(raw)), IDs: len(b.out.Executions[w])})
	}
}

// key is a person's, always the same.
func key(who string) ed25519.PrivateKey {
	sum := sha256.Sum256([]byte(who))
	return ed25519.NewKeyFromSeed(sum[:])
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func (b *builder) closed() {
	at := b.stop().Add(2 * time.Second)
	if b.Verdict != "-" {
		b.state(at, "Verifying", "Done", "")
		b.add(record.RunClosed, at, "server", "", record.Closed{Verdict: cmp.Or(b.Verdict, "passed"), Restored: b.Verdict != "dirty", At: at})
	}
	// Numbered in the order of time, as a log does.
	slices.SortStableFunc(b.out.Records, func(x, y evidence.Record) int { return x.At.Compare(y.At) })
	for i := range b.out.Records {
		b.out.Records[i].Index, b.out.Records[i].RunSeq = 100+int64(i), int64(i)
	}
}

// samples writes one probe's chunks, one per second, and what the applications executed.
func (b *builder) samples(n int, svc Service) {
	order := b.Run + "/" + string(svc.Name)
	begin := T0.Add(-500*time.Millisecond + time.Duration(n)*time.Millisecond)
	c := sample.Chunk{Header: sample.Header{Format: sample.Format, Order: order, Service: svc.Name, From: Client, Rate: svc.Rate, Offset: b.Offset, OffsetError: 200 * time.Microsecond}}
	flush := func(last bool) {
		c.Header.Last = last
		raw := sample.EncodeChunk(c)
		b.out.Files[digest(raw)] = raw
		b.add(record.SampleChunk, c.Samples[len(c.Samples)-1].Intended.Add(time.Second), "client-agent", "", record.Chunk{
			Order: order, Service: svc.Name, Chunk: c.Header.Chunk, SHA256: digest(raw), Bytes: int64(len(raw)), Samples: len(c.Samples), Last: last})
		b.out.Chunks = append(b.out.Chunks, c)
		c.Header.Chunk++
		c.Samples = nil
	}
	for seq := int64(0); ; seq++ {
		due := sample.Due(begin, svc.Rate, seq)
		if due.After(b.stop()) {
			break
		}
		if len(c.Samples) > 0 && due.Sub(c.Samples[0].Intended) >= time.Second {
			flush(false)
		}
		s := b.sample(svc, order, seq, due)
		c.Samples = append(c.Samples, s)
		if s.Workload != "" {
			b.out.Executions[s.Workload] = append(b.out.Executions[s.Workload], s.Request)
		}
	}
	flush(true)
}

func (b *builder) sample(svc Service, order string, seq int64, due time.Time) sample.Sample {
	at := due.Sub(b.TI())
	s := sample.Sample{
		Seq: seq, Intended: due.Add(b.Offset), Start: 50 * time.Microsecond, End: time.Duration(5+seq%7) * time.Millisecond,
		Class: sample.OK, Code: 200, Attempts: 1, Site: Home, Request: sample.RequestID(order, seq), Version: "v1",
	}
	away := due.After(b.TI().Add(svc.HurtTo)) && due.Before(b.back()) && b.Decide >= 0 && svc.HurtTo >= 0
	if svc.Reflex && at >= 0 && due.Before(b.back()) {
		away = true
		if at < svc.RetriedUntil {
			s.Attempts = 2
		}
	}
	if away || at == svc.HurtTo {
		s.Site = Standby
	}
	if at >= svc.HurtFrom && at < svc.HurtTo {
		s.Class, s.Code, s.Site = svc.Class, 503, ""
		if svc.Class != sample.Status {
			s.Code = 0
		}
		s.Err = "503 no endpoint"
	}
	if s.Class == sample.OK {
		s.Workload = string(svc.Name) + map[api.SiteID]string{Home: "-1", Standby: "-2"}[s.Site]
		s.Instance = s.Workload
	}
	if b.Edit != nil {
		b.Edit(&s, svc.Name, at)
	}
	return s
}
