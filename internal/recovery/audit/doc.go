// Package audit checks whether each recovery endpoint would really take over.
//
// Check answers every rule for every service and site, good or bad, so that a matrix can be drawn from it; what could
// not be judged is not good. Observe makes the facts of a service from the table and the observations. The functions
// on Facts are the rules themselves: the failover machine asks the same ones of a target, so that what the audit calls
// good is what a failover accepts.
//
// Units: capacity and demand are requests per second; spans are time.Duration.
// Errors: none; a rule that cannot be judged is a Finding that is not OK and says what is missing.
// Concurrency: pure functions.
// Sources: docs/spec on patterns; ARCHITECTURE.md, flow Audit and decisions 4, 11 and 12.
package audit
