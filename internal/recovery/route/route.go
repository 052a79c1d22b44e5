// Package route is the routing table: which endpoints a service may be served from, in which order and shares.
//
// A Table is a value of the whole mesh, made by recovery/pattern, stored under an epoch, translated by mesh/xds.
// For narrows it to what one node must hold.
//
// Units: shares are Weight, in parts of 10,000; capacity is requests per second.
// Concurrency: values; a table is never edited after it was published.
package route

import (
	"net/netip"
	"slices"
	"time"

	"github.com/livefire-mesh/livefire/api"
)

// Epoch numbers the tables of a mesh, from 1, without gaps. A proxy never goes back to an older one.
type Epoch uint64

// Weight is a share in parts of 10,000.
type Weight uint32

// Whole is a share of one.
const Whole Weight = 10_000

// Table says, for each service, where it is served from.
//
//  1. Services are sorted by name, their sites by (Priority, Name), their endpoints by Workload.
//  2. Within a service, the shares of its sites add up to Whole, unless no site may be routed to (all zero).
//  3. A service that could not be built is absent and listed in Problems; whoever holds an earlier version keeps that
//     (Keeps). The others are unaffected.
type Table struct {
	Epoch    Epoch     `json:"epoch"`
	Services []Service `json:"services"`
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is why a service is not in the table, or not as it was asked for.
type Problem struct {
	Service api.ServiceID `json:"service"`
	Code    string        `json:"code"` // LFnnnn
	Message string        `json:"message"`
	// Gone: the service itself was deleted, or never was. Nobody keeps anything of it.
	Gone bool `json:"gone,omitempty"`
}

// Service is everything that a data plane needs to know about one service.
type Service struct {
	Name     api.ServiceID   `json:"name"`
	Protocol string          `json:"protocol"`
	Port     int             `json:"port"`
	Hosts    []string        `json:"hosts"`
	Stateful bool            `json:"stateful,omitempty"`
	Health   api.HealthCheck `json:"health"`
	Timeouts api.Timeouts    `json:"timeouts"`
	Retries  api.Retries     `json:"retries"`
	Limits   api.Limits      `json:"limits"`
	// Reflex: a proxy may leave the shares below by itself when a site fails, in Priority order.
	Reflex bool `json:"reflex"`
	// Shed: an inbound sidecar admits this share of its workload's capacity and refuses the rest with 503; zero = no limit.
	Shed    float64         `json:"shed,omitempty"`
	Sites   []Site          `json:"sites"`
	Callers []api.AllowRule `json:"callers,omitempty"` // nobody else may call; empty = nobody
}

// Site is one site's part of a service.
//
// With Share > 0 it is served in proportion. With Share 0 it is observed (active checks) and, only if the
// service has Reflex, used when every site of a lower Priority number has no healthy endpoint.
type Site struct {
	Name      api.SiteID `json:"name"`
	Region    string     `json:"region,omitempty"`
	Zone      string     `json:"zone,omitempty"`
	Share     Weight     `json:"share"`
	Priority  int        `json:"priority"`           // 0 = shared out by Share; 1.. = the order of the reflex; no gaps
	Excluded  bool       `json:"excluded,omitempty"` // residency: never used, not even by reflex
	Endpoints []Endpoint `json:"endpoints"`
}

// Endpoint is one instance as its callers reach it.
type Endpoint struct {
	Workload string         `json:"workload"`
	Address  netip.AddrPort `json:"address"`
	Version  string         `json:"version,omitempty"`
	Capacity float64        `json:"capacity,omitempty"`
	Identity string         `json:"identity"` // SPIFFE id that it must show
	// Registered is false when its registration lease has ended: it stays in the table, as unhealthy.
	Registered bool `json:"registered"`
}

// Service finds a service by name; ok is false if the table has none.
func (t Table) Service(name api.ServiceID) (s Service, ok bool) {
	i, ok := slices.BinarySearchFunc(t.Services, name, func(s Service, n api.ServiceID) int {
		switch {
		case s.Name < n:
			return -1
		case s.Name > n:
			return 1
		}
		return 0
	})
	if !ok {
		return Service{}, false
	}
	return t.Services[i], true
}

// Share is the share of a site in a service, zero if it has none.
func (s Service) Share(site api.SiteID) Weight {
	for _, x := range s.Sites {
		if x.Name == site {
			return x.Share
		}
	}
	return 0
}

// Node is what the table's reader is. It decides what it must hold.
type Node struct {
	ID       api.NodeID    `json:"id"`
	Site     api.SiteID    `json:"site"`
	Service  api.ServiceID `json:"service"`  // the service that this sidecar stands beside
	Identity string        `json:"identity"` // its SPIFFE id
	Workload string        `json:"workload,omitempty"`
}

// Capabilities is what a kind of client can honour. It is an input of the translation, beside the table.
type Capabilities struct {
	Kind string `json:"kind"` // "builtin" | "envoy" | "grpc"
	// AppAddress and Inbound are the node's own listener addresses, in its first message.
	Inbound  string `json:"inbound,omitempty"`  // host:port of the inbound listener
	App      string `json:"app,omitempty"`      // host:port of the local application
	Outbound string `json:"outbound,omitempty"` // host:port of the shared outbound listener
	// ServicePorts are host:port of the outbound listeners of single services.
	ServicePorts map[api.ServiceID]string `json:"servicePorts,omitempty"`
}

// For is the part of the table that a node must hold: its own service (to check its peers at other sites and
// to know who may call it) and every service that its identity may call. The epoch stays.
//
// It has the problems of those services, and of every service that is absent: the node may hold an earlier version of
// that one, and must hear that it is not to be dropped.
func (t Table) For(n Node) Table {
	out := Table{Epoch: t.Epoch}
	others := map[api.ServiceID]bool{}
	for _, s := range t.Services {
		if s.Name == n.Service || s.MayBeCalledBy(n.Identity) {
			out.Services = append(out.Services, s)
		} else {
			others[s.Name] = true
		}
	}
	for _, p := range t.Problems {
		if !others[p.Service] {
			out.Problems = append(out.Problems, p)
		}
	}
	return out
}

// Keeps says whether whoever holds an earlier version of an absent service must keep it: the service has a problem and
// was not deleted.
func (t Table) Keeps(name api.ServiceID) bool {
	return slices.ContainsFunc(t.Problems, func(p Problem) bool { return p.Service == name && !p.Gone })
}

// MayBeCalledBy says whether any rule of the service names the identity (methods and paths aside).
func (s Service) MayBeCalledBy(identity string) bool {
	for _, r := range s.Callers {
		if MatchIdentity(r.Identity, identity) {
			return true
		}
	}
	return false
}

// MatchIdentity says whether a SPIFFE id fits a pattern: equal element by element, where a last "*" fits any one.
func MatchIdentity(pattern, id string) bool {
	for pattern != "" || id != "" {
		var p, e string
		p, pattern = cutElement(pattern)
		e, id = cutElement(id)
		if p != e && (p != "*" || e == "") {
			return false
		}
	}
	return true
}

func cutElement(s string) (first, rest string) {
	for i := 0; i < len(s); i++ {
		if s[i] == '/' {
			return s[:i+1], s[i+1:]
		}
	}
	return s, ""
}

// StaleAfter is how long an endpoint without registration stays in the table, as unhealthy.
const StaleAfter = 10 * time.Minute
