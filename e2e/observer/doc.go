// Command observer measures a drill of the demo a second time, with nothing of livefire's in it.
//
// It has its own clock, its own open-loop load with a request id each, its own log and its own eyes for the fault: polls of
// pidfds (killed) and of /proc/PID/stat (stopped) of the processes that demo.json names. It opens no API, ledger or report.
// At its end it computes the recovery time of each service by the definition of the measurement page and writes JSON.
//
//	observer --demo DIR/demo.json --rate payments=100,orders=100 --out result.json
//
// It ends after the hold, at SIGTERM or at --timeout, whichever comes first.
//
// Units: times RFC 3339 with nanoseconds on this host's clock; spans in seconds where a name says so.
// Errors: exit status 1 and one line. Concurrency: one goroutine per request, one that watches processes.
package main
