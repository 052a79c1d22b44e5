//go:build race

package proxy

// loadRate is lower under the race detector, which makes every TLS handshake ten times as dear.
const loadRate = 50

// latencyJudged says whether how long a request took says anything of the proxy.
const latencyJudged = false
