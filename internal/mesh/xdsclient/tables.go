package xdsclient

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// tables stages what a server sends until it is a whole table, and keeps the last one that was taken over.
//
//  1. sent is what this stream's server has sent on top of what was in force when the stream began; staged is the same
//     with the last good version of what was refused.
//  2. A response is acknowledged when the table that it is part of is in force, or refused. Until then it is in held.
type tables struct {
	apply func(route.Table, route.Capabilities) error
	log   *slog.Logger
	store store

	force   xds.Resources // whole; nil = none yet
	table   route.Table   // decoded from force
	caps    route.Capabilities
	sent    xds.Resources
	staged  xds.Resources
	broken  bool // a resource was refused
	names   map[string][]string
	held    []heldResponse
	since   time.Time // when held became non-empty
	judged  string    // fingerprint of the staged table that was last tried
	verdict error     // and what came of it
}

var errNoEpoch = errors.New("waiting for the epoch")

// heldResponse is one that was not answered yet.
type heldResponse struct {
	url, nonce string
	carrier    bool
}

// load takes over the table on disk. One that cannot be used is left alone: the server's will replace it.
func (t *tables) load() {
	rs, err := t.store.load()
	if errors.Is(err, errNoTable) {
		return
	}
	if err == nil {
		err = t.takeOver(rs)
	}
	if err != nil {
		t.log.Warn("table on disk was not used", "dir", t.store.dir, "err", err)
		return
	}
	t.log.Info("table from disk is in force", "epoch", t.table.Epoch)
}

// begin forgets what an earlier stream has sent but not finished.
func (t *tables) begin() {
	t.staged, t.sent = clone(t.force), clone(t.force)
	t.broken, t.held, t.since = false, nil, time.Time{}
	t.names = map[string][]string{}
	t.judged, t.verdict = "", nil
}

// versions are what is in force, for the first request of a type.
func (t *tables) versions(url string) map[string]string {
	if len(t.force[url]) == 0 {
		return nil
	}
	out := map[string]string{}
	for _, x := range t.force[url] {
		out[x.Name] = x.Version
	}
	return out
}

// follow asks for the endpoints and routes that staged clusters and listeners refer to, and drops all others.
func (t *tables) follow() []*discoveryv3.DeltaDiscoveryRequest {
	var reqs []*discoveryv3.DeltaDiscoveryRequest
	for _, url := range []string{xds.TypeEndpoint, xds.TypeRoute} {
		old, asked := t.names[url]
		names := union(xds.References(t.staged, url), xds.References(t.sent, url))
		for _, rs := range []xds.Resources{t.staged, t.sent} {
			rs[url] = slices.DeleteFunc(rs[url], func(x xds.Resource) bool { return !slices.Contains(names, x.Name) })
		}
		if slices.Equal(old, names) {
			continue
		}
		req := &discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: url, ResourceNamesSubscribe: without(names, old), ResourceNamesUnsubscribe: without(old, names),
		}
		if !asked {
			req.InitialResourceVersions = t.versions(url)
		}
		t.names[url] = names
		reqs = append(reqs, req)
	}
	return reqs
}

// take stages one response and returns what to say to the server.
func (t *tables) take(m *discoveryv3.DeltaDiscoveryResponse) []*discoveryv3.DeltaDiscoveryRequest {
	bad := t.stage(m)
	reqs := t.follow()
	if bad != nil {
		t.broken = true
		t.log.Warn("resources were refused", "type", m.GetTypeUrl(), "err", bad)
		reqs = append(reqs, answer(m.GetTypeUrl(), m.GetNonce(), bad))
	} else {
		if len(t.held) == 0 {
			t.since = time.Now()
		}
		t.held = append(t.held, heldResponse{m.GetTypeUrl(), m.GetNonce(), hasCarrier(m)})
	}
	return append(reqs, t.settle()...)
}

// stage adds the good resources of a response, and names the others.
func (t *tables) stage(m *discoveryv3.DeltaDiscoveryResponse) error {
	var bad []error
	for _, r := range m.GetResources() {
		x := xds.Resource{Name: r.GetName(), Version: r.GetVersion(), Body: r.GetResource()}
		err := check(m.GetTypeUrl(), r)
		if x.Body.GetTypeUrl() == m.GetTypeUrl() {
			t.sent.Add(x)
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: %w", r.GetName(), err))
			continue
		}
		t.staged.Add(x)
	}
	url := m.GetTypeUrl()
	for _, name := range m.GetRemovedResources() {
		if slices.Contains(t.names[url], name) {
			continue // still referred to: the last good one stays, as in Envoy
		}
		for _, rs := range []xds.Resources{t.staged, t.sent} {
			rs[url] = slices.DeleteFunc(rs[url], func(x xds.Resource) bool { return x.Name == name })
		}
	}
	return errors.Join(bad...)
}

// check refuses what Decode could not read, so that it never displaces something good.
func check(url string, r *discoveryv3.Resource) error {
	if r.GetResource().GetTypeUrl() != url {
		return fmt.Errorf("is a %q, not a %q", r.GetResource().GetTypeUrl(), url)
	}
	m, err := r.GetResource().UnmarshalNew()
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	return xds.Validate(m)
}

// settle takes the staged table over if it is complete, and answers everything that waited for it.
func (t *tables) settle() []*discoveryv3.DeltaDiscoveryRequest {
	if len(t.held) == 0 {
		return nil
	}
	if err := t.complete(); err != nil {
		return nil
	}
	if print := fingerprint(t.staged); print != t.judged || t.judged == "" {
		t.judged, t.verdict = print, t.try()
	}
	var reqs []*discoveryv3.DeltaDiscoveryRequest
	for _, h := range t.held {
		var refused error
		if h.carrier || !t.carrierHeld() {
			refused = t.verdict
		}
		reqs = append(reqs, answer(h.url, h.nonce, refused))
	}
	t.held, t.since = nil, time.Time{}
	return reqs
}

// complete is xds.Complete of what was sent. If that cannot be told, because a refused resource cannot even be read,
// the rest waits for incompleteLimit and then goes without it.
func (t *tables) complete() error {
	if _, ok := xds.Epoch(t.sent); !ok {
		return errNoEpoch
	}
	err := xds.Complete(t.sent)
	if err == nil || !t.broken || time.Since(t.since) < incompleteLimit {
		return err
	}
	for _, url := range []string{xds.TypeEndpoint, xds.TypeRoute} {
		for _, name := range xds.References(t.staged, url) {
			if _, ok := t.staged.Find(url, name); !ok {
				return err
			}
		}
	}
	return nil
}

func (t *tables) carrierHeld() bool {
	return slices.ContainsFunc(t.held, func(h heldResponse) bool { return h.carrier })
}

// try takes over what is staged, unless it is what is in force already.
func (t *tables) try() error {
	if t.force != nil && fingerprint(t.staged) == fingerprint(t.force) {
		return nil
	}
	err := t.takeOver(clone(t.staged))
	var partial *xds.DecodeError
	if err != nil && !errors.As(err, &partial) {
		t.log.Warn("table was refused", "err", err)
		return err
	}
	if xds.Complete(t.force) != nil {
		return err // a table of mixed epochs is good enough to run, not to begin with
	}
	if saveErr := t.store.save(t.force); saveErr != nil {
		t.log.Warn("table was not saved: a restart would begin with an older one", "dir", t.store.dir, "err", saveErr)
	}
	return err
}

// takeOver decodes a table and puts it in force. A *xds.DecodeError says that it is in force but for the services
// named, which stay as they were.
func (t *tables) takeOver(rs xds.Resources) error {
	table, caps, err := xds.Decode(rs)
	var partial *xds.DecodeError
	if err != nil && !errors.As(err, &partial) {
		return fmt.Errorf("decode table: %w", err)
	}
	if table.Epoch < t.table.Epoch {
		return fmt.Errorf("epoch %d is older than %d, which is in force", table.Epoch, t.table.Epoch)
	}
	if partial != nil {
		table.Services = keepOld(table.Services, t.table, partial)
		t.log.Warn("services stay as they were", "epoch", table.Epoch, "err", partial)
	}
	if err := t.apply(table, caps); err != nil {
		return fmt.Errorf("put table %d in force: %w", table.Epoch, err)
	}
	t.force, t.table, t.caps = rs, table, caps
	if partial != nil {
		return partial
	}
	return nil
}

// keepOld adds the last good form of services that could not be read.
func keepOld(services []route.Service, before route.Table, partial *xds.DecodeError) []route.Service {
	for _, name := range slices.Sorted(maps.Keys(partial.Services)) {
		if s, ok := before.Service(api.ServiceID(name)); ok {
			services = append(services, s)
		}
	}
	slices.SortFunc(services, func(a, b route.Service) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return services
}

// overdue is when responses will have waited too long for the rest of a table; zero if none wait.
func (t *tables) overdue() time.Time {
	if len(t.held) == 0 {
		return time.Time{}
	}
	return t.since.Add(incompleteLimit)
}

func hasCarrier(m *discoveryv3.DeltaDiscoveryResponse) bool {
	return slices.ContainsFunc(m.GetResources(), func(r *discoveryv3.Resource) bool { return r.GetName() == xds.Carrier })
}

// fingerprint identifies the whole content of r.
func fingerprint(r xds.Resources) string {
	var b strings.Builder
	for _, url := range xds.TableTypes() {
		for _, x := range r[url] {
			fmt.Fprintf(&b, "%s\x00%s\x00%s\n", url, x.Name, xds.ContentVersion(x.Body))
		}
	}
	return b.String()
}

func clone(r xds.Resources) xds.Resources {
	out := xds.Resources{}
	for url, rs := range r {
		out[url] = slices.Clone(rs)
	}
	return out
}

// union of sorted names, sorted.
func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

// without is a without what is in b.
func without(a, b []string) []string {
	var out []string
	for _, x := range a {
		if !slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}
