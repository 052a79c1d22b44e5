package proxy

import (
	"slices"
	"strings"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/recovery/route"
)

// allowed says whether any rule lets the peer make this request; reason is why not. escaped is the path as it was sent.
func allowed(rules []api.AllowRule, peer, method, path, escaped string) (ok bool, reason string) {
	reason = "no rule allows " + peer
	for _, r := range rules {
		if !route.MatchIdentity(r.Identity, peer) {
			continue
		}
		if len(r.Methods) > 0 && !slices.Contains(r.Methods, method) {
			reason = "no rule allows this method"
			continue
		}
		ok, why := pathAllowed(r.Paths, path, escaped)
		if ok {
			return true, ""
		}
		reason = why
	}
	return false, reason
}

func pathAllowed(patterns []string, path, escaped string) (ok bool, reason string) {
	if len(patterns) == 0 || slices.Contains(patterns, "*") || slices.Contains(patterns, "/*") {
		return true, ""
	}
	// A path that the application may read in another way than this proxy matches no rule about paths.
	if !canonical(path, escaped) {
		return false, "the path is not in canonical form"
	}
	for _, p := range patterns {
		if prefix, isPrefix := strings.CutSuffix(p, "*"); isPrefix && strings.HasPrefix(path, prefix) || p == path {
			return true, ""
		}
	}
	return false, "no rule allows this path"
}

// canonical refuses dot segments, empty segments, and separators that are escaped or of another system.
func canonical(path, escaped string) bool {
	if !strings.HasPrefix(path, "/") || strings.Contains(path, "//") || strings.ContainsAny(path, "\\\x00;") {
		return false
	}
	lower := strings.ToLower(escaped)
	if strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c") || strings.Contains(lower, "%25") {
		return false
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}
