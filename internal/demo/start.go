package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/examples"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/mesh/freeport"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/health"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const (
	trustDomain = "demo.livefire"
	startLimit  = 60 * time.Second
	// lookEvery is how often the demo looks at what it waits for.
	lookEvery = 50 * time.Millisecond
)

// person is one of the accounts that approve.
type person struct {
	name, group string
	client      *client.Client
}

// start brings the mesh up until every service is ready at every site.
func (d *demo) start(ctx context.Context) error {
	began := time.Now()
	var err error
	if d.life, err = newLifetime(); err != nil {
		return err
	}
	d.procs = newProcesses(d.bin, d.dir, d.life)
	if err := d.writeConfig(); err != nil {
		return err
	}
	if err := d.startServer(ctx); err != nil {
		return err
	}
	d.say("server      %s, embedded etcd without a port, own certificate authority (%s)\n", d.admin.Server(), since(began))
	objects := d.plan.objects
	if _, err := d.admin.ApplyObjects(ctx, objects, false); err != nil {
		return fmt.Errorf("apply the demo's resources: %w", err)
	}
	d.say("resources   %d applied from %s\n", len(objects), filepath.Join(d.dir, "config"))
	for _, site := range sites {
		if err := d.startAgent(ctx, site); err != nil {
			return err
		}
	}
	if err := d.enrol(ctx); err != nil {
		return err
	}
	if err := d.waitServing(ctx); err != nil {
		return err
	}
	d.say("mesh        first request routed after %s\n", since(began))
	return d.waitReady(ctx, began)
}

func since(t time.Time) string { return fmt.Sprintf("%.1f s", time.Since(t).Seconds()) }

// writeConfig puts the demo's YAML where people can read it; the agents read their workloads from there.
func (d *demo) writeConfig() error {
	dir := filepath.Join(d.dir, "config")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	files, err := fs.Glob(examples.FS, "demo/*.yaml")
	if err != nil {
		return err
	}
	for _, name := range files {
		b, err := examples.FS.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) startServer(ctx context.Context) error {
	// The server keeps its ports over a restart, so they are chosen before it starts.
	apiPort, err := freeport.Reserve(d.dir)
	if err != nil {
		return err
	}
	xdsPort, err := freeport.Reserve(d.dir)
	if err != nil {
		return err
	}
	d.reserved = []freeport.Reservation{apiPort, xdsPort}
	apiPort.Release()
	xdsPort.Release()
	// A server that died is started again only after every fault of a drill must have ended by its lease: the demo
	// shows that they do.
	restart := d.plan.spec.Lease.D() + 1500*time.Millisecond
	data := filepath.Join(d.dir, "server")
	if err := d.procs.start("server", restart, "server", "--data-dir", data, "--listen", apiPort.Address, "--listen-xds", xdsPort.Address,
		"--trust-domain", trustDomain, "--pid-file", d.serverPIDFile()); err != nil {
		return err
	}
	return d.until(ctx, "the server", func() (bool, error) {
		if d.admin == nil {
			c, err := client.Load(filepath.Join(data, "context.yaml"))
			if err != nil {
				return false, nil // not written yet
			}
			d.admin = c
		}
		if _, err := d.admin.Status(ctx); err != nil {
			return false, nil
		}
		return true, os.Symlink(filepath.Join("server", "context.yaml"), d.contextPath())
	})
}

func (d *demo) serverPIDFile() string { return filepath.Join(d.dir, "server.pid") }

func (d *demo) startAgent(ctx context.Context, site api.SiteID) error {
	token, err := d.admin.Token(ctx, nodeapi.TokenRequest{Site: site, Agent: true})
	if err != nil {
		return fmt.Errorf("token for the agent of %s: %w", site, err)
	}
	dir := d.agentDir(site)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, "token")
	if err := os.WriteFile(file, []byte(token.Token), 0o600); err != nil {
		return err
	}
	return d.procs.start("agent-"+string(site), time.Second, "agent", "--site", string(site), "--dir", dir, "--token", file,
		"--run", filepath.Join(d.dir, "config", "workloads-"+string(site)+".yaml"), "--server-pid-file", d.serverPIDFile(), "--stop-workloads")
}

func (d *demo) agentDir(site api.SiteID) string { return filepath.Join(d.dir, "agents", string(site)) }

// enrol makes the three approvers; each key is made in that person's own context file.
func (d *demo) enrol(ctx context.Context) error {
	dir := filepath.Join(d.dir, "people")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, p := range []person{{name: "dev1", group: "development"}, {name: "ops1", group: "operations"}, {name: "sec1", group: "security"}} {
		created, err := d.admin.AddUser(ctx, userapi.User{Name: p.name, Role: userapi.Approver, Group: p.group})
		if err != nil {
			return fmt.Errorf("add user %s: %w", p.name, err)
		}
		c, err := client.Enrol(ctx, created.Code)
		if err != nil {
			return fmt.Errorf("enrol %s: %w", p.name, err)
		}
		if err := client.Save(filepath.Join(dir, p.name+".yaml"), c); err != nil {
			return err
		}
		if p.client, err = client.New(c); err != nil {
			return err
		}
		d.people = append(d.people, p)
	}
	d.say("people      dev1 (development), ops1 (operations), sec1 (security), each with a key of its own\n")
	return nil
}

// until looks again and again at what it waits for.
func (d *demo) until(ctx context.Context, what string, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		ok, err := ready()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return api.Errorf(api.Unavailable, "demo", "%s was not ready within %v", what, startLimit).WithHint("read the logs in %s", d.dir)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// addressesOf are the ports that the client's agent gave to its caller.
func (d *demo) addressesOf() (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(d.agentDir("client"), "workloads", "caller-1", "addresses.yaml"))
	if err != nil {
		return nil, err
	}
	var m map[string]string
	return m, yaml.Unmarshal(b, &m)
}

// waitServing waits until a request gets through the client's sidecar.
func (d *demo) waitServing(ctx context.Context) error {
	return d.until(ctx, "the mesh", func() (bool, error) {
		addresses, err := d.addressesOf()
		if err != nil {
			return false, nil // the agent has not started its workloads yet
		}
		for _, service := range []string{"payments", "orders"} {
			if !answers(ctx, "http://"+addresses["port-"+service]+"/") {
				return false, nil
			}
		}
		return true, d.writeState(ctx)
	})
}

// waitReady waits until every service is ready at every site that it has.
func (d *demo) waitReady(ctx context.Context, began time.Time) error {
	var why string
	err := d.until(ctx, "the mesh", func() (bool, error) {
		st, err := d.admin.Status(ctx)
		if err != nil {
			return false, nil
		}
		var ok bool
		ok, why = d.ready(st)
		return ok, nil
	})
	if err != nil {
		return fmt.Errorf("%w (%s)", err, why)
	}
	d.say("sites       eu-west and us-east: 3 payments and 2 orders each; client: a caller; sidecars (%s)\n", since(began))
	return d.writeState(ctx)
}

func (d *demo) ready(st userapi.Status) (bool, string) {
	endpoints := 0
	for _, svc := range st.Services {
		for _, site := range svc.Sites {
			endpoints += site.Endpoints
			if svc.Service != "caller" && (site.State != string(health.Ready) || site.Healthy != site.Endpoints) {
				return false, fmt.Sprintf("%s at %s is %s", svc.Service, site.Site, site.State)
			}
		}
	}
	agents := 0
	for _, n := range st.Nodes {
		if n.Agent && n.Registered && n.Connected {
			agents++
		}
		if !n.Agent && n.Acked != st.Epoch {
			return false, fmt.Sprintf("%s has not acknowledged epoch %d", n.Node, st.Epoch)
		}
	}
	if agents < len(sites) || endpoints < 10 {
		return false, fmt.Sprintf("%d agents, %d endpoints", agents, endpoints)
	}
	return true, ""
}

// State is demo.json, for tests and tools.
type State struct {
	Client  string                    `json:"client"`
	Clients map[string]string         `json:"clients"`
	API     string                    `json:"api"`
	Server  PID                       `json:"server"`
	Agents  map[api.SiteID]PID        `json:"agents"`
	Sites   map[api.SiteID][]Instance `json:"sites"`
}

// PID of a process.
type PID struct {
	PID int `json:"pid"`
}

// Instance is one workload and its sidecar.
type Instance struct {
	Name       string        `json:"name"`
	Service    api.ServiceID `json:"service"`
	PID        int           `json:"pid"`
	SidecarPID int           `json:"sidecarPid"`
	Address    string        `json:"address"`
}

// writeState replaces demo.json whole, if anything in it has changed.
func (d *demo) writeState(ctx context.Context) error {
	st, err := d.admin.Status(ctx)
	if err != nil {
		return nil // the server is away: what was written still says the most
	}
	addresses, err := d.addressesOf()
	if err != nil {
		return err
	}
	s := State{Clients: map[string]string{}, API: d.admin.Server(), Server: PID{d.procs.pid("server")},
		Agents: map[api.SiteID]PID{}, Sites: map[api.SiteID][]Instance{}}
	for name, addr := range addresses {
		if service, ok := strings.CutPrefix(name, "port-"); ok {
			s.Clients[service] = "http://" + addr
		}
	}
	s.Client = s.Clients["payments"]
	for _, site := range sites {
		s.Agents[site] = PID{d.procs.pid("agent-" + string(site))}
	}
	for _, n := range st.Nodes {
		if n.Agent {
			s.Sites[n.Site] = instances(n.Processes)
		}
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if string(b) == d.state {
		return nil
	}
	path := filepath.Join(d.dir, "demo.json")
	if err := os.WriteFile(path+".tmp", append(b, '\n'), 0o600); err != nil {
		return err
	}
	d.state = string(b)
	return os.Rename(path+".tmp", path)
}

func instances(list []userapi.Process) []Instance {
	var out []Instance
	for _, p := range list {
		if p.Sidecar {
			continue
		}
		x := Instance{Name: p.Workload, Service: p.Service, PID: p.PID, Address: p.Address}
		for _, q := range list {
			if q.Sidecar && q.Workload == p.Workload {
				x.SidecarPID = q.PID
			}
		}
		out = append(out, x)
	}
	return out
}
