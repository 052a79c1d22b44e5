package xdsserver

import (
	"context"
	"slices"
	"strconv"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
)

// maxInflight is how many responses a client may leave unanswered. A client that warms answers late, not never.
const maxInflight = 1000

// delta is one delta client. Owned by its loop, but for the stream.
type delta struct {
	*stream
	send     func(*discoveryv3.DeltaDiscoveryResponse) error
	types    map[string]*typeState
	inflight map[string]*response // by nonce
	nonce    uint64
	burst    time.Time // when the last table began to be sent
	stale    bool      // there may be a newer table than snap
}

// response is one that was not answered yet.
type response struct {
	typeURL string
	names   map[string]string // name -> version that was sent; of tables
	fresh   bool              // has a cluster that the client did not have
	orders  []orderSend
}

func (s *Server) serveDelta(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	first, err := g.Recv()
	if err != nil {
		return err
	}
	if first.GetNode() == nil {
		return status.Error(codes.InvalidArgument, errNoNode.Error())
	}
	st, err := s.open(g.Context(), first.GetNode())
	if err != nil {
		return err
	}
	d := &delta{stream: st, send: g.Send, types: map[string]*typeState{}, inflight: map[string]*response{}, stale: true}
	s.join(st)
	err = serve(g.Context(), st, g.Recv, func(ctx context.Context, reqs <-chan *discoveryv3.DeltaDiscoveryRequest) error {
		if err := d.handle(first); err != nil {
			return err
		}
		return d.loop(ctx, reqs)
	})
	s.leave(st, err)
	return err
}

func (d *delta) loop(ctx context.Context, reqs <-chan *discoveryv3.DeltaDiscoveryRequest) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, err := d.advance()
		if err != nil {
			return err
		}
		var due <-chan time.Time
		if !next.IsZero() {
			timer.Reset(time.Until(next))
			due = timer.C
		}
		select {
		case req := <-reqs:
			err = d.handle(req)
		case <-d.wake:
			d.stale = true
		case <-due:
		case <-d.ended:
			return d.why
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// handle takes in one request: an answer to a response, a change of subscriptions, or both.
func (d *delta) handle(req *discoveryv3.DeltaDiscoveryRequest) error {
	ts := d.types[req.GetTypeUrl()]
	if ts == nil {
		ts = newTypeState(req)
		d.types[req.GetTypeUrl()] = ts
	}
	if r := d.inflight[req.GetResponseNonce()]; r != nil {
		delete(d.inflight, req.GetResponseNonce())
		if req.GetErrorDetail() != nil {
			d.refused(ts, r, req.GetErrorDetail().GetMessage())
		} else {
			d.accepted(ts, r)
		}
	}
	ts.subscribe(req)
	return nil
}

func (d *delta) accepted(ts *typeState, r *response) {
	for name, version := range r.names {
		if x := ts.held[name]; x != nil && x.sent == version {
			x.acked, x.alone = version, false
		}
	}
	for _, o := range r.orders {
		if f := d.srv.cfg.Events.OrderAcked; f != nil && !o.heartbeat && !o.drop {
			f(d.node.ID, o.order.Name)
		}
	}
	if len(r.names) > 0 {
		version := ts.version()
		d.srv.update(d.stream, func(n *NodeStatus) { n.Versions[ts.url] = version })
	}
}

// refused keeps what the client has. A refused resource is not sent again until it changes. Of several, which one was
// meant cannot be told from the message, so each is sent again alone.
func (d *delta) refused(ts *typeState, r *response, message string) {
	var names []string
	for name, version := range r.names {
		names = append(names, name)
		x := ts.held[name]
		if x == nil || x.sent != version {
			continue
		}
		x.sent = x.acked
		if len(r.names) == 1 {
			x.refused = version
		} else {
			x.alone = true
		}
	}
	var orders []string
	for _, o := range r.orders {
		names = append(names, o.order.Name)
		orders = append(orders, o.order.Name)
	}
	slices.Sort(names)
	d.reportNack(ts.url, names, message)
	for _, name := range d.srv.kill(d.node.ID, orders) {
		d.reportLost(name, "the client refused it: "+message)
	}
}

// advance sends everything that may be sent now, and says when to look again if nothing happens.
func (d *delta) advance() (next time.Time, err error) {
	if len(d.inflight) > maxInflight {
		return next, errSilent
	}
	d.reportComplete()
	if wait := d.gate(); wait.IsZero() {
		d.begin()
	} else {
		next = wait
	}
	for _, ts := range d.otherTypes() {
		if err := d.sendType(ts, ts.url != xds.TypeRuntime); err != nil { // runtime layers are orders
			return next, err
		}
	}
	if d.from != nil {
		wait, err := d.sendTable()
		if err != nil {
			return next, err
		}
		next = earlier(next, wait)
		d.reportComplete()
	}
	wait, err := d.sendOrders()
	if err != nil {
		return next, err
	}
	return earlier(next, wait), d.answerAbsent()
}

// gate is zero if a newer table may be begun: there is none, or the one before was answered, or has waited enough.
// So a slow client gets the newest table, not each of them, and a client that warms does not wait for long.
func (d *delta) gate() time.Time {
	if !d.stale || d.from == nil || len(d.inflight) == 0 {
		return time.Time{}
	}
	if until := d.burst.Add(d.srv.cfg.WarmLimit); time.Now().Before(until) {
		return until
	}
	return time.Time{}
}

func (d *delta) begin() {
	if !d.stale {
		return
	}
	d.stale = false
	before := d.from
	if d.refresh(); d.from != before {
		d.burst = time.Now()
	}
}

// sendTable sends what differs, new things before what uses them and removals last. It says until when it holds
// something back for a client that has not acknowledged yet.
func (d *delta) sendTable() (time.Time, error) {
	swaps := d.caps.Kind != xds.KindEnvoy && d.caps.Kind != xds.KindGRPC // our own proxy takes a table as one
	for _, url := range []string{xds.TypeCluster, xds.TypeEndpoint} {
		if err := d.sendType(d.types[url], swaps); err != nil {
			return time.Time{}, err
		}
	}
	if until := d.burst.Add(d.srv.cfg.WarmLimit); !swaps && d.warming() && time.Now().Before(until) {
		return until, nil
	}
	for _, url := range []string{xds.TypeListener, xds.TypeRoute} {
		if err := d.sendType(d.types[url], true); err != nil {
			return time.Time{}, err
		}
	}
	if swaps || d.waits(xds.TypeListener) || d.waits(xds.TypeRoute) {
		return time.Time{}, nil
	}
	for _, url := range []string{xds.TypeEndpoint, xds.TypeCluster} {
		if err := d.sendType(d.types[url], true); err != nil {
			return time.Time{}, err
		}
	}
	return time.Time{}, nil
}

// warming says whether the client has not acknowledged a cluster that is new to it.
func (d *delta) warming() bool {
	for _, r := range d.inflight {
		if r.fresh {
			return true
		}
	}
	return false
}

func (d *delta) waits(url string) bool {
	for _, r := range d.inflight {
		if r.typeURL == url {
			return true
		}
	}
	return false
}

// otherTypes are the subscribed types that are not part of a table (secrets); they go first.
func (d *delta) otherTypes() []*typeState {
	var out []*typeState
	for url, ts := range d.types {
		if !slices.Contains(xds.TableTypes(), url) {
			out = append(out, ts)
		}
	}
	return out
}

// sendType sends the difference of one type: what may go together in one response, then what goes alone.
func (d *delta) sendType(ts *typeState, removals bool) error {
	if ts == nil {
		return nil
	}
	diff := ts.diff(d.snap[ts.url], removals)
	if len(diff.together)+len(diff.removed) > 0 || diff.greet {
		ts.greeted = true
		if err := d.respond(ts, diff.together, diff.removed); err != nil {
			return err
		}
	}
	for _, x := range diff.alone {
		if err := d.respond(ts, []xds.Resource{x}, nil); err != nil {
			return err
		}
	}
	return nil
}

func (d *delta) respond(ts *typeState, rs []xds.Resource, removed []string) error {
	r := &response{typeURL: ts.url, names: map[string]string{}}
	m := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: ts.url, RemovedResources: removed}
	for _, x := range rs {
		m.Resources = append(m.Resources, &discoveryv3.Resource{Name: x.Name, Version: x.Version, Resource: x.Body})
		r.names[x.Name] = x.Version
		h := ts.hold(x.Name)
		if ts.url == xds.TypeCluster {
			r.fresh = r.fresh || h.sent == ""
			d.resendEndpoints(x.Name)
		}
		h.sent, h.refused = x.Version, ""
	}
	for _, name := range removed {
		delete(ts.held, name)
	}
	return d.transmit(m, r)
}

// resendEndpoints sends a cluster's endpoints with it: Envoy warms a changed cluster anew and does not ask again.
// Our own proxy has no such state.
func (d *delta) resendEndpoints(cluster string) {
	if d.caps.Kind != xds.KindEnvoy {
		return
	}
	if ts := d.types[xds.TypeEndpoint]; ts != nil && ts.held[cluster] != nil {
		ts.held[cluster].sent = ""
	}
}

func (d *delta) transmit(m *discoveryv3.DeltaDiscoveryResponse, r *response) error {
	d.nonce++
	m.Nonce = strconv.FormatUint(d.nonce, 10)
	if d.from != nil {
		m.SystemVersionInfo = strconv.FormatUint(uint64(d.from.Epoch()), 10)
	}
	d.inflight[m.Nonce] = r
	return d.guarded(func() error { return d.send(m) })
}

// reportComplete reports the snapshot's epoch if the client has acknowledged all of it.
func (d *delta) reportComplete() {
	if d.from != nil && d.complete() {
		d.reportAcked()
	}
}

func (d *delta) complete() bool {
	for _, url := range xds.TableTypes() {
		ts := d.types[url]
		for _, x := range d.snap[url] {
			if ts == nil || ts.held[x.Name] == nil || ts.held[x.Name].acked != x.Version {
				return false
			}
		}
	}
	return true
}
