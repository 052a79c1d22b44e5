// Package etcd proves that a server works with an external etcd as it does with its embedded one.
//
// Units, Errors, Concurrency: end-to-end tests; see the build tag e2e.
package etcd
