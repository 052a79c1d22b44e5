package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// layHelpOut puts the examples of a command before everything else that its help says.
func layHelpOut(root *cobra.Command) {
	root.SetHelpTemplate(`{{.Short}}
{{if .HasExample}}
{{.Example}}
{{end}}{{with .Long}}
{{. | trimTrailingWhitespaces}}
{{end}}{{if or .Runnable .HasSubCommands}}
{{.UsageString}}{{end}}`)
	root.SetUsageTemplate(`Usage:
  {{if and .HasAvailableSubCommands .HasParent}}{{.CommandPath}} COMMAND{{else if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}
{{if .HasAvailableSubCommands}}
Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasAvailableInheritedFlags}}
Flags of every command:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasHelpSubCommands}}
Topics:{{range .Commands}}{{if .IsAdditionalHelpTopicCommand}}
  {{rpad .CommandPath .CommandPathPadding}} {{.Short}}{{end}}{{end}}
{{end}}`)
}

// showHelp is what a group of commands does when it is called alone.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// unknownCommand refuses the argument of a group of commands and names the nearest that it knows.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	near := ""
	if list := cmd.SuggestionsFor(args[0]); len(list) > 0 {
		near = fmt.Sprintf("; did you mean %s?", strings.Join(list, " or "))
	}
	return usagef(cmd, "unknown command %q for %q%s", args[0], cmd.CommandPath(), near)
}

// group is a noun with verbs below it.
func group(use, short, example string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: example, Args: unknownCommand, RunE: showHelp}
	c.AddCommand(verbs...)
	return c
}

// exitStatuses is the one table of exit statuses that people read.
var exitStatuses = []struct {
	status int
	means  string
}{
	{ExitOK, "yes: it was done, or the answer is good"},
	{ExitNo, "the answer is no: a check failed, an objective was missed, something differs, it was not confirmed"},
	{ExitUsage, "usage, an invalid file, or something that does not exist"},
	{ExitUnavailable, "could not run: unreachable, too late, not supported here"},
	{ExitRefused, "refused: a rule, a missing approval, a role, a conflict"},
	{ExitAborted, "a run was aborted and restored"},
	{ExitNotRestored, "a run was aborted and NOT restored: somebody must look at it now"},
	{ExitInterrupted, "interrupted, after restoring (6 if that failed)"},
}

func exitCodesTopic() *cobra.Command {
	c := &cobra.Command{Use: "exit-codes", Short: "What the exit statuses mean"}
	c.SetHelpFunc(func(cmd *cobra.Command, _ []string) { _ = printExitCodes(cmd.OutOrStdout()) }) // a terminal that is gone
	return c
}

func printExitCodes(w io.Writer) error {
	rows := [][]string{}
	for _, e := range exitStatuses {
		rows = append(rows, []string{fmt.Sprintf("%6d", e.status), e.means})
	}
	if err := table(w, []string{"STATUS", "MEANS"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, "\nThe status of a run follows its verdict: passed 0, failed 1, inconclusive 1, aborted 5, dirty 6.\nOf several runs the worst counts.\n")
	return err
}

// verdictStatus is the exit status of a run's verdict.
func verdictStatus(verdict string) int {
	switch verdict {
	case "passed":
		return ExitOK
	case "aborted":
		return ExitAborted
	case "dirty":
		return ExitNotRestored
	}
	return ExitNo // failed, inconclusive, and a verdict that this version does not know
}

// asStatus is the error that ends a command with a status after it has said everything.
func asStatus(code int) error {
	if code == ExitOK {
		return nil
	}
	return status(code)
}
