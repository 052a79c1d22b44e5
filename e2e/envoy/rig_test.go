//go:build e2e

package envoy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/examples"
	"github.com/livefire-mesh/livefire/internal/demo/sampleapp"
	"github.com/livefire-mesh/livefire/internal/mesh/freeport"
	"github.com/livefire-mesh/livefire/internal/mesh/identity"
	"github.com/livefire-mesh/livefire/internal/mesh/proxy"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/mesh/xdsserver"
	"github.com/livefire-mesh/livefire/internal/recovery/pattern"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

const (
	trustDomain = "demo.livefire"
	limit       = 20 * time.Second // of every wait
)

// rig is a mesh of built-in sidecars whose caller is an Envoy.
type rig struct {
	t         *testing.T
	dir       string
	ca        *identity.CA
	resources pattern.Resources
	workloads []*workload
	server    *xdsserver.Server
	node      route.Node
	caps      route.Capabilities
	table     route.Table // in force

	mu    sync.Mutex // guards what follows
	acked []route.Epoch
	nacks []string
	told  chan struct{} // closed and replaced at each event
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), told: make(chan struct{}), resources: demoResources(t)}
	var err error
	if r.ca, err = identity.OpenCA(filepath.Join(r.dir, "ca"), trustDomain, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct {
		service api.ServiceID
		n       int
	}{{"payments", 3}, {"orders", 2}} {
		for _, site := range []api.SiteID{"eu-west", "us-east"} {
			for i := range w.n {
				r.start(w.service, site, fmt.Sprintf("%s-%s-%d", site, w.service, i+1))
			}
		}
	}
	r.node = route.Node{ID: "caller-1", Site: "client", Service: "caller", Workload: "caller-1", Identity: pattern.Identity(trustDomain, "client", "caller")}
	r.caps = route.Capabilities{
		Kind: xds.KindEnvoy, Outbound: r.port(),
		ServicePorts: map[api.ServiceID]string{"payments": r.port(), "orders": r.port()},
	}
	r.serve()
	return r
}

// demoResources are what `livefire demo` starts with.
func demoResources(t *testing.T) pattern.Resources {
	t.Helper()
	docs, err := api.DecodeFS(examples.FS, examples.DemoResources()...)
	if err != nil {
		t.Fatal(err)
	}
	in := pattern.Resources{TrustDomain: trustDomain}
	for _, o := range api.NewResourceSet(docs) {
		switch o := o.(type) {
		case *api.Site:
			in.Sites = append(in.Sites, *o)
		case *api.Service:
			in.Services = append(in.Services, *o)
		case *api.ActivePassive:
			in.ActivePassive = append(in.ActivePassive, *o)
		case *api.AuthorizationPolicy:
			in.Policies = append(in.Policies, *o)
		}
	}
	return in
}

// port is a free port that stays free until somebody binds it.
func (r *rig) port() string {
	r.t.Helper()
	p, err := freeport.Reserve(r.dir + fmt.Sprint(time.Now().UnixNano()))
	if err != nil {
		r.t.Fatal(err)
	}
	p.Release()
	return p.Address
}

// source is the certificate of an identity, signed by the mesh's authority.
func (r *rig) source(site api.SiteID, service api.ServiceID) *identity.Source {
	r.t.Helper()
	key, err := identity.NewKey()
	if err != nil {
		r.t.Fatal(err)
	}
	csr, err := key.CSR()
	if err != nil {
		r.t.Fatal(err)
	}
	chain, err := r.ca.Sign(csr, identity.Service(trustDomain, site, service), time.Now(), identity.SignOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	svid, err := identity.NewSVID(key, chain, r.ca.Roots())
	if err != nil {
		r.t.Fatal(err)
	}
	return identity.NewSource(svid)
}

// workload is a sample application with its built-in sidecar.
type workload struct {
	service api.ServiceID
	site    api.SiteID
	node    route.Node
	proxy   *proxy.Proxy
	log     *accessLog
	kill    func() // ends the sidecar: listeners and connections
}

// start runs an application and its sidecar until the test ends.
func (r *rig) start(service api.ServiceID, site api.SiteID, name string) {
	r.t.Helper()
	id := pattern.Identity(trustDomain, site, service)
	w := &workload{service: service, site: site, log: new(accessLog),
		node: route.Node{ID: api.NodeID(name), Site: site, Service: service, Workload: name, Identity: id}}
	app := r.port()
	r.run("application "+name, func(ctx context.Context) error {
		return sampleapp.Run(ctx, sampleapp.Config{Listen: app, Site: string(site), Instance: name, Version: "v1"})
	})
	src := r.source(site, service)
	p, err := proxy.New(proxy.Config{
		Node: w.node, Version: "v1", Inbound: "127.0.0.1:0", App: app,
		ClientTLS: func(expected string) *tls.Config {
			return identity.ClientTLS(src, func(id identity.ID) error {
				if id.String() != expected {
					return fmt.Errorf("is %s, not %s", id, expected)
				}
				return nil
			})
		},
		ServerTLS: identity.ServerTLS(src, nil, "http/1.1"),
		PeerID: func(cs tls.ConnectionState) (string, error) {
			id, err := identity.PeerID(cs)
			return id.String(), err
		},
		AccessLog: w.log,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	w.proxy, w.kill = p, r.run("sidecar "+name, p.Run)
	_, _, inbound := p.Addresses()
	r.workloads = append(r.workloads, w)
	r.resources.Workloads = append(r.resources.Workloads, api.Workload{
		Metadata: api.Metadata{Name: name},
		Spec:     api.WorkloadSpec{Service: service, Site: site, Address: inbound, Version: "v1", Capacity: 300},
		Status:   &api.WorkloadStatus{Registered: true},
	})
}

// run runs f until the test ends, or the function that it returns is called.
func (r *rig) run(what string, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("%s: %v", what, err)
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// of are the workloads of a service at a site.
func (r *rig) of(service api.ServiceID, site api.SiteID) []*workload {
	return slices.DeleteFunc(slices.Clone(r.workloads), func(w *workload) bool { return w.service != service || w.site != site })
}

// lose kills every sidecar of a service at a site.
func (r *rig) lose(service api.ServiceID, site api.SiteID) {
	for _, w := range r.of(service, site) {
		w.kill()
	}
}

// serve offers ADS and SDS on a Unix socket.
func (r *rig) serve() {
	r.t.Helper()
	secrets := r.secrets()
	r.server = xdsserver.New(xdsserver.Config{
		Identify: func(_ context.Context, m *corev3.Node) (route.Node, route.Capabilities, error) {
			n, caps, err := xds.ReadNode(m)
			n.Identity = pattern.Identity(trustDomain, n.Site, n.Service)
			return n, caps, err
		},
		Extra: func(route.Node) []xds.Resource { return secrets },
		Events: xdsserver.Events{
			Acked: func(_ api.NodeID, e route.Epoch, _ time.Time) { r.note(func() { r.acked = append(r.acked, e) }) },
			Nacked: func(_ api.NodeID, url string, names []string, message string) {
				r.note(func() { r.nacks = append(r.nacks, fmt.Sprintf("%s %v: %s", url, names, message)) })
			},
			Refused: func(_ api.NodeID, e route.Epoch, problems []route.Problem) {
				r.note(func() { r.nacks = append(r.nacks, fmt.Sprintf("epoch %d was not rendered whole: %v", e, problems)) })
			},
		},
	})
	l, err := net.Listen("unix", r.socket())
	if err != nil {
		r.t.Fatal(err)
	}
	g := grpc.NewServer(xdsserver.ServerOptions()...)
	r.server.Register(g)
	ended := make(chan struct{})
	go func() { _ = g.Serve(l); close(ended) }() // ends with Stop
	r.t.Cleanup(func() { g.Stop(); <-ended })
}

func (r *rig) socket() string { return filepath.Join(r.dir, "xds") }

func (r *rig) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
	close(r.told)
	r.told = make(chan struct{})
}

// publish makes the next table of the resources and the placement, gives it to everybody, and waits for Envoy's ACK.
func (r *rig) publish(placed map[api.ServiceID]pattern.Placement) route.Table {
	r.t.Helper()
	before := r.table
	r.table = pattern.Route(r.resources, placed, before)
	if r.table.Epoch != before.Epoch+1 || len(r.table.Problems) > 0 {
		r.t.Fatalf("epoch %d after %d, problems %v", r.table.Epoch, before.Epoch, r.table.Problems)
	}
	for _, w := range r.workloads {
		if err := w.proxy.Apply(r.table.For(w.node)); err != nil {
			r.t.Fatalf("table %d at %s: %v", r.table.Epoch, w.node.ID, err)
		}
	}
	r.server.SetTable(r.table)
	return r.table
}

// awaitAck waits until Envoy has acknowledged everything of an epoch.
func (r *rig) awaitAck(epoch route.Epoch) {
	r.t.Helper()
	late := time.NewTimer(limit)
	defer late.Stop()
	for {
		r.mu.Lock()
		done, told := slices.Contains(r.acked, epoch), r.told
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-told:
		case <-late.C:
			r.t.Fatalf("Envoy has not acknowledged epoch %d within %v", epoch, limit)
		}
	}
}

// refusals are the NACKs, and what could not be rendered.
func (r *rig) refusals() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.nacks)
}
