// Package envoy proves that what xds makes of the demo's routing table is truly Envoy's: a real Envoy calls the built-in sidecars with it.
//
// The tests have the build tag e2e and need .tools/envoy/bin/envoy (scripts/install-test-tools); without it they fail.
//
//	go test -tags e2e -count 1 ./e2e/envoy
//
// One test process is the server (ADS and SDS on a Unix socket), the sidecars and their sample applications. Envoy is a
// process of its own, in the place of the demo's caller; it is ended by its pid, and everything is in the test's directory.
//
// Units, Errors: end-to-end tests. Concurrency: tests run one after another.
package envoy
