// Package proxycmd is the command line of a sidecar, shared by livefire and the small livefire-proxy.
//
// Units, Errors: as in sidecar. Concurrency: one command at a time.
package proxycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/sidecar"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
)

// Command is `proxy`.
func Command(errOut io.Writer) *cobra.Command {
	var cfg sidecar.Config
	var name, service, site, token, level, accessLog string
	ports := map[string]string{}
	cmd := &cobra.Command{
		Use:   "proxy --service SERVICE --site SITE --app HOST:PORT --token FILE",
		Short: "Run a sidecar beside one workload",
		Example: `  livefire token create --service payments --site eu-west > token
  livefire proxy --token token --service payments --site eu-west --app 127.0.0.1:8080
  livefire proxy --token token --service caller --site client --port payments=127.0.0.1:9001`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if service == "" {
				return api.Errorf(api.Invalid, cmd.CommandPath(), "--service is required").WithHint("%s --help", cmd.CommandPath())
			}
			log, err := Logger(errOut, level)
			if err != nil {
				return err
			}
			if cfg.Token, err = ReadToken(token); err != nil {
				return err
			}
			if name == "" {
				host, err := os.Hostname()
				if err != nil {
					return fmt.Errorf("name this node: %w", err)
				}
				name = strings.ToLower(service + "-" + site + "-" + host)
			}
			if cfg.Dir == "" {
				cfg.Dir = "livefire-" + name
			}
			cfg.Name, cfg.Service, cfg.Logger = api.NodeID(name), api.ServiceID(service), log
			cfg.Ports = map[api.ServiceID]string{}
			for k, v := range ports {
				cfg.Ports[api.ServiceID(k)] = v
			}
			if accessLog != "" {
				f, err := sidecar.OpenLog(accessLog)
				if err != nil {
					return err
				}
				defer f.Close()
				cfg.AccessLog = f
			}
			ctx, _ := WithLifetime(cmd.Context())
			cfg.Joined = func() {
				if token != "" {
					_ = os.Remove(token) // used: worth nothing to anybody
				}
			}
			return sidecar.Run(ctx, cfg)
		},
	}
	f := cmd.Flags()
	f.StringVar(&service, "service", "", "service that this workload is an instance of")
	f.StringVar(&site, "site", "", "site of this workload (must be the token's)")
	f.StringVar(&name, "name", "", "name of this workload, unique in the mesh (default from service, site and host)")
	f.StringVar(&token, "token", "", "file with a one-time join token; needed for the first start only, removed after it")
	f.StringVar(&cfg.Dir, "dir", "", "directory for identity and last good table (default livefire-NAME)")
	f.StringVar(&cfg.App, "app", "", "host:port of the local application; empty = it only calls")
	f.StringVar(&cfg.Inbound, "inbound", "", "host:port for callers' sidecars (default a free loopback port)")
	f.StringVar(&cfg.Outbound, "outbound", "", "host:port on loopback that routes by Host")
	f.StringToStringVar(&ports, "port", nil, "SERVICE=HOST:PORT on loopback, for one service; may be repeated")
	f.StringVar(&cfg.Version, "version-label", "", "version of the workload")
	f.Float64Var(&cfg.Capacity, "capacity", 0, "requests/s that the workload can serve (0 = unknown)")
	f.StringVar(&cfg.Metrics, "metrics", "", "host:port for Prometheus")
	f.StringVar(&accessLog, "access-log", "", "file for one JSON line per request; at 64 MiB it becomes FILE.1")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// Logger writes to w: processes are run by supervisors, which keep it.
func Logger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, api.Errorf(api.Invalid, "--log-level", "%q: debug, info, warn or error", level)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}

// WithLifetime ends ctx when the other end of the lifetime pipe is closed: the demo passes one down.
func WithLifetime(ctx context.Context) (context.Context, *os.File) {
	pipe := inheritedLifetime()
	if pipe == nil {
		return ctx, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		if err := supervise.WaitEOF(ctx, pipe); err == nil {
			cancel(fmt.Errorf("%w: the process that started this one is gone", context.Canceled))
		}
	}()
	return ctx, pipe
}

// ReadToken reads a token file. One that is not there was used by an earlier start: "" then.
func ReadToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil // used by an earlier start: the identity on disk counts
	}
	if err != nil {
		return "", api.Errorf(api.Invalid, path, "token not read: %v", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// inheritedLifetime is the read end of the pipe that whoever started this process passed down, nil if none was.
func inheritedLifetime() *os.File {
	fd, err := strconv.Atoi(os.Getenv(supervise.LifetimeEnv))
	if err != nil || fd < 3 {
		return nil
	}
	syscall.CloseOnExec(fd) // whoever this process starts gets it only if it is meant to
	return os.NewFile(uintptr(fd), "lifetime")
}
