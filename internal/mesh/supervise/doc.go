// Package supervise starts, adopts, restarts with back-off and stops processes that outlive a dead agent.
//
// A Supervisor writes one state file per process right after its start. When an agent dies, its processes go on; the
// next one finds them by pid and start time, holds them by pidfd and never signals a pid that it has not checked.
// Every process runs in a session of its own, so that a Ctrl-C at the terminal of the agent does not reach it.
// A directory belongs to one Supervisor at a time (flock); whoever comes second waits for it.
//
// Units: spans are time.Duration; start times are clock ticks since boot, as in /proc/PID/stat.
// Errors: New and Add return *api.Error (Invalid, Conflict); New returns Unavailable on a system that is not Linux.
// ErrGone means that a process has ended; ErrLifetime that whoever owns the lifetime pipe has.
// Concurrency: a Supervisor is safe from any goroutine; Run has one caller and owns all goroutines. A Handle may be
// signalled from any goroutine and has one waiter.
// Sources: pidfd_open(2), pidfd_send_signal(2), waitid(2), proc_pid_stat(5).
package supervise
