// Package agent is the whole agent process: it runs the workloads of its host, applies host faults and sends probes.
//
// Run joins (or goes on with what is on disk), adopts the workloads that an agent before it has started, starts the
// others with their sidecars, and follows the server's orders. Workloads outlive it.
//
// Errors: *api.Error for what an operator must change.
// Concurrency: Run blocks until its context ends and owns every goroutine.
package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/hostfault"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/mesh/membership"
	"github.com/livefire-mesh/livefire/internal/mesh/probe"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/mesh/xdsclient"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Config of an agent. Dir, Name, Executable and Logger are required; Token for the first start only.
type Config struct {
	Dir           string // 0700: identity, state of processes and faults, spool of samples
	Token         string
	Name          api.NodeID // default agent-<site>
	Site          api.SiteID // must be the token's, if given
	Workloads     Workloads
	Executable    string   // the livefire binary: sidecars and the watchdog are started from it
	ServerPIDFile string   // with it the agent can apply server-kill
	Lifetime      *os.File // read end of a pipe: at its end everything ends (the demo); nil = none
	StopWorkloads bool     // at the end: stop the workloads instead of leaving them running
	Logger        *slog.Logger
}

// agent is what the parts share.
type agent struct {
	cfg     Config
	member  *membership.Member
	super   *supervise.Supervisor
	faults  *hostfault.Host
	prober  *probe.Prober
	placed  []placed
	beat    chan struct{}
	reports reports
	counter counter
}

// Run is an agent from start to end.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Name == "" {
		cfg.Name = api.NodeID("agent-" + string(cfg.Site))
	}
	m, err := membership.Open(ctx, membership.Config{Dir: filepath.Join(cfg.Dir, "identity"), Token: cfg.Token, Node: cfg.Name, Logger: cfg.Logger})
	if err != nil {
		return err
	}
	defer m.Client.Close()
	if cfg.Site != "" && cfg.Site != m.Site {
		return api.Errorf(api.Invalid, "agent", "its token is for site %s, not %s", m.Site, cfg.Site).WithHint("--site %s", m.Site)
	}
	a := &agent{cfg: cfg, member: m, beat: make(chan struct{}, 1)}
	a.reports = reports{client: m.Client, log: cfg.Logger, wake: make(chan struct{}, 1)}
	a.counter = counter{agent: a, wake: make(chan struct{}, 1), wanted: map[string]xds.Count{}, done: map[string]bool{}}
	if err := a.wire(); err != nil {
		return err
	}
	return a.serve(ctx)
}

func (a *agent) wire() (err error) {
	a.super, err = supervise.New(supervise.Config{Dir: filepath.Join(a.cfg.Dir, "processes"), Logger: a.cfg.Logger, Lifetime: a.cfg.Lifetime})
	if err != nil {
		return err
	}
	a.faults, err = hostfault.New(hostfault.Config{
		Dir: filepath.Join(a.cfg.Dir, "faults"), Site: a.member.Site, Supervisor: a.super, ServerPIDFile: a.cfg.ServerPIDFile,
		Report: a.reports.add, Offset: a.offset, Logger: a.cfg.Logger, Lifetime: a.cfg.Lifetime,
		Watchdog: []string{a.cfg.Executable, "agent", "watchdog"}, WatchdogLog: filepath.Join(a.cfg.Dir, "watchdog.log"),
	})
	if err != nil {
		return err
	}
	a.prober, err = probe.New(probe.Config{Dir: filepath.Join(a.cfg.Dir, "samples"), Target: a.probeTarget, Upload: a.uploadChunk, Offset: a.offset, Logger: a.cfg.Logger})
	if err != nil {
		return err
	}
	for _, w := range a.cfg.Workloads.Workloads {
		p, err := a.place(w)
		if err != nil {
			return err
		}
		a.placed = append(a.placed, p)
	}
	return nil
}

func (a *agent) offset() (offset, spread time.Duration) {
	offset, spread, _ = a.member.Clock.Offset()
	return offset, spread
}

// probeTarget is where the client sidecar of this site listens for a service.
func (a *agent) probeTarget(service api.ServiceID) (string, bool) {
	for _, p := range a.placed {
		if addr, ok := p.Ports[string(service)]; ok {
			return "http://" + addr, true
		}
	}
	return "", false
}

func (a *agent) uploadChunk(ctx context.Context, order string, chunk int64, data []byte) error {
	err := a.member.Client.Samples(ctx, nodeapi.Samples{Order: order, Chunk: chunk, SHA256: sha256Hex(data)}, data)
	if api.KindOf(err) == api.NotFound {
		// The run is over: nobody will ever want these samples. The prober sets them aside instead of trying for ever.
		return api.Errorf(api.Invalid, order, "%v", err)
	}
	return err
}

// serve runs the parts until ctx ends.
func (a *agent) serve(ctx context.Context) error {
	// Supervision and faults outlive the rest by the time it takes to stop the workloads, if asked to.
	hostCtx, stopHost := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHost()
	client, err := a.xdsClient()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.super.Run(hostCtx) })
	group.Go(func() error { return a.faults.Run(hostCtx) })
	group.Go(func() error { return a.prober.Run(ctx) })
	group.Go(func() error { return a.member.Run(ctx) })
	group.Go(func() error { return client.Run(ctx) })
	group.Go(func() error { return a.reports.run(ctx) })
	group.Go(func() error { return a.counter.run(ctx) })
	group.Go(func() error { return a.startWorkloads(ctx) })
	group.Go(func() error { return a.watchProcesses(ctx) })
	group.Go(func() error {
		return a.member.Client.Heartbeats(ctx, a.member.Clock, a.cfg.Logger, a.beat, a.fillHeartbeat, nil)
	})
	group.Go(func() error { return a.end(ctx, stopHost) })
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// end waits for the end, ends every fault, and stops the workloads if they are to end with the agent.
func (a *agent) end(ctx context.Context, stopHost func()) error {
	<-ctx.Done()
	defer stopHost()
	for _, id := range a.faults.Active() {
		a.faults.Withdraw(id)
	}
	if !a.cfg.StopWorkloads {
		return ctx.Err()
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := a.super.StopAll(grace, 3*time.Second); err != nil {
		return fmt.Errorf("stop workloads: %w", err)
	}
	return ctx.Err()
}

func (a *agent) xdsClient() (*xdsclient.Client, error) {
	server := identity.ClientTLS(a.member.Source, identity.Exactly(identity.Server(a.member.TrustDomain)))
	server.NextProtos = []string{"h2"}
	node := route.Node{ID: a.member.Node, Site: a.member.Site, Identity: a.member.Identity()}
	return xdsclient.New(xdsclient.Config{
		Servers: a.member.XDS, TLS: func() *tls.Config { return server }, Node: xds.NodeMessage(node, route.Capabilities{Kind: "agent"}),
		Order: a.order, Logger: a.cfg.Logger,
	})
}

// order takes one order, a heartbeat for one, or its withdrawal. An error is a NACK: the order is dead here.
func (a *agent) order(ev xdsclient.OrderEvent) error {
	switch ev.TypeURL {
	case xds.TypeFaultOrder:
		return a.faultOrder(ev)
	case xds.TypeProbeOrder:
		return a.probeOrder(ev)
	case xds.TypeCountOrder:
		return a.counter.order(ev)
	}
	return fmt.Errorf("order of unknown type %s", ev.TypeURL)
}

func (a *agent) faultOrder(ev xdsclient.OrderEvent) error {
	defer a.beatNow()
	switch {
	case ev.Removed:
		a.faults.Withdraw(ev.Name)
		return nil
	case ev.Heartbeat:
		return a.faults.Renew(ev.Name)
	}
	o, err := xds.ReadFaultOrder(ev.Body)
	if err != nil {
		return err
	}
	return a.faults.Order(o)
}

func (a *agent) probeOrder(ev xdsclient.OrderEvent) error {
	switch {
	case ev.Removed:
		a.prober.Stop(ev.Name)
		return nil
	case ev.Heartbeat:
		return a.prober.Renew(ev.Name)
	}
	o, err := xds.ReadProbeOrder(ev.Body)
	if err != nil {
		return err
	}
	return a.prober.Start(o)
}

// beatNow sends a heartbeat now instead of within a second.
func (a *agent) beatNow() {
	select {
	case a.beat <- struct{}{}:
	default:
	}
}

func (a *agent) watchProcesses(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.super.Changed():
			a.beatNow()
		}
	}
}

func (a *agent) fillHeartbeat(h *nodeapi.Heartbeat) {
	h.PID = os.Getpid()
	s := &nodeapi.Agent{Site: a.member.Site, Kinds: a.faults.Kinds(), Processes: a.super.Processes(), Probes: a.prober.Active(), Faults: a.faults.Active()}
	for i := range s.Processes {
		p := &s.Processes[i]
		p.Counts = !p.Sidecar && slices.ContainsFunc(a.placed, func(w placed) bool { return w.Name == p.Workload && w.RequestLog != "" })
	}
	for _, p := range a.placed {
		for service := range p.Ports {
			s.CanProbe = append(s.CanProbe, api.ServiceID(service))
		}
	}
	slices.Sort(s.CanProbe)
	h.Agent = s
}
