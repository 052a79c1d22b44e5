package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
)

func lintCommand(s *streams) *cobra.Command {
	var suppress []string
	var out format
	c := &cobra.Command{
		Use: "lint FILE|DIR...", Short: "Check files without a server: syntax, fields, references", Args: cobra.MinimumNArgs(1),
		Example: `  livefire lint config/
  livefire lint shop.yaml --suppress LF0107 -o json`,
		Long: `Exit status: 0 nothing found; 1 the objects do not fit together (LF01xx); 2 a file cannot be read (LF00xx).
References are checked within the files given: name all files of a configuration.`,
		RunE: func(_ *cobra.Command, args []string) error { return s.lint(args, suppress, out) },
	}
	c.Flags().StringSliceVar(&suppress, "suppress", nil, "LFnnnn of references to leave out; may be repeated")
	outputFlag(c, &out, "table", "json", "yaml", "jsonl")
	return c
}

func (s *streams) lint(files, suppress []string, out format) error {
	docs, err := api.DecodeDir(files...)
	code := ExitUsage
	var found []api.Position
	var bad *api.Error
	switch {
	case errors.As(err, &bad) && len(bad.Details) > 0:
		found = bad.Details
	case err != nil:
		return err
	default:
		code = ExitNo
		found = brokenReferences(docs, suppress)
	}
	p := page{kind: "Problem", text: func(w io.Writer) error { return writeProblems(w, found, len(docs)) }}
	for _, x := range found {
		p.items = append(p.items, item{p.kind, x.Code, x})
	}
	if err := s.print(out, p); err != nil {
		return err
	}
	if len(found) > 0 {
		return status(code)
	}
	return nil
}

// brokenReferences is what does not fit together, at the places where it is written.
func brokenReferences(docs []api.Document, suppress []string) []api.Position {
	at := map[api.Ref]api.Document{}
	for _, d := range docs {
		at[api.RefOf(d.Object)] = d
	}
	var out []api.Position
	for _, p := range api.CheckReferences(api.NewResourceSet(docs)) {
		skip := false
		for _, code := range suppress {
			skip = skip || strings.EqualFold(code, p.Code)
		}
		if !skip {
			out = append(out, at[p.Ref].Locate(p.Problem))
		}
	}
	return out
}

func writeProblems(w io.Writer, found []api.Position, objects int) error {
	var b strings.Builder
	for _, p := range found {
		fmt.Fprintf(&b, "%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
		if p.Code != "" {
			fmt.Fprintf(&b, " (%s)", p.Code)
		}
		b.WriteByte('\n')
		if p.Quote != "" {
			fmt.Fprintf(&b, "    %s\n", p.Quote)
		}
		if p.Hint != "" {
			fmt.Fprintf(&b, "    fix: %s\n", p.Hint)
		}
	}
	switch len(found) {
	case 0:
		fmt.Fprintf(&b, "%d objects, no problems\n", objects)
	case 1:
		b.WriteString("1 problem\n")
	default:
		fmt.Fprintf(&b, "%d problems\n", len(found))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
