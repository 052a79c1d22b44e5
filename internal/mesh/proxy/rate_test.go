//go:build !race

package proxy

// loadRate is requests per second of the tests under load.
const loadRate = 500
