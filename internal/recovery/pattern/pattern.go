package pattern

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/audit"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Resources is what operators and sidecars wrote, after defaults. The order of each list is of no importance.
type Resources struct {
	TrustDomain   string
	Sites         []api.Site
	Services      []api.Service
	Workloads     []api.Workload
	ActivePassive []api.ActivePassive
	ActiveActive  []api.ActiveActive
	Policies      []api.AuthorizationPolicy
}

// Placement is where the failover machine wants a service to be served from. The zero value leaves the choice to
// the pattern: the first site of an ActivePassive, the weights of an ActiveActive.
type Placement struct {
	Active api.SiteID                  `json:"active,omitempty"` // ActivePassive only
	Shares map[api.SiteID]route.Weight `json:"shares,omitempty"`
}

// Route is the table for the resources and the placement of each service. If its content equals prev's, prev is
// returned as it is; otherwise its epoch is the next one.
//
// A service whose new table would have no endpoint at all, while prev has some, keeps those of prev with a Problem:
// the loss of a whole site, or of the source of the workloads, must not look like an order to stop. Only the
// deletion of the Service resource removes it.
func Route(r Resources, placed map[api.ServiceID]Placement, prev route.Table) route.Table {
	b := newBuilder(r, placed, prev)
	next := route.Table{Services: []route.Service{}}
	for _, name := range slices.Sorted(maps.Keys(b.services)) {
		if s, ok := b.build(b.services[name]); ok {
			next.Services = append(next.Services, s)
		}
	}
	b.checkReferences()
	next.Problems = b.sortedProblems()
	next.Epoch = prev.Epoch
	if Equal(prev, next) {
		return prev
	}
	next.Epoch++
	return next
}

// Equal says whether two tables have the same content, their epochs aside.
func Equal(a, b route.Table) bool {
	a.Epoch, b.Epoch = 0, 0
	return bytes.Equal(encode(a), encode(b))
}

func encode(t route.Table) []byte {
	if len(t.Services) == 0 {
		t.Services = []route.Service{} // a table that was never written and an empty one say the same
	}
	j, err := json.Marshal(t)
	if err != nil {
		panic("internal error: a table cannot be encoded: " + err.Error())
	}
	return j
}

// Usable lists the sites that may legitimately answer a request under this table, in the table's order: those with
// a share, and, if the service has reflex, those that are not excluded.
func Usable(s route.Service) []api.SiteID {
	var out []api.SiteID
	for _, x := range s.Sites {
		if !x.Excluded && (x.Share > 0 || s.Reflex) {
			out = append(out, x.Name)
		}
	}
	return out
}

// builder holds the resources by name while one table is made.
type builder struct {
	trustDomain string
	sites       map[api.SiteID]api.Site
	services    map[api.ServiceID]api.Service
	endpoints   map[api.ServiceID]map[api.SiteID][]route.Endpoint
	passive     map[api.ServiceID][]api.ActivePassive
	active      map[api.ServiceID][]api.ActiveActive
	callers     map[api.ServiceID][]api.AllowRule
	placed      map[api.ServiceID]Placement
	prev        route.Table
	problems    []route.Problem
}

func newBuilder(r Resources, placed map[api.ServiceID]Placement, prev route.Table) *builder {
	b := &builder{
		trustDomain: r.TrustDomain,
		sites:       map[api.SiteID]api.Site{},
		services:    map[api.ServiceID]api.Service{},
		endpoints:   map[api.ServiceID]map[api.SiteID][]route.Endpoint{},
		passive:     map[api.ServiceID][]api.ActivePassive{},
		active:      map[api.ServiceID][]api.ActiveActive{},
		callers:     map[api.ServiceID][]api.AllowRule{},
		placed:      placed,
		prev:        prev,
	}
	for _, s := range r.Sites {
		b.sites[api.SiteID(s.Metadata.Name)] = s
	}
	for _, s := range r.Services {
		b.services[api.ServiceID(s.Metadata.Name)] = s
	}
	for _, p := range r.ActivePassive {
		b.passive[p.Spec.Service] = append(b.passive[p.Spec.Service], p)
	}
	for _, p := range r.ActiveActive {
		b.active[p.Spec.Service] = append(b.active[p.Spec.Service], p)
	}
	policies := slices.SortedFunc(slices.Values(r.Policies), func(x, y api.AuthorizationPolicy) int {
		return cmp.Compare(x.Metadata.Name, y.Metadata.Name)
	})
	for _, p := range policies {
		b.callers[p.Spec.Service] = append(b.callers[p.Spec.Service], p.Spec.Allow...)
	}
	for _, w := range r.Workloads {
		b.addWorkload(w)
	}
	return b
}

// addWorkload files a workload as an endpoint of its service and site. One without an address only calls.
func (b *builder) addWorkload(w api.Workload) {
	if w.Spec.Address == "" {
		return
	}
	addr, err := netip.ParseAddrPort(w.Spec.Address)
	if err != nil || addr.Port() == 0 {
		b.problem(w.Spec.Service, audit.CodeAddress, "Workload/%s: %q is not an address with a port; write for example 10.0.0.7:8443",
			w.Metadata.Name, w.Spec.Address)
		return
	}
	e := route.Endpoint{
		Workload:   w.Metadata.Name,
		Address:    addr,
		Version:    w.Spec.Version,
		Capacity:   w.Spec.Capacity,
		Identity:   cmp.Or(w.Spec.Identity, Identity(b.trustDomain, w.Spec.Site, w.Spec.Service)),
		Registered: w.Status == nil || w.Status.Registered,
	}
	at := b.endpoints[w.Spec.Service]
	if at == nil {
		at = map[api.SiteID][]route.Endpoint{}
		b.endpoints[w.Spec.Service] = at
	}
	at[w.Spec.Site] = append(at[w.Spec.Site], e)
}

// Identity is the SPIFFE id of a service at a site.
func Identity(trustDomain string, site api.SiteID, service api.ServiceID) string {
	return fmt.Sprintf("spiffe://%s/site/%s/service/%s", trustDomain, site, service)
}

// build makes one service. ok is false if it cannot be built and the last table has none to keep.
func (b *builder) build(svc api.Service) (out route.Service, ok bool) {
	name := api.ServiceID(svc.Metadata.Name)
	if len(b.passive[name])+len(b.active[name]) > 1 {
		b.problem(name, audit.CodePatternConflict, "has %d placement patterns (%s): keep one and delete the others; until then the last table is kept",
			len(b.passive[name])+len(b.active[name]), b.patternNames(name))
		return b.prev.Service(name)
	}
	problems := len(b.problems)
	s := b.place(svc)
	if countEndpoints(s) == 0 && b.keepLastEndpoints(name, problems) {
		s = b.place(svc)
	}
	return s, true
}

// place makes a service by its pattern.
func (b *builder) place(svc api.Service) route.Service {
	name := api.ServiceID(svc.Metadata.Name)
	s := b.frame(svc)
	switch {
	case len(b.passive[name]) == 1:
		b.activePassive(&s, b.passive[name][0], svc)
	case len(b.active[name]) == 1:
		b.activeActive(&s, b.active[name][0], svc)
	default:
		b.plain(&s, svc)
	}
	return s
}

// keepLastEndpoints gives a service that would have no endpoint those of the last table, if that has any. The
// problems of the first attempt, from index problems on, are dropped: it is made again.
func (b *builder) keepLastEndpoints(name api.ServiceID, problems int) bool {
	last, ok := b.prev.Service(name)
	if !ok || countEndpoints(last) == 0 {
		return false
	}
	b.problems = b.problems[:problems]
	kept := map[api.SiteID][]route.Endpoint{}
	for _, site := range last.Sites {
		if len(site.Endpoints) > 0 {
			kept[site.Name] = slices.Clone(site.Endpoints)
		}
	}
	b.endpoints[name] = kept
	b.problem(name, audit.CodeNoEndpoints, "no workload is left: the endpoints of the last table are kept; delete Service/%s if it is to go", name)
	return true
}

func countEndpoints(s route.Service) int {
	n := 0
	for _, site := range s.Sites {
		n += len(site.Endpoints)
	}
	return n
}

// frame is what a service has under every pattern.
func (b *builder) frame(svc api.Service) route.Service {
	name := api.ServiceID(svc.Metadata.Name)
	hosts := slices.Clone(svc.Spec.Hosts)
	if len(hosts) == 0 {
		hosts = []string{svc.Metadata.Name + ".mesh"}
	}
	return route.Service{
		Name:     name,
		Protocol: svc.Spec.Protocol,
		Port:     svc.Spec.Port,
		Hosts:    hosts,
		Stateful: stateful(svc),
		Health:   svc.Spec.Health,
		Timeouts: svc.Spec.Timeouts,
		Retries:  svc.Spec.Retries,
		Limits:   svc.Spec.Limits,
		Reflex:   !stateful(svc),
		Sites:    []route.Site{},
		Callers:  b.callers[name],
	}
}

func stateful(svc api.Service) bool { return svc.Spec.Data == "stateful" }

func (b *builder) patternNames(name api.ServiceID) string {
	var names []string
	for _, p := range b.passive[name] {
		names = append(names, "ActivePassive/"+p.Metadata.Name)
	}
	for _, p := range b.active[name] {
		names = append(names, "ActiveActive/"+p.Metadata.Name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// checkReferences names the patterns and workloads of services that do not exist. A service that was deleted
// before its workloads went is no problem of the others.
func (b *builder) checkReferences() {
	missing := map[api.ServiceID]bool{}
	for name := range b.passive {
		missing[name] = true
	}
	for name := range b.active {
		missing[name] = true
	}
	for name := range missing {
		if _, ok := b.services[name]; !ok {
			b.problem(name, audit.CodeReference, "%s: there is no Service/%s", b.patternNames(name), name)
		}
	}
}

func (b *builder) problem(service api.ServiceID, code, format string, args ...any) {
	_, exists := b.services[service]
	b.problems = append(b.problems, route.Problem{Service: service, Code: code, Message: fmt.Sprintf(format, args...), Gone: !exists})
}

func (b *builder) sortedProblems() []route.Problem {
	slices.SortFunc(b.problems, func(x, y route.Problem) int {
		return cmp.Or(cmp.Compare(x.Service, y.Service), cmp.Compare(x.Code, y.Code), cmp.Compare(x.Message, y.Message))
	})
	return b.problems
}
