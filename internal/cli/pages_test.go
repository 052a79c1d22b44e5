package cli

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestReferencePages: docs/reference/cli.md and exit-codes.md say what the commands are. -update writes them.
func TestReferencePages(t *testing.T) {
	root := newRoot(&streams{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
	root.InitDefaultHelpFlag()
	for name, text := range map[string]string{"cli.md": commandsPage(root), "exit-codes.md": exitCodesPage()} {
		path := filepath.Join("..", "..", "docs", "reference", name)
		if *update {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		there, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(there), text); d != "" {
			t.Errorf("%s differs; go test ./internal/cli -run TestReferencePages -update (-there +commands):\n%s", path, d)
		}
	}
}

func commandsPage(root *cobra.Command) string {
	var b strings.Builder
	b.WriteString(`# Commands

Made from the commands themselves: ` + "`go test ./internal/cli -run TestReferencePages -update`" + `. The same text is ` + "`livefire COMMAND --help`" + `.

- Results go to stdout; progress, prompts, warnings and errors to stderr.
- ` + "`-o json|yaml|jsonl`" + ` answers carry ` + "`apiVersion`" + ` and ` + "`kind`" + `. ` + "`-o yaml`" + ` of resources is what ` + "`livefire apply -f`" + ` reads.
- Who calls, and which server, is in a context file (mode 0600; it holds a private key): ` + "`--context`, else `LIVEFIRE_CONTEXT`, else `~/.config/livefire/context.yaml`" + `.
  A server writes one for its administrator into its data directory; ` + "`livefire login`" + ` makes one for each other person.
- Colour only on a terminal; ` + "`NO_COLOR` and `TERM=dumb`" + ` are honoured. Marks are ` + "`√ ‼ × ?`, and `+ ! x ?`" + ` under a locale that is not UTF-8.
- What changes something asks first. Without a terminal, or with ` + "`--no-input`" + `, it fails and names the flag that answers.
- Exit statuses: [exit-codes.md](exit-codes.md). Codes: [codes.md](codes.md), or ` + "`livefire explain LFnnnn`" + `.

Flags of every command:

`)
	writeFlags(&b, root.PersistentFlags())
	for _, c := range allCommands(root)[1:] {
		if c.Hidden || c.HasParent() && c.Parent().Hidden || c.Name() == "exit-codes" || c.Name() == "help" {
			continue
		}
		fmt.Fprintf(&b, "%s `%s`\n\n%s.\n\n", strings.Repeat("#", min(strings.Count(c.CommandPath(), " ")+1, 3)), strings.TrimSuffix(c.UseLine(), " [flags]"), c.Short)
		fmt.Fprintf(&b, "```\n%s\n```\n\n", strings.ReplaceAll(strings.TrimPrefix(c.Example, "  "), "\n  ", "\n"))
		if c.Long != "" {
			fmt.Fprintf(&b, "%s\n\n", c.Long)
		}
		writeFlags(&b, c.NonInheritedFlags())
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

func writeFlags(b *strings.Builder, f *pflag.FlagSet) {
	n := 0
	f.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		if n == 0 {
			b.WriteString("| Flag | Default | Means |\n|---|---|---|\n")
		}
		n++
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		def := f.DefValue
		if def == "" || def == "[]" || def == "false" || def == "0s" || def == "0" {
			def = "-"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, def, strings.ReplaceAll(f.Usage, "|", "\\|"))
	})
	if n > 0 {
		b.WriteByte('\n')
	}
}

func exitCodesPage() string {
	var b strings.Builder
	b.WriteString("# Exit statuses\n\nThe same table is `livefire help exit-codes`.\n\n| Status | Means |\n|---|---|\n")
	for _, e := range exitStatuses {
		fmt.Fprintf(&b, "| %d | %s |\n", e.status, e.means)
	}
	b.WriteString(`
A command that runs or reports a drill ends with the status of the run's verdict:

| Verdict | Status |
|---|---|
`)
	for _, v := range []string{"passed", "failed", "inconclusive", "aborted", "dirty"} {
		fmt.Fprintf(&b, "| %s | %d |\n", v, verdictStatus(v))
	}
	b.WriteString(`
Of several runs the worst counts. ` + "`livefire demo`" + ` ends with 0 when the run has the verdict that its scenario expects.
` + "`livefire drill run`" + ` that is interrupted ends with 130 once the run is restored, and with 6 if that failed.
`)
	return b.String()
}
