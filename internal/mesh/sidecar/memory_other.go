//go:build !linux

package sidecar

// dropBinaryPages is for Linux only.
func dropBinaryPages() {}
