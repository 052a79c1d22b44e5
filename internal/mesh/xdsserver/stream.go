package xdsserver

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

var (
	errReplaced = status.Error(codes.Aborted, "the node has opened another stream")
	errSlow     = status.Error(codes.Unavailable, "the client does not read")
	errSilent   = status.Error(codes.ResourceExhausted, "the client does not acknowledge")
)

// stream is one connected client, whatever its form of the protocol.
type stream struct {
	srv  *Server
	node route.Node
	caps route.Capabilities
	log  *slog.Logger

	wake  chan struct{} // one slot: there is something new
	ended chan struct{} // closed by end
	once  sync.Once
	why   error // set before ended is closed

	// owned by the loop
	from  *xds.Renderer // that snap was made by; nil = none yet
	snap  xds.Resources
	acked route.Epoch // last one reported
}

// open reads who the client is.
func (s *Server) open(ctx context.Context, node *corev3.Node) (*stream, error) {
	n, caps, err := s.cfg.Identify(ctx, node)
	if err != nil {
		return nil, status.Errorf(codes.PermissionDenied, "identify node %q: %v", node.GetId(), err)
	}
	return &stream{
		srv: s, node: n, caps: caps, log: s.cfg.Logger.With("node", string(n.ID)),
		wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}, nil
}

// poke makes the loop look again. It never blocks.
func (st *stream) poke() {
	select {
	case st.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// end makes the stream's handler return with err, even while a send hangs.
func (st *stream) end(err error) {
	st.once.Do(func() {
		st.why = err
		close(st.ended)
	})
}

// serve runs a stream: loop owns the state; requests arrive from recv. It returns when either ends, or when somebody
// ends the stream. The two goroutines end with the stream's context, which is cancelled when the handler returns.
func serve[R any](ctx context.Context, st *stream, recv func() (R, error), loop func(ctx context.Context, reqs <-chan R) error) error {
	reqs := make(chan R)
	go func() {
		for {
			req, err := recv()
			if errors.Is(err, io.EOF) {
				st.end(nil) // the client has left in order
				return
			}
			if err != nil {
				st.end(err)
				return
			}
			select {
			case reqs <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() { st.end(loop(ctx, reqs)) }()
	<-st.ended
	return st.why
}

// guarded runs a send that flow control may block, and ends the stream if it takes too long.
func (st *stream) guarded(send func() error) error {
	t := time.AfterFunc(st.srv.cfg.WriteLimit, func() { st.end(errSlow) })
	defer t.Stop()
	return send()
}

// refresh renders the newest table, if it is not the one that snap was made from, and the extra resources.
func (st *stream) refresh() {
	t, ours := st.srv.current(st)
	if !ours || (t == st.from && st.snap != nil) {
		return
	}
	snap, problems := xds.Resources{}, []route.Problem(nil)
	if t != nil {
		snap, problems = t.RenderFor(st.node, st.caps)
	}
	for _, x := range st.extra() {
		snap.Add(x)
	}
	st.from, st.snap = t, snap
	if len(problems) > 0 {
		st.log.Warn("services could not be rendered", "epoch", t.Epoch(), "problems", problems)
		if f := st.srv.cfg.Events.Refused; f != nil {
			f(st.node.ID, t.Epoch(), problems)
		}
	}
}

func (st *stream) extra() []xds.Resource {
	if st.srv.cfg.Extra == nil {
		return nil
	}
	return st.srv.cfg.Extra(st.node)
}

// reportAcked tells once that the client has all of the snapshot's epoch.
func (st *stream) reportAcked() {
	if st.from == nil || st.acked == st.from.Epoch() {
		return
	}
	epoch := st.from.Epoch()
	st.acked = epoch
	st.srv.update(st, func(n *NodeStatus) { n.Epoch = epoch })
	if f := st.srv.cfg.Events.Acked; f != nil {
		f(st.node.ID, epoch, time.Now())
	}
}

func (st *stream) reportNack(typeURL string, names []string, message string) {
	st.log.Warn("client refused resources", "type", typeURL, "resources", names, "err", message)
	nack := &Nack{Type: typeURL, Names: names, Message: message, At: time.Now()}
	st.srv.update(st, func(n *NodeStatus) { n.Nack = nack })
	if f := st.srv.cfg.Events.Nacked; f != nil {
		f(st.node.ID, typeURL, names, message)
	}
}

func (st *stream) reportLost(name, reason string) {
	st.log.Warn("order is dead", "order", name, "reason", reason)
	if f := st.srv.cfg.Events.OrderLost; f != nil {
		f(st.node.ID, name, reason)
	}
}

// errNoNode is for a client whose first message does not say who it is.
var errNoNode = errors.New("the first message has no node")
