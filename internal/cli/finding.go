package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

func findingCommand(s *streams) *cobra.Command {
	return group("finding", "Gaps that runs have found, and the changes that close them", `  livefire finding list
  livefire finding show F-site-loss-20261120-1-1
  livefire finding apply F-site-loss-20261120-1-1 --dry-run
  livefire finding close F-site-loss-20261120-1-1 --reason "accepted until March"`,
		findingList(s), findingShow(s), findingApply(s), findingClose(s))
}

func findingList(s *streams) *cobra.Command {
	var out format
	var all bool
	c := &cobra.Command{
		Use: "list", Short: "List findings that are open", Args: cobra.NoArgs, Example: "  livefire finding list --all -o wide",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var objects []api.Object
			err := s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				objects, err = fetch(ctx, c, api.KindFinding, nil)
				return err
			})
			if err != nil {
				return err
			}
			p := page{kind: string(api.KindFinding), empty: "no open finding"}
			p.head, p.wide = columns(api.KindFinding)
			for _, o := range objects {
				f := o.(*api.Finding)
				if all || f.Spec.Status == api.FindingOpen || f.Spec.Status == api.FindingApplied || f.Spec.Status == api.FindingNotHelped {
					p.rows = append(p.rows, row(f))
					p.items = append(p.items, item{p.kind, f.Metadata.Name, f})
				}
			}
			return s.print(out, p)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "closed and waived ones too")
	outputFlag(c, &out)
	return c
}

func findingShow(s *streams) *cobra.Command {
	var out format
	c := &cobra.Command{
		Use: "show FINDING", Short: "Show a finding, its change and the predicted effect", Args: cobra.ExactArgs(1),
		Example: "  livefire finding show F-site-loss-20261120-1-1", ValidArgsFunction: s.completeNames(api.KindFinding),
		RunE: func(cmd *cobra.Command, args []string) error {
			var objects []api.Object
			err := s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				objects, err = fetch(ctx, c, api.KindFinding, args)
				return err
			})
			if err != nil {
				return err
			}
			f := objects[0].(*api.Finding)
			style := s.style(s.out)
			return s.print(out, page{kind: string(api.KindFinding), one: true, items: []item{{"Finding", f.Metadata.Name, f}},
				text: func(w io.Writer) error { return writeFinding(w, style, *f) }})
		},
	}
	outputFlag(c, &out, "table", "json", "yaml")
	return c
}

// writeFinding shows what was found, the change as a diff, what it should do, and what a retest measured.
func writeFinding(w io.Writer, style view.Style, f api.Finding) error {
	var b strings.Builder
	v := f.Spec
	fmt.Fprintf(&b, "%s  %s  %s  %s\n", f.Metadata.Name, v.Severity, v.Code, v.Status)
	fmt.Fprintf(&b, "  %s\n", v.What)
	if v.Service != "" {
		fmt.Fprintf(&b, "  service     %s\n", v.Service)
	}
	if v.Run != "" {
		fmt.Fprintf(&b, "  found by    %s", v.Run)
		if len(v.Evidence) > 0 {
			fmt.Fprintf(&b, ", records %s", strings.Trim(fmt.Sprint(v.Evidence), "[]"))
		}
		b.WriteByte('\n')
	}
	if v.Change != nil {
		fmt.Fprintf(&b, "  change of   %s\n", v.Change.Resource)
		for _, op := range v.Change.Patch {
			fmt.Fprintf(&b, "    %s\n", fieldLine(style, patchChange(op)))
		}
	}
	if p := v.Predicted; p != nil {
		fmt.Fprintf(&b, "  predicted   %s %.2f s -> %.2f s\n", p.Quantity, p.Before, p.After)
	}
	if t := v.Retest; t != nil {
		fmt.Fprintf(&b, "  retest      %s: %.2f s -> %.2f s +- %.2f s in %s", t.Outcome, t.Before, t.After, t.Uncertainty, t.Run)
		if t.Missed {
			b.WriteString("; prediction missed")
		}
		b.WriteByte('\n')
	}
	if v.Reason != "" {
		fmt.Fprintf(&b, "  reason      %s\n", v.Reason)
	}
	if v.Change != nil && (v.Status == api.FindingOpen || v.Status == api.FindingNotHelped) {
		fmt.Fprintf(&b, "Next: livefire finding apply %s\n", f.Metadata.Name)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// patchChange is one operation of a patch as a change of a field.
func patchChange(op api.PatchOp) api.FieldChange {
	c := api.FieldChange{Path: "$" + strings.ReplaceAll(op.Path, "/", "."), Old: op.Old, New: op.Value}
	if op.Op == "remove" {
		c.New = nil
	}
	return c
}

func findingApply(s *streams) *cobra.Command {
	var out format
	var yes bool
	var r userapi.FindingRequest
	c := &cobra.Command{
		Use: "apply FINDING", Short: "Make the change that a finding names", Args: cobra.ExactArgs(1),
		Example: `  livefire finding apply F-site-loss-20261120-1-1 --dry-run
  livefire finding apply F-site-loss-20261120-1-1 --yes`, ValidArgsFunction: s.completeNames(api.KindFinding),
		RunE: func(cmd *cobra.Command, args []string) error {
			plan, err := s.changeFinding(cmd, args[0], userapi.FindingRequest{DryRun: true}, (*client.Client).ApplyFinding)
			if err != nil {
				return err
			}
			if r.DryRun {
				return s.printApplied(out, plan, true)
			}
			if !yes {
				if err := writeChanges(s.err, s.style(s.err), plan.Changes); err != nil {
					return err
				}
				if err := s.confirm(cmd, "apply: "+countChanges(plan.Changes), "yes", "--yes"); err != nil {
					return err
				}
			}
			done, err := s.changeFinding(cmd, args[0], r, (*client.Client).ApplyFinding)
			if err != nil {
				return err
			}
			return s.printApplied(out, done, false)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&r.DryRun, "dry-run", false, "say what would change; change nothing")
	c.Flags().StringVar(&r.Reason, "reason", "", "why, for the log")
	outputFlag(c, &out, "table", "json", "yaml")
	return c
}

func (s *streams) changeFinding(cmd *cobra.Command, id string, r userapi.FindingRequest,
	call func(*client.Client, context.Context, string, userapi.FindingRequest) (userapi.FindingResponse, error)) (out userapi.FindingResponse, err error) {
	err = s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		out, err = call(c, ctx, id, r)
		return err
	})
	return out, err
}

func (s *streams) printApplied(out format, r userapi.FindingResponse, dryRun bool) error {
	style := s.style(s.out)
	return s.print(out, page{kind: "FindingChange", one: true, items: []item{{"FindingChange", r.Finding.Metadata.Name, r}}, text: func(w io.Writer) error {
		if err := writeChanges(w, style, r.Changes); err != nil {
			return err
		}
		if dryRun {
			_, err := fmt.Fprintf(w, "Dry run: %s. Nothing was changed.\n", countChanges(r.Changes))
			return err
		}
		if _, err := fmt.Fprintf(w, "%s %s is %s\n", style.OK(), r.Finding.Metadata.Name, r.Finding.Spec.Status); err != nil {
			return err
		}
		s.note("Next: run the drill again; the run measures whether it helped\n")
		return nil
	}})
}

func findingClose(s *streams) *cobra.Command {
	var out format
	var r userapi.FindingRequest
	c := &cobra.Command{
		Use: "close FINDING --reason TEXT", Short: "Close a finding by a person's word", Args: cobra.ExactArgs(1),
		Example: `  livefire finding close F-site-loss-20261120-1-1 --reason "accepted until March"`, ValidArgsFunction: s.completeNames(api.KindFinding),
		RunE: func(cmd *cobra.Command, args []string) error {
			if r.Reason == "" {
				return usagef(cmd, "--reason is required")
			}
			done, err := s.changeFinding(cmd, args[0], r, (*client.Client).CloseFinding)
			if err != nil {
				return err
			}
			style := s.style(s.out)
			return s.print(out, page{kind: "FindingChange", one: true, items: []item{{"FindingChange", args[0], done}}, text: func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s %s is %s\n", style.OK(), args[0], done.Finding.Spec.Status)
				return err
			}})
		},
	}
	c.Flags().StringVar(&r.Reason, "reason", "", "why, for the log")
	outputFlag(c, &out, "table", "json", "yaml")
	return c
}
