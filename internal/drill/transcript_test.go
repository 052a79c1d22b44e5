package drill

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/drill/record"
)

var update = flag.Bool("update", false, "rewrite the transcripts")

// Each file of testdata is a scenario: lines that begin with "$ " are events, everything between them is what the
// machine did. "faults:" lists the scenario's faults. A restart also takes the machine through its stored form.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := transcript(t, string(want))
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: transcript differs (-update rewrites it); got:\n%s", file, got)
			}
		})
	}
}

func transcript(t *testing.T, in string) []byte {
	var out bytes.Buffer
	w := &world{t: t, at: t0, published: map[string]int{}, deaf: map[string]bool{}}
	p := proposal()
	p.Drill.Spec.Probes = p.Drill.Spec.Probes[:1] // one is enough to read
	for line := range strings.Lines(in) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"), line == "":
			fmt.Fprintln(&out, line)
		case strings.HasPrefix(line, "faults:"):
			fmt.Fprintln(&out, line)
			p.Scenario.Spec.Faults = nil
			for _, f := range strings.Fields(line)[1:] {
				kind, after, _ := strings.Cut(f, "@")
				ft := api.FaultTemplate{Kind: kind, Target: api.FaultTarget{Site: "{site}"}}
				if after != "" {
					d, err := api.ParseDuration(after)
					if err != nil {
						t.Fatal(err)
					}
					ft.After = d
				}
				p.Scenario.Spec.Faults = append(p.Scenario.Spec.Faults, ft)
			}
		case strings.HasPrefix(line, "$ "):
			fmt.Fprintln(&out, line)
			if w.m.Config.Run == "" {
				var acts []Action
				w.m, acts = newMachine(t, p)
				_ = acts // the first rerender is answered by the file's first event
			}
			w.command(&out, strings.Fields(line[2:]))
		}
	}
	return out.Bytes()
}

// command runs one line: "<time> <event> key=value...". "baseline" stands for everything up to Baseline at 10 s.
func (w *world) command(out *bytes.Buffer, f []string) {
	w.t.Helper()
	if f[0] == "baseline" {
		w.command(&bytes.Buffer{}, strings.Fields("0s rendered sha=aa"))
		w.approveAll()
		for _, l := range []string{"9s start by=dev1", "9s rendered sha=aa", "9s prechecked", "10s probes-running"} {
			w.command(&bytes.Buffer{}, strings.Fields(l))
		}
		fmt.Fprintf(out, "  = %s\n", w.m.State.State)
		return
	}
	at, err := time.ParseDuration(f[0])
	if err != nil {
		w.t.Fatal(err)
	}
	w.at = t0.Add(at)
	ev := Event{Kind: EventKind(f[1]), At: w.at}
	var r fault.Report
	var a Approval
	for _, kv := range f[2:] {
		k, v, _ := strings.Cut(kv, "=")
		w.field(&ev, &r, &a, k, strings.ReplaceAll(v, "_", " "))
	}
	switch ev.Kind {
	case FaultReported:
		ev.Report = &r
	case Approve, Reject:
		a.At, a.SHA256 = w.at, w.m.State.SHA256
		ev.Approval = &a
	case Prechecked:
		if ev.Rules == nil {
			ev.Rules = []record.Rule{{Code: "LF3101", Name: "lever-released", OK: true}}
		}
		ev.Targets = targets[:2]
	}
	for _, act := range w.step(ev) {
		fmt.Fprintf(out, "    %s\n", describe(act))
	}
	fmt.Fprintf(out, "  = %s", w.m.State.State)
	if next := w.m.Next(); !next.IsZero() {
		fmt.Fprintf(out, ", tick at %v", next.Sub(t0))
	}
	if v := w.m.State.Verdict; v != "" {
		fmt.Fprintf(out, ", verdict %s, restored %v", v, w.m.State.Restored)
	}
	fmt.Fprintln(out)
}

func (w *world) field(ev *Event, r *fault.Report, a *Approval, k, v string) {
	switch k {
	case "sha":
		ev.SHA256 = v
	case "by":
		ev.By, a.By = v, v
	case "group":
		a.Group = v
	case "key":
		a.Key = v
	case "reason":
		ev.Reason, r.Reason = v, v
	case "rule":
		ev.Rule = v
	case "failed":
		ev.Rules = []record.Rule{{Code: v, Name: "replica-fresh", Message: "us lags 14 s"}}
	case "order":
		ev.Order, r.Order = w.m.Config.Run+"/"+v, w.m.Config.Run+"/"+v
	case "target":
		r.Target = v
	case "phase":
		r.Phase = fault.Phase(v)
	case "ended":
		r.EndedBy = v
	case "proof":
		r.Proof = v
	case "service":
		ev.Service = api.ServiceID(v)
	case "services":
		for s := range strings.SplitSeq(v, ",") {
			ev.Services = append(ev.Services, api.ServiceID(s))
		}
	case "gap":
		ev.Gap, _ = time.ParseDuration(v)
	case "verdict":
		ev.Verdict = Verdict(v)
	default:
		w.t.Fatalf("unknown field %q", k)
	}
}

func describe(a Action) string {
	switch a.Kind {
	case ActRecord:
		b, err := json.Marshal(a.Payload)
		if err != nil {
			return err.Error()
		}
		by := ""
		if a.Actor != "" {
			by = " by " + a.Actor
		}
		return fmt.Sprintf("record %s%s %s", a.Record, by, b)
	case ActRefuse:
		return "refuse: " + a.Err.Error()
	case ActPublishFault:
		return fmt.Sprintf("publish-fault %s: %s, lease %v, at most %v", a.ID, a.Fault, a.Fault.Lease, a.Fault.MaxDuration)
	case ActStartProbe:
		return fmt.Sprintf("start-probe %s at %v/s, lease %v", a.ID, a.Probe.Rate, a.Probe.Lease)
	}
	s := string(a.Kind)
	for _, x := range append(a.IDs, a.ID, string(a.Service)) {
		if x != "" {
			s += " " + x
		}
	}
	return s
}
