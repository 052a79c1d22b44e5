package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// Type URLs of the resources of a routing table, and of secrets.
const (
	TypeCluster  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	TypeEndpoint = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	TypeListener = "type.googleapis.com/envoy.config.listener.v3.Listener"
	TypeRoute    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	TypeSecret   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	TypeRuntime  = "type.googleapis.com/envoy.service.runtime.v3.Runtime"
)

// TableTypes are the types of a routing table in the order in which a server sends them: what is referred to
// comes before what refers to it, so that new things exist before they are used.
func TableTypes() []string {
	return []string{TypeCluster, TypeEndpoint, TypeListener, TypeRoute}
}

// Carrier is the name of the resource that carries the epoch.
const Carrier = "livefire:epoch"

// Resource is one named resource. Version is a hash of Body's bytes, which are deterministic: two servers that
// render the same table give the same versions.
type Resource struct {
	Name    string
	Version string
	Body    *anypb.Any
}

// Resources are resources by type URL, sorted by name within a type.
type Resources map[string][]Resource

// NewResource packs a message.
func NewResource(name string, m proto.Message) (Resource, error) {
	body := new(anypb.Any)
	if err := anypb.MarshalFrom(body, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return Resource{}, fmt.Errorf("marshal resource %s: %w", name, err)
	}
	return Resource{Name: name, Version: ContentVersion(body), Body: body}, nil
}

// ContentVersion is the version of a resource with this body.
func ContentVersion(body *anypb.Any) string {
	sum := sha256.Sum256(body.GetValue())
	return hex.EncodeToString(sum[:12])
}

// Find is the resource of a type and name; ok is false if there is none.
func (r Resources) Find(typeURL, name string) (Resource, bool) {
	i, ok := slices.BinarySearchFunc(r[typeURL], name, func(x Resource, name string) int {
		return strings.Compare(x.Name, name)
	})
	if !ok {
		return Resource{}, false
	}
	return r[typeURL][i], true
}

// Add appends a resource under the type of its body and keeps the order. A resource of that name is replaced.
func (r Resources) Add(x Resource) {
	typeURL := x.Body.GetTypeUrl()
	i, ok := slices.BinarySearchFunc(r[typeURL], x.Name, func(y Resource, name string) int {
		return strings.Compare(y.Name, name)
	})
	if ok {
		r[typeURL][i] = x
		return
	}
	r[typeURL] = slices.Insert(r[typeURL], i, x)
}

// carrierOf finds the carrier, which is a listener for our own proxy and a cluster for Envoy.
func carrierOf(r Resources) (Resource, bool) {
	if x, ok := r.Find(TypeListener, Carrier); ok {
		return x, true
	}
	return r.Find(TypeCluster, Carrier)
}

// Epoch is the epoch of the table that was rendered into r; ok is false if r has no carrier.
func Epoch(r Resources) (epoch route.Epoch, ok bool) {
	c, err := readCarrier(r)
	if err != nil {
		return 0, false
	}
	return c.epoch, true
}

// Complete says whether r is whole: every name that a resource refers to is there and, if r has a carrier,
// all resources are those of the carrier's epoch, and no others. The error says what is missing.
func Complete(r Resources) error {
	if missing := missingNames(r); len(missing) > 0 {
		return fmt.Errorf("waiting for %s", strings.Join(missing, ", "))
	}
	if _, ok := carrierOf(r); !ok {
		return nil
	}
	c, err := readCarrier(r)
	if err != nil {
		return err
	}
	if digest(r) != c.digest {
		return fmt.Errorf("waiting for the rest of epoch %d", c.epoch)
	}
	return nil
}

// missingNames are the endpoints and route configurations that are referred to but not in r.
func missingNames(r Resources) []string {
	var missing []string
	for _, typeURL := range []string{TypeEndpoint, TypeRoute} {
		for _, name := range References(r, typeURL) {
			if _, ok := r.Find(typeURL, name); !ok {
				missing = append(missing, name)
			}
		}
	}
	return missing
}

// digest identifies the content of all table resources but the carrier. Whoever holds more than what is referred to
// (endpoints of a removed cluster) must drop that first. The hash is of the bodies, not of the versions, which
// another server may name as it likes.
func digest(r Resources) string {
	h := sha256.New()
	for _, typeURL := range TableTypes() {
		for _, x := range r[typeURL] {
			if x.Name != Carrier {
				fmt.Fprintf(h, "%s\x00%s\x00%s\n", typeURL, x.Name, ContentVersion(x.Body))
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
