// Package failover decides when the place that a service is served from changes: a state machine per service.
//
// A Machine is a value. Step takes an event and returns the next machine and what to do, in raft's shape: decide,
// persist, act, confirm. Persist the machine whenever Step returned an action, and after every Ordered, Drill,
// Configured and Committed; then do the actions in their order; a Publish is confirmed with Committed, and the
// proxies' acknowledgements arrive as Acked. After a restart, Restarted gives again what was not confirmed. Next
// tells when time alone will change something.
//
//	Steady -> Suspect -> Lost --(failover.after)--> Switching --(Committed)--> Steady at the other site
//	                      \--> Refused (a rule forbids the automatic switch: loud, tried again when facts change)
//	Steady at the other site --(preferred ready for failback.after)--> FailingBack --(last share committed)--> Steady
//
// Units: times come with the events, on one clock that does not go back; shares are route.Weight; demand and
// capacity are requests per second.
// Errors: none; an order that a rule forbids is a Record of kind RecordRefusal for each rule, and nothing else.
// Concurrency: a Machine is a value, and Step does not change the one it is called on.
// Sources: ARCHITECTURE.md, flow Failover and decision 4; docs/spec on patterns, whose sentences testdata names.
package failover
