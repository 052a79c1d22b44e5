// Package xds translates the routing table to Envoy v3 messages and back, and orders to resources of our own types.
//
// Render turns (table, node, capabilities) into resources: clusters, endpoints, listeners and routes. Decode is its
// exact inverse, for the built-in proxy. What Envoy's messages have no field for stands under the key "livefire" of a
// metadata field, always in a message that Envoy can replace without closing a connection: virtual hosts (what a
// service is, sites that residency excludes), localities (share, order) and endpoints (workload, version, capacity,
// identity).
//
// The epoch stands in one resource of its own, the carrier, so that a new epoch alone changes nothing else. For our
// own proxy it is the listener named Carrier. Envoy would drain every connection of a listener whose metadata has
// changed (only a change of filter chains is applied in place), therefore Envoy's carrier is an empty cluster that
// no route names. The carrier also has a digest of all other resources: Complete says whether a client that gets
// them piece by piece holds exactly what belongs to that epoch.
//
// Units: spans are time.Duration; shares are route.Weight.
// Errors: Render sets a service that Envoy would refuse aside, as a route.Problem with CodeRefused, and renders the
// others; Decode returns a *DecodeError that names what it left out.
// Concurrency: pure functions; a Resources is never edited after Render returned it.
// Sources: Envoy v3 API (go-control-plane/envoy v1.40.0); the settings that decide failover are commented at the line.
package xds
