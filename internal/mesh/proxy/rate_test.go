//go:build !race

package proxy

// loadRate is requests per second of the tests under load.
const loadRate = 500

// latencyJudged says whether how long a request took says anything of the proxy.
const latencyJudged = true
