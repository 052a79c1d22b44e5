package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/report"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

func drillCommand(s *streams) *cobra.Command {
	return group("drill", "Rehearse a disaster: propose, approve, run, measure, report", `  livefire drill list
  livefire drill plan site-loss --set fault=pause
  livefire drill run site-loss
  livefire drill approve site-loss-20261120-1 --as security
  livefire drill report site-loss-20261120-1`,
		drillList(s), drillShow(s), drillPlan(s), drillRun(s), drillWatch(s), drillApprove(s, "approve"), drillApprove(s, "reject"), drillAbort(s), drillReport(s))
}

func drillList(s *streams) *cobra.Command {
	var out format
	c := &cobra.Command{
		Use: "list", Short: "List drills, and runs, newest first", Args: cobra.NoArgs, Example: "  livefire drill list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.call(cmd, func(ctx context.Context, c *client.Client) error {
				drills, err := fetch(ctx, c, api.KindDrill, nil)
				if err != nil {
					return err
				}
				runs, err := c.Runs(ctx)
				if err != nil {
					return err
				}
				return s.printDrills(out, drills, runs)
			})
		},
	}
	outputFlag(c, &out)
	return c
}

func (s *streams) printDrills(out format, drills []api.Object, runs []userapi.RunSummary) error {
	p := page{kind: "Drill", empty: "no drill"}
	p.head, p.wide = columns(api.KindDrill)
	for _, o := range drills {
		p.rows = append(p.rows, row(o))
		p.items = append(p.items, item{string(api.KindDrill), o.Meta().Name, o})
	}
	q := page{kind: "Run", head: []string{"RUN", "DRILL", "STATE", "VERDICT", "STARTED", "FINDINGS", "REASON"}, wide: 1, empty: "no run yet"}
	for _, r := range newestFirst(runs) {
		q.rows = append(q.rows, dashed(r.ID, r.Drill, r.State, r.Verdict, seconds(r.Started), strconv.Itoa(r.Findings), r.Reason))
		q.items = append(q.items, item{"Run", r.ID, r})
	}
	if out != "table" && out != "wide" {
		p.kind, p.items = "", append(p.items, q.items...) // a List of both
		return s.print(out, p)
	}
	if err := s.print(out, p); err != nil {
		return err
	}
	if len(q.rows) > 0 {
		if _, err := fmt.Fprintln(s.out); err != nil {
			return err
		}
	}
	return s.print(out, q)
}

// newestFirst puts the run that has not started yet, if there is one, before all others.
func newestFirst(runs []userapi.RunSummary) []userapi.RunSummary {
	out := slices.Clone(runs)
	slices.SortStableFunc(out, func(a, b userapi.RunSummary) int {
		switch {
		case a.Started == b.Started:
			return 0
		case a.Started == "" || b.Started != "" && a.Started > b.Started:
			return -1
		}
		return 1
	})
	return out
}

func drillShow(s *streams) *cobra.Command {
	var out format
	c := &cobra.Command{
		Use: "show RUN", Short: "Show a run: what was proposed, who approved, how it stands", Args: cobra.ExactArgs(1),
		Example: "  livefire drill show site-loss-20261120-1", ValidArgsFunction: s.completeNames(api.KindDrillRun),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.call(cmd, func(ctx context.Context, c *client.Client) error {
				r, err := c.Run(ctx, args[0])
				if err != nil {
					return err
				}
				style := s.style(s.out)
				return s.print(out, page{kind: "Run", one: true, items: []item{{"Run", args[0], r}}, text: func(w io.Writer) error { return writeRun(w, style, r) }})
			})
		},
	}
	outputFlag(c, &out, "table", "json", "yaml")
	return c
}

func writeRun(w io.Writer, style view.Style, r userapi.Run) error {
	var b strings.Builder
	st := r.Run.Status
	if err := writeProposal(&b, r.Proposal, st.ProposalSHA256); err != nil {
		return err
	}
	fmt.Fprintf(&b, "  run by        %s\n", r.Run.Spec.RunBy)
	for _, a := range st.Approvals {
		fmt.Fprintf(&b, "  %s approved    %s by %s at %s, key %.8s\n", style.OK(), a.Group, a.By, seconds(a.At), a.Key)
	}
	for _, group := range r.Missing {
		fmt.Fprintf(&b, "  %s missing     livefire drill approve %s --as %s\n", style.Warn(), r.Run.Metadata.Name, group)
	}
	fmt.Fprintf(&b, "  state         %s\n", strings.TrimSpace(st.State+" "+st.Reason))
	if st.Verdict != "" {
		fmt.Fprintf(&b, "  verdict       %s (the scenario expects %s), restored: %s\n", strings.ToUpper(st.Verdict), firstOf(r.Expect, api.VerdictPassed), yesNo(st.Restored))
	}
	for _, f := range st.Findings {
		fmt.Fprintf(&b, "  finding       %s\n", f)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

// writeProposal is the head of a proposal: what an approver must know before signing its bytes.
func writeProposal(w io.Writer, raw []byte, sha256 string) error {
	var p record.Proposal
	if err := json.Unmarshal(raw, &p); err != nil {
		return fmt.Errorf("decode proposal: %w", err)
	}
	var b strings.Builder
	d := p.Drill.Spec
	fmt.Fprintf(&b, "%s\n", firstOf(p.Run, "plan of "+p.Drill.Metadata.Name))
	fmt.Fprintf(&b, "  drill         %s, scenario %s%s\n", p.Drill.Metadata.Name, p.Scenario.Metadata.Name, parameters(d.Parameters))
	fmt.Fprintf(&b, "  scope         site %s, services %s\n", d.Scope.Site, joined(d.Scope.Services))
	for _, f := range p.Scenario.Spec.Faults {
		target := "the server"
		if f.Target.Site != "" {
			target = f.Target.Site
		}
		fmt.Fprintf(&b, "  fault         %s of %s", f.Kind, target)
		if f.After > 0 {
			fmt.Fprintf(&b, ", %s after the first", f.After)
		}
		fmt.Fprintf(&b, ", ends by itself after %s\n", d.Lease)
	}
	fmt.Fprintf(&b, "  blast radius  %d of at most %d processes now, only at %s", p.Blast.Processes, p.Blast.MaxTargets, p.Blast.Site)
	for _, service := range p.Blast.Services {
		if share, ok := p.Blast.ErrorBudget[service]; ok {
			fmt.Fprintf(&b, "; %s: about %.2g %% of requests may fail", service, 100*share)
		}
	}
	b.WriteByte('\n')
	fmt.Fprintf(&b, "  durations     baseline %s, hold %s, verify %s, deadline %s\n", d.Baseline, d.Hold, d.Verify, d.Deadline)
	for _, g := range d.Guardrails {
		fmt.Fprintf(&b, "  guardrail     abort if success of %s < %g %% over %s\n", g.Service, 100*g.Success.Min, g.Over)
	}
	for _, svc := range p.Services {
		o := svc.Spec.Objectives
		fmt.Fprintf(&b, "  objectives    %s: RTO %s, RPO %s, success %s\n", svc.Metadata.Name, dash(span(o.RTO)), dash(span(o.RPO)), dash(percent(o.Success)))
	}
	fmt.Fprintf(&b, "  approvals     %s\n", strings.Join(d.Approvals, ", "))
	if sha256 != "" {
		fmt.Fprintf(&b, "  sha256        %s\n", sha256)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func parameters(m map[string]string) string {
	var out []string
	for _, name := range sortedNames(m) {
		out = append(out, name+"="+m[name])
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, ", ") + ")"
}

func drillPlan(s *streams) *cobra.Command {
	var out format
	var set map[string]string
	c := &cobra.Command{
		Use: "plan DRILL [--set K=V]", Short: "Show what a run would propose; open none", Args: cobra.ExactArgs(1),
		Example: "  livefire drill plan site-loss --set fault=pause", ValidArgsFunction: s.completeNames(api.KindDrill),
		RunE: func(cmd *cobra.Command, args []string) error {
			return s.call(cmd, func(ctx context.Context, c *client.Client) error {
				r, err := c.RunDrill(ctx, args[0], userapi.RunRequest{Parameters: set, PlanOnly: true})
				if err != nil {
					return s.refused(err)
				}
				return s.print(out, page{kind: "Proposal", one: true, items: []item{{"Proposal", args[0], r.Proposal}},
					text: func(w io.Writer) error { return writeProposal(w, r.Proposal, "") }})
			})
		},
	}
	c.Flags().StringToStringVar(&set, "set", nil, "NAME=VALUE, a parameter of the scenario; may be repeated")
	outputFlag(c, &out, "table", "json", "yaml")
	return c
}

func drillAbort(s *streams) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "abort RUN --reason TEXT", Short: "End a run: it restores and closes as aborted", Args: cobra.ExactArgs(1),
		Example: `  livefire drill abort site-loss-20261120-1 --reason "real incident"`, ValidArgsFunction: s.completeNames(api.KindDrillRun),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usagef(cmd, "--reason is required")
			}
			return s.call(cmd, func(ctx context.Context, c *client.Client) error {
				r, err := c.Abort(ctx, args[0], reason)
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintf(s.out, "run %s: %s\n", args[0], r.Run.Status.State); err != nil {
					return err
				}
				s.note("Next: livefire drill watch %s\n", args[0])
				return nil
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the log")
	return c
}

func drillReport(s *streams) *cobra.Command {
	var out format
	var file string
	c := &cobra.Command{
		Use: "report RUN", Short: "Print the report of a finished run", Args: cobra.ExactArgs(1),
		Example: `  livefire drill report site-loss-20261120-1
  livefire drill report site-loss-20261120-1 -o html --out report.html
  livefire drill report site-loss-20261120-1 -o junit > report.xml`,
		Long:              "Exit status: that of the run's verdict.",
		ValidArgsFunction: s.completeNames(api.KindDrillRun),
		RunE:              func(cmd *cobra.Command, args []string) error { return s.report(cmd, args[0], out, file) },
	}
	c.Flags().StringVar(&file, "out", "", "write to this file instead of stdout")
	outputFlag(c, &out, "text", "json", "html", "junit", "markdown")
	return c
}

func (s *streams) report(cmd *cobra.Command, id string, out format, file string) error {
	var raw, page []byte
	err := s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		if raw, err = c.Report(ctx, id, "json"); err == nil && out == "html" {
			page, err = c.Report(ctx, id, "html")
		}
		return err
	})
	if err != nil {
		return err
	}
	var r report.Report
	if err := json.Unmarshal(raw, &r); err != nil {
		return fmt.Errorf("decode report: %w", err)
	}
	var b strings.Builder
	style := s.style(s.out)
	switch out {
	case "json":
		b.Write(raw)
	case "html":
		b.Write(page)
	case "junit":
		err = report.JUnit(&b, r)
	case "markdown":
		err = report.Markdown(&b, r)
	default:
		err = report.Text(&b, r, report.TextOptions{Colour: style.Color && file == "", Unicode: !style.ASCII})
	}
	if err != nil {
		return err
	}
	if file == "" {
		_, err = io.WriteString(s.out, b.String())
	} else if err = os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		err = api.Errorf(api.Invalid, file, "report not written: %v", err)
	}
	if err != nil {
		return err
	}
	return asStatus(verdictStatus(r.Run.Verdict))
}
