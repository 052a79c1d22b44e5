package httpapi

import (
	"net/http"
	"strconv"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/server/store"
)

// node proves that the caller is the node of the path.
func (s *Server) node(r *http.Request, c Caller) (Node, error) {
	key, err := s.cfg.KeySHA256(*r.TLS)
	if err != nil {
		return Node{}, api.Errorf(api.Denied, "", "%v", err)
	}
	return s.KnownNode(r.Context(), api.NodeID(r.PathValue("node")), *c.Node, key)
}

func (s *Server) renew(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	n, err := s.node(r, c)
	if err != nil {
		return nil, err
	}
	var in nodeapi.RenewRequest
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	key, err := csrKey(in.CSR)
	if err != nil {
		return nil, err
	}
	signed, err := s.cfg.Calls.SignNode(n.Site, n.Service, n.Agent, in.CSR)
	if err != nil {
		return nil, err
	}
	k, err := s.known(r.Context(), n.ID)
	if err != nil {
		return nil, err
	}
	used, err := s.cfg.KeySHA256(*r.TLS)
	if err != nil {
		return nil, api.Errorf(api.Denied, "", "%v", err)
	}
	if k.Key != key {
		// The key that the node has proven stays good: if this answer is lost, it asks again with it and a newer one.
		k.Previous, k.Key = used, key
		op, err := k.op()
		if err != nil {
			return nil, err
		}
		if err := s.commit(r.Context(), []store.Op{op}); err != nil {
			return nil, changedMeanwhile(err, "node/"+string(n.ID))
		}
	}
	return nodeapi.RenewResponse{Certificate: signed.Certificate, Roots: signed.Roots}, nil
}

func (s *Server) heartbeat(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	n, err := s.node(r, c)
	if err != nil {
		return nil, err
	}
	var in nodeapi.Heartbeat
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return s.cfg.Calls.Heartbeat(r.Context(), n, in)
}

func (s *Server) health(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	n, err := s.node(r, c)
	if err != nil {
		return nil, err
	}
	var in nodeapi.Health
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return struct{}{}, s.cfg.Calls.Health(r.Context(), n, in)
}

// leave takes a node's farewell: it is gone from every table at once instead of when its lease ends.
func (s *Server) leave(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	n, err := s.node(r, c)
	if err != nil {
		return nil, err
	}
	var in nodeapi.Leave
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return struct{}{}, s.cfg.Calls.Leave(r.Context(), n, in)
}

// agent is node for calls that only an agent makes.
func (s *Server) agent(r *http.Request, c Caller) (Node, error) {
	n, err := s.node(r, c)
	if err == nil && !n.Agent {
		return n, api.Errorf(api.Denied, "node/"+string(n.ID), "only an agent makes this call")
	}
	return n, err
}

func (s *Server) faults(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	n, err := s.agent(r, c)
	if err != nil {
		return nil, err
	}
	var in nodeapi.Faults
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return struct{}{}, s.cfg.Calls.Faults(r.Context(), n, in)
}

func (s *Server) samples(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	n, err := s.agent(r, c)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	chunk, err := strconv.ParseInt(q.Get("chunk"), 10, 64)
	if err != nil || chunk < 0 {
		return nil, api.Errorf(api.Invalid, "chunk", "%q is not a number", q.Get("chunk"))
	}
	data, err := digested(r, q.Get("sha256"))
	if err != nil {
		return nil, err
	}
	in := nodeapi.Samples{Order: q.Get("order"), Chunk: chunk, SHA256: q.Get("sha256")}
	return struct{}{}, s.cfg.Calls.Samples(r.Context(), n, in, data)
}

func (s *Server) executions(_ http.ResponseWriter, r *http.Request, c Caller) (any, error) {
	n, err := s.agent(r, c)
	if err != nil {
		return nil, err
	}
	q := r.URL.Query()
	data, err := digested(r, q.Get("sha256"))
	if err != nil {
		return nil, err
	}
	in := nodeapi.Executions{Order: q.Get("order"), Workload: q.Get("workload"), Service: api.ServiceID(q.Get("service")), SHA256: q.Get("sha256")}
	return struct{}{}, s.cfg.Calls.Executions(r.Context(), n, in, data)
}

// digested reads a body and compares its digest with the announced one.
func digested(r *http.Request, want string) ([]byte, error) {
	data, err := readBody(r)
	if err != nil {
		return nil, err
	}
	if got := sha256Hex(data); got != want {
		return nil, api.Errorf(api.Invalid, "sha256", "the body has %s, announced was %s", got, want)
	}
	return data, nil
}
