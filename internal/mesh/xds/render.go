package xds

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// CodeRefused is the code of a Problem of Render: Envoy would refuse what the service asks for.
const CodeRefused = "LF2125"

// Kinds of clients (route.Capabilities.Kind). Any other is rendered as KindBuiltin.
const (
	KindBuiltin = "builtin"
	KindEnvoy   = "envoy"
	KindGRPC    = "grpc"
)

type named struct {
	name string
	msg  proto.Message
}

// Render translates the part of a table that a node holds (t is already narrowed by route.Table.For). It never
// renders a site that residency excludes. The problems of the table travel with it, and those of services that were left
// out here: whoever holds an earlier version of such a service keeps that.
func Render(t route.Table, n route.Node, caps route.Capabilities) (Resources, []route.Problem) {
	return NewRenderer(t).render(t, n, caps)
}

func (r *Renderer) render(t route.Table, n route.Node, caps route.Capabilities) (Resources, []route.Problem) {
	out := Resources{}
	var problems []route.Problem
	carried := slices.Clone(t.Problems)
	outbound := &routev3.RouteConfiguration{Name: outboundName}
	hosts := map[string]api.ServiceID{} // lower-case domain -> owner
	for _, s := range t.Services {
		if caps.Kind == KindGRPC && !s.MayBeCalledBy(n.Identity) {
			continue // it observes nothing
		}
		p := r.part(s, caps.Kind)
		err := cmp.Or(r.bad[s.Name], p.err)
		if err == nil {
			err = claim(hosts, s)
		}
		if err == nil {
			err = addPorts(out, s, n, caps)
		}
		if err != nil {
			problems = append(problems, refused(s.Name, err))
			carried = append(carried, refused(s.Name, err))
			continue
		}
		if why := r.kept[s.Name]; why != nil {
			problems = append(problems, refused(s.Name, why))
		}
		for _, x := range p.resources {
			out.Add(x)
		}
		if s.MayBeCalledBy(n.Identity) {
			outbound.VirtualHosts = append(outbound.VirtualHosts, p.vhost)
		} else {
			outbound.VirtualHosts = append(outbound.VirtualHosts, p.observed)
		}
	}
	if caps.Kind != KindGRPC {
		problems = append(problems, addShared(out, t, n, caps, outbound)...)
	}
	if err := addCarrier(out, carrier{epoch: t.Epoch, caps: caps, problems: carried}); err != nil {
		panic(fmt.Sprintf("internal error: carrier of epoch %d: %v", t.Epoch, err)) // built from numbers and our own texts
	}
	return out, problems
}

func refused(name api.ServiceID, err error) route.Problem {
	return route.Problem{Service: name, Code: CodeRefused, Message: err.Error()}
}

// addPorts adds what is there for one service and one node: the listener of its own.
func addPorts(out Resources, s route.Service, n route.Node, caps route.Capabilities) error {
	address := caps.ServicePorts[s.Name]
	if caps.Kind == KindGRPC || address == "" || !s.MayBeCalledBy(n.Identity) {
		return nil
	}
	extra, err := portListener(s, address, caps.Kind)
	if err != nil {
		return err
	}
	return addAll(out, extra)
}

func addAll(out Resources, all []named) error {
	made := make([]Resource, 0, len(all))
	for _, x := range all {
		if err := Validate(x.msg); err != nil {
			return err
		}
		r, err := NewResource(x.name, x.msg)
		if err != nil {
			return err
		}
		made = append(made, r)
	}
	for _, r := range made {
		out.Add(r)
	}
	return nil
}

// addShared adds what belongs to no single service to call: the outbound routes and listener, and the inbound
// listener of the node's own service.
func addShared(out Resources, t route.Table, n route.Node, caps route.Capabilities, outbound *routev3.RouteConfiguration) []route.Problem {
	var problems []route.Problem
	if caps.Outbound != "" {
		l, err := outboundListener(outboundName, caps.Outbound, outboundName, caps.Kind)
		if err == nil {
			err = addAll(out, []named{{outboundName, l}})
		}
		if err != nil {
			problems = append(problems, refused(n.Service, err))
		}
	}
	if _, ok := out.Find(TypeListener, outboundName); ok || caps.Kind != KindEnvoy {
		// Envoy asks only for routes that a listener names. The virtual hosts were validated one by one.
		x, err := NewResource(outboundName, outbound)
		if err != nil {
			panic(fmt.Sprintf("internal error: %v", err)) // each virtual host was marshalled before
		}
		out.Add(x)
	}
	own, ok := t.Service(n.Service)
	if !ok || caps.Inbound == "" || caps.App == "" || check(own) != nil {
		return problems
	}
	in, err := inbound(own, n, caps)
	if err == nil {
		err = addAll(out, in)
	}
	if err != nil {
		problems = append(problems, refused(n.Service, err))
	}
	return problems
}

// claim takes a service's domains, or fails if another service has one of them: Envoy refuses a whole route
// configuration for one domain that is there twice.
func claim(owners map[string]api.ServiceID, s route.Service) error {
	if err := taken(owners, s); err != nil {
		return err
	}
	for _, d := range domains(s) {
		owners[strings.ToLower(d)] = s.Name
	}
	return nil
}

// taken says which domain of a service belongs to another.
func taken(owners map[string]api.ServiceID, s route.Service) error {
	for _, d := range domains(s) {
		if owner, ok := owners[strings.ToLower(d)]; ok && owner != s.Name {
			return fmt.Errorf("host %q belongs to service %s", d, owner)
		}
	}
	return nil
}

// domains are the authorities under which a service is called: each host, with and without its port.
func domains(s route.Service) []string {
	var out []string
	for _, h := range s.Hosts {
		out = append(out, h)
		if s.Port > 0 {
			out = append(out, net.JoinHostPort(h, fmt.Sprint(s.Port)))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// check refuses what cannot be expressed without loss or would be refused as a whole by a client.
func check(s route.Service) error {
	texts := append([]string{string(s.Name), s.Health.Path}, s.Hosts...)
	for _, rule := range s.Callers {
		texts = append(append(append(texts, rule.Identity), rule.Methods...), rule.Paths...)
	}
	switch {
	case s.Name == "" || strings.ContainsAny(string(s.Name), "|/:"): // the marks of cluster names
		return fmt.Errorf("%q is not a service name", s.Name)
	case len(s.Hosts) == 0:
		return errors.New("no host: nobody could call it")
	case s.Health.Interval <= 0 || s.Health.Timeout <= 0:
		return errors.New("health check without interval or timeout")
	case s.Health.Failures < 1 || s.Health.Successes < 1:
		return errors.New("health check without thresholds")
	}
	for _, h := range s.Hosts {
		if h == "" || strings.ContainsAny(h, "*:/ ") {
			return fmt.Errorf("%q is not a host name", h)
		}
	}
	var total route.Weight
	for _, site := range s.Sites {
		if err := checkSite(site); err != nil {
			return err
		}
		total += site.Share
		texts = append(texts, string(site.Name), site.Region, site.Zone)
		for _, e := range site.Endpoints {
			texts = append(texts, e.Workload, e.Version, e.Identity)
		}
	}
	if total != 0 && total != route.Whole {
		return fmt.Errorf("shares add up to %d, not %d", total, route.Whole)
	}
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return fmt.Errorf("%q is not valid UTF-8", text)
		}
	}
	if _, err := json.Marshal(s); err != nil {
		return fmt.Errorf("a value has no written form: %w", err)
	}
	return nil
}

func checkSite(site route.Site) error {
	if site.Name == "" {
		return errors.New("site without name")
	}
	if site.Excluded && site.Share > 0 {
		return fmt.Errorf("site %s is excluded by residency and has a share", site.Name)
	}
	for _, e := range site.Endpoints {
		switch {
		case !e.Address.IsValid() || e.Address.Port() == 0 || e.Address.Addr().Zone() != "":
			return fmt.Errorf("workload %s at %s: %q is not an address and port", e.Workload, site.Name, e.Address)
		case e.Identity == "":
			return fmt.Errorf("workload %s at %s: no identity", e.Workload, site.Name)
		}
	}
	return nil
}

// listenAddress reads host:port of a listener, which must be an IP address: Envoy resolves no names there.
func listenAddress(s string) (netip.AddrPort, error) {
	if strings.HasPrefix(s, ":") {
		s = "0.0.0.0" + s
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address and port: %w", s, err)
	}
	return a, nil
}

// cluster is one rendered group of sites: all of a service with reflex, or one site of a service without.
type cluster struct {
	name  string
	sites []rankedSite
}

// rankedSite is a site with the priority that a client sees.
type rankedSite struct {
	route.Site
	rank uint32
}

// clustersOf groups the sites that may be used. Priorities start at 0 and have no gaps, else grpc-go refuses them.
func clustersOf(s route.Service) []cluster {
	var sites []rankedSite
	for _, site := range s.Sites {
		if !site.Excluded {
			sites = append(sites, rankedSite{Site: site})
		}
	}
	slices.SortStableFunc(sites, func(a, b rankedSite) int {
		return cmp.Or(cmp.Compare(order(a.Site), order(b.Site)), strings.Compare(string(a.Name), string(b.Name)))
	})
	if !s.Reflex {
		var out []cluster
		for _, site := range sites {
			out = append(out, cluster{siteCluster(s.Name, site.Name), []rankedSite{site}})
		}
		return out
	}
	for i := 1; i < len(sites); i++ {
		sites[i].rank = sites[i-1].rank
		if order(sites[i].Site) != order(sites[i-1].Site) {
			sites[i].rank++
		}
	}
	if len(sites) == 0 {
		return nil
	}
	return []cluster{{string(s.Name), sites}}
}

// order sorts sites with a share before all others, and those by their priority.
func order(site route.Site) int {
	if site.Share > 0 {
		return -1
	}
	return site.Priority
}

// siteCluster is the name of the cluster of one site of a service. Names of services and sites are DNS labels.
func siteCluster(s api.ServiceID, site api.SiteID) string { return string(s) + "|" + string(site) }

// ClusterName splits a cluster's name into the service and, for a service without reflex, the site.
func ClusterName(name string) (api.ServiceID, api.SiteID) {
	s, site, _ := strings.Cut(name, "|")
	return api.ServiceID(s), api.SiteID(site)
}

// IsServiceCluster says whether a cluster is of a service; names of our own contain a colon.
func IsServiceCluster(name string) bool { return !strings.Contains(name, ":") }
