package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

func tokenCommand(s *streams) *cobra.Command {
	var agent bool
	var service, site, user string
	var ttl time.Duration
	create := &cobra.Command{
		Use: "create --agent --site SITE | --service SERVICE --site SITE | --user NAME", Short: "Make a one-time join token, or a bearer token of an account", Args: cobra.NoArgs,
		Example: `  livefire token create --agent --site eu-west > token
  livefire token create --service payments --site eu-west > token
  livefire token create --user ci --ttl 1h > token`,
		Long: "The token alone is on stdout; how long it may be used is on stderr.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch chosen := count([]bool{agent, service != "", user != ""}, true); {
			case chosen == 0:
				return usagef(cmd, "one of --agent, --service and --user is required")
			case chosen > 1:
				return usagef(cmd, "--agent, --service and --user exclude each other")
			case user == "" && site == "":
				return usagef(cmd, "--site is required")
			case user != "" && site != "":
				return usagef(cmd, "--site is of join tokens, not of --user")
			}
			return s.call(cmd, func(ctx context.Context, c *client.Client) error {
				if user != "" {
					t, err := c.BearerToken(ctx, user, userapi.BearerRequest{TTL: ttl})
					return s.printToken(t.Token, t.Expires, "usable until", err)
				}
				t, err := c.Token(ctx, nodeapi.TokenRequest{Site: api.SiteID(site), Service: api.ServiceID(service), Agent: agent, TTL: ttl})
				return s.printToken(t.Token, t.Expires, "usable once, until", err)
			})
		},
	}
	f := create.Flags()
	f.BoolVar(&agent, "agent", false, "for the agent of a site")
	f.StringVar(&service, "service", "", "for a sidecar of this service")
	f.StringVar(&site, "site", "", "site at which the node may join")
	f.StringVar(&user, "user", "", "a bearer token of this account instead")
	f.DurationVar(&ttl, "ttl", 0, "how long it may be used (default 10m; 24h with --user)")
	return group("token", "One-time join tokens and bearer tokens", `  livefire token create --agent --site eu-west > token
  livefire token create --user ci --ttl 1h > token`, create)
}

func (s *streams) printToken(token string, expires time.Time, usable string, err error) error {
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(s.out, token); err != nil {
		return err
	}
	s.note("%s %s\n", usable, expires.UTC().Format(time.RFC3339))
	return nil
}

func userCommand(s *streams) *cobra.Command {
	return group("user", "People: role, group, key", `  livefire user add alice --role approver --group security
  livefire user list
  livefire user remove alice`, userAdd(s), userList(s), userRemove(s))
}

func userAdd(s *streams) *cobra.Command {
	var u userapi.User
	var out format
	c := &cobra.Command{
		Use: "add NAME --role ROLE [--group GROUP]", Short: "Make an account, or a new enrolment code for one", Args: cobra.ExactArgs(1),
		Example: `  livefire user add alice --role approver --group security
  livefire user add deploy --role operator`,
		Long: `The code on stdout is used once, by that person on their own machine: livefire login --code CODE.
A role says what an account may do; a group (development, operations, security) for whom an approver signs.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			u.Name = args[0]
			if !slices.Contains([]string{userapi.Viewer, userapi.Approver, userapi.Operator, userapi.Admin}, u.Role) {
				return usagef(cmd, "--role %q: viewer, approver, operator or admin", u.Role)
			}
			if u.Group != "" && !slices.Contains(api.Groups(), u.Group) {
				return usagef(cmd, "--group %q: development, operations or security", u.Group)
			}
			return s.call(cmd, func(ctx context.Context, c *client.Client) error {
				done, err := c.AddUser(ctx, u)
				if err != nil {
					return err
				}
				return s.print(out, page{kind: "UserCreated", one: true, items: []item{{"UserCreated", u.Name, done}}, text: func(w io.Writer) error {
					s.note("give this code to %s, for use once until %s:  livefire login --code CODE\n", u.Name, done.Expires.UTC().Format(time.RFC3339))
					_, err := fmt.Fprintln(w, done.Code)
					return err
				}})
			})
		},
	}
	c.Flags().StringVar(&u.Role, "role", "", "viewer, approver, operator or admin")
	c.Flags().StringVar(&u.Group, "group", "", "development, operations or security: for whom an approver signs")
	outputFlag(c, &out, "table", "json", "yaml")
	return c
}

func userList(s *streams) *cobra.Command {
	var out format
	c := &cobra.Command{
		Use: "list", Short: "List accounts", Args: cobra.NoArgs, Example: "  livefire user list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.call(cmd, func(ctx context.Context, c *client.Client) error {
				users, err := c.Users(ctx)
				if err != nil {
					return err
				}
				p := page{kind: "User", head: []string{"NAME", "ROLE", "GROUP", "ENROLLED", "KEY"}, wide: 1, empty: "no account"}
				for _, u := range users {
					p.rows = append(p.rows, dashed(u.Name, u.Role, u.Group, strconv.FormatBool(u.Enrolled), u.Key))
					p.items = append(p.items, item{p.kind, u.Name, u})
				}
				return s.print(out, p)
			})
		},
	}
	outputFlag(c, &out)
	return c
}

func userRemove(s *streams) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "remove NAME", Short: "Remove an account; its certificate and tokens stop working", Args: cobra.ExactArgs(1), Example: "  livefire user remove alice --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes {
				if err := s.confirm(cmd, "remove account "+args[0], args[0], "--yes"); err != nil {
					return err
				}
			}
			return s.call(cmd, func(ctx context.Context, c *client.Client) error {
				if err := c.RemoveUser(ctx, args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintf(s.out, "user %s removed\n", args[0])
				return err
			})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func loginCommand(s *streams) *cobra.Command {
	var code string
	var force bool
	c := &cobra.Command{
		Use: "login --code CODE", Short: "Make this person's key on this machine and have it certified", Args: cobra.NoArgs,
		Example: `  livefire login --code lfc1.alice.x7k...
  livefire login --code CODE --context ~/alice.yaml`,
		Long: "The key is made here and never leaves this machine; the context file (mode 0600) holds it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if code == "" {
				return usagef(cmd, "--code is required: the one that `livefire user add` printed")
			}
			path, err := s.contextPath()
			if err != nil {
				return err
			}
			if _, err := os.Lstat(path); err == nil && !force {
				return api.Errorf(api.Invalid, path, "exists; it may hold the only copy of a key").WithHint("--force overwrites it; --context FILE writes another")
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				return api.Errorf(api.Invalid, path, "context not written: %v", err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), answerLimit)
			defer cancel()
			v, err := client.Enrol(ctx, code)
			if err != nil {
				return err
			}
			if err := saveContext(path, v); err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.out, "logged in to %s as %s; context %s\n", v.Server, v.User, path)
			return err
		},
	}
	c.Flags().StringVar(&code, "code", "", "enrolment code")
	c.Flags().BoolVar(&force, "force", false, "overwrite the context file that is there")
	return c
}

// saveContext writes a new file and renames it: a file that was there keeps neither its mode nor half of its bytes.
func saveContext(path string, v userapi.Context) error {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return api.Errorf(api.Invalid, next, "context not written: %v", err)
	}
	if err := client.Save(next, v); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return api.Errorf(api.Invalid, path, "context not written: %v", err)
	}
	return nil
}

func logoutCommand(s *streams) *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "logout", Short: "Delete the context file, and with it this person's key", Args: cobra.NoArgs, Example: "  livefire logout --yes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := s.contextPath()
			if err != nil {
				return err
			}
			if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
				return api.Errorf(api.NotFound, path, "is not there: nobody is logged in")
			}
			if !yes {
				if err := s.confirm(cmd, "delete "+path+" and the key in it", "yes", "--yes"); err != nil {
					return err
				}
			}
			if err := os.Remove(path); err != nil {
				return api.Errorf(api.Invalid, path, "not deleted: %v", err)
			}
			_, err = fmt.Fprintf(s.out, "logged out: %s is deleted\n", path)
			return err
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func whoamiCommand(s *streams) *cobra.Command {
	var out format
	c := &cobra.Command{
		Use: "whoami", Short: "Say who the server takes this person for", Args: cobra.NoArgs, Example: "  livefire whoami",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.call(cmd, func(ctx context.Context, c *client.Client) error {
				me, err := c.Whoami(ctx)
				if err != nil {
					return err
				}
				return s.print(out, page{kind: "Whoami", one: true, items: []item{{"Whoami", me.Name, me}}, text: func(w io.Writer) error {
					return table(w, []string{"NAME", "ROLE", "GROUP", "SERVER", "KEY"}, [][]string{dashed(me.Name, me.Role, me.Group, c.Server(), me.Key)})
				}})
			})
		},
	}
	outputFlag(c, &out, "table", "json", "yaml")
	return c
}
