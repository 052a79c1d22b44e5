// Package proxy carries the requests of one sidecar: plaintext from the local application out to the mesh, mutual TLS from the mesh in to the application.
//
// New binds the listeners, Apply puts a routing table in force, Run serves until its context ends. A request keeps the
// table it started with. The packages below hold what can be decided without a socket: balance (which site, which
// endpoint), outlier (who is ejected, for how long), retry (whether to try again, and the budget), shed (what a workload
// takes), http1 (framing and connections).
//
//	local application --plaintext--> outbound: table -> site -> endpoint -> attempt, retry --mutual TLS--> peer sidecar
//	peer sidecar --mutual TLS--> inbound: identity -> rule -> limit --plaintext--> local application
//
// Units: spans are time.Duration; shares are route.Weight; bodies are counted in bytes.
// Errors: New and Apply return *api.Error (Invalid, Conflict); Run returns what ended it other than its context. A
// request that the proxy answers by itself carries x-livefire-flags in Envoy's vocabulary.
// Concurrency: every method of Proxy is safe from any goroutine; Run is called once and owns all goroutines.
// Sources: RFC 9110, RFC 9112; gRFC A50 (outlier detection), deviations are marked "differs from A50"; Envoy's response flags.
package proxy
