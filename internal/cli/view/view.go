// Package view shows a running drill in a terminal: a line per phase, and live bars on a TTY.
//
// A Drill is fed every event of a run; it prints lines as things happen. Numbers come from the records alone.
//
// Units: times are seconds after the fault; rates are requests per second.
// Errors: none; writing to a terminal that is gone is ignored.
// Concurrency: one goroutine.
package view

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// Drill is the view of one run.
type Drill struct {
	Out   io.Writer
	Style Style

	proposal record.Proposal
	from     time.Time // tI: what times are relative to; zero before the fault
	last     time.Time // of the phase before
	approved int
	applied  int
	kind     fault.Kind
	lost     map[api.ServiceID]time.Time
	decided  map[api.ServiceID]uint64 // epoch that left the site
	epochAt  map[uint64]time.Time
	moved    map[uint64][]api.ServiceID
	ended    int
	live     map[api.ServiceID][]userapi.Live
	block    int // lines of the live block on the terminal
	state    string
	beat     time.Time
}

// NewDrill makes the view of a run from the bytes of its proposal.
func NewDrill(out io.Writer, style Style, proposal []byte) *Drill {
	d := &Drill{Out: out, Style: style, lost: map[api.ServiceID]time.Time{}, decided: map[api.ServiceID]uint64{},
		epochAt: map[uint64]time.Time{}, moved: map[uint64][]api.ServiceID{}, live: map[api.ServiceID][]userapi.Live{}}
	_ = json.Unmarshal(proposal, &d.proposal) // an unreadable proposal shows a head without details
	return d
}

// Head prints what the run is.
func (d *Drill) Head() {
	p := d.proposal
	var parameters []string
	for k, v := range p.Drill.Spec.Parameters {
		parameters = append(parameters, k+" "+v)
	}
	d.printf("Run %s: %s at %s%s\n", p.Run, p.Scenario.Metadata.Name, p.Drill.Spec.Scope.Site, bracket(parameters))
	d.printf("Objectives %s\n", objectives(p))
	d.printf("Blast radius predicted %d of at most %d processes; lease %s\n", p.Blast.Processes, p.Blast.MaxTargets, p.Drill.Spec.Lease)
}

func bracket(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}

func objectives(p record.Proposal) string {
	var out []string
	for _, s := range p.Services {
		o := s.Spec.Objectives
		text := s.Metadata.Name + ":"
		if o.RTO != nil {
			text += " RTO " + o.RTO.String()
		}
		if o.Success != nil {
			text += fmt.Sprintf(" success %g %%", 100**o.Success)
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// Event takes one event of the run.
func (d *Drill) Event(e userapi.RunEvent) {
	d.clear()
	if e.Record != nil {
		d.record(*e.Record)
	}
	for _, v := range e.Live {
		d.live[v.Service] = append(d.live[v.Service], v)
	}
	if e.State != "" {
		d.state = e.State
	}
	d.draw()
}

func (d *Drill) record(r evidence.Record) {
	switch record.Kind(r.Kind) {
	case record.RunApproved:
		a := payload[record.Approved](r)
		d.approved++
		d.printf("  %s %s by %s for %s, key %.8s, proposal sha256 %.12s\n", d.Style.OK(), a.Decision, a.By, a.Group, a.Key, a.ProposalSHA256)
	case record.RunPrecheck:
		d.precheck(payload[record.Precheck](r))
	case record.RunState:
		d.stateChanged(r, payload[record.State](r))
	case record.RunIntent:
		if v := payload[record.Intent](r); v.Fault != nil {
			d.intent(*v.Fault)
		}
	case record.FaultApplied:
		d.faultApplied(payload[fault.Report](r))
	case record.FaultEnded:
		d.faultEnded(r, payload[fault.Report](r))
	case record.SiteVerdict:
		d.verdict(payload[record.Verdict](r))
	case record.FailoverOrder, record.TableCommitted, record.TableAcked:
		d.switching(r)
	case record.FailoverRefuse:
		v := payload[record.Refusal](r)
		d.phase(d.Style.Bad(), "refused", r.At, fmt.Sprintf("%s to %s: %s (%s)", v.Service, v.To, v.Message, v.Code))
	case record.FailbackBegun, record.FailbackStep, record.FailbackDone:
		d.failback(r)
	case record.RunGuardrail:
		v := payload[record.Guardrail](r)
		d.phase(d.Style.Bad(), "guardrail", r.At, v.Rule+": "+v.Message)
	case record.RunRestarted:
		v := payload[record.Restarted](r)
		d.phase(d.Style.Warn(), "restart", r.At, fmt.Sprintf("a server took the run over after %.1f s, found it %s: %s", v.Gap.Seconds(), v.Found, v.Decide))
	}
}

// payload decodes a record's data; one that this version does not understand shows as its zero value.
func payload[T any](r evidence.Record) T {
	var v T
	_ = json.Unmarshal(r.Data, &v)
	return v
}

func (d *Drill) precheck(p record.Precheck) {
	good := 0
	for _, r := range p.Rules {
		if r.OK {
			good++
			continue
		}
		d.printf("  %s %s %s: %s\n", d.Style.Bad(), r.Code, r.Name, r.Message)
	}
	d.printf("  %s precheck %d/%d rules\n", d.Style.Mark(good == len(p.Rules)), good, len(p.Rules))
}

func (d *Drill) stateChanged(r evidence.Record, s record.State) {
	switch s.To {
	case "Baseline":
		d.printf("  %s probes send; baseline %s\n", d.Style.OK(), d.proposal.Drill.Spec.Baseline)
	case "Injecting":
		d.printf(" phase        at     took  what happened                             (Ctrl-C aborts and restores)\n")
	case "Holding":
		verb := map[fault.Kind]string{fault.Kill: "killed and held down", fault.Pause: "paused"}[d.kind]
		d.phase(d.Style.OK(), "inject", d.from, fmt.Sprintf("%s: %d processes %s, lease %s, proven", d.proposal.Drill.Spec.Scope.Site, d.applied, verb, d.proposal.Drill.Spec.Lease))
	case "Reverting":
		mark := d.Style.OK()
		if s.Reason != "hold ended" {
			mark = d.Style.Warn()
		}
		d.phase(mark, "revert", r.At, s.Reason)
	case "Verifying":
		d.phase(d.Style.OK(), "verify", r.At, "every service must stay as before for "+d.proposal.Drill.Spec.Verify.String())
	}
}

func (d *Drill) intent(o fault.Order) {
	if o.Kind == fault.ServerKill {
		d.printf("   the server itself is next: its supervisor starts it again after the lease\n")
		return
	}
	d.kind = o.Kind
	d.printf("   %s of %s is ordered\n", o.Kind, o.Site)
}

func (d *Drill) faultApplied(r fault.Report) {
	at := r.After.Add(-r.ClockOffset)
	if d.from.IsZero() || at.Before(d.from) {
		d.from, d.last = at, at
	}
	d.applied++
}

func (d *Drill) faultEnded(rec evidence.Record, r fault.Report) {
	d.ended++
	if r.Phase != fault.Reverted {
		d.phase(d.Style.Bad(), string(r.Phase), rec.At, r.Target+": "+r.Reason)
		return
	}
	if d.ended == d.applied {
		d.phase(d.Style.OK(), "restored", rec.At, fmt.Sprintf("the fault is proven gone on all %d targets (ended by %s)", d.applied, r.EndedBy))
	}
}

func (d *Drill) verdict(v record.Verdict) {
	if d.from.IsZero() {
		return
	}
	if v.State == "lost" {
		d.lost[v.Service] = v.At
		d.phase(d.Style.OK(), "detect", v.At, fmt.Sprintf("%s judged lost for %s: %d of %d observers agree, none there", v.Site, v.Service, len(v.Observers), v.Of))
	}
}

func (d *Drill) switching(r evidence.Record) {
	if d.from.IsZero() {
		return
	}
	switch record.Kind(r.Kind) {
	case record.FailoverOrder:
		o := payload[record.Order](r)
		if o.Cause != "failback" {
			d.decided[o.Service] = 0
		}
	case record.TableCommitted:
		t := payload[record.Table](r)
		for service, epoch := range d.decided {
			if epoch == 0 {
				d.decided[service] = t.Epoch
				d.moved[t.Epoch] = append(d.moved[t.Epoch], service)
				d.epochAt[t.Epoch] = t.At
				d.phase(d.Style.OK(), "decide", t.At, fmt.Sprintf("%s -> %s, epoch %d", service, shares(t.Shares[service]), t.Epoch))
			}
		}
	case record.TableAcked:
		a := payload[record.Acks](r)
		services := d.moved[a.Epoch]
		if len(services) == 0 {
			return
		}
		delete(d.moved, a.Epoch)
		last := d.epochAt[a.Epoch]
		var slowest string
		for _, ack := range a.Acks {
			if ack.At.After(last) {
				last, slowest = ack.At, string(ack.Node)
			}
		}
		text := fmt.Sprintf("epoch %d: last of %d proxies acknowledged (%s)", a.Epoch, len(a.Acks), slowest)
		if len(a.Silent) > 0 {
			text += fmt.Sprintf("; %d silent", len(a.Silent))
		}
		d.phase(d.Style.OK(), "propagate", last, text)
	}
}

func (d *Drill) failback(r evidence.Record) {
	f := payload[record.Failback](r)
	text := fmt.Sprintf("%s -> %s", f.Service, shares(f.Shares))
	if r.Kind == string(record.FailbackDone) {
		text = fmt.Sprintf("%s: back at %s", f.Service, f.To)
	}
	d.phase(d.Style.OK(), "fail-back", f.At, text)
}

func shares(m map[api.SiteID]float64) string {
	var out []string
	for _, site := range sorted(m) {
		if m[site] > 0 {
			out = append(out, fmt.Sprintf("%s %.0f %%", site, 100*m[site]))
		}
	}
	return strings.Join(out, ", ")
}

// phase prints one line of the table.
func (d *Drill) phase(mark, name string, at time.Time, what string) {
	offset, took := "      ", "     "
	if !d.from.IsZero() {
		offset = fmt.Sprintf("%+5.1fs", at.Sub(d.from).Seconds())
		if t := at.Sub(d.last); t > 50*time.Millisecond {
			took = fmt.Sprintf("%4.1fs", t.Seconds())
		}
		d.last = at
	}
	for i, line := range wrap(what, columns-indent) {
		if i == 0 {
			d.printf(" %s %-10s %s %s  %s\n", mark, name, offset, took, line)
			continue
		}
		d.printf("%*s%s\n", indent, "", line)
	}
}

const (
	columns = 100
	indent  = 28 // where the text of a phase begins
)

// wrap breaks a text between words so that no line is longer than width, unless a word is.
func wrap(text string, width int) []string {
	var out []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			out, line = append(out, line), word
		}
	}
	return append(out, line)
}

func (d *Drill) printf(format string, args ...any) { _, _ = fmt.Fprintf(d.Out, format, args...) }
