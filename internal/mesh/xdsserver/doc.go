// Package xdsserver serves routing tables and leased orders over ADS, and takes load reports over LRS.
//
//	SetTable --> one waiting table --> per client: render, compare with what it has, send what differs
//	PutOrder --> order book per node --> body once, then heartbeats while the lease is renewed
//
// Each client has one goroutine that owns what the client was sent, acknowledged and refused. At most one table waits
// per client, a newer one replaces it; a client that does not read is disconnected. Clusters, endpoints, listeners and
// routes are sent in this order; for a client that applies them one by one (not our own proxy, which swaps whole
// tables) clusters are removed only after the routes were acknowledged. A refused resource is shown, held, and not sent
// again until it changes; the rest of a refused response is sent again one by one.
//
// Orders (delta only) carry an xDS resource TTL. The server's monotonic clock is looked at before every send; an
// order that was not renewed in time is dead for ever: it is never sent again, under any version, to anyone.
//
// Units: spans are time.Duration; epochs are route.Epoch.
// Errors: PutOrder and Renew return ErrOrderDead for a dead order; a stream ends with a gRPC status that says why.
// Concurrency: a Server is safe from any goroutine. Events are called from the goroutine of the client that they are
// about, without locks held, and must not block.
// Sources: xDS protocol (envoyproxy.io/docs/envoy/v1.40/api-docs/xds_protocol).
package xdsserver
