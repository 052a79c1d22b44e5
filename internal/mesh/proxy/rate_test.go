//go:build !race

package proxy

// loadRate is requests per second of the tests under load.
const loadRate = 500

// hangRate is requests per second while a site hangs: lower, because every request waits for the detection, and a busy
// machine must not reach the limit of requests in flight by that.
const hangRate = 200
