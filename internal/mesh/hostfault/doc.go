// Package hostfault applies faults to the processes of a host under a lease and ends them, whatever happens to us.
//
// Order writes an undo record to disk before it touches a process, applies the fault to all targets at once and
// proves it by a local check. The lease is counted here, on the clock of this host since boot; it ends by withdrawal,
// by a missing renewal, or by the watchdog: a small process of its own that sees the agent die (end of file on a
// pipe) or overstep a deadline, and does what the undo records say. An order that has ended is dead for ever.
//
//	Order -> intent (fsync) -> apply -> applied (fsync) -> report ... end -> revert -> proof -> ended (fsync) -> report
//
// A service manager that runs the agent must stop the agent's process alone (systemd: KillMode=process): workloads
// and watchdog outlive it.
//
// Units: spans are time.Duration; deadlines are time since boot, suspend included, comparable between processes.
// Errors: *api.Error; Order: Invalid, Denied (fence, number of targets, overlap), Conflict (has ended), Unavailable
// (a target does not run, no watchdog); Renew: NotFound, Conflict (has ended).
// Concurrency: a Host is safe from any goroutine; Run has one caller and owns all goroutines.
// Sources: docs/spec/faults.md.
package hostfault
