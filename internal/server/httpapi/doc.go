// Package httpapi is the JSON API of the server: one table of operations, authentication, roles, and the accounts behind them.
//
// Operations (operations.go) is the only list of calls; the handlers, the role check and the OpenAPI document are
// made from it. What a call does beyond accounts and resources is a func of Calls, filled by the server's wiring.
//
// Units: times are RFC 3339 UTC; request bodies are at most 1 MiB (samples: 4 MiB).
// Errors: every refusal is an *api.Error as JSON with the HTTP status of its kind.
// Concurrency: a Server's handler is safe from any goroutine; state is in the store, changed by compare-and-swap.
package httpapi
