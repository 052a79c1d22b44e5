// Command livefire-proxy is the sidecar alone: small, without etcd.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/cli/proxycmd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	cmd := proxycmd.Command(os.Stderr)
	cmd.Use = "livefire-proxy --service SERVICE --site SITE --app HOST:PORT --token FILE"
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	err := cmd.ExecuteContext(ctx)
	stop()
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "livefire-proxy: error: %v\n", err)
	var e *api.Error
	if errors.As(err, &e) {
		if e.Hint != "" {
			fmt.Fprintf(os.Stderr, "livefire-proxy: hint: %s\n", e.Hint)
		}
		os.Exit(e.Kind.ExitCode())
	}
	os.Exit(api.Unavailable.ExitCode())
}
