package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// Caller is who calls, as proven by a certificate or a bearer token.
type Caller struct {
	Name     string // account, or node identity
	Role     string // "" for a node
	Group    string
	Key      string // id of the enrolled approver's key
	Identity string // SPIFFE id; "" with a bearer token
	Node     *Node  // nil for a person
}

// Actor is how records name the caller.
func (c Caller) Actor() string {
	if c.Node != nil {
		return "node:" + string(c.Node.ID)
	}
	return "user:" + c.Name
}

// Node is a proven node. ID is set by node calls only, after the public key was compared with the registered one.
type Node struct {
	ID      api.NodeID
	Site    api.SiteID
	Service api.ServiceID
	Agent   bool
}

// access says who may call an operation.
type access int

const (
	anyone    access = iota // no authentication: join, enrol, version, health
	viewers                 // every account
	approvers               // role approver or admin
	operators               // role operator or admin
	admins
	nodes              // a sidecar or an agent, as itself
	operatorsAndAgents // token creation: agents for their own site
)

func (a access) String() string {
	return [...]string{"anyone", "viewer", "approver", "operator", "admin", "node", "operator or agent"}[a]
}

// permit refuses a caller without the right; the error names what is needed.
func (a access) permit(c Caller, op operation) error {
	allowed := false
	switch a {
	case anyone:
		allowed = true
	case viewers:
		allowed = c.Role != ""
	case approvers:
		allowed = c.Role == userapi.Approver || c.Role == userapi.Admin
	case operators:
		allowed = c.Role == userapi.Operator || c.Role == userapi.Admin
	case admins:
		allowed = c.Role == userapi.Admin
	case nodes:
		allowed = c.Node != nil
	case operatorsAndAgents:
		allowed = c.Role == userapi.Operator || c.Role == userapi.Admin || c.Node != nil && c.Node.Agent
	}
	if allowed {
		return nil
	}
	who := c.Name
	if c.Role != "" {
		who += " has role " + c.Role
	}
	return api.Errorf(api.Denied, op.ID, "%s; this call needs %s", who, a).
		WithHint("ask an admin: livefire user add NAME --role %s", strings.Fields(a.String())[0])
}

// caller proves who calls. An error means that nobody was proven.
func (s *Server) caller(r *http.Request) (Caller, error) {
	if token := bearer(r); token != "" {
		return s.accounts.byBearer(r.Context(), token)
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return Caller{}, api.Errorf(api.Denied, "", "no client certificate and no bearer token").
			WithHint("livefire login --code CODE, or set LIVEFIRE_CONTEXT to a context.yaml")
	}
	id, err := s.cfg.PeerID(*r.TLS)
	if err != nil {
		return Caller{}, api.Errorf(api.Denied, "", "client certificate refused: %v", err)
	}
	path, ok := strings.CutPrefix(id, "spiffe://"+s.cfg.TrustDomain+"/")
	if !ok {
		return Caller{}, api.Errorf(api.Denied, id, "not of trust domain %s", s.cfg.TrustDomain)
	}
	parts := strings.Split(path, "/")
	switch {
	case len(parts) == 2 && parts[0] == "user":
		c, err := s.accounts.byName(r.Context(), parts[1])
		if err != nil {
			return Caller{}, err
		}
		key, err := s.cfg.KeySHA256(*r.TLS)
		if err != nil || key != c.keySHA256 {
			return Caller{}, api.Errorf(api.Denied, id, "this certificate's key is not the enrolled one").
				WithHint("an admin makes a new code: livefire user add %s --renew", parts[1])
		}
		c.Identity = id
		return c.Caller, nil
	case len(parts) == 3 && parts[0] == "site" && parts[2] == "agent":
		return Caller{Name: id, Identity: id, Node: &Node{Site: api.SiteID(parts[1]), Agent: true}}, nil
	case len(parts) == 4 && parts[0] == "site" && parts[2] == "service":
		return Caller{Name: id, Identity: id, Node: &Node{Site: api.SiteID(parts[1]), Service: api.ServiceID(parts[3])}}, nil
	}
	return Caller{}, api.Errorf(api.Denied, id, "this identity may not call the API")
}

// roleNames in the order of help texts.
var roleNames = []string{userapi.Viewer, userapi.Operator, userapi.Approver, userapi.Admin}

// groupNames in the order of help texts.
var groupNames = []string{"development", "operations", "security"}

func validRole(r string) bool  { return slices.Contains(roleNames, r) }
func validGroup(g string) bool { return g == "" || slices.Contains(groupNames, g) }
