package xdsserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
)

// sotw is one client of the state-of-the-world form (grpc-go). It gets no orders: there a heartbeat cannot be told
// from an order. Owned by its loop, but for the stream.
type sotw struct {
	*stream
	send  func(*discoveryv3.DiscoveryResponse) error
	types map[string]*worldState
	keep  xds.Resources // of the snapshot before, until the routes that do not need them are acknowledged
	nonce uint64
}

// worldState is a client's subscription to one type, and which whole state it was sent.
type worldState struct {
	url      string
	wildcard bool
	names    []string
	nonce    string // of the last response; an answer to any other is out of date
	sent     string // version
	acked    string
	refused  string // not to be sent again
	asked    bool   // its names have changed: answer even with the same content
}

func (s *Server) serveSotw(g discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
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
	w := &sotw{stream: st, send: g.Send, types: map[string]*worldState{}}
	s.join(st)
	err = serve(g.Context(), st, g.Recv, func(ctx context.Context, reqs <-chan *discoveryv3.DiscoveryRequest) error {
		w.begin()
		w.handle(first)
		return w.loop(ctx, reqs)
	})
	s.leave(st, err)
	return err
}

func (w *sotw) loop(ctx context.Context, reqs <-chan *discoveryv3.DiscoveryRequest) error {
	for {
		if err := w.advance(); err != nil {
			return err
		}
		select {
		case req := <-reqs:
			w.handle(req)
		case <-w.wake:
			w.begin()
		case <-w.ended:
			return w.why
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// begin takes the newest table. What it no longer has is kept for a while: a client must never route to a cluster
// that is gone.
func (w *sotw) begin() {
	before, from := w.snap, w.from
	if w.refresh(); w.from == from {
		return
	}
	w.keep = xds.Resources{}
	for _, url := range []string{xds.TypeCluster, xds.TypeEndpoint} {
		for _, x := range before[url] {
			if _, ok := w.snap.Find(url, x.Name); !ok {
				w.keep.Add(x)
			}
		}
	}
}

func (w *sotw) handle(req *discoveryv3.DiscoveryRequest) {
	ts := w.types[req.GetTypeUrl()]
	if ts == nil {
		ts = &worldState{url: req.GetTypeUrl(), asked: true}
		w.types[req.GetTypeUrl()] = ts
	}
	if req.GetResponseNonce() != ts.nonce && req.GetResponseNonce() != "" {
		return // answers an older response; the answer to the newest follows
	}
	if ts.nonce != "" && req.GetResponseNonce() == ts.nonce {
		w.answered(ts, req)
	}
	names := slices.Clone(req.GetResourceNames())
	slices.Sort(names)
	wildcard := slices.Contains(names, "*") || (len(names) == 0 && (ts.wildcard || ts.sent == ""))
	if wildcard != ts.wildcard || !slices.Equal(names, ts.names) {
		ts.wildcard, ts.names, ts.asked = wildcard, names, true
	}
}

func (w *sotw) answered(ts *worldState, req *discoveryv3.DiscoveryRequest) {
	if req.GetErrorDetail() == nil {
		ts.acked = ts.sent
		version := ts.acked
		w.srv.update(w.stream, func(n *NodeStatus) { n.Versions[ts.url] = version })
		return
	}
	if ts.refused != ts.sent {
		ts.refused = ts.sent
		w.reportNack(ts.url, ts.names, req.GetErrorDetail().GetMessage())
	}
}

func (w *sotw) advance() error {
	if w.from == nil {
		return nil
	}
	if err := w.sendAll(); err != nil {
		return err
	}
	if len(w.keep) > 0 && w.settled(xds.TypeRoute) && w.settled(xds.TypeListener) {
		w.keep = nil
		if err := w.sendAll(); err != nil {
			return err
		}
	}
	if w.complete() {
		w.reportAcked()
	}
	return nil
}

func (w *sotw) sendAll() error {
	urls := xds.TableTypes()
	for url := range w.types {
		if !slices.Contains(urls, url) {
			urls = append([]string{url}, urls...)
		}
	}
	for _, url := range urls {
		if ts := w.types[url]; ts != nil {
			if err := w.sendType(ts); err != nil {
				return err
			}
		}
	}
	return nil
}

// sendType sends the whole state of a type if the client does not have it, and has not refused it.
func (w *sotw) sendType(ts *worldState) error {
	rs := w.content(ts)
	version := versionOf(rs)
	if version == ts.refused || (version == ts.sent && !ts.asked) {
		return nil
	}
	ts.asked = false
	if len(rs) == 0 && !ts.wildcard {
		return nil // this form cannot say that a name does not exist
	}
	w.nonce++
	ts.nonce, ts.sent = strconv.FormatUint(w.nonce, 10), version
	m := &discoveryv3.DiscoveryResponse{TypeUrl: ts.url, VersionInfo: version, Nonce: ts.nonce}
	for _, x := range rs {
		m.Resources = append(m.Resources, x.Body)
	}
	return w.guarded(func() error { return w.send(m) })
}

func (w *sotw) content(ts *worldState) []xds.Resource {
	var out []xds.Resource
	for _, from := range []xds.Resources{w.snap, w.keep} {
		for _, x := range from[ts.url] {
			if ts.wildcard || slices.Contains(ts.names, x.Name) {
				out = append(out, x)
			}
		}
	}
	return out
}

// settled says whether the client has answered the newest state of a type, or does not ask for it.
func (w *sotw) settled(url string) bool {
	ts := w.types[url]
	return ts == nil || ts.acked == ts.sent || ts.refused == ts.sent
}

// complete says whether the client has acknowledged all that it asked for, and asks for anything.
func (w *sotw) complete() bool {
	for url, ts := range w.types {
		if slices.Contains(xds.TableTypes(), url) && (ts.acked == "" || ts.acked != versionOf(w.content(ts))) {
			return false
		}
	}
	return w.types[xds.TypeListener] != nil
}

func versionOf(rs []xds.Resource) string {
	h := sha256.New()
	for _, x := range rs {
		fmt.Fprintf(h, "%s\x00%s\n", x.Name, x.Version)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
