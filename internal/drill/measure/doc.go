// Package measure turns the samples and records of a run into recovery times, accounts and a verdict, with bounds.
//
// Run is the only entry: it reads values and computes, so a verifier far away gets the same numbers. Findings says
// which change would shorten a recovery most, Retest compares a prediction with a later run. Every quantity is
// defined in docs/spec/measurement.md; no data is never a pass, and no phase is negative, clamped or invented.
//
// Choices that the page leaves open: tI is the start of its bracket, so nothing that the fault did falls before it;
// a window begins at each sample, the last one ends with the hold; a sample that a window should hold and that is
// missing counts as unknown; success with unknown samples is judged at both of its bounds.
//
// Units: spans are time.Duration; times are the server's clock; ratios are 0 to 1.
// Errors: Run fails for records or samples that contradict themselves, naming the record or the sample.
// Concurrency: pure functions.
// Sources: docs/spec/measurement.md.
package measure
