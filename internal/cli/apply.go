package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/cli/view"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// changeFlags are those of everything that changes resources.
type changeFlags struct {
	files  []string
	yes    bool
	dryRun bool
	reason string
	out    format
}

func applyCommand(s *streams) *cobra.Command {
	var f changeFlags
	c := &cobra.Command{
		Use:   "apply -f FILE|DIR",
		Short: "Change resources to what files say, all or none",
		Example: `  livefire apply -f shop.yaml
  livefire apply -f config/ --dry-run         # what would change
  livefire apply -f config/ --yes --reason "INC-881: shorter health checks"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return s.apply(cmd, f) },
	}
	filesFlag(c, &f.files)
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would change; change nothing")
	c.Flags().StringVar(&f.reason, "reason", "", "why, for the log")
	outputFlag(c, &f.out, "table", "json", "yaml", "name")
	return c
}

func filesFlag(c *cobra.Command, files *[]string) {
	c.Flags().StringArrayVarP(files, "file", "f", nil, "file or directory of YAML or JSON; may be repeated")
}

// objectsOf reads files; their errors carry line and column.
func objectsOf(cmd *cobra.Command, files []string) ([]json.RawMessage, map[string]api.Document, error) {
	if len(files) == 0 {
		return nil, nil, usagef(cmd, "-f is required: a file or a directory")
	}
	docs, err := api.DecodeDir(files...)
	if err != nil {
		return nil, nil, err
	}
	var out []json.RawMessage
	at := map[string]api.Document{}
	for _, d := range docs {
		b, err := json.Marshal(d.Object)
		if err != nil {
			return nil, nil, fmt.Errorf("encode %s: %w", api.RefOf(d.Object), err)
		}
		at[api.RefOf(d.Object).String()] = d
		out = append(out, b)
	}
	return out, at, nil
}

// located puts what the server says about an object where that object is written.
func located(err error, at map[string]api.Document) error {
	var e *api.Error
	if !errors.As(err, &e) || len(e.Details) == 0 {
		return err
	}
	found := *e
	found.Details = slices.Clone(e.Details)
	for i, d := range found.Details {
		doc, ok := at[d.File]
		path, message, cut := strings.Cut(d.Message, ": ")
		if ok && cut && d.Line == 0 && strings.HasPrefix(path, "$") {
			found.Details[i] = doc.Locate(api.Problem{Path: path, Code: d.Code, Message: message, Hint: d.Hint})
		}
	}
	return &found
}

// apply shows what would change, asks, and changes it.
func (s *streams) apply(cmd *cobra.Command, f changeFlags) error {
	objects, at, err := objectsOf(cmd, f.files)
	if err != nil {
		return err
	}
	return located(s.change(cmd, f, userapi.ApplyRequest{Objects: objects, Reason: f.reason}), at)
}

func (s *streams) change(cmd *cobra.Command, f changeFlags, r userapi.ApplyRequest) error {
	r.DryRun = true
	var plan userapi.ApplyResponse
	err := s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		plan, err = c.Apply(ctx, r)
		return err
	})
	if err != nil {
		return err
	}
	if f.dryRun || !differs(plan.Changes) {
		return s.printChanges(f.out, plan, f.dryRun)
	}
	if !f.yes {
		if err := writeChanges(s.err, s.style(s.err), plan.Changes); err != nil {
			return err
		}
		if err := s.confirm(cmd, "apply: "+countChanges(plan.Changes), "yes", "--yes"); err != nil {
			return err
		}
	}
	r.DryRun = false
	var done userapi.ApplyResponse
	err = s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		done, err = c.Apply(ctx, r)
		return err
	})
	if err != nil {
		return err
	}
	return s.printChanges(f.out, done, false)
}

func differs(changes []userapi.Change) bool {
	return slices.ContainsFunc(changes, func(c userapi.Change) bool { return c.Action != "unchanged" })
}

// countChanges is "1 to create, 2 to change".
func countChanges(changes []userapi.Change) string {
	n := map[string]int{}
	for _, c := range changes {
		n[c.Action]++
	}
	var out []string
	for _, a := range []struct{ action, verb string }{{"created", "to create"}, {"changed", "to change"}, {"deleted", "to delete"}, {"unchanged", "unchanged"}} {
		if n[a.action] > 0 {
			out = append(out, fmt.Sprintf("%d %s", n[a.action], a.verb))
		}
	}
	if len(out) == 0 {
		return "nothing"
	}
	return strings.Join(out, ", ")
}

// printChanges prints what an apply did, or would do.
func (s *streams) printChanges(f format, r userapi.ApplyResponse, dryRun bool) error {
	if f == "name" {
		p := page{}
		for _, c := range r.Changes {
			p.items = append(p.items, item{string(c.Ref.Kind), c.Ref.Name, nil})
		}
		return s.print(f, p)
	}
	st := s.style(s.out)
	return s.print(f, page{kind: "Applied", one: true, items: []item{{"Applied", "", r}}, text: func(w io.Writer) error {
		if err := writeChanges(w, st, r.Changes); err != nil {
			return err
		}
		if err := writeStanding(w, st, r.Findings); err != nil {
			return err
		}
		var err error
		switch {
		case dryRun:
			_, err = fmt.Fprintf(w, "Dry run: %s. Nothing was changed.\n", countChanges(r.Changes))
		case !differs(r.Changes):
			_, err = fmt.Fprintf(w, "Nothing to do: %s.\n", countChanges(r.Changes))
		default:
			_, err = fmt.Fprintf(w, "Applied revision %d\n", r.Revision)
		}
		return err
	}})
}

// writeChanges writes each change with its fields; what is unchanged is counted, not listed.
func writeChanges(w io.Writer, st view.Style, changes []userapi.Change) error {
	var b strings.Builder
	same := 0
	for _, c := range changes {
		mark := map[string]string{"created": "+", "changed": "~", "deleted": "-"}[c.Action]
		if mark == "" {
			same++
			continue
		}
		fmt.Fprintf(&b, "%s %-40s %s\n", paint(st, mark), c.Ref, c.Action)
		for _, f := range c.Fields {
			fmt.Fprintf(&b, "    %s\n", fieldLine(st, f))
		}
	}
	if same > 0 && same < len(changes) {
		fmt.Fprintf(&b, "  %d unchanged\n", same)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// fieldLine is "~ failover.after: 5s -> 200ms".
func fieldLine(st view.Style, f api.FieldChange) string {
	switch {
	case f.Old == nil:
		return fmt.Sprintf("%s %s: %s", paint(st, "+"), f.Field(), word(f.New))
	case f.New == nil:
		return fmt.Sprintf("%s %s: %s", paint(st, "-"), f.Field(), word(f.Old))
	}
	return fmt.Sprintf("%s %s: %s -> %s", paint(st, "~"), f.Field(), word(f.Old), word(f.New))
}

// paint colours a mark of a diff.
func paint(st view.Style, mark string) string {
	if !st.Color {
		return mark
	}
	return map[string]string{"+": "\x1b[32m+\x1b[0m", "-": "\x1b[31m-\x1b[0m", "~": "\x1b[33m~\x1b[0m"}[mark]
}

// word is a value as people write it.
func word(v any) string {
	switch v := v.(type) {
	case nil:
		return "(nothing)"
	case string:
		return v
	case float64, bool:
		return fmt.Sprint(v)
	}
	b, err := marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

// writeStanding writes the audit findings that stand.
func writeStanding(w io.Writer, st view.Style, rules []userapi.Rule) error {
	var b strings.Builder
	for _, r := range rules {
		if r.OK {
			continue
		}
		fmt.Fprintf(&b, "%s %s %s %s: %s\n", ruleMark(st, r), r.Code, r.Name, ruleSubject(r), r.Message)
		if r.Fix != "" {
			fmt.Fprintf(&b, "    fix: %s\n", r.Fix)
		}
	}
	if b.Len() > 0 {
		if _, err := fmt.Fprintln(w, "Readiness now:"); err != nil {
			return err
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// ruleMark of a rule that does not hold: a low one warns, every other one fails.
func ruleMark(st view.Style, r userapi.Rule) string {
	switch {
	case r.OK:
		return st.OK()
	case r.Severity == "low" || r.Severity == "info":
		return st.Warn()
	}
	return st.Bad()
}

func ruleSubject(r userapi.Rule) string {
	out := string(r.Service)
	if r.Site != "" {
		out = strings.TrimPrefix(out+" at "+string(r.Site), " at ")
	}
	return dash(out)
}

func diffCommand(s *streams) *cobra.Command {
	var f changeFlags
	c := &cobra.Command{
		Use: "diff -f FILE|DIR", Short: "Say what an apply would change; status 1 if anything", Args: cobra.NoArgs,
		Example: `  livefire diff -f config/`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			objects, at, err := objectsOf(cmd, f.files)
			if err != nil {
				return err
			}
			var plan userapi.ApplyResponse
			err = s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				plan, err = c.Apply(ctx, userapi.ApplyRequest{Objects: objects, DryRun: true})
				return err
			})
			if err != nil {
				return located(err, at)
			}
			if err := s.printChanges(f.out, plan, true); err != nil {
				return err
			}
			if differs(plan.Changes) {
				return status(ExitNo)
			}
			return nil
		},
	}
	filesFlag(c, &f.files)
	outputFlag(c, &f.out, "table", "json", "yaml", "name")
	return c
}

func deleteCommand(s *streams) *cobra.Command {
	var f changeFlags
	c := &cobra.Command{
		Use: "delete KIND NAME", Short: "Delete one resource", Args: cobra.ExactArgs(2),
		Example: `  livefire delete drill site-loss
  livefire delete service search --yes --reason "moved to the new cell"`,
		ValidArgsFunction: s.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := kindOf(cmd, args[0])
			if err != nil {
				return err
			}
			return s.change(cmd, f, userapi.ApplyRequest{Delete: []api.Ref{{Kind: kind, Name: args[1]}}, Reason: f.reason})
		},
	}
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say what would be deleted; delete nothing")
	c.Flags().StringVar(&f.reason, "reason", "", "why, for the log")
	outputFlag(c, &f.out, "table", "json", "yaml", "name")
	return c
}
