// Package store keeps the state of livefire in etcd: items with revisions, transactions, watches, leases, election.
//
// Open starts an etcd inside this process, without any listener, or connects to an external one (Config.Endpoints); the
// code above cannot tell. Item, Txn and Watch speak in keys and bytes; PutObjects and its siblings speak in api.Object,
// kept under ResourcePrefix as JSON. Leadership is a Fence, not a belief: Lead hands one to the elected process, and a
// Txn that carries it is refused by etcd once somebody else could have been elected.
//
// Units: spans are time.Duration; etcd rounds leases up to whole seconds and to MinTTL. Revisions count transactions.
// Errors: *api.Error everywhere; ErrConflict, ErrFenced, ErrUncertain, ErrLeaseExpired and ErrCompacted are found with
// errors.Is. ErrUncertain means "may have happened": read back before a retry.
// Concurrency: a Store is safe from any goroutine. Watch and Lead block, own their goroutines and return after all ended.
// Sources: go.etcd.io/etcd v3.7 API guarantees; the election follows client/v3/concurrency, with own lease accounting.
package store
