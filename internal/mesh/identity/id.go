package identity

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/livefire-mesh/livefire/api"
)

// Role is what kind of process or person an ID names.
type Role string

const (
	RoleService Role = "service" // a workload of a service at a site
	RoleAgent   Role = "agent"   // the agent of a site
	RoleServer  Role = "server"  // a livefire server
	RoleUser    Role = "user"    // a person with a client certificate
)

// ID is one identity of a trust domain. Only the fields of its role are set; compare with ==. The zero value is nobody.
type ID struct {
	TrustDomain string
	Role        Role
	Site        api.SiteID    // service, agent
	Service     api.ServiceID // service
	User        string        // user
}

// Service is the identity of a service's workloads at a site.
func Service(trustDomain string, site api.SiteID, service api.ServiceID) ID {
	return ID{TrustDomain: trustDomain, Role: RoleService, Site: site, Service: service}
}

// Agent is the identity of a site's agent.
func Agent(trustDomain string, site api.SiteID) ID {
	return ID{TrustDomain: trustDomain, Role: RoleAgent, Site: site}
}

// Server is the identity of every server of a trust domain.
func Server(trustDomain string) ID { return ID{TrustDomain: trustDomain, Role: RoleServer} }

// User is the identity of a person.
func User(trustDomain, name string) ID {
	return ID{TrustDomain: trustDomain, Role: RoleUser, User: name}
}

// IsZero reports that id is nobody.
func (id ID) IsZero() bool { return id == ID{} }

// String is the SPIFFE id, "" for nobody.
func (id ID) String() string {
	if id.IsZero() {
		return ""
	}
	return "spiffe://" + id.TrustDomain + id.path()
}

func (id ID) path() string {
	switch id.Role {
	case RoleService:
		return "/site/" + string(id.Site) + "/service/" + string(id.Service)
	case RoleAgent:
		return "/site/" + string(id.Site) + "/agent"
	case RoleServer:
		return "/server"
	case RoleUser:
		return "/user/" + id.User
	default:
		return "/" + string(id.Role)
	}
}

// Validate reports whether id can be read back from its String.
func (id ID) Validate() error {
	back, err := ParseID(id.String())
	if err != nil {
		return err
	}
	if back != id {
		return api.Errorf(api.Invalid, id.String(), "has fields that its role %q does not use", id.Role)
	}
	return nil
}

// label is a DNS label (RFC 1123), the form of every site and service name.
var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// ParseID reads a SPIFFE id of one of the four roles, and nothing else. Invalid: any other text.
func ParseID(s string) (ID, error) {
	sp, err := spiffeid.FromString(s)
	if err != nil {
		return ID{}, api.Errorf(api.Invalid, fmt.Sprintf("%q", s), "is not a SPIFFE id: %v", err)
	}
	td := sp.TrustDomain().Name()
	part := strings.Split(strings.TrimPrefix(sp.Path(), "/"), "/")
	switch {
	case len(part) == 4 && part[0] == "site" && part[2] == "service" && label.MatchString(part[1]) && label.MatchString(part[3]):
		return Service(td, api.SiteID(part[1]), api.ServiceID(part[3])), nil
	case len(part) == 3 && part[0] == "site" && part[2] == "agent" && label.MatchString(part[1]):
		return Agent(td, api.SiteID(part[1])), nil
	case len(part) == 1 && part[0] == "server":
		return Server(td), nil
	case len(part) == 2 && part[0] == "user":
		return User(td, part[1]), nil
	}
	return ID{}, api.Errorf(api.Invalid, s, "is not an identity of livefire").
		WithHint("write /site/<site>/service/<service>, /site/<site>/agent, /server or /user/<name> after the trust domain")
}

// ParseTrustDomain checks the name of a trust domain ("mesh.example").
func ParseTrustDomain(name string) (string, error) {
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil || td.Name() != name {
		return "", api.Errorf(api.Invalid, fmt.Sprintf("%q", name), "is not the name of a trust domain").
			WithHint("use lower-case letters, digits, dots and dashes, for example mesh.example")
	}
	return name, nil
}

func (id ID) url() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: id.TrustDomain, Path: id.path()}
}

// idOf is the identity in a certificate: exactly one URI, and that a SPIFFE id of ours.
func idOf(cert *x509.Certificate) (ID, error) {
	if len(cert.URIs) != 1 {
		return ID{}, fmt.Errorf("the certificate has %d URIs, not exactly one", len(cert.URIs))
	}
	return ParseID(cert.URIs[0].String())
}
