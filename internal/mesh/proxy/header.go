package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
)

// Headers between sidecars: docs/spec/channels.md.
const (
	headerPrefix    = "X-Livefire-"
	headerWorkload  = "X-Livefire-Workload"
	headerFlags     = "X-Livefire-Flags"
	headerShed      = "X-Livefire-Shed"
	headerAttempts  = "X-Envoy-Attempt-Count"
	headerPeer      = "X-Forwarded-Client-Cert"
	headerFor       = "X-Forwarded-For"
	headerProto     = "X-Forwarded-Proto"
	headerRequestID = "X-Request-Id"
)

// hopByHop fields end at each hop (RFC 9110, 7.6.1), beside those that Connection names.
var hopByHop = [...]string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect", "Http2-Settings",
}

// stripHop removes the fields that are for this hop only. It runs before any field of ours is set, so that a peer
// cannot name one of those in Connection and have it removed.
func stripHop(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		delete(h, name)
	}
}

// stripOurs removes the fields that only a sidecar may set.
func stripOurs(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, headerPrefix) {
			delete(h, name)
		}
	}
	delete(h, headerPeer)
	delete(h, headerAttempts)
}

// forwarded makes the header of a request as it leaves this proxy.
func forwarded(r *http.Request) http.Header {
	h := r.Header.Clone()
	stripHop(h)
	stripOurs(h)
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = []string{""} // else net/http writes one of its own
	}
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		if prior := h[headerFor]; len(prior) > 0 {
			host = strings.Join(prior, ", ") + ", " + host
		}
		h[headerFor] = []string{host}
	}
	if len(h[headerProto]) == 0 {
		h[headerProto] = []string{"http"}
	}
	return h
}

// requestID is the caller's id if it has one that a log can hold, else a new UUID.
func requestID(r *http.Request) string {
	id := r.Header.Get(headerRequestID)
	if id == "" || len(id) > 128 {
		return newUUID()
	}
	return id
}

// newUUID makes a random UUID (RFC 9562, version 4). Ids must be unique across the mesh, so the seed has no part in it.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it ends the process instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:36], b[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}
