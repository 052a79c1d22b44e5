package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
)

func getCommand(s *streams) *cobra.Command {
	var out format
	c := &cobra.Command{
		Use: "get KIND [NAME]", Short: "List resources of a kind, or show one", Args: cobra.RangeArgs(1, 2),
		Example: `  livefire get services
  livefire get ap orders -o yaml
  livefire get runs -o wide`,
		ValidArgsFunction: s.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := kindOf(cmd, args[0])
			if err != nil {
				return err
			}
			var objects []api.Object
			err = s.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				objects, err = fetch(ctx, c, kind, args[1:])
				return err
			})
			if err != nil {
				return err
			}
			p := page{kind: string(kind), one: len(args) == 2, empty: fmt.Sprintf("no %s", kind)}
			p.head, p.wide = columns(kind)
			for _, o := range objects {
				p.rows = append(p.rows, row(o))
				p.items = append(p.items, item{string(kind), o.Meta().Name, o})
			}
			return s.print(out, p)
		},
	}
	outputFlag(c, &out)
	return c
}

// fetch reads one object by name, or all of a kind.
func fetch(ctx context.Context, c *client.Client, kind api.Kind, names []string) ([]api.Object, error) {
	var raws []json.RawMessage
	var err error
	if len(names) == 0 {
		raws, err = c.List(ctx, kind)
	} else {
		var raw json.RawMessage
		raw, err = c.Get(ctx, api.Ref{Kind: kind, Name: names[0]})
		raws = []json.RawMessage{raw}
	}
	if err != nil {
		return nil, err
	}
	var out []api.Object
	for _, raw := range raws {
		o, err := api.New(kind)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(raw, o); err != nil {
			return nil, fmt.Errorf("decode %s: %w", kind, err)
		}
		out = append(out, o)
	}
	return out, nil
}

func describeCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "describe KIND NAME", Short: "Show one resource, its state and what readiness says about it", Args: cobra.ExactArgs(2),
		Example: `  livefire describe service payments
  livefire describe drill site-loss`,
		ValidArgsFunction: s.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			kind, err := kindOf(cmd, args[0])
			if err != nil {
				return err
			}
			return s.call(cmd, func(ctx context.Context, c *client.Client) error {
				objects, err := fetch(ctx, c, kind, args[1:])
				if err != nil {
					return err
				}
				b, err := api.EncodeYAML(objects[0])
				if err != nil {
					return err
				}
				if _, err := s.out.Write(b); err != nil {
					return err
				}
				return s.describeState(ctx, c, objects[0])
			})
		},
	}
}

// describeState adds what the server knows of a service beside its resource.
func (s *streams) describeState(ctx context.Context, c *client.Client, o api.Object) error {
	service := serviceOf(o)
	if service == "" {
		return nil
	}
	st, err := c.Status(ctx)
	if err != nil {
		return err
	}
	style := s.style(s.out)
	for _, v := range st.Services {
		if v.Service != service {
			continue
		}
		var rows [][]string
		for _, site := range v.Sites {
			rows = append(rows, dashed(string(site.Site), site.State, fmt.Sprintf("%d/%d", site.Healthy, site.Endpoints), fmt.Sprintf("%g/s", site.Capacity),
				fmt.Sprintf("%.3g %%", 100*v.Shares[site.Site]), joined(site.Agree)))
		}
		if _, err := fmt.Fprintf(s.out, "\n%s now: %s\n", service, strings.TrimSpace(v.Phase+" "+v.Reason)); err != nil {
			return err
		}
		if err := table(s.out, []string{"SITE", "STATE", "HEALTHY", "CAPACITY", "SHARE", "AGREE"}, rows); err != nil {
			return err
		}
	}
	for _, r := range st.Audit {
		if r.Service != service {
			continue
		}
		if _, err := fmt.Fprintf(s.out, "%s %s %s %s\n", ruleMark(style, r), r.Code, r.Name, strings.TrimSpace(string(r.Site)+" "+r.Message)); err != nil {
			return err
		}
	}
	return nil
}

// serviceOf is the service that an object is about, "" if it is about none or several.
func serviceOf(o api.Object) api.ServiceID {
	switch o := o.(type) {
	case *api.Service:
		return api.ServiceID(o.Metadata.Name)
	case *api.ActivePassive:
		return o.Spec.Service
	case *api.ActiveActive:
		return o.Spec.Service
	}
	return ""
}

// completionLimit bounds what a shell waits for names.
const completionLimit = 300 * time.Millisecond

// completeResources completes a kind, then the live names of that kind.
func (s *streams) completeResources(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		var out []string
		for _, k := range api.Kinds() {
			out = append(out, strings.ToLower(string(k)))
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
	kind, ok := lookupKind(args[0])
	if !ok || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return s.completeNames(kind)(cmd, nil, prefix)
}

// completeNames completes the first argument with the live names of a kind.
func (s *streams) completeNames(kind api.Kind) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		c, err := s.connect()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completionLimit)
		defer cancel()
		objects, err := fetch(ctx, c, kind, nil)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var out []string
		for _, o := range objects {
			if strings.HasPrefix(o.Meta().Name, prefix) {
				out = append(out, o.Meta().Name)
			}
		}
		slices.Sort(out)
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func explainCommand(s *streams) *cobra.Command {
	var out format
	c := &cobra.Command{
		Use: "explain CODE|KIND", Short: "What a code means, or which fields a kind has", Args: cobra.ExactArgs(1),
		Example: `  livefire explain LF3101
  livefire explain service`,
		Long: "Needs no server.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if kind, ok := lookupKind(args[0]); ok {
				return s.explainKind(out, kind)
			}
			code, err := api.LookupCode(strings.ToUpper(args[0]))
			if err != nil {
				return err
			}
			return s.print(out, page{kind: "Code", one: true, items: []item{{"Code", code.Code, code}}, text: func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s %s\n\n%s\n\nWhat to do: %s\n", code.Code, code.Title, code.Explanation, code.Action)
				return err
			}})
		},
	}
	outputFlag(c, &out, "table", "json", "yaml")
	return c
}
