package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

const host = "Host: a\r\n"

// refusedHeads is what RFC 9112 forbids, or what two hops have been seen to read in two ways.
var refusedHeads = []struct {
	name, in string
	status   int
}{
	{"both lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
	{"both lengths, other order", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400},
	{"repeated equal length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400},
	{"differing lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
	{"list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5, 5\r\n\r\nhello", 400},
	{"signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +5\r\n\r\nhello", 400},
	{"negative length", "POST / HTTP/1.1\r\n" + host + "Content-Length: -5\r\n\r\nhello", 400},
	{"empty length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", 400},
	{"length overflow", "POST / HTTP/1.1\r\n" + host + "Content-Length: 9223372036854775808\r\n\r\n", 400},
	{"underscore in length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1_0\r\n\r\n", 400},
	{"space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400},
	{"bare LF after a field", "GET / HTTP/1.1\r\nHost: a\n\r\n", 400},
	{"bare LF everywhere", "GET / HTTP/1.1\nHost: a\n\n", 400},
	{"bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", 400},
	{"folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400},
	{"leading space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
	{"NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\x00c\r\n\r\n", 400},
	{"control character in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\x01c\r\n\r\n", 400},
	{"DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n", 400},
	{"unknown coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n", 400},
	{"coding list", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n", 400},
	{"repeated coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
	{"coding with a vertical tab", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \x0bchunked\r\n\r\n", 400},
	{"coding in HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n", 400},
	{"missing Host", "GET / HTTP/1.1\r\nX: y\r\n\r\n", 400},
	{"missing Host, no fields", "GET / HTTP/1.1\r\n\r\n", 400},
	{"repeated Host", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400},
	{"target disagrees with Host", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"target with user", "GET http://u@a/ HTTP/1.1\r\nHost: u@a\r\n\r\n", 400},
	{"field without a name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400},
	{"field without a colon", "GET / HTTP/1.1\r\nHost: a\r\nb\r\n\r\n", 400},
	{"empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"two spaces in the request line", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"target that is no path", "GET index HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"tab in the target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"raw UTF-8 in the target", "GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
	{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
	{"lower case version", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
	{"TLS on a plain port", "\x16\x03\x01\x00\xa5\x01\x00\x00", 400},
	{"target too long", "GET /" + strings.Repeat("a", 8<<10) + " HTTP/1.1\r\nHost: a\r\n\r\n", 414},
	{"endless target", "GET /" + strings.Repeat("a", 9<<10), 414},
	{"head too large", "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 64<<10) + "\r\n\r\n", 431},
	{"too many fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 100) + "\r\n", 431},
	{"chunk size with a sign", chunked("+5\r\nhello\r\n0\r\n\r\n"), 400},
	{"negative chunk size", chunked("-5\r\nhello\r\n0\r\n\r\n"), 400},
	{"chunk size with 0x", chunked("0x5\r\nhello\r\n0\r\n\r\n"), 400},
	{"chunk size with a space", chunked("5 \r\nhello\r\n0\r\n\r\n"), 400},
	{"chunk size overflow", chunked("8000000000000005\r\nhello"), 400},
	{"chunk size of 17 digits", chunked("00000000000000005\r\nhello\r\n0\r\n\r\n"), 400},
	{"empty chunk size", chunked("\r\nhello\r\n0\r\n\r\n"), 400},
	{"chunk size with bare LF", chunked("5\nhello\r\n0\r\n\r\n"), 400},
	{"trailing garbage after a chunk", chunked("5\r\nhelloX\r\n0\r\n\r\n"), 400},
	{"chunk without CRLF behind it", chunked("5\r\nhello\n0\r\n\r\n"), 400},
	{"control character in a chunk extension", chunked("5;a=\x01\r\nhello\r\n0\r\n\r\n"), 400},
	{"endless chunk extension", chunked("5;" + strings.Repeat("a", 300)), 400},
	{"length in the trailers", chunked("0\r\nContent-Length: 5\r\n\r\n"), 400},
	{"folded trailer", chunked("0\r\nX: y\r\n z\r\n\r\n"), 400},
	{"bare LF in the trailers", chunked("0\r\nX: y\n\r\n"), 400},
}

func chunked(body string) string {
	return "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n" + body
}

// acceptedRequests is the twin of refusedHeads: what must pass, byte for byte.
var acceptedRequests = []struct{ name, in string }{
	{"simple", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"HTTP/1.0 without Host", "GET / HTTP/1.0\r\n\r\n"},
	{"length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello"},
	{"length zero", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n"},
	{"length with spaces around", "POST / HTTP/1.1\r\n" + host + "Content-Length: \t 5 \r\n\r\nhello"},
	{"chunked in capitals", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n"},
	{"chunks", chunked("5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n000\r\n\r\n")},
	{"trailers", chunked("0\r\nX: y\r\nZ:\r\n\r\n")},
	{"two in a row", "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"body, then another", "POST /1 HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"chunks, then another", chunked("1\r\n\r\r\n0\r\n\r\n") + "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"absolute form", "GET http://A:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n"},
	{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"},
	{"UTF-8 in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa4\r\n\r\n"},
	{"empty value", "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n"},
	{"most fields", "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: y\r\n", 99) + "\r\n"},
}

// feed gives b to a framer in pieces and returns what passed.
func feed(b []byte, piece int) (passed []byte, refused *Refusal) {
	f := framer{limits: DefaultLimits()}
	var held []byte
	for len(b) > 0 {
		n := min(piece, len(b))
		held = append(held, b[:n]...)
		b = b[n:]
		k, refused := f.next(held)
		passed = append(passed, held[:k]...)
		held = held[k:]
		if refused != nil {
			return passed, refused
		}
	}
	return passed, nil
}

func TestForbiddenFramingIsRefused(t *testing.T) {
	for _, tt := range refusedHeads {
		for _, piece := range []int{1, 2, 7, 1 << 20} {
			passed, refused := feed([]byte(tt.in), piece)
			if refused == nil || refused.Status != tt.status {
				t.Errorf("%s in pieces of %d: %v, want status %d", tt.name, piece, refused, tt.status)
			}
			if head, _, ok := strings.Cut(tt.in, "\r\n\r\n"); ok && strings.Contains(head, "chunked") && len(passed) > 0 && tt.status == 400 {
				continue // the head was in order
			}
			if len(passed) > 0 {
				t.Errorf("%s in pieces of %d: %q passed, want nothing", tt.name, piece, passed)
			}
		}
	}
}

func TestProperRequestsPassUnchanged(t *testing.T) {
	for _, tt := range acceptedRequests {
		for _, piece := range []int{1, 2, 7, 1 << 20} {
			if passed, refused := feed([]byte(tt.in), piece); refused != nil || string(passed) != tt.in {
				t.Errorf("%s in pieces of %d: passed %q, refused %v; want all of it", tt.name, piece, passed, refused)
			}
		}
	}
}

// FuzzFramer compares with net/http as a second opinion: what passes as a complete request it must read as one, and it
// must find the same end. It also feeds the input in pieces, which must change nothing.
func FuzzFramer(f *testing.F) {
	for _, tt := range refusedHeads {
		f.Add([]byte(tt.in))
	}
	for _, tt := range acceptedRequests {
		f.Add([]byte(tt.in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, refused := feed(in, len(in)+1)
		bytewise, refusedBytewise := feed(in, 1)
		if !bytes.Equal(whole, bytewise) || (refused == nil) != (refusedBytewise == nil) && len(in) < 8<<10 {
			t.Fatalf("whole %q (%v), byte by byte %q (%v)", whole, refused, bytewise, refusedBytewise)
		}
		r := bufio.NewReader(bytes.NewReader(whole))
		fr := framer{limits: DefaultLimits()}
		rest := whole
		for len(rest) > 0 {
			n, refused := endOfRequest(&fr, rest)
			if refused != nil {
				t.Fatalf("what passed was refused: %v", refused)
			}
			if n < 0 {
				return // the last request is not complete
			}
			req, err := http.ReadRequest(r)
			if err != nil {
				if s := err.Error(); strings.Contains(s, "parse") || strings.Contains(s, "invalid") {
					return // net/http is stricter about the target
				}
				t.Fatalf("net/http does not read what passed: %v: %q", err, rest[:n])
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				t.Fatalf("net/http does not read the body that passed: %v: %q", err, rest[:n])
			}
			if got := len(whole) - buffered(r); got != len(whole)-len(rest)+n {
				t.Fatalf("net/http ends the request at byte %d, we at %d of %q", got, len(whole)-len(rest)+n, whole)
			}
			rest = rest[n:]
		}
	})
}

// buffered counts what a reader still has.
func buffered(r *bufio.Reader) int {
	rest, err := io.ReadAll(r)
	if err != nil && !errors.Is(err, io.EOF) {
		panic(err)
	}
	r.Reset(bytes.NewReader(rest))
	return len(rest)
}

// endOfRequest is the length of the first request in b, -1 if it is not complete.
func endOfRequest(f *framer, b []byte) (int, *Refusal) {
	n := 0
	for {
		if n == len(b) {
			return -1, nil
		}
		k, refused := f.step(b[n:])
		if refused != nil || k == 0 {
			return -1, refused
		}
		if n += k; f.state == inHead {
			return n, nil
		}
	}
}
