package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill"
	"github.com/livefire-mesh/livefire/internal/drill/measure"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/report"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// measure computes the run's result beside the loop: it reads every sample.
func (l *Loop) measure(ctx context.Context, r *run) {
	id, parsed := r.id(), r.parsed
	l.tasks.Go(func() error {
		ev := drill.Event{Kind: drill.Measured}
		in, err := l.measureInput(ctx, id, parsed)
		if err == nil {
			var result measure.Result
			if result, err = measure.Run(in); err == nil {
				ev.Verdict, ev.Reason = drill.Verdict(result.Verdict), result.Reason
			}
		}
		if err != nil {
			l.cfg.Logger.Error("run not measured", "run", id, "err", err)
			ev.Verdict, ev.Reason = drill.Inconclusive, "not measured: "+err.Error()
		}
		return l.unlessStopped(l.do(ctx, func(ctx context.Context) error { return l.stepRun(ctx, ev) }))
	})
}

// unlessStopped hides the end of the term, which the loop itself reports.
func (l *Loop) unlessStopped(err error) error {
	select {
	case <-l.stopped:
		return nil
	default:
		return err
	}
}

// measureInput collects what a measurement reads: the run's records, and the files that they name.
func (l *Loop) measureInput(ctx context.Context, id string, parsed record.Proposal) (measure.Input, error) {
	in := measure.Input{Proposal: parsed, Executions: map[string][]string{}}
	var err error
	if in.Records, err = l.cfg.Ledger.Records(ctx, id); err != nil {
		return in, err
	}
	for _, rec := range in.Records {
		f, ok, err := evidence.SampleFileOf(rec)
		if err != nil {
			return in, err
		}
		if !ok {
			continue
		}
		b, err := os.ReadFile(l.samplePath(id, filepath.Base(f.Path)))
		if err != nil {
			return in, fmt.Errorf("read samples: %w", err)
		}
		if f.Kind == string(record.Executions) {
			var e record.Executed
			if err := json.Unmarshal(rec.Data, &e); err != nil {
				return in, fmt.Errorf("record %d: %w", rec.Index, err)
			}
			in.Executions[e.Workload] = strings.Fields(string(b))
			continue
		}
		chunk, err := sample.DecodeChunk(b)
		if err != nil {
			return in, fmt.Errorf("%s: %w", f.Path, err)
		}
		in.Chunks = append(in.Chunks, chunk)
	}
	return in, nil
}

// reportFailed begins what stands in the place of a bundle that could not be written; the next term tries again.
const reportFailed = "failed: "

// finish writes the report and the bundle beside the loop, then shows them with the run and its findings.
func (l *Loop) finish(ctx context.Context, r *run) {
	if r.working {
		return
	}
	r.working = true
	id, parsed, saved, state := r.id(), r.parsed, r.saved, r.machine.State
	l.tasks.Go(func() error {
		dir := filepath.Join(l.cfg.Dir, "reports", id)
		result, findings, err := l.writeBundle(ctx, dir, id, parsed, saved)
		if err != nil {
			l.cfg.Logger.Error("evidence not written", "run", id, "err", err)
			dir = reportFailed + err.Error()
		}
		return l.unlessStopped(l.do(ctx, func(ctx context.Context) error {
			return l.concluded(ctx, r, dir, state.Verdict, result, findings)
		}))
	})
}

func (l *Loop) writeBundle(ctx context.Context, dir, id string, parsed record.Proposal, saved savedRun) (measure.Result, []api.FindingSpec, error) {
	var result measure.Result
	in, err := l.measureInput(ctx, id, parsed)
	if err != nil {
		return result, nil, err
	}
	if result, err = measure.Run(in); err != nil {
		return result, nil, err
	}
	bundle, err := l.cfg.Ledger.Bundle(ctx, id)
	if err != nil {
		return result, nil, err
	}
	head, err := evidence.OpenCheckpoint(bundle.Checkpoint, l.cfg.Signer.VerifierKey())
	if err != nil {
		return result, nil, err
	}
	rep, err := report.Build(report.Input{Input: in, Checkpoint: bundle.Checkpoint, Log: head})
	if err != nil {
		return result, nil, err
	}
	if bundle.ReportJSON, err = rep.Encode(); err != nil {
		return result, nil, err
	}
	var page bytes.Buffer
	if err := report.HTML(&page, rep); err != nil {
		return result, nil, err
	}
	bundle.Proposal, bundle.Approvals, bundle.Objectives, bundle.ReportHTML = saved.Proposal, saved.Approvals, rep.Objectives(), page.Bytes()
	bundle.Open = func(f evidence.SampleFile) (io.ReadCloser, error) {
		return os.Open(l.samplePath(id, filepath.Base(f.Path)))
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return result, nil, err
	}
	// A bundle that a process before this one has begun is worth nothing.
	if err := os.RemoveAll(dir); err != nil {
		return result, nil, err
	}
	return result, measure.Findings(result, parsed), evidence.WriteBundle(dir, bundle)
}

// concluded shows the bundle and the findings, and judges the findings that this run retested.
func (l *Loop) concluded(ctx context.Context, r *run, dir string, verdict drill.Verdict, result measure.Result, findings []api.FindingSpec) error {
	r.saved.Report, r.working = dir, false
	r.saved.RTA = map[api.ServiceID]string{}
	for _, s := range result.Services {
		if s.Result == measure.Absorbed || s.Result == measure.Recovered {
			r.saved.RTA[s.Name] = fmt.Sprintf("%.1fs", s.RTA.Seconds())
		}
	}
	ops, err := r.ops()
	if err != nil {
		return err
	}
	var entries []entry
	for i, spec := range findings {
		f := &api.Finding{Type: api.Type{APIVersion: api.Version, Kind: api.KindFinding},
			Metadata: api.Metadata{Name: fmt.Sprintf("F-%s-%d", r.id(), i+1)}, Spec: spec}
		r.saved.Findings = append(r.saved.Findings, f.Metadata.Name)
		op, e, err := l.putFinding(f, "server")
		if err != nil {
			return err
		}
		e.Run = "" // this run is closed, and another may be open
		ops, entries = append(ops, op), append(entries, e)
	}
	retested, retestEntries, err := l.retests(r, verdict, result)
	if err != nil {
		return err
	}
	ops, entries = append(ops, retested...), append(entries, retestEntries...)
	final, err := r.ops() // again: the findings' names belong to the run
	if err != nil {
		return err
	}
	copy(ops, final)
	if _, err := l.commit(ctx, ops, entries...); err != nil {
		return err
	}
	return nil
}

// unfinishedRuns writes the bundles that a process before this one owed.
func (l *Loop) unfinishedRuns(ctx context.Context) {
	for _, r := range l.unfinished {
		l.finish(ctx, r)
	}
	l.unfinished = nil
}
