package demo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/drill/report"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// answers says whether a GET is answered with 200.
func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // so that the connection can be used again
	return resp.StatusCode == http.StatusOK
}

// drill runs the plan's drill once. after outlives ctx: an interrupted run is aborted and restored before this returns.
func (d *demo) drill(ctx, after context.Context) (id, verdict string, err error) {
	run, err := d.admin.RunDrill(ctx, d.plan.drill, userapi.RunRequest{Parameters: d.plan.parameters})
	if err != nil {
		return "", "", err
	}
	id = run.Run.Metadata.Name
	v := view.NewDrill(d.opts.Progress, d.opts.Style, run.Proposal)
	d.say("\n")
	v.Head()
	for _, p := range d.people {
		if err := d.approve(ctx, p, id); err != nil {
			return id, "", err
		}
	}
	summary, err := d.follow(ctx, after, id, v)
	v.End()
	if err != nil {
		return id, "", err
	}
	if err := d.results(after, id); err != nil {
		return id, summary.Verdict, err
	}
	if ctx.Err() != nil {
		d.say("run %s aborted and restored: %s\n", id, summary.Verdict)
		return id, summary.Verdict, ctx.Err()
	}
	return id, summary.Verdict, nil
}

// approve signs the proposal's exact bytes with the person's own key.
func (d *demo) approve(ctx context.Context, p person, id string) error {
	proposal, err := p.client.Proposal(ctx, id)
	if err != nil {
		return err
	}
	key, err := p.client.ApprovalKey()
	if err != nil {
		return err
	}
	envelope, err := evidence.SignApproval(key, evidence.Approval{Run: id, ProposalSHA256: sha256Hex(proposal), Group: p.group,
		Decision: evidence.Approve, By: p.name, At: time.Now().UTC()})
	if err != nil {
		return err
	}
	_, err = p.client.Approve(ctx, id, envelope)
	return err
}

// follow shows the run until its evidence is written, keeps demo.json true, and aborts the run when ctx ends.
func (d *demo) follow(ctx, after context.Context, id string, v *view.Drill) (userapi.RunSummary, error) {
	var summary userapi.RunSummary
	watched, stop := context.WithCancel(after)
	defer stop()
	group, watched := errgroup.WithContext(watched)
	group.Go(func() error {
		defer stop()
		seen := int64(-1)
		for {
			err := d.admin.WatchRun(watched, id, func(e userapi.RunEvent) error {
				if e.Record != nil {
					if e.Record.Index <= seen {
						return nil // shown before the stream broke
					}
					seen = e.Record.Index
				}
				if e.Done != nil {
					summary = *e.Done
					return nil
				}
				v.Event(e)
				return nil
			})
			if err == nil || watched.Err() != nil || api.KindOf(err) != api.Unavailable {
				return err
			}
			if err := wait(watched, 250*time.Millisecond); err != nil { // the server is away
				return err
			}
		}
	})
	group.Go(func() error { return d.keepState(watched) })
	group.Go(func() error {
		select {
		case <-watched.Done():
			return nil
		case <-ctx.Done():
		}
		d.say("\ninterrupted: aborting the run and restoring (at most %v)\n", d.plan.spec.Lease.D()+10*time.Second)
		for {
			_, err := d.admin.Abort(watched, id, "interrupted by the user")
			if err == nil || api.KindOf(err) != api.Unavailable || wait(watched, 250*time.Millisecond) != nil {
				return nil // one that is done already needs no abort
			}
		}
	})
	err := group.Wait()
	if errors.Is(err, context.Canceled) && summary.ID != "" {
		err = nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = api.Errorf(api.Unavailable, "run/"+id, "did not end in time").WithHint("read the logs in %s", d.dir)
	}
	return summary, err
}

func wait(ctx context.Context, t time.Duration) error {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// keepState keeps demo.json true while processes come and go.
func (d *demo) keepState(ctx context.Context) error {
	for {
		if err := d.writeState(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		if wait(ctx, 200*time.Millisecond) != nil {
			return nil
		}
	}
}

// results copies the run's evidence into the demo's directory and prints the report.
func (d *demo) results(ctx context.Context, id string) error {
	b, err := d.admin.Report(ctx, id, "json")
	if err != nil {
		return err
	}
	page, err := d.admin.Report(ctx, id, "html")
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(d.dir, "report.json"), b, 0o600),
		os.WriteFile(filepath.Join(d.dir, "report.html"), page, 0o600)); err != nil {
		return err
	}
	bundle := filepath.Join(d.dir, "evidence", id)
	if err := os.MkdirAll(filepath.Dir(bundle), 0o700); err != nil {
		return err
	}
	if err := os.CopyFS(bundle, os.DirFS(filepath.Join(d.dir, "server", "reports", id))); err != nil {
		return fmt.Errorf("copy the evidence: %w", err)
	}
	key := filepath.Join(d.dir, "evidence.pub")
	if _, err := os.Stat(key); err != nil {
		pub, err := os.ReadFile(filepath.Join(d.dir, "server", "evidence.pub"))
		if err != nil {
			return err
		}
		if err := os.WriteFile(key, pub, 0o600); err != nil {
			return err
		}
	}
	var r report.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("decode report: %w", err)
	}
	if d.opts.JSON {
		_, err = d.opts.Out.Write(b)
		return err
	}
	if _, err := fmt.Fprintln(d.opts.Out); err != nil {
		return err
	}
	if err := report.Text(d.opts.Out, r, report.TextOptions{Colour: d.opts.Style.Color, Unicode: !d.opts.Style.ASCII}); err != nil {
		return err
	}
	_, err = fmt.Fprintf(d.opts.Out, "Files:  %s\n        %s\nVerify: livefire evidence verify %s --key %s\n",
		filepath.Join(d.dir, "report.json"), filepath.Join(d.dir, "report.html"), bundle, key)
	return err
}

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// fix applies the change of the run's first finding, runs the drill again and shows both measurements.
func (d *demo) fix(ctx, after context.Context, id, verdict string) (string, string, error) {
	run, err := d.admin.Run(ctx, id)
	if err != nil {
		return id, verdict, err
	}
	name := ""
	for _, f := range run.Run.Status.Findings {
		finding, err := d.finding(ctx, f)
		if err != nil {
			return id, verdict, err
		}
		if finding.Spec.Change != nil {
			name = f
			break
		}
	}
	if name == "" {
		d.say("\nno finding names a change: nothing to fix\n")
		return id, verdict, nil
	}
	resp, err := d.admin.ApplyFinding(ctx, name, userapi.FindingRequest{Reason: "livefire demo --fix"})
	if err != nil {
		return id, verdict, err
	}
	d.say("\nfix: %s %s\n", name, resp.Finding.Spec.What)
	for _, c := range resp.Changes {
		for _, f := range c.Fields {
			d.say("  ~ %s  %s: %v -> %v\n", c.Ref, f.Field(), f.Old, f.New)
		}
	}
	if err := d.waitReady(ctx, time.Now()); err != nil {
		return id, verdict, err
	}
	again, verdict, err := d.drill(ctx, after)
	if err != nil {
		return again, verdict, err
	}
	return again, verdict, d.compare(ctx, name)
}

func (d *demo) finding(ctx context.Context, name string) (f api.Finding, err error) {
	raw, err := d.admin.Get(ctx, api.Ref{Kind: api.KindFinding, Name: name})
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(raw, &f)
}

// compare prints what the finding predicted and what the second run measured.
func (d *demo) compare(ctx context.Context, name string) error {
	f, err := d.finding(ctx, name)
	if err != nil {
		return err
	}
	t, p := f.Spec.Retest, f.Spec.Predicted
	if t == nil || p == nil {
		_, err := fmt.Fprintf(d.opts.Out, "\n%s %s: not measured again\n", name, f.Spec.Status)
		return err
	}
	missed := ""
	if t.Missed {
		missed = "   prediction missed"
	}
	_, err = fmt.Fprintf(d.opts.Out, "\n%s %s\n  before     %.2f s\n  predicted  %.2f s%s\n  measured   %.2f s +- %.2f s\n  outcome    %s\n",
		name, f.Spec.Status, t.Before, p.After, missed, t.After, t.Uncertainty, t.Outcome)
	return err
}

// stop ends everything that the demo has started.
func (d *demo) stop(ctx context.Context) error {
	if d.procs == nil {
		return nil
	}
	err := d.procs.stop(ctx)
	d.life.close()
	for _, p := range d.people {
		p.client.Close()
	}
	if d.admin != nil {
		d.admin.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	d.say("everything that the demo started is gone; its files are in %s\n", d.dir)
	return err
}
