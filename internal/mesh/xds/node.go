package xds

import (
	"encoding/json"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// nodeMetadata is what a node says of itself in its first message, under the key "livefire" of its metadata.
type nodeMetadata struct {
	Service      api.ServiceID      `json:"service,omitempty"`
	Workload     string             `json:"workload,omitempty"`
	Capabilities route.Capabilities `json:"capabilities"`
}

// NodeMessage is how a node introduces itself to a server. The identity is not in it: that is the certificate's.
func NodeMessage(n route.Node, caps route.Capabilities) *corev3.Node {
	return &corev3.Node{
		Id:       string(n.ID),
		Cluster:  string(n.Service),
		Locality: &corev3.Locality{SubZone: string(n.Site)},
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			metadataKey: toValue(nodeMetadata{Service: n.Service, Workload: n.Workload, Capabilities: caps}),
		}},
	}
}

// ReadNode is the inverse of NodeMessage, identity apart. Everything in it is the node's own claim: a server
// compares site and service with the certificate before it believes them.
func ReadNode(m *corev3.Node) (route.Node, route.Capabilities, error) {
	if m.GetId() == "" {
		return route.Node{}, route.Capabilities{}, fmt.Errorf("node has no id")
	}
	var md nodeMetadata
	if v, ok := m.GetMetadata().GetFields()[metadataKey]; ok {
		if err := fromValue(v, &md); err != nil {
			return route.Node{}, route.Capabilities{}, fmt.Errorf("read metadata of node %s: %w", m.GetId(), err)
		}
	}
	n := route.Node{
		ID:       api.NodeID(m.GetId()),
		Site:     api.SiteID(m.GetLocality().GetSubZone()),
		Service:  md.Service,
		Workload: md.Workload,
	}
	return n, md.Capabilities, nil
}

// metadataKey is the key of everything of ours in a metadata field.
const metadataKey = "livefire"

// metadata wraps a value under metadataKey.
func metadata(v any) *corev3.Metadata {
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{metadataKey: toValue(v).GetStructValue()}}
}

// readMetadata is the inverse of metadata. It fails if there is nothing of ours.
func readMetadata(m *corev3.Metadata, v any) error {
	s, ok := m.GetFilterMetadata()[metadataKey]
	if !ok {
		return fmt.Errorf("no metadata %q", metadataKey)
	}
	return fromValue(structpb.NewStructValue(s), v)
}

// toValue turns a value of ours, which always has a JSON object form, into a protobuf value.
func toValue(v any) *structpb.Value {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("internal error: encode metadata %T: %v", v, err))
	}
	out := new(structpb.Value)
	if err := out.UnmarshalJSON(b); err != nil {
		panic(fmt.Sprintf("internal error: convert metadata %T: %v", v, err))
	}
	return out
}

func fromValue(m *structpb.Value, v any) error {
	b, err := m.MarshalJSON()
	if err != nil {
		return fmt.Errorf("convert metadata: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode metadata: %w", err)
	}
	return nil
}
