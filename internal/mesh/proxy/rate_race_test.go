//go:build race

package proxy

// loadRate is lower under the race detector, which makes every TLS handshake ten times as dear.
const loadRate = 50

// hangRate is requests per second while a site hangs: lower, because every request waits for the detection, and a busy
// machine must not reach the limit of requests in flight by that.
const hangRate = 50
