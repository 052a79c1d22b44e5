package xdsserver

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	loadv3 "github.com/envoyproxy/go-control-plane/envoy/service/load_stats/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Config of a Server. Identify is required.
type Config struct {
	// Identify says who a client is, from its TLS peer (in ctx) and what it says of itself. An error closes the
	// stream and is shown to the client.
	Identify func(ctx context.Context, node *corev3.Node) (route.Node, route.Capabilities, error)
	Events   Events
	Logger   *slog.Logger // default: none
	// Extra are further resources of a node, of any type (secrets). They are read at the start of a stream and again with
	// every table.
	Extra func(route.Node) []xds.Resource
	// WriteLimit is how long a client may leave a message unread before it is disconnected; default 10s.
	WriteLimit time.Duration
	// WarmLimit is how long routes wait for the acknowledgement of new clusters, and a new table for that of the one
	// before it; default 250ms. It is short because one warming cluster holds back Envoy's acknowledgement of all.
	WarmLimit time.Duration
	// LoadInterval is how often clients report their load; default 1s.
	LoadInterval time.Duration
}

// Events are what a Server tells its owner. Each may be nil.
type Events struct {
	Connected    func(route.Node, route.Capabilities)
	Disconnected func(route.Node)
	// Acked: the node has acknowledged everything that this epoch is made of for it.
	Acked func(node api.NodeID, epoch route.Epoch, at time.Time)
	// Nacked: the node refused these resources and keeps what it had.
	Nacked func(node api.NodeID, typeURL string, names []string, message string)
	// Refused: these services could not be rendered for the node; it gets the others.
	Refused func(node api.NodeID, epoch route.Epoch, problems []route.Problem)
	Load    func(node api.NodeID, load []nodeapi.Load)
	// OrderAcked: the node has received the order. What it did about it comes another way.
	OrderAcked func(node api.NodeID, name string)
	// OrderLost: the order is dead, and why. Once per order; not after RemoveOrder.
	OrderLost func(node api.NodeID, name, reason string)
}

// Nack is a refusal by a client.
type Nack struct {
	Type    string
	Names   []string
	Message string
	At      time.Time
}

// NodeStatus is what the server knows of a client that is or was connected.
type NodeStatus struct {
	Node         route.Node
	Capabilities route.Capabilities
	Connected    bool
	Since        time.Time         // of the last change of Connected
	Epoch        route.Epoch       // acknowledged whole; 0 = none
	Versions     map[string]string // per type, of what was acknowledged
	Nack         *Nack             // the last one
}

// Server serves ADS and LRS. Make one with New.
type Server struct {
	cfg Config // set once

	setting sync.Mutex // taken before mu

	mu      sync.Mutex
	table   *xds.Renderer // nil before the first SetTable
	streams map[api.NodeID]*stream
	status  map[api.NodeID]*NodeStatus
	books   map[api.NodeID]map[string]*lease
}

// New makes a Server without a table. Until SetTable it answers nothing about tables: silence keeps what a client
// has, an empty answer would take it away.
func New(cfg Config) *Server {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.WriteLimit == 0 {
		cfg.WriteLimit = 10 * time.Second
	}
	if cfg.WarmLimit == 0 {
		cfg.WarmLimit = 250 * time.Millisecond
	}
	if cfg.LoadInterval == 0 {
		cfg.LoadInterval = time.Second
	}
	return &Server{
		cfg:     cfg,
		streams: map[api.NodeID]*stream{},
		status:  map[api.NodeID]*NodeStatus{},
		books:   map[api.NodeID]map[string]*lease{},
	}
}

// Register adds ADS and LRS to a gRPC server, which should be made with ServerOptions.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(r, ads{s: s})
	loadv3.RegisterLoadReportingServiceServer(r, lrs{s: s})
}

type ads struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	s *Server
}

func (a ads) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return a.s.serveDelta(g)
}

func (a ads) StreamAggregatedResources(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return a.s.serveSotw(g)
}

// ServerOptions are what a gRPC server for xDS clients needs, credentials apart. Without the enforcement policy
// grpc-go ends idle streams of clients that send HTTP/2 keepalives every few seconds.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 100 * time.Millisecond, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Second, Timeout: 2 * time.Second}),
	}
}

// SetTable replaces the table for every client, connected now or later. It does not wait for any of them. The table
// must not be edited afterwards. A service that cannot be rendered stays as it was (Events.Refused).
func (s *Server) SetTable(t route.Table) {
	s.setting.Lock() // keeps the order of calls; rendering must not hold up everything else
	defer s.setting.Unlock()
	s.mu.Lock()
	before := s.table
	s.mu.Unlock()
	r := before.Next(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table = r
	for _, st := range s.streams {
		st.poke()
	}
}

// Nodes are the clients that are or were connected, sorted by name.
func (s *Server) Nodes() []NodeStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]NodeStatus, 0, len(s.status))
	for _, st := range s.status {
		c := *st
		c.Versions = map[string]string{}
		for k, v := range st.Versions {
			c.Versions[k] = v
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b NodeStatus) int { return strings.Compare(string(a.Node.ID), string(b.Node.ID)) })
	return out
}

// Forget drops what is known of a node that is not connected, its dead orders too. For nodes that were deregistered.
func (s *Server) Forget(node api.NodeID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[node] == nil {
		delete(s.status, node)
		delete(s.books, node)
	}
}

// join makes st the node's stream. An older stream of the same node is ended: a client that came back has given it up.
func (s *Server) join(st *stream) {
	s.mu.Lock()
	if old := s.streams[st.node.ID]; old != nil {
		old.end(errReplaced)
	}
	s.streams[st.node.ID] = st
	status := s.status[st.node.ID]
	if status == nil {
		status = &NodeStatus{Versions: map[string]string{}}
		s.status[st.node.ID] = status
	}
	status.Node, status.Capabilities = st.node, st.caps
	status.Connected, status.Since = true, time.Now()
	s.mu.Unlock()
	st.log.Info("client connected", "kind", st.caps.Kind)
	if f := s.cfg.Events.Connected; f != nil {
		f(st.node, st.caps)
	}
}

func (s *Server) leave(st *stream, err error) {
	s.mu.Lock()
	current := s.streams[st.node.ID] == st
	if current {
		delete(s.streams, st.node.ID)
		status := s.status[st.node.ID]
		status.Connected, status.Since = false, time.Now()
	}
	s.mu.Unlock()
	st.log.Info("client disconnected", "err", err)
	if f := s.cfg.Events.Disconnected; f != nil && current {
		f(st.node)
	}
}

// current is the table, and whether st is still its node's stream.
func (s *Server) current(st *stream) (*xds.Renderer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.table, s.streams[st.node.ID] == st
}

// update edits the status of a stream's node, unless another stream has taken over.
func (s *Server) update(st *stream, f func(*NodeStatus)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams[st.node.ID] == st {
		f(s.status[st.node.ID])
	}
}
