package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/proxycmd"
	"github.com/livefire-mesh/livefire/internal/demo/sampleapp"
	"github.com/livefire-mesh/livefire/internal/mesh/agent"
	"github.com/livefire-mesh/livefire/internal/mesh/hostfault"
	"github.com/livefire-mesh/livefire/internal/server"
	"github.com/livefire-mesh/livefire/internal/version"
)

// processCommands are the long-running processes. They need Linux: pidfd, /proc and signals to other processes are what
// faults and supervision are made of.
func processCommands(s *streams) []*cobra.Command {
	list := []*cobra.Command{serverCommand(s), agentCommand(s), proxycmd.Command(s.err)}
	for _, c := range list {
		c.PreRunE = func(cmd *cobra.Command, _ []string) error { return linuxOnly(cmd.CommandPath()) }
	}
	return list
}

// linuxOnly refuses what this platform cannot do.
func linuxOnly(what string) error {
	if runtime.GOOS == "linux" {
		return nil
	}
	return api.Errorf(api.Unavailable, what, "needs Linux; this is %s", runtime.GOOS).
		WithHint("the client commands work here: set LIVEFIRE_CONTEXT to the context file of a server")
}

func serverCommand(s *streams) *cobra.Command {
	var cfg server.Config
	var level, pidFile string
	cmd := &cobra.Command{
		Use:   "server --data-dir DIR",
		Short: "Run the control plane: state, decisions, API, xDS",
		Long: `Runs the control plane. State is in an embedded etcd that opens no port, unless --etcd names one.
Writes DIR/context.yaml for the administrator on this machine (mode 0600).`,
		Example: `  livefire server --data-dir /var/lib/livefire
  export LIVEFIRE_CONTEXT=/var/lib/livefire/context.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.DataDir == "" {
				return usagef(cmd, "--data-dir is required")
			}
			log, err := proxycmd.Logger(s.err, level)
			if err != nil {
				return err
			}
			ctx, _ := proxycmd.WithLifetime(cmd.Context())
			cfg.Logger, cfg.Version = log, version.String()
			cfg.Ready = func(a server.Addresses) {
				fmt.Fprintf(s.out, "livefire server %s: API %s, xDS %s, context %s\n", cfg.Version, a.API, a.XDS, filepath.Join(cfg.DataDir, "context.yaml"))
			}
			if pidFile != "" {
				if err := os.WriteFile(pidFile, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o600); err != nil {
					return api.Errorf(api.Invalid, pidFile, "pid file: %v", err)
				}
			}
			return server.Run(ctx, cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.DataDir, "data-dir", "", "directory for everything that the server keeps (made 0700)")
	f.StringVar(&cfg.Listen, "listen", "127.0.0.1:7443", "host:port of the API")
	f.StringVar(&cfg.ListenXDS, "listen-xds", "127.0.0.1:7444", "host:port for nodes (gRPC)")
	f.StringVar(&cfg.Advertise, "advertise", "", "host name or address by which nodes and people reach this server")
	f.StringVar(&cfg.TrustDomain, "trust-domain", "livefire.local", "SPIFFE trust domain; cannot be changed later")
	f.StringSliceVar(&cfg.Etcd, "etcd", nil, "endpoints of an external etcd (default: embedded)")
	f.StringVar(&pidFile, "pid-file", "", "file for the process id (an agent on this host needs it for server-kill)")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

func agentCommand(s *streams) *cobra.Command {
	var cfg agent.Config
	var name, site, token, run, level string
	cmd := &cobra.Command{
		Use:   "agent --site SITE --token FILE [--run workloads.yaml]",
		Short: "Run a host's agent: workloads, host faults, probes",
		Example: `  livefire token create --agent --site eu-west > token
  livefire agent --token token --site eu-west --run workloads.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if site == "" {
				return usagef(cmd, "--site is required")
			}
			log, err := proxycmd.Logger(s.err, level)
			if err != nil {
				return err
			}
			if cfg.Token, err = proxycmd.ReadToken(token); err != nil {
				return err
			}
			if run != "" {
				if cfg.Workloads, err = agent.LoadWorkloads(run); err != nil {
					return err
				}
			}
			if cfg.Dir == "" {
				cfg.Dir = "livefire-agent-" + site
			}
			if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
				return err
			}
			if cfg.Executable, err = os.Executable(); err != nil {
				return fmt.Errorf("find this executable: %w", err)
			}
			cfg.Name, cfg.Site, cfg.Logger = api.NodeID(name), api.SiteID(site), log
			ctx, lifetime := proxycmd.WithLifetime(cmd.Context())
			cfg.Lifetime = lifetime
			return agent.Run(ctx, cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&site, "site", "", "site of this host (must be the token's)")
	f.StringVar(&name, "name", "", "name of this agent, unique in the mesh (default agent-SITE)")
	f.StringVar(&token, "token", "", "file with a one-time join token; needed for the first start only")
	f.StringVar(&cfg.Dir, "dir", "", "directory for identity, processes, faults and samples (default livefire-agent-SITE)")
	f.StringVar(&run, "run", "", "file with the workloads to run on this host")
	f.StringVar(&cfg.ServerPIDFile, "server-pid-file", "", "pid file of a server on this host; allows the fault server-kill")
	f.BoolVar(&cfg.StopWorkloads, "stop-workloads", false, "stop the workloads when the agent ends (default: they go on)")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	cmd.AddCommand(watchdogCommand(s))
	return cmd
}

// watchdogCommand is started by an agent, never by a person.
func watchdogCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "watchdog", Hidden: true, Args: cobra.NoArgs,
		Short: "End every fault when the agent that holds the other end of the pipe dies",
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := proxycmd.Logger(s.err, "info")
			if err != nil {
				return err
			}
			cfg, err := hostfault.WatchdogFromEnv()
			if err != nil {
				return err
			}
			cfg.Logger = log
			return hostfault.RunWatchdog(context.WithoutCancel(cmd.Context()), cfg)
		},
	}
}

// sampleAppCommand is the demo's sample service.
func sampleAppCommand() *cobra.Command {
	var cfg sampleapp.Config
	cmd := &cobra.Command{
		Use: "app", Hidden: true, Args: cobra.NoArgs, Short: "The sample service of the demo",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, _ := proxycmd.WithLifetime(cmd.Context())
			return sampleapp.Run(ctx, cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.Listen, "listen", "127.0.0.1:8080", "host:port")
	f.StringVar(&cfg.Site, "site", "", "site to answer with")
	f.StringVar(&cfg.Instance, "instance", "", "instance to answer with")
	f.StringVar(&cfg.Version, "version", "v1", "version to answer with")
	f.StringVar(&cfg.RequestLog, "request-log", "", "file for executed request ids")
	return cmd
}
