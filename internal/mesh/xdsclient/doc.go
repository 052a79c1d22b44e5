// Package xdsclient is the ADS client (delta) of the sidecar and the agent: it hands over routing tables and orders.
//
//	server --> staged resources --(complete for an epoch)--> Table callback --> ACK --> disk
//	server --> order with lease --> Order callback --> ACK
//
// A table is handed over whole, once per epoch, when every resource that belongs to it has arrived; it is acknowledged
// after the callback has returned, that is, when it is in force. A resource that cannot be read is refused and its
// last good version stays; a table that the callback refuses, or one of an older epoch than the one in force, is refused
// and nothing changes. The last good table is kept on disk and handed over at start, before any server answers. Orders are
// never on disk: their lease ends by the monotonic clock of this process, counted from receipt.
//
// Run connects to one server at a time and goes on to the next when it fails.
//
// Units: spans are time.Duration; epochs are route.Epoch.
// Errors: New returns *api.Error (Invalid). Run returns only the cause of its context's end; everything else is retried
// and logged.
// Concurrency: Run owns all state and calls the callbacks from one goroutine; Connected is safe from any.
// Sources: xDS protocol (envoyproxy.io/docs/envoy/v1.40/api-docs/xds_protocol).
package xdsclient
