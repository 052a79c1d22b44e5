// Package probe sends requests at a fixed rate, whatever becomes of them, and keeps what came of each until the server has it.
//
// A probe is open-loop: sample n is due at start + n/rate. A late answer, or one that never comes, counts from the
// moment at which its request was due, so a stalled service shows in every sample that a user would have sent.
// Samples are written to a spool, one chunk for each second, and uploaded in order; a chunk leaves the spool when the
// server has it. After a crash the next Prober continues a probe whose lease still runs, and closes every other one;
// a sample without an end is then unknown. A probe that has ended is never started again.
//
//	spool/<order>/order.json       the order, when it began, its lease, whether it has ended
//	             /alive            until when samples may have been sent, rewritten ten times a second
//	             /open-<k>.jsonl   samples of second k that have ended, while others have not
//	             /chunk-<k>.jsonl  second k, complete, to be uploaded
//	             /sent-<k>.jsonl   uploaded; removed when all are
//
// A disk that hangs delays nothing until 16384 events wait for it; then it delays the probe, which shows in Start.
//
// Units: spans are time.Duration; intended times are UTC wall times of this host, without jumps within one chunk.
// Errors: Start: *api.Error Invalid, Conflict (has ended); Renew: NotFound, Conflict (lease has ended). Upload is
// tried until it succeeds; a chunk that it refuses with Invalid or Conflict is put aside as refused-<k>.jsonl.
// Concurrency: a Prober is safe from any goroutine; Run has one caller and owns all goroutines.
// Sources: docs/spec/measurement.md; internal/drill/sample for the bytes of a chunk.
package probe
