// Package ledger appends records to the log of evidence and signs its head.
//
// A Ledger keeps the log in the store under Prefix: the head (size and the roots of the complete subtrees), a line and
// the stored hashes per record, and where each run stands. Append writes a batch and moves the head by compare-and-swap
// in one transaction under the leader's fence; so a record is either in the log with its hashes or not at all, and two
// writers never share an index. A run begins with run.proposed and takes no record after run.closed.
//
// Units: times are UTC; indexes and sequences count from 0.
// Errors: *api.Error. ErrClosed: the run has ended. store.ErrFenced: no longer the leader, nothing was written.
// *UnsettledError (store.ErrUncertain): the store did not say whether the records were written; see Settle.
// Concurrency: a Ledger is safe from any goroutine; appends are one after the other.
// Sources: RFC 6962 by way of package evidence; docs/spec/evidence.md gives the bytes and the keys.
package ledger
