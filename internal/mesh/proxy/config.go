package proxy

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Config of one sidecar. Node is required; everything else may be left out where it says so.
type Config struct {
	Node route.Node
	// Version of the workload beside this sidecar, said in x-livefire-workload until the table names it. "" = unknown.
	Version string

	Outbound string                   // host:port on loopback of the shared listener, which routes by Host; "" = none
	Ports    map[api.ServiceID]string // host:port on loopback, one listener per service; port 0 = any
	Inbound  string                   // host:port of the mutual TLS listener; "" = none (a pure caller)
	App      string                   // host:port of the local application; required with Inbound

	// ClientTLS makes the configuration of one dial: it verifies that the peer shows exactly the SPIFFE id expected.
	ClientTLS func(expected string) *tls.Config
	// ServerTLS requires a client certificate of the trust domain. Required with Inbound.
	ServerTLS *tls.Config
	// PeerID is the SPIFFE id of a verified peer. Required with Inbound.
	PeerID func(tls.ConnectionState) (string, error)

	AccessLog  io.Writer             // one JSON line per request; nil = none. Written by one goroutine at a time
	Logger     *slog.Logger          // nil = discard
	Registerer prometheus.Registerer // nil = metrics are kept but not registered
	Seed       uint64                // of every random choice
}

func (c *Config) check() error {
	invalid := func(field, format string, args ...any) error {
		return api.Errorf(api.Invalid, "proxy."+field, format, args...)
	}
	if c.Node.ID == "" || c.Node.Site == "" {
		return invalid("Node", "a proxy needs the id and the site of its node")
	}
	if c.ClientTLS == nil {
		return invalid("ClientTLS", "a proxy needs the TLS configuration for its peers")
	}
	if c.Outbound != "" && !loopback(c.Outbound) {
		return invalid("Outbound", "%s is not on loopback; plaintext is for the local application only", c.Outbound)
	}
	for id, addr := range c.Ports {
		if !loopback(addr) {
			return invalid("Ports", "%s of service %s is not on loopback; plaintext is for the local application only", addr, id)
		}
	}
	if c.Inbound == "" {
		return nil
	}
	switch {
	case c.Node.Service == "":
		return invalid("Node", "an inbound listener needs the service that it stands before")
	case c.App == "":
		return invalid("App", "an inbound listener needs the address of the local application")
	case c.ServerTLS == nil:
		return invalid("ServerTLS", "an inbound listener needs a TLS configuration")
	case c.ServerTLS.ClientAuth != tls.RequireAndVerifyClientCert && c.ServerTLS.ClientAuth != tls.RequireAnyClientCert && c.ServerTLS.GetConfigForClient == nil:
		return invalid("ServerTLS", "an inbound listener must require a client certificate")
	case c.PeerID == nil:
		return invalid("PeerID", "an inbound listener must be able to tell who calls")
	}
	return nil
}

func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
