package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/demo"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"livefire": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }})
}

// TestScripts runs the commands that need no server as a shell would: testdata/script/*.txtar.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("LC_ALL", "C.UTF-8")
			return writeBundles(e.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": wantStatus},
	})
}

// wantStatus is `status N command...`: the command must end with exactly this status.
func wantStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	var ended interface{ ExitCode() int }
	if errors.As(err, &ended) {
		got = fmt.Sprint(ended.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != args[0] {
		ts.Fatalf("%s ended with status %s, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// TestExitStatusFollowsTheErrorsKind is the table of docs/reference/exit-codes.md.
func TestExitStatusFollowsTheErrorsKind(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want int
	}{
		"done":                              {nil, ExitOK},
		"the answer is no":                  {status(ExitNo), ExitNo},
		"usage":                             {&usageError{"livefire get", errors.New("x")}, ExitUsage},
		"invalid":                           {api.Errorf(api.Invalid, "f", "x"), ExitUsage},
		"not found":                         {api.Errorf(api.NotFound, "f", "x"), ExitUsage},
		"unreachable":                       {api.Errorf(api.Unavailable, "s", "x"), ExitUnavailable},
		"internal":                          {api.Errorf(api.Internal, "s", "x"), ExitUnavailable},
		"unknown error":                     {io.ErrUnexpectedEOF, ExitUnavailable},
		"refused":                           {api.Errorf(api.Denied, "s", "x"), ExitRefused},
		"conflict":                          {api.Errorf(api.Conflict, "s", "x"), ExitRefused},
		"interrupted":                       {context.Canceled, ExitInterrupted},
		"interrupted while waiting for it":  {errors.Join(api.Errorf(api.Unavailable, "s", "x"), context.Canceled), ExitInterrupted},
		"wrapped":                           {fmt.Errorf("do: %w", api.Errorf(api.Denied, "s", "x")), ExitRefused},
		"aborted":                           {asStatus(verdictStatus("aborted")), ExitAborted},
		"not restored":                      {asStatus(verdictStatus("dirty")), ExitNotRestored},
		"passed":                            {asStatus(verdictStatus("passed")), ExitOK},
		"failed":                            {asStatus(verdictStatus("failed")), ExitNo},
		"inconclusive":                      {asStatus(verdictStatus("inconclusive")), ExitNo},
		"a verdict that nobody knows":       {asStatus(verdictStatus("splendid")), ExitNo},
		"demo as its scenario expects":      {demoStatus(demo.Result{Verdict: "aborted", Expect: "aborted"}, nil), ExitOK},
		"demo whose scenario says nothing":  {demoStatus(demo.Result{Verdict: "passed"}, nil), ExitOK},
		"demo passed against expectation":   {demoStatus(demo.Result{Verdict: "passed", Expect: "aborted"}, nil), ExitOK},
		"demo failed":                       {demoStatus(demo.Result{Verdict: "failed"}, nil), ExitNo},
		"demo inconclusive":                 {demoStatus(demo.Result{Verdict: "inconclusive"}, nil), ExitNo},
		"demo dirty":                        {demoStatus(demo.Result{Verdict: "dirty"}, nil), ExitNotRestored},
		"demo interrupted and restored":     {demoStatus(demo.Result{Verdict: "aborted"}, context.Canceled), ExitInterrupted},
		"demo interrupted and not restored": {demoStatus(demo.Result{Verdict: "dirty"}, context.Canceled), ExitNotRestored},
		"demo that could not start":         {demoStatus(demo.Result{}, api.Errorf(api.Invalid, "dir", "x")), ExitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			if got := exit(io.Discard, tt.err); got != tt.want {
				t.Errorf("exit(%v) = %d, want %d", tt.err, got, tt.want)
			}
		})
	}
}

// TestEveryCommandShowsExamplesFirst: "examples first" (help), and a sentence for each command and flag.
func TestEveryCommandShowsExamplesFirst(t *testing.T) {
	root := newRoot(&streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
	for _, c := range allCommands(root) {
		if c.Hidden || c.HasParent() && c.Parent().Hidden || c.Name() == "exit-codes" {
			continue
		}
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s has no short text or no example", c.CommandPath())
			continue
		}
		var b strings.Builder
		c.SetOut(&b)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		example, usage := strings.Index(b.String(), c.Example), strings.Index(b.String(), "Usage:")
		if example < 0 || usage < example {
			t.Errorf("help of %s: example at %d, usage at %d; want the example first", c.CommandPath(), example, usage)
		}
		for _, line := range strings.Split(c.Example, "\n") {
			if !exampleRuns(root, line) {
				t.Errorf("%s: the example %q names no command or a flag that there is not", c.CommandPath(), line)
			}
		}
	}
}

// exampleRuns says whether every command and flag of an example exists.
func exampleRuns(root *cobra.Command, line string) bool {
	line, _, _ = strings.Cut(line, "#")
	line, _, _ = strings.Cut(line, ">")
	words := strings.Fields(line)
	if len(words) == 0 || words[0] != "livefire" {
		return len(words) == 0 || words[0] == "export"
	}
	c, rest, err := root.Find(words[1:])
	if err != nil || c == root || c.HasSubCommands() && c.Name() != "demo" && c.Name() != "agent" && c.Name() != "proxy" {
		return false
	}
	for _, w := range rest {
		name, isLong := strings.CutPrefix(w, "--")
		name, _, _ = strings.Cut(name, "=")
		if isLong && c.Flag(name) == nil && root.PersistentFlags().Lookup(name) == nil {
			return false
		}
		if short, ok := strings.CutPrefix(w, "-"); ok && !isLong && c.Flags().ShorthandLookup(short[:1]) == nil {
			return false
		}
	}
	return true
}
