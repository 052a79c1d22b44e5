package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/internal/demo"
)

// peopleCommands are what people call.
func peopleCommands(s *streams) []*cobra.Command {
	var o demo.Options
	c := &cobra.Command{Use: "demo", RunE: func(cmd *cobra.Command, _ []string) error {
		o.Out, o.Progress = s.out, s.err
		res, err := demo.Run(cmd.Context(), o)
		fmt.Fprintf(s.err, "%+v\n", res)
		return err
	}}
	c.Flags().StringVar(&o.Scenario, "scenario", "site-loss", "")
	c.Flags().StringToStringVar(&o.Set, "set", nil, "")
	c.Flags().StringVar(&o.Dir, "dir", "", "")
	c.Flags().BoolVar(&o.Keep, "keep", false, "")
	c.Flags().BoolVar(&o.Fix, "fix", false, "")
	c.AddCommand(sampleAppCommand())
	return []*cobra.Command{c}
}
