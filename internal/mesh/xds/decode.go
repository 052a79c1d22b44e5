package xds

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// DecodeError names the services that Decode left out. The table beside it is good without them.
type DecodeError struct {
	Services map[api.ServiceID]error
}

func (e *DecodeError) Error() string {
	var parts []string
	for name, err := range e.Services {
		parts = append(parts, fmt.Sprintf("service %s: %v", name, err))
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

// Decode reads the table that was rendered into r, for the built-in proxy: Decode(Render(t, n, caps)) is t and caps.
// A service that cannot be read is left out and named by a *DecodeError; any other error means that there is no table.
func Decode(r Resources) (route.Table, route.Capabilities, error) {
	c, err := readCarrier(r)
	if err != nil {
		return route.Table{}, route.Capabilities{}, err
	}
	x, ok := r.Find(TypeRoute, outboundName)
	if !ok {
		return route.Table{}, route.Capabilities{}, fmt.Errorf("no resource %s", outboundName)
	}
	var rc routev3.RouteConfiguration
	if err := x.Body.UnmarshalTo(&rc); err != nil {
		return route.Table{}, route.Capabilities{}, fmt.Errorf("open %s: %w", outboundName, err)
	}
	t := route.Table{Epoch: c.epoch, Problems: c.problems}
	sites := sitesByService(r)
	bad := map[api.ServiceID]error{}
	for _, vh := range rc.GetVirtualHosts() {
		s, err := decodeService(vh, sites)
		if err != nil {
			bad[api.ServiceID(vh.GetName())] = err
			continue
		}
		t.Services = append(t.Services, s)
	}
	slices.SortFunc(t.Services, func(a, b route.Service) int { return cmp.Compare(a.Name, b.Name) })
	if len(bad) > 0 {
		return t, c.caps, &DecodeError{bad}
	}
	return t, c.caps, nil
}

// foundSites are the sites of one service, or why they cannot be read.
type foundSites struct {
	sites []route.Site
	err   error
}

// sitesByService reads the endpoints of every cluster of r.
func sitesByService(r Resources) map[api.ServiceID]*foundSites {
	out := map[api.ServiceID]*foundSites{}
	for _, c := range r[TypeCluster] {
		if !IsServiceCluster(c.Name) {
			continue
		}
		name, _ := ClusterName(c.Name)
		f := out[name]
		if f == nil {
			f = new(foundSites)
			out[name] = f
		}
		sites, err := decodeSites(r, c.Name)
		f.sites = append(f.sites, sites...)
		f.err = errors.Join(f.err, err)
	}
	return out
}

func decodeService(vh *routev3.VirtualHost, sites map[api.ServiceID]*foundSites) (route.Service, error) {
	var md serviceMetadata
	if err := readMetadata(vh.GetMetadata(), &md); err != nil {
		return route.Service{}, err
	}
	s := md.Service
	if f := sites[s.Name]; f != nil {
		if f.err != nil {
			return route.Service{}, f.err
		}
		s.Sites = f.sites
	}
	for _, name := range md.Sites {
		if !slices.ContainsFunc(s.Sites, func(x route.Site) bool { return x.Name == name }) {
			return route.Service{}, fmt.Errorf("no endpoints of site %s", name)
		}
	}
	s.Sites = append(s.Sites, md.Excluded...)
	slices.SortFunc(s.Sites, func(a, b route.Site) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name))
	})
	return s, nil
}

func decodeSites(r Resources, name string) ([]route.Site, error) {
	x, ok := r.Find(TypeEndpoint, name)
	if !ok {
		return nil, fmt.Errorf("no endpoints of %s", name)
	}
	var m endpointv3.ClusterLoadAssignment
	if err := x.Body.UnmarshalTo(&m); err != nil {
		return nil, fmt.Errorf("open endpoints of %s: %w", name, err)
	}
	var out []route.Site
	for _, l := range m.GetEndpoints() {
		site, err := decodeSite(l)
		if err != nil {
			return nil, fmt.Errorf("read endpoints of %s: %w", name, err)
		}
		out = append(out, site)
	}
	return out, nil
}

func decodeSite(l *endpointv3.LocalityLbEndpoints) (route.Site, error) {
	var md localityMetadata
	if err := readMetadata(l.GetMetadata(), &md); err != nil {
		return route.Site{}, err
	}
	site := route.Site{
		Name:     api.SiteID(l.GetLocality().GetSubZone()),
		Region:   l.GetLocality().GetRegion(),
		Zone:     l.GetLocality().GetZone(),
		Share:    md.Share,
		Priority: md.Priority,
	}
	for _, e := range l.GetLbEndpoints() {
		ep, err := decodeEndpoint(e)
		if err != nil {
			return route.Site{}, fmt.Errorf("site %s: %w", site.Name, err)
		}
		site.Endpoints = append(site.Endpoints, ep)
	}
	return site, nil
}

func decodeEndpoint(e *endpointv3.LbEndpoint) (route.Endpoint, error) {
	var md endpointMetadata
	if err := readMetadata(e.GetMetadata(), &md); err != nil {
		return route.Endpoint{}, err
	}
	sa := e.GetEndpoint().GetAddress().GetSocketAddress()
	addr, err := netip.ParseAddr(sa.GetAddress())
	if err != nil || sa.GetPortValue() > 0xffff {
		return route.Endpoint{}, fmt.Errorf("workload %s: %q is not an address and port", md.Workload, sa)
	}
	return route.Endpoint{
		Workload:   md.Workload,
		Address:    netip.AddrPortFrom(addr, uint16(sa.GetPortValue())),
		Version:    md.Version,
		Capacity:   md.Capacity,
		Identity:   md.Identity,
		Registered: e.GetHealthStatus() != corev3.HealthStatus_UNHEALTHY,
	}, nil
}
