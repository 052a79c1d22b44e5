package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/freeport"
)

// Workloads is the file of --run: what an agent starts on its host. It is not a resource.
type Workloads struct {
	Workloads []Workload `json:"workloads" yaml:"workloads"`
}

// Workload is one application with its sidecar. Addresses are host:port; "auto" is a free loopback port that is kept
// over restarts.
type Workload struct {
	Name       string            `json:"name" yaml:"name"`
	Service    api.ServiceID     `json:"service" yaml:"service"`
	Version    string            `json:"version,omitempty" yaml:"version,omitempty"`
	Capacity   float64           `json:"capacity,omitempty" yaml:"capacity,omitempty"` // requests/s
	App        string            `json:"app,omitempty" yaml:"app,omitempty"`           // where the application listens
	Inbound    string            `json:"inbound,omitempty" yaml:"inbound,omitempty"`   // where its sidecar listens
	Outbound   string            `json:"outbound,omitempty" yaml:"outbound,omitempty"` // shared port that routes by Host
	Ports      map[string]string `json:"ports,omitempty" yaml:"ports,omitempty"`       // port per service that it calls
	Command    []string          `json:"command,omitempty" yaml:"command,omitempty"`   // empty: the application runs by itself
	Env        []string          `json:"env,omitempty" yaml:"env,omitempty"`
	Health     string            `json:"health,omitempty" yaml:"health,omitempty"`         // path; default /healthz
	RequestLog string            `json:"requestLog,omitempty" yaml:"requestLog,omitempty"` // one executed request id per line
}

var labelRE = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// LoadWorkloads reads the file strictly. Every error names line and column.
func LoadWorkloads(path string) (Workloads, error) {
	var w Workloads
	b, err := os.ReadFile(path)
	if err != nil {
		return w, api.Errorf(api.Invalid, path, "not read: %v", err).WithHint("--run FILE")
	}
	if err := yaml.UnmarshalWithOptions(b, &w, yaml.Strict()); err != nil {
		return w, api.Errorf(api.Invalid, path, "%s", yaml.FormatError(err, false, true))
	}
	seen := map[string]bool{}
	for i, x := range w.Workloads {
		at := fmt.Sprintf("%s: workloads[%d]", path, i)
		switch {
		case !labelRE.MatchString(x.Name):
			return w, api.Errorf(api.Invalid, at, "name %q: lower-case letters, digits and dashes, at most 63", x.Name)
		case seen[x.Name]:
			return w, api.Errorf(api.Invalid, at, "name %q is there twice", x.Name)
		case !labelRE.MatchString(string(x.Service)):
			return w, api.Errorf(api.Invalid, at, "service %q is not a name", x.Service)
		case x.App == "" && len(x.Command) > 0:
			return w, api.Errorf(api.Invalid, at, "%s has a command but no app address", x.Name).WithHint("app: auto")
		case x.App == "" && x.Outbound == "" && len(x.Ports) == 0:
			return w, api.Errorf(api.Invalid, at, "%s neither serves nor calls", x.Name).WithHint("app: auto, or outbound: auto")
		case x.Capacity < 0:
			return w, api.Errorf(api.Invalid, at, "capacity %g is negative", x.Capacity)
		}
		seen[x.Name] = true
	}
	return w, nil
}

// placed is a workload with every address and placeholder filled in.
type placed struct {
	Workload
	dir      string
	command  []string
	reserved []freeport.Reservation // until its processes are started
}

// placeholders of a command, an environment and a request log.
func (a *agent) fill(w Workload, s string) string {
	return strings.NewReplacer("{livefire}", a.cfg.Executable, "{app}", w.App, "{name}", w.Name, "{site}", string(a.member.Site),
		"{version}", w.Version, "{service}", string(w.Service), "{dir}", a.workloadDir(w.Name)).Replace(s)
}

func (a *agent) workloadDir(name string) string { return filepath.Join(a.cfg.Dir, "workloads", name) }

// place gives a workload its addresses and its directory.
func (a *agent) place(w Workload) (placed, error) {
	dir := a.workloadDir(w.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return placed{}, fmt.Errorf("directory of %s: %w", w.Name, err)
	}
	addresses, err := loadAddresses(filepath.Join(dir, "addresses.yaml"))
	if err != nil {
		return placed{}, err
	}
	addresses.seed = a.cfg.Dir
	if w.App != "" && w.Inbound == "" {
		w.Inbound = "auto"
	}
	ports := map[string]string{}
	for service, addr := range w.Ports {
		if ports[service], err = addresses.resolve("port-"+service, addr); err != nil {
			return placed{}, err
		}
	}
	w.Ports = ports
	for name, addr := range map[string]*string{"app": &w.App, "inbound": &w.Inbound, "outbound": &w.Outbound} {
		if *addr, err = addresses.resolve(name, *addr); err != nil {
			return placed{}, err
		}
	}
	if err := addresses.save(); err != nil {
		return placed{}, err
	}
	if w.Health == "" {
		w.Health = "/healthz"
	}
	p := placed{Workload: w, dir: dir, reserved: addresses.reserved}
	for _, arg := range w.Command {
		p.command = append(p.command, a.fill(w, arg))
	}
	p.RequestLog = a.fill(w, w.RequestLog)
	p.Env = slices.Clone(w.Env)
	for i := range p.Env {
		p.Env[i] = a.fill(w, p.Env[i])
	}
	return p, nil
}

// addresses are the ports that a workload was given at its first start.
type addresses struct {
	path     string
	seed     string
	known    map[string]string
	reserved []freeport.Reservation
}

func loadAddresses(path string) (*addresses, error) {
	a := &addresses{path: path, known: map[string]string{}}
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return a, nil
	}
	if err != nil {
		return a, fmt.Errorf("read addresses: %w", err)
	}
	if err := yaml.Unmarshal(b, &a.known); err != nil {
		return a, api.Errorf(api.Invalid, path, "%v", err).WithHint("remove it: new ports are chosen")
	}
	return a, nil
}

// resolve turns "auto" into an address that stays the same.
func (a *addresses) resolve(name, addr string) (string, error) {
	if addr != "auto" {
		return addr, nil
	}
	if known, ok := a.known[name]; ok {
		return known, nil
	}
	r, err := freeport.Reserve(a.seed)
	if err != nil {
		return "", err
	}
	a.reserved = append(a.reserved, r)
	a.known[name] = r.Address
	return r.Address, nil
}

func (a *addresses) save() error {
	b, err := yaml.Marshal(a.known)
	if err != nil {
		return fmt.Errorf("encode addresses: %w", err)
	}
	return os.WriteFile(a.path, b, 0o600)
}
