package httpapi

import (
	"net/http"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// operation is one call: the OpenAPI document, the role check and the handler are made from it.
type operation struct {
	ID      string // operationId
	Method  string
	Path    string // net/http pattern, which is also OpenAPI's form
	Allow   access
	Summary string
	Query   []string // names of query parameters
	Large   bool     // a body of up to 4 MiB
	In, Out any      // zero values for the schema; nil = none
	Lines   bool     // Out is streamed as JSON lines
	Mutates bool     // changes state: refused for a viewer
	Handle  func(w http.ResponseWriter, r *http.Request, c Caller) (any, error)
}

// operations is every call, in the order of the document.
func (s *Server) operations() []operation {
	return append(append(s.peopleOperations(), s.drillOperations()...), s.nodeOperations()...)
}

func (s *Server) peopleOperations() []operation {
	return []operation{
		{ID: "version", Method: "GET", Path: prefix + "/version", Allow: anyone, Summary: "Version of the server and the key that verifies its evidence",
			Out: userapi.Version{}, Handle: s.version},
		{ID: "openapi", Method: "GET", Path: "/openapi.json", Allow: anyone, Summary: "This document", Handle: s.openapi},
		{ID: "healthz", Method: "GET", Path: "/healthz", Allow: anyone, Summary: "200 when the server serves", Out: struct{}{}, Handle: s.healthz},
		{ID: "enrol", Method: "POST", Path: prefix + "/enrol", Allow: anyone, Mutates: true, Summary: "Exchange a one-time code for a certificate of the person's own key",
			In: userapi.EnrolRequest{}, Out: userapi.EnrolResponse{}, Handle: s.enrol},
		{ID: "whoami", Method: "GET", Path: prefix + "/whoami", Allow: viewers, Summary: "The caller as the server sees it", Out: userapi.Whoami{}, Handle: s.whoami},
		{ID: "listUsers", Method: "GET", Path: prefix + "/users", Allow: viewers, Summary: "Accounts", Out: []userapi.User{}, Handle: s.listUsers},
		{ID: "addUser", Method: "POST", Path: prefix + "/users", Allow: admins, Mutates: true, Summary: "Make an account, or a new enrolment code for one",
			In: userapi.User{}, Out: userapi.UserCreated{}, Handle: s.addUser},
		{ID: "removeUser", Method: "DELETE", Path: prefix + "/users/{name}", Allow: admins, Mutates: true, Summary: "Remove an account", Out: userapi.User{}, Handle: s.removeUser},
		{ID: "newBearer", Method: "POST", Path: prefix + "/users/{name}/tokens", Allow: operators, Mutates: true, Summary: "Make a bearer token of an account",
			In: userapi.BearerRequest{}, Out: userapi.BearerResponse{}, Handle: s.newBearer},
		{ID: "status", Method: "GET", Path: prefix + "/status", Allow: viewers, Query: []string{"watch"}, Summary: "Services, sites, nodes and runs; with watch=true a line per change",
			Out: userapi.Status{}, Handle: s.status},
		{ID: "list", Method: "GET", Path: prefix + "/resources/{kind}", Allow: viewers, Summary: "All resources of a kind", Out: []any{}, Handle: s.list},
		{ID: "get", Method: "GET", Path: prefix + "/resources/{kind}/{name}", Allow: viewers, Summary: "One resource", Out: map[string]any{}, Handle: s.get},
		{ID: "delete", Method: "DELETE", Path: prefix + "/resources/{kind}/{name}", Allow: operators, Mutates: true, Query: []string{"revision"},
			Summary: "Delete one resource", Out: userapi.ApplyResponse{}, Handle: s.delete},
		{ID: "apply", Method: "POST", Path: prefix + "/apply", Allow: operators, Mutates: true, Summary: "Change a set of resources, all or none",
			In: userapi.ApplyRequest{}, Out: userapi.ApplyResponse{}, Handle: s.apply},
		{ID: "watch", Method: "GET", Path: prefix + "/watch", Allow: viewers, Query: []string{"kind"}, Lines: true, Summary: "Resources of a kind and their changes, a line each",
			Out: userapi.WatchEvent{}, Handle: s.watch},
		{ID: "audit", Method: "GET", Path: prefix + "/audit", Allow: viewers, Summary: "Answers of every audit rule", Out: []userapi.Rule{}, Handle: s.audit},
		{ID: "failover", Method: "POST", Path: prefix + "/services/{service}/failover", Allow: operators, Mutates: true, Summary: "Move a service to another site",
			In: userapi.MoveRequest{}, Out: userapi.MoveResponse{}, Handle: s.move("failover")},
		{ID: "failback", Method: "POST", Path: prefix + "/services/{service}/failback", Allow: operators, Mutates: true, Summary: "Move a service back to its preferred site",
			In: userapi.MoveRequest{}, Out: userapi.MoveResponse{}, Handle: s.move("failback")},
		{ID: "lever", Method: "GET", Path: prefix + "/lever", Allow: viewers, Summary: "The safety lever", Out: userapi.Lever{}, Handle: s.lever},
		{ID: "setLever", Method: "POST", Path: prefix + "/lever", Allow: operators, Mutates: true, Summary: "Engage or release (admin) the safety lever",
			In: userapi.Lever{}, Out: userapi.Lever{}, Handle: s.setLever},
		{ID: "checkpoint", Method: "GET", Path: prefix + "/ledger/checkpoint", Allow: viewers, Summary: "The newest signed checkpoint of the log (text)", Handle: s.checkpoint},
	}
}

func (s *Server) drillOperations() []operation {
	return []operation{
		{ID: "runDrill", Method: "POST", Path: prefix + "/drills/{drill}/runs", Allow: operators, Mutates: true, Summary: "Render a drill's proposal and open a run of it",
			In: userapi.RunRequest{}, Out: userapi.Run{}, Handle: s.runDrill},
		{ID: "listRuns", Method: "GET", Path: prefix + "/runs", Allow: viewers, Summary: "Runs, newest first", Out: []userapi.RunSummary{}, Handle: s.listRuns},
		{ID: "getRun", Method: "GET", Path: prefix + "/runs/{run}", Allow: viewers, Summary: "One run with its proposal", Out: userapi.Run{}, Handle: s.getRun},
		{ID: "getProposal", Method: "GET", Path: prefix + "/runs/{run}/proposal", Allow: viewers, Summary: "The exact bytes that approvers sign", Handle: s.proposal},
		{ID: "approve", Method: "POST", Path: prefix + "/runs/{run}/approvals", Allow: approvers, Mutates: true, Summary: "Approve or reject a proposal by a signed envelope",
			In: userapi.ApproveRequest{}, Out: userapi.Run{}, Handle: s.approve},
		{ID: "abort", Method: "POST", Path: prefix + "/runs/{run}/abort", Allow: operators, Mutates: true, Summary: "End a run: it restores and closes as aborted",
			In: userapi.AbortRequest{}, Out: userapi.Run{}, Handle: s.abort},
		{ID: "watchRun", Method: "GET", Path: prefix + "/runs/{run}/watch", Allow: viewers, Lines: true, Summary: "Records and live numbers of a run, a line each",
			Out: userapi.RunEvent{}, Handle: s.watchRun},
		{ID: "bundle", Method: "GET", Path: prefix + "/runs/{run}/bundle", Allow: viewers, Summary: "The evidence of a finished run as a tar archive", Handle: s.bundle},
		{ID: "report", Method: "GET", Path: prefix + "/runs/{run}/report", Allow: viewers, Query: []string{"format"}, Summary: "The report of a finished run: format json or html", Handle: s.report},
		{ID: "applyFinding", Method: "POST", Path: prefix + "/findings/{id}/apply", Allow: operators, Mutates: true, Summary: "Make the change that a finding names",
			In: userapi.FindingRequest{}, Out: userapi.FindingResponse{}, Handle: s.finding("apply")},
		{ID: "closeFinding", Method: "POST", Path: prefix + "/findings/{id}/close", Allow: operators, Mutates: true, Summary: "Close a finding with a reason",
			In: userapi.FindingRequest{}, Out: userapi.FindingResponse{}, Handle: s.finding("close")},
	}
}

func (s *Server) nodeOperations() []operation {
	return []operation{
		{ID: "join", Method: "POST", Path: prefix + "/join", Allow: anyone, Mutates: true, Summary: "Exchange a one-time token for a node's certificate",
			In: nodeapi.JoinRequest{}, Out: nodeapi.JoinResponse{}, Handle: s.join},
		{ID: "createToken", Method: "POST", Path: prefix + "/tokens", Allow: operatorsAndAgents, Mutates: true, Summary: "Make a one-time join token",
			In: nodeapi.TokenRequest{}, Out: nodeapi.TokenResponse{}, Handle: s.createToken},
		{ID: "renew", Method: "POST", Path: prefix + "/nodes/{node}/renew", Allow: nodes, Mutates: true, Summary: "Renew a node's certificate",
			In: nodeapi.RenewRequest{}, Out: nodeapi.RenewResponse{}, Handle: s.renew},
		{ID: "heartbeat", Method: "POST", Path: prefix + "/nodes/{node}/heartbeat", Allow: nodes, Mutates: true, Summary: "Renew a registration lease and exchange clocks",
			In: nodeapi.Heartbeat{}, Out: nodeapi.HeartbeatResponse{}, Handle: s.heartbeat},
		{ID: "health", Method: "POST", Path: prefix + "/nodes/{node}/health", Allow: nodes, Mutates: true, Summary: "A sidecar's view of the endpoints that it checks",
			In: nodeapi.Health{}, Out: struct{}{}, Handle: s.health},
		{ID: "faults", Method: "POST", Path: prefix + "/nodes/{node}/faults", Allow: nodes, Mutates: true, Summary: "What became of fault orders",
			In: nodeapi.Faults{}, Out: struct{}{}, Handle: s.faults},
		{ID: "samples", Method: "POST", Path: prefix + "/nodes/{node}/samples", Allow: nodes, Mutates: true, Large: true, Query: []string{"order", "chunk", "sha256"},
			Summary: "One chunk of samples", Out: struct{}{}, Handle: s.samples},
		{ID: "executions", Method: "POST", Path: prefix + "/nodes/{node}/executions", Allow: nodes, Mutates: true, Large: true,
			Query: []string{"order", "workload", "service", "sha256"}, Summary: "Request ids that a workload executed", Out: struct{}{}, Handle: s.executions},
		{ID: "leave", Method: "POST", Path: prefix + "/nodes/{node}/leave", Allow: nodes, Mutates: true, Summary: "Leave every table at once: the node ends in an orderly way",
			In: nodeapi.Leave{}, Out: struct{}{}, Handle: s.leave},
	}
}

// operatorKinds are the kinds that an operator writes; the server alone writes the others.
var operatorKinds = map[api.Kind]bool{
	api.KindSite: true, api.KindService: true, api.KindWorkload: true, api.KindActivePassive: true, api.KindActiveActive: true,
	api.KindAuthorizationPolicy: true, api.KindScenario: true, api.KindDrill: true,
}
