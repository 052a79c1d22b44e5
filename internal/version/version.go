// Package version says which livefire this is.
//
// Units, Errors, Concurrency: a constant string, set at link time for a release.
package version

import "runtime/debug"

// release is set by the linker for a release: -ldflags "-X github.com/livefire-mesh/livefire/internal/version.release=v0.1.0".
var release string

// String is the release, or the commit that the binary was built from.
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}
