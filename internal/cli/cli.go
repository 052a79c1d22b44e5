// Package cli is the commands: each parses, calls the API or starts a process, and prints. It decides nothing.
//
// Main runs one command line and returns its exit status; docs/reference/exit-codes.md lists them.
//
// Errors: printed as "livefire: error: ..." and "livefire: hint: ..."; the kind of an *api.Error gives the status.
// Concurrency: one command at a time.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
)

// Exit statuses.
const (
	ExitOK          = 0
	ExitNo          = 1   // the answer is no: check failed, objective missed, differs
	ExitUsage       = 2   // usage, or an invalid file
	ExitUnavailable = 3   // could not run: unreachable, timeout, unsupported
	ExitRefused     = 4   // a rule, a missing approval, a role
	ExitAborted     = 5   // aborted and restored
	ExitNotRestored = 6   // aborted and not restored
	ExitInterrupted = 130 // interrupted, after restoring
)

// status is an exit status without a message: the command has said everything.
type status int

func (s status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// streams are where a command reads and writes.
type streams struct {
	in  io.Reader
	out io.Writer // results
	err io.Writer // progress, prompts, errors

	global // flags of every command
}

// Main runs one command line.
func Main(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot(&streams{in: in, out: out, err: errOut})
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errOut)
	err := root.ExecuteContext(ctx)
	return exit(errOut, err)
}

// exit prints an error and gives its status.
func exit(w io.Writer, err error) int {
	if err == nil {
		return ExitOK
	}
	var code status
	if errors.As(err, &code) {
		return int(code)
	}
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(w, "livefire: error: %v\n", usage.err)
		fmt.Fprintf(w, "livefire: hint: %s --help\n", usage.command)
		return ExitUsage
	}
	if errors.Is(err, context.Canceled) {
		return ExitInterrupted
	}
	fmt.Fprintf(w, "livefire: error: %v\n", err)
	var e *api.Error
	if errors.As(err, &e) {
		if e.Hint != "" {
			fmt.Fprintf(w, "livefire: hint: %s\n", e.Hint)
		}
		if e.Code != "" {
			fmt.Fprintf(w, "livefire: hint: livefire explain %s\n", e.Code)
		}
		return e.Kind.ExitCode()
	}
	return ExitUnavailable
}

// usageError is a command line that was not understood.
type usageError struct {
	command string
	err     error
}

func (u *usageError) Error() string { return u.err.Error() }

// usagef is a usage error of a command.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd.CommandPath(), err: fmt.Errorf(format, args...)}
}

// newRoot is the tree of commands.
func newRoot(s *streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "livefire",
		Short: "A service mesh built for disaster recovery, proven by live fire drills",
		Example: `  livefire demo                          # two sites, real processes, a real drill, a report
  livefire server --data-dir DIR         # the control plane
  livefire status -w                     # one screen`,
		SilenceUsage: true, SilenceErrors: true,
		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{command: cmd.CommandPath(), err: err} })
	root.Args, root.RunE = unknownCommand, showHelp
	addGlobalFlags(root, s)
	layHelpOut(root)
	root.AddCommand(processCommands(s)...)
	root.AddCommand(peopleCommands(s)...)
	for _, c := range allCommands(root) {
		if c.Args != nil {
			checked := c.Args
			c.Args = func(cmd *cobra.Command, args []string) error {
				if err := checked(cmd, args); err != nil {
					var usage *usageError
					if errors.As(err, &usage) {
						return err
					}
					return &usageError{command: cmd.CommandPath(), err: err}
				}
				return nil
			}
		}
	}
	return root
}

func allCommands(c *cobra.Command) []*cobra.Command {
	out := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		out = append(out, allCommands(sub)...)
	}
	return out
}
