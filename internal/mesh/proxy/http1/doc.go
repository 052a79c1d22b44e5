// Package http1 is HTTP/1.1 on the wire: a strict filter in front of net/http's server, and pooled client connections.
//
// Guard wraps an accepted connection. It passes on what RFC 9112 allows and nothing else: net/http accepts bare LF,
// folded lines, Content-Length beside Transfer-Encoding and repeated lengths, each a way to make two hops disagree on
// where a request ends. A refused request reaches the handler as a request of our own that names status and reason.
// Pool keeps client connections to one endpoint; Conn.RoundTrip says whether any byte of a request may have left.
//
// Units: limits are bytes and counts; spans are time.Duration.
// Errors: *Refusal is a peer's violation of the framing; *SendError is a failed exchange and says what is known of it.
// Concurrency: a Guard is used by net/http's server as any net.Conn; a Pool is safe from any goroutine; a Conn has one user.
// Sources: RFC 9110, RFC 9112 (sections 2.2, 3.2, 5, 6, 7.1).
package http1
