// Package evidence is the format of what a drill leaves behind: records, the Merkle log that holds them,
// signed checkpoints, approvals, the bundle, and its offline verifier of structure.
//
// A Record is one canonical line of JSON and one leaf of a log (RFC 6962). Signer signs checkpoints and
// statements with the server's key; SignApproval signs with an approver's key. WriteBundle writes the directory
// that leaves the building and refuses to publish one that Verify would refuse. Verify needs that directory and
// one public key, no network and no clock. It proves that the files are what the server recorded; whether the
// numbers of report.json follow from them is recomputed by the reader of *Verified, not here.
//
// Everything that is signed or hashed has exactly one accepted byte string: decoders re-encode and compare.
//
// Units: times are UTC with nanoseconds; sizes are bytes; indexes and sequences count from 0.
// Errors: Verify returns *VerifyError, which names the file and, where known, the record.
// Concurrency: values and pure functions; a *Signer and a *Verified may be used from any goroutine.
// Sources: RFC 6962; C2SP tlog-tiles, tlog-checkpoint, signed-note; DSSE v1; in-toto Statement v1 with
// test-result v0.1. docs/spec/evidence.md gives every byte; testdata/vectors.json lets another implementation check itself.
package evidence
