// Package drilltest makes up the proposal, records and samples of a run, for the tests of what reads them.
//
// A Script says what happened, as offsets from the fault; Build writes it down as the server and the agents would.
// Nothing is random: equal scripts give equal bytes.
//
// Units: spans are time.Duration; times are UTC.
// Errors: Build panics; it is for tests only.
// Concurrency: pure functions.
package drilltest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// T0 is when every made-up run starts its baseline.
var T0 = time.Date(2026, 11, 20, 12, 41, 0, 0, time.UTC)

// Sites of every made-up run.
const (
	Home    api.SiteID = "eu-west" // is lost
	Standby api.SiteID = "us-east"
	Client  api.SiteID = "client"
)

// Service is one service of a script. Offsets count from the fault; To before From means never.
type Service struct {
	Name         api.ServiceID
	Reflex       bool
	Rate         float64
	HurtFrom     time.Duration // samples due in [HurtFrom, HurtTo) fail
	HurtTo       time.Duration
	Class        sample.Class  // how they fail
	RetriedUntil time.Duration // from the fault on, samples are answered by the standby at the second attempt
	RTO          time.Duration
	Success      float64
	P99          time.Duration
	After        time.Duration // failover.after
	Interval     time.Duration // health.interval
	Failback     string
}

// Script is a run: a site is killed, comes back, and traffic returns.
type Script struct {
	Run                    string
	Services               []Service
	Baseline, Hold, Verify time.Duration
	Bracket                time.Duration // the agent's checks around the kill
	Detect, Decide         time.Duration // tD - tI, tC - tD; Decide < 0: no switch
	Propagate              time.Duration // tP - tC
	Offset                 time.Duration // the probing and killing agent's clock minus the server's
	Silent                 []api.NodeID
	Verdict                string // of run.closed; default passed, "-" for none
	// Edit changes a sample before it is written down; at counts from the fault.
	Edit func(s *sample.Sample, service api.ServiceID, at time.Duration)
}

// SiteLoss is a run in which users of payments saw nothing and users of orders waited for the switch.
func SiteLoss() Script {
	return Script{
		Run: "checkout-site-loss-20261120-1", Baseline: 5 * time.Second, Hold: 15 * time.Second, Verify: 5 * time.Second,
		Bracket: 4 * time.Millisecond, Detect: 1210 * time.Millisecond, Decide: 1020 * time.Millisecond, Propagate: 30 * time.Millisecond,
		Silent: []api.NodeID{"eu-1", "eu-2"},
		Services: []Service{
			{Name: "payments", Reflex: true, Rate: 200, HurtTo: -1, RetriedUntil: 700 * time.Millisecond, RTO: 5 * time.Second,
				Success: 0.99, P99: 200 * time.Millisecond, After: time.Second, Interval: 300 * time.Millisecond, Failback: api.Automatic},
			{Name: "orders", Rate: 100, HurtTo: 2310 * time.Millisecond, Class: sample.Status, RTO: 5 * time.Second,
				Success: 0.99, P99: 200 * time.Millisecond, After: time.Second, Interval: 300 * time.Millisecond, Failback: api.Automatic},
		},
	}
}

// Built is a script written down.
type Built struct {
	Proposal   record.Proposal
	Records    []evidence.Record
	Chunks     []sample.Chunk
	Executions map[string][]string
	// What a bundle holds beside: the bytes of the proposal, the signed approvals by group, and every file that a
	// record names, by SHA-256.
	ProposalJSON []byte
	Approvals    map[string][]byte
	Files        map[string][]byte
}

// TI is when the fault of a script takes effect.
func (s Script) TI() time.Time { return T0.Add(s.Baseline) }

// End of the hold.
func (s Script) Reverted() time.Time { return s.TI().Add(s.Bracket + s.Hold) }

// back is when the shares are restored.
func (s Script) back() time.Time { return s.Reverted().Add(3 * time.Second) }

// stop is when the probes stop.
func (s Script) stop() time.Time { return s.back().Add(s.Verify + time.Second) }

// Build writes the script down.
func (s Script) Build() Built {
	b := &builder{Script: s}
	b.out.Proposal = s.proposal()
	b.out.Executions, b.out.Approvals, b.out.Files = map[string][]string{}, map[string][]byte{}, map[string][]byte{}
	b.begin()
	b.hurt()
	b.end()
	for i, svc := range s.Services {
		b.samples(i, svc)
	}
	b.executed()
	b.closed()
	return b.out
}

func (s Script) proposal() record.Proposal {
	p := record.Proposal{Run: s.Run, Software: "v0.1.0"}
	p.Scenario = api.Scenario{Type: typ(api.KindScenario), Metadata: api.Metadata{Name: "site-loss"}}
	p.Scenario.Spec = api.ScenarioSpec{
		Faults: []api.FaultTemplate{{Kind: "kill", Target: api.FaultTarget{Site: string(Home)}}}, Expect: api.Expect{Verdict: "passed"},
	}
	p.Drill = api.Drill{Type: typ(api.KindDrill), Metadata: api.Metadata{Name: "checkout-site-loss"}}
	p.Drill.Spec = api.DrillSpec{
		Scenario: "site-loss", Parameters: map[string]string{"fault": "kill"},
		Scope: api.DrillScope{Site: Home, MaxTargets: 10}, Baseline: api.Duration(s.Baseline), Hold: api.Duration(s.Hold),
		Verify: api.Duration(s.Verify), Lease: api.Duration(15 * time.Second), Deadline: api.Duration(15 * time.Minute),
		Approvals: []string{"development", "operations", "security"},
	}
	p.Blast = record.BlastRadius{Site: Home, Processes: 2 * len(s.Services), MaxTargets: 10, LeasePath: "kept",
		ErrorBudget: map[api.ServiceID]float64{}}
	for _, svc := range s.Services {
		p.Drill.Spec.Scope.Services = append(p.Drill.Spec.Scope.Services, svc.Name)
		p.Drill.Spec.Probes = append(p.Drill.Spec.Probes, api.Probe{Service: svc.Name, From: Client, Rate: svc.Rate, Timeout: api.Duration(2 * time.Second), Method: "GET", Path: "/"})
		p.Services = append(p.Services, svc.spec())
		p.ActivePassive = append(p.ActivePassive, svc.pattern())
		p.Blast.Services = append(p.Blast.Services, svc.Name)
		p.Blast.ErrorBudget[svc.Name] = 0.1
	}
	return p
}

func typ(k api.Kind) api.Type { return api.Type{APIVersion: api.Version, Kind: k} }

func (svc Service) spec() api.Service {
	x := api.Service{Type: typ(api.KindService), Metadata: api.Metadata{Name: string(svc.Name)}}
	x.Spec = api.ServiceSpec{Protocol: "http", Port: 80, Data: "stateless", Health: api.HealthCheck{
		Path: "/healthz", Interval: api.Duration(svc.Interval), Timeout: api.Duration(200 * time.Millisecond), Failures: 3, Successes: 2,
	}}
	if svc.RTO > 0 {
		d := api.Duration(svc.RTO)
		x.Spec.Objectives.RTO = &d
	}
	if svc.Success > 0 {
		x.Spec.Objectives.Success = &svc.Success
	}
	if svc.P99 > 0 {
		x.Spec.Objectives.Latency = &api.Latency{P99: api.Duration(svc.P99)}
	}
	return x
}

func (svc Service) pattern() api.ActivePassive {
	x := api.ActivePassive{Type: typ(api.KindActivePassive), Metadata: api.Metadata{Name: string(svc.Name)}}
	x.Spec = api.ActivePassiveSpec{
		Service: svc.Name, Order: []api.SiteID{Home, Standby}, Reflex: &svc.Reflex,
		Failover: api.Failover{Mode: api.Automatic, After: api.Duration(svc.After), Observers: 2},
		Failback: api.Failback{Mode: svc.Failback},
	}
	return x
}

// builder appends records in the order of a run.
type builder struct {
	Script
	out Built
}

// add appends one record.
func (b *builder) add(k record.Kind, at time.Time, actor, subject string, payload any) {
	raw, err := json.Marshal(payload)
	if err != nil {
		panic(fmt.Sprintf("drilltest: %v", err))
	}
	b.out.Records = append(b.out.Records, evidence.Record{
		Run: b.Run, At: at, Kind: string(k), Actor: actor, Subject: subject, Data: raw,
	})
}

func (b *builder) state(at time.Time, from, to, reason string) {
	b.add(record.RunState, at, "server", "", record.State{From: from, To: to, Reason: reason})
}

func (b *builder) step(name string) string { return b.Run + "/" + name }

func (b *builder) order() fault.Order {
	return fault.Order{
		ID: b.step("02-kill"), Run: b.Run, Kind: fault.Kill, Site: Home, Services: b.out.Proposal.Drill.Spec.Scope.Services,
		MaxTargets: 10, Lease: 15 * time.Second, MaxDuration: 15 * time.Minute, Fence: 7,
	}
}
