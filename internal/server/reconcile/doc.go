// Package reconcile runs the server's loops: it feeds what happens to the thinking packages and does what they decide.
//
// One goroutine owns all of it (Loop.Run): calls from outside are funcs that it runs one after the other. A step is
// always the same: feed an event to a machine, append its records and store its state in one transaction, then do its
// actions. A Loop lives as long as this server leads; what it needs to go on is in the store.
//
// Who writes which prefix of the store:
//
//	/livefire/resources/...            httpapi (operators' kinds); observe (Workload of a registered sidecar);
//	                                   drill (DrillRun), findings (Finding)
//	/livefire/nodes/<node>             registrar, under the node's lease
//	/livefire/accounts/...             httpapi
//	/livefire/table                    route
//	/livefire/failover/<service>       failover
//	/livefire/drill/<run>/...          drill
//	/livefire/lever                    lever
//	/livefire/ledger/...               ledger, for everybody
//
// Units: times are the server's clock (Config.Clock), which never goes back; shares are route.Weight.
// Errors: what a person must know is *api.Error; an error of Run means that the term has ended.
// Concurrency: Loop's exported methods are safe from any goroutine; all else is owned by Run.
package reconcile
