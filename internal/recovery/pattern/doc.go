// Package pattern turns resources and the placement of each service into the routing table.
//
// Route is the only entry: it builds each service by its pattern (one file per pattern), keeps what a bad input
// would destroy, and gives the table a new epoch only if its content changed. A service that cannot be built is
// kept as it was, or left out, with a coded route.Problem; the others are unaffected.
//
// Units: shares are route.Weight, in parts of 10,000; capacity is requests per second.
// Errors: none; what is wrong with an input is a route.Problem in the table.
// Concurrency: pure functions; inputs are not changed and not kept.
// Sources: docs/spec on patterns; istio/istio re-orders where residency must exclude, which is why Excluded is a field.
package pattern
