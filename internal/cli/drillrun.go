package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/drill/report"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func drillRun(s *streams) *cobra.Command {
	var out format
	var limit time.Duration
	var set map[string]string
	c := &cobra.Command{
		Use: "run DRILL [--set K=V]", Short: "Open a run, wait for its approvals, and watch it", Args: cobra.ExactArgs(1),
		Example: `  livefire drill run site-loss
  livefire drill run site-loss --set fault=pause --wait 30m
  livefire drill run site-loss -o jsonl > events.jsonl`,
		Long: `Ctrl-C aborts the run and restores; a second one within 5 s detaches, and the server goes on restoring.

Exit status: 0 passed; 1 failed or inconclusive; 5 aborted and restored; 6 NOT restored; 130 interrupted and restored.`,
		ValidArgsFunction: s.completeNames(api.KindDrill),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			// An interrupted run must still be aborted and watched: the signals are read here, not by ctx.
			interrupts := make(chan os.Signal, 2)
			signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
			defer signal.Stop(interrupts)
			ctx := context.WithoutCancel(cmd.Context())
			opening, cancel := context.WithTimeout(cmd.Context(), answerLimit)
			run, err := c.RunDrill(opening, args[0], userapi.RunRequest{Parameters: set})
			cancel()
			if err != nil {
				return s.refused(err)
			}
			w := newWatch(s, c, run, out)
			w.interrupts, w.mine, w.limit = interrupts, true, limit
			w.head()
			return w.run(ctx)
		},
	}
	c.Flags().StringToStringVar(&set, "set", nil, "NAME=VALUE, a parameter of the scenario; may be repeated")
	c.Flags().DurationVar(&limit, "wait", 15*time.Minute, "how long to wait for approvals")
	outputFlag(c, &out, "table", "json", "jsonl")
	return c
}

func drillWatch(s *streams) *cobra.Command {
	var out format
	c := &cobra.Command{
		Use: "watch RUN", Short: "Watch a run; Ctrl-C detaches, and the run goes on", Args: cobra.ExactArgs(1),
		Example: "  livefire drill watch site-loss-20261120-1", ValidArgsFunction: s.completeNames(api.KindDrillRun),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.connect()
			if err != nil {
				return err
			}
			defer c.Close()
			interrupts := make(chan os.Signal, 2)
			signal.Notify(interrupts, os.Interrupt, syscall.SIGTERM)
			defer signal.Stop(interrupts)
			asking, cancel := context.WithTimeout(cmd.Context(), answerLimit)
			run, err := c.Run(asking, args[0])
			cancel()
			if err != nil {
				return err
			}
			w := newWatch(s, c, run, out)
			w.interrupts = interrupts
			w.head()
			return w.run(context.WithoutCancel(cmd.Context()))
		},
	}
	outputFlag(c, &out, "table", "json", "jsonl")
	return c
}

// head prints what the run is and what it still needs.
func (w *watch) head() {
	if w.out == "jsonl" {
		return
	}
	w.view.Head()
	if len(w.missing) == 0 {
		return
	}
	w.s.note("Approvals are missing; each by a person of that group:\n")
	for _, group := range w.missing {
		w.s.note("  livefire drill approve %s --as %s\n", w.id, group)
	}
}

// finish prints the end of a run and gives the command's status.
func (w *watch) finish(ctx context.Context, sum userapi.RunSummary) error {
	w.view.End()
	switch w.out {
	case "jsonl": // the last line was the event itself
	case "json":
		if err := w.s.print("json", page{kind: "Run", one: true, items: []item{{"Run", sum.ID, sum}}}); err != nil {
			return err
		}
	default:
		w.table(ctx)
		if err := writeVerdict(w.s.out, sum); err != nil {
			return err
		}
	}
	if w.aborting && sum.Verdict == "aborted" {
		return status(ExitInterrupted)
	}
	return asStatus(verdictStatus(sum.Verdict))
}

// table prints the measured numbers. A run that was aborted early has no report; its verdict says enough.
func (w *watch) table(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	b, err := w.c.Report(ctx, w.id, "json")
	if err != nil {
		w.s.note("no report: %v\n", err)
		return
	}
	var r report.Report
	if err := json.Unmarshal(b, &r); err != nil {
		w.s.note("no report: %v\n", err)
		return
	}
	style := w.s.style(w.s.out)
	_ = report.Table(w.s.out, r, report.TextOptions{Colour: style.Color, Unicode: !style.ASCII}) // a terminal that is gone
}

func writeVerdict(w io.Writer, sum userapi.RunSummary) error {
	text := "Verdict " + strings.ToUpper(sum.Verdict)
	switch {
	case sum.Findings == 1:
		text += " with 1 finding"
	case sum.Findings > 1:
		text += fmt.Sprintf(" with %d findings", sum.Findings)
	}
	if sum.Reason != "" {
		text += " (" + sum.Reason + ")"
	}
	_, err := fmt.Fprintf(w, "%s.\nNext: livefire drill report %s\n", text, sum.ID)
	return err
}

// newWatch is a watch of a run as it stands.
func newWatch(s *streams, c *client.Client, run userapi.Run, out format) *watch {
	v := view.NewDrill(s.err, s.style(s.err), run.Proposal)
	return &watch{s: s, c: c, id: run.Run.Metadata.Name, out: out, view: v, state: run.Run.Status.State, missing: slices.Clone(run.Missing),
		grace: detachWith, seen: -1, shown: map[api.ServiceID]time.Time{}}
}
