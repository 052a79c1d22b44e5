package agent

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

// startWorkloads brings every workload and its sidecar under supervision. A sidecar that has not joined gets a token:
// without a server it waits for that, the others start at once.
func (a *agent) startWorkloads(ctx context.Context) error {
	for _, w := range a.placed {
		for _, r := range w.reserved {
			r.Release()
		}
		if err := a.startApp(w); err != nil {
			return err
		}
		for {
			err := a.startSidecar(ctx, w)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if api.KindOf(err) != api.Unavailable {
				return err
			}
			a.cfg.Logger.Warn("sidecar waits for a server", "workload", w.Name, "err", err)
			timer := time.NewTimer(time.Second)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			}
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func (a *agent) startApp(w placed) error {
	if len(w.command) == 0 {
		return nil
	}
	return a.super.Add(supervise.Spec{
		Name: w.Name, Service: w.Service, Workload: w.Name, Command: w.command, Env: w.Env, Dir: w.dir,
		Log: filepath.Join(w.dir, "app.log"), ReadyURL: "http://" + w.App + w.Health, Address: w.App,
	})
}

func (a *agent) startSidecar(ctx context.Context, w placed) error {
	dir := filepath.Join(w.dir, "sidecar")
	command := []string{a.cfg.Executable, "proxy", "--dir", dir, "--name", w.Name, "--service", string(w.Service), "--site", string(a.member.Site)}
	add := func(flag, value string) {
		if value != "" {
			command = append(command, flag, value)
		}
	}
	add("--version-label", w.Version)
	if w.Capacity > 0 {
		add("--capacity", strconv.FormatFloat(w.Capacity, 'g', -1, 64))
	}
	add("--app", w.App)
	add("--inbound", w.Inbound)
	add("--outbound", w.Outbound)
	add("--access-log", filepath.Join(w.dir, "access.log"))
	for _, service := range slices.Sorted(maps.Keys(w.Ports)) { // the same command at every start: it is adopted by it
		add("--port", service+"="+w.Ports[service])
	}
	if svid, err := identity.LoadSVID(dir); err != nil || time.Now().After(svid.NotAfter()) {
		token, err := a.member.Client.Token(ctx, nodeapi.TokenRequest{Site: a.member.Site, Service: w.Service})
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("directory of %s: %w", w.Name, err)
		}
		file := filepath.Join(dir, "token")
		if err := os.WriteFile(file, []byte(token.Token), 0o600); err != nil {
			return fmt.Errorf("pass a token to %s: %w", w.Name, err)
		}
	}
	command = append(command, "--token", filepath.Join(dir, "token"))
	spec := supervise.Spec{Name: w.Name + "/sidecar", Service: w.Service, Workload: w.Name, Sidecar: true, Command: command, Dir: w.dir,
		Log: filepath.Join(w.dir, "sidecar.log"), Address: w.Inbound, ReadyAddress: w.Inbound}
	if spec.ReadyAddress == "" {
		spec.ReadyAddress = w.Outbound
	}
	return a.super.Add(spec)
}
