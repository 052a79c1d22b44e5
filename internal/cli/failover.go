package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// moveFlags are those of a failover and a fail-back.
type moveFlags struct {
	to        string
	planned   bool
	unplanned bool
	yes       bool
	out       format
	request   userapi.MoveRequest
}

func moveCommand(s *streams, verb string) *cobra.Command {
	var f moveFlags
	c := &cobra.Command{Args: cobra.ExactArgs(1), ValidArgsFunction: s.completeNames(api.KindService)}
	c.Use, c.Short = "failover SERVICE --to SITE", "Move a service to another site"
	c.Example = `  livefire failover orders --to us-east --dry-run
  livefire failover orders --to us-east --reason "maintenance of eu-west"
  livefire failover orders --to us-east --unplanned --yes --reason "eu-west down, INC-881"`
	c.Long = `Planned is the default: both sites answer and nothing is lost. For a site that is judged lost: --unplanned.
Asks for the service's name; --yes answers in advance and needs --reason.`
	if verb == "failback" {
		c.Use, c.Short = "failback SERVICE", "Move a service back to its preferred site"
		c.Example = `  livefire failback orders --dry-run
  livefire failback orders --yes --reason "eu-west repaired, INC-881"`
		c.Long = "Asks for the service's name; --yes answers in advance and needs --reason."
	}
	c.RunE = func(cmd *cobra.Command, args []string) error { return s.move(cmd, verb, args[0], f) }
	fl := c.Flags()
	if verb == "failover" {
		fl.StringVar(&f.to, "to", "", "site that takes over")
		fl.BoolVar(&f.planned, "planned", false, "both sites answer (the default)")
		fl.BoolVar(&f.unplanned, "unplanned", false, "the site that is left may be lost")
	}
	fl.StringVar(&f.request.Reason, "reason", "", "why, for the log")
	fl.BoolVar(&f.yes, "yes", false, "do not ask; needs --reason")
	fl.StringSliceVar(&f.request.Override, "override", nil, "LFnnnn, a rule that may be broken this once (role admin); may be repeated")
	fl.BoolVar(&f.request.DryRun, "dry-run", false, "say what would be decided; move nothing")
	outputFlag(c, &f.out, "table", "json", "yaml")
	return c
}

func (s *streams) move(cmd *cobra.Command, verb, service string, f moveFlags) error {
	if verb == "failover" && f.to == "" {
		return usagef(cmd, "--to is required: the site that takes over")
	}
	if f.yes && f.request.Reason == "" {
		return usagef(cmd, "--yes needs --reason")
	}
	if f.planned && f.unplanned {
		return usagef(cmd, "--planned and --unplanned exclude each other")
	}
	f.request.To, f.request.Unplanned = api.SiteID(f.to), f.unplanned
	if !f.request.DryRun && !f.yes {
		question := verb + " of " + service
		if f.to != "" {
			question += " to " + f.to
		}
		if err := s.confirm(cmd, question, service, "--yes --reason TEXT"); err != nil {
			return err
		}
	}
	var done userapi.MoveResponse
	err := s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		done, err = c.Move(ctx, api.ServiceID(service), verb, f.request)
		return err
	})
	if err != nil {
		return s.refused(err)
	}
	for _, w := range done.Warnings {
		s.note("%s %s\n", s.style(s.err).Warn(), w)
	}
	return s.print(f.out, page{kind: "Move", one: true, items: []item{{"Move", service, done}}, text: func(w io.Writer) error { return s.writeMove(w, verb, done) }})
}

func (s *streams) writeMove(w io.Writer, verb string, m userapi.MoveResponse) error {
	where := ""
	if m.From != m.To && m.From != "" && m.To != "" { // the first step of a ramp leaves the active site as it is
		where = fmt.Sprintf("%s -> %s, ", m.From, m.To)
	}
	what := fmt.Sprintf("%s %s: %sshares %s", verb, m.Service, where, dash(shares(m.Shares)))
	if m.DryRun {
		_, err := fmt.Fprintf(w, "Dry run: %s. Nothing was moved.\n", what)
		return err
	}
	epoch := "in steps: livefire status -w"
	if m.Epoch > 0 {
		epoch = fmt.Sprintf("epoch %d", m.Epoch)
	}
	if _, err := fmt.Fprintf(w, "%s %s, %s\n", s.style(w).OK(), what, epoch); err != nil {
		return err
	}
	next := fmt.Sprintf("livefire status %s -w", m.Service)
	if verb == "failover" {
		next += fmt.Sprintf("; livefire failback %s", m.Service)
	}
	s.note("Next: %s\n", next)
	return nil
}

// refused prints a rule's refusal with its override; another error is left to the caller.
func (s *streams) refused(err error) error {
	var e *api.Error
	if !errors.As(err, &e) || e.Kind != api.Denied || e.Code == "" {
		return err
	}
	name := ""
	if c, lookupErr := api.LookupCode(e.Code); lookupErr == nil {
		name = " " + c.Title
	}
	// A refusal's message ends with what to do, which the hint says on a line of its own.
	message, _, _ := strings.Cut(e.Message, "; override: ")
	message, _, _ = strings.Cut(message, "; no override: ")
	s.note("%s refused by rule %s%s: %s\n", s.style(s.err).Bad(), e.Code, name, message)
	if e.Hint != "" && !strings.Contains(message, e.Hint) {
		s.note("  %s\n", e.Hint)
	}
	s.note("  why: livefire explain %s\n", e.Code)
	return status(e.Kind.ExitCode())
}

func leverCommand(s *streams) *cobra.Command {
	var out format
	show := &cobra.Command{
		Use: "show", Short: "Say whether the lever is engaged, by whom and why", Args: cobra.NoArgs, Example: "  livefire lever show",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.lever(cmd, out, func(ctx context.Context, c *client.Client) (userapi.Lever, error) { return c.Lever(ctx) })
		},
	}
	set := func(use, short string, engaged bool) *cobra.Command {
		var reason string
		c := &cobra.Command{
			Use: use + " --reason TEXT", Short: short, Args: cobra.NoArgs, Example: "  livefire lever " + use + ` --reason "INC-881"`,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if reason == "" {
					return usagef(cmd, "--reason is required")
				}
				return s.lever(cmd, out, func(ctx context.Context, c *client.Client) (userapi.Lever, error) {
					return c.SetLever(ctx, userapi.Lever{Engaged: engaged, Reason: reason})
				})
			},
		}
		c.Flags().StringVar(&reason, "reason", "", "why, for the log")
		return c
	}
	verbs := []*cobra.Command{show, set("engage", "Stop every drill: running ones are reverted, none starts", true),
		set("release", "Allow drills again (role admin)", false)}
	for _, v := range verbs {
		outputFlag(v, &out, "table", "json", "yaml")
	}
	return group("lever", "The safety lever: engaged, no drill runs", `  livefire lever show
  livefire lever engage --reason "real incident INC-881"
  livefire lever release --reason "INC-881 is over"`, verbs...)
}

func (s *streams) lever(cmd *cobra.Command, out format, f func(context.Context, *client.Client) (userapi.Lever, error)) error {
	var l userapi.Lever
	err := s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		l, err = f(ctx, c)
		return err
	})
	if err != nil {
		return err
	}
	return s.print(out, page{kind: "Lever", one: true, items: []item{{"Lever", "lever", l}}, text: func(w io.Writer) error {
		if !l.Engaged {
			_, err := fmt.Fprintln(w, "released: drills may run")
			return err
		}
		_, err := fmt.Fprintf(w, "ENGAGED by %s at %s: %s\n", l.By, seconds(l.At.UTC().Format("2006-01-02T15:04:05Z")), l.Reason)
		return err
	}})
}
