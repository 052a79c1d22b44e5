package xdsserver

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/livefire-mesh/livefire/internal/mesh/xds"
)

// held is one resource as the client has it. Versions are empty if there is none.
type held struct {
	sent    string // last sent, or what the client said it has
	acked   string // last acknowledged
	refused string // not to be sent again
	alone   bool   // to be sent in a response of its own
}

// typeState is a client's subscription to one type, and what it holds of it.
type typeState struct {
	url      string
	wildcard bool
	names    map[string]bool
	held     map[string]*held
	initial  map[string]string // what the client had when the stream began; never edited
	absent   map[string]bool   // asked for by name; true = not answered yet
	greeted  bool              // was sent anything
}

// newTypeState reads the first request of a type: a wildcard, unless it names what it wants.
func newTypeState(req *discoveryv3.DeltaDiscoveryRequest) *typeState {
	ts := &typeState{
		url: req.GetTypeUrl(), names: map[string]bool{}, held: map[string]*held{}, absent: map[string]bool{},
		initial: req.GetInitialResourceVersions(),
	}
	ts.wildcard = len(req.GetResourceNamesSubscribe()) == 0
	for name, version := range ts.initial {
		ts.held[name] = &held{sent: version, acked: version}
	}
	return ts
}

// subscribe takes in a request's change of names. A name is answered each time that it is asked for, unless the
// client said that it has it.
func (ts *typeState) subscribe(req *discoveryv3.DeltaDiscoveryRequest) {
	for _, name := range req.GetResourceNamesSubscribe() {
		if name == "*" {
			ts.wildcard = true
			continue
		}
		ts.names[name] = true
		ts.absent[name] = true
		if h := ts.held[name]; h != nil && req.GetInitialResourceVersions()[name] == "" {
			h.sent = ""
		}
	}
	for _, name := range req.GetResourceNamesUnsubscribe() {
		if name == "*" {
			ts.wildcard = false
			continue
		}
		delete(ts.names, name)
		delete(ts.absent, name)
		if !ts.wildcard {
			delete(ts.held, name)
		}
	}
}

func (ts *typeState) wants(name string) bool { return ts.wildcard || ts.names[name] }

func (ts *typeState) hold(name string) *held {
	if ts.held[name] == nil {
		ts.held[name] = &held{}
	}
	ts.absent[name] = false
	return ts.held[name]
}

// difference is what a client must be sent of one type.
type difference struct {
	together []xds.Resource
	alone    []xds.Resource
	removed  []string
	greet    bool // send a response even if it is empty: the client waits for its first
}

func (ts *typeState) diff(rs []xds.Resource, removals bool) difference {
	var d difference
	there := map[string]bool{}
	for _, x := range rs {
		there[x.Name] = true
		if !ts.wants(x.Name) {
			continue
		}
		h := ts.held[x.Name]
		switch {
		case h != nil && (h.sent == x.Version || h.refused == x.Version):
			ts.absent[x.Name] = false
		case h != nil && h.alone:
			d.alone = append(d.alone, x)
		default:
			d.together = append(d.together, x)
		}
	}
	if slices.Contains(xds.OrderTypes(), ts.url) {
		return d // orders are not part of a table, and unknown ones end by their lease
	}
	if removals {
		for _, name := range slices.Sorted(maps.Keys(ts.held)) {
			if !there[name] && !ts.absent[name] {
				d.removed = append(d.removed, name)
			}
		}
	}
	d.greet = ts.wildcard && !ts.greeted && len(ts.initial) == 0
	return d
}

// version identifies everything that the client has acknowledged.
func (ts *typeState) version() string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(ts.held)) {
		fmt.Fprintf(h, "%s\x00%s\n", name, ts.held[name].acked)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
