// Package drill is the state machine of one drill run: which fault to order, when to stop, how to end.
//
// A Machine is a value. Step takes it one event further and returns the new machine and what must be done, in
// order. Whoever runs it stores the new machine and appends the records of the step (ActRecord) first, and only
// then carries out the other actions: so every effect has its intent on record before it happens. Effects are
// named by a step id and may be repeated. After a restart the stored machine is loaded and gets a Restarted
// event; it never orders a fault again once any intent to inject is on record.
//
//	Draft -> Proposed -> Approved -> Scheduled -> Prechecked -> Baseline -> Injecting -> Holding
//	      -> Reverting -> FailingBack -> Verifying -> Done          (abort: any active state -> Reverting)
//
// Units: spans are time.Duration; times are the server's clock, passed in with each event.
// Errors: approvals that break a rule are refused with *api.Error (Denied, LF3110..LF3113); nothing else fails.
// Concurrency: values; Step edits nothing that it was given.
package drill
