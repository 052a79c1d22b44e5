package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/examples"
	"github.com/livefire-mesh/livefire/internal/demo"
)

func demoCommand(s *streams) *cobra.Command {
	var o demo.Options
	var list bool
	var out format
	c := &cobra.Command{
		Use:   "demo",
		Short: "Two sites of real processes on this machine, a real drill, a report",
		Example: `  livefire demo                                 # lose a site, measure the recovery
  livefire demo --fix                           # then apply the first finding's change, and measure again
  livefire demo --scenario site-loss --set fault=pause --set hold=20s
  livefire demo --list                          # scenarios, parameters, settings
  livefire demo --keep                          # stay, and look around with the other commands`,
		Long: `Starts a server, three agents, and sidecars and sample services at two sites, all of them processes of this
machine, and runs a drill against them. Everything ends with the demo. Ctrl-C aborts and restores.

Exit status: 0 when the run ended with the verdict that the scenario expects; otherwise as for a run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if list {
				return s.listScenarios(out)
			}
			if err := linuxOnly(cmd.CommandPath()); err != nil {
				return err
			}
			s.note("livefire demo: two sites, real processes, one drill, about 40 s (with `go run` the first build takes a minute or two)\n")
			o.Out, o.Progress, o.Style, o.JSON = s.out, s.err, s.style(s.err), out == "json"
			res, err := demo.Run(cmd.Context(), o)
			return demoStatus(res, err)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Scenario, "scenario", "site-loss", "scenario to run (see --list)")
	f.StringToStringVar(&o.Set, "set", nil, "NAME=VALUE, a parameter or a setting (see --list); may be repeated")
	f.StringVar(&o.Dir, "dir", "", "new directory for everything (default livefire-demo/TIME)")
	f.BoolVar(&o.Keep, "keep", false, "stay until Ctrl-C")
	f.BoolVar(&o.Fix, "fix", false, "apply the first finding's change and run the drill again")
	f.BoolVar(&list, "list", false, "print scenarios, their parameters and the settings")
	outputFlag(c, &out, "table", "json")
	c.AddCommand(sampleAppCommand())
	return c
}

// demoStatus: a demo that shows what its scenario promises ends well, also if that is a failed or an aborted run.
func demoStatus(res demo.Result, err error) error {
	switch {
	case errors.Is(err, context.Canceled) && res.Verdict == "dirty":
		return status(ExitNotRestored)
	case err != nil:
		return err
	}
	expect := res.Expect
	if expect == "" {
		expect = api.VerdictPassed
	}
	if res.Verdict == expect {
		return nil
	}
	return asStatus(verdictStatus(res.Verdict))
}

// demoScenario is a scenario of the demo as --list shows it.
type demoScenario struct {
	Name       string                   `json:"name"`
	Shows      string                   `json:"shows"`
	Expect     string                   `json:"expect"`
	Parameters map[string]api.Parameter `json:"parameters"`
}

func (s *streams) listScenarios(out format) error {
	docs, err := api.DecodeFS(examples.FS, examples.DemoResources()...)
	if err != nil {
		return err
	}
	known := demo.Scenarios()
	p := page{kind: "DemoScenario", head: []string{"SCENARIO", "EXPECTS", "PARAMETERS", "SHOWS"}}
	for _, d := range docs {
		sc, ok := d.Object.(*api.Scenario)
		shows, shown := known[d.Object.Meta().Name]
		if !ok || !shown {
			continue
		}
		var params []string
		for _, name := range slices.Sorted(maps.Keys(sc.Spec.Parameters)) {
			v := sc.Spec.Parameters[name]
			text := name
			if len(v.Enum) > 0 {
				text += "=" + strings.Join(v.Enum, "|")
			}
			if v.Default != "" {
				text += " (default " + v.Default + ")"
			}
			params = append(params, text)
		}
		p.rows = append(p.rows, []string{sc.Metadata.Name, sc.Spec.Expect.Verdict, dash(strings.Join(params, ", ")), shows})
		p.items = append(p.items, item{p.kind, sc.Metadata.Name, demoScenario{sc.Metadata.Name, shows, sc.Spec.Expect.Verdict, sc.Spec.Parameters}})
	}
	if err := s.print(out, p); err != nil || out == "json" {
		return err
	}
	rows := [][]string{}
	known = demo.Settings()
	for _, name := range slices.Sorted(maps.Keys(known)) {
		rows = append(rows, []string{name, known[name]})
	}
	if _, err := fmt.Fprintln(s.out); err != nil {
		return err
	}
	return table(s.out, []string{"SETTING", "MEANS"}, rows)
}
