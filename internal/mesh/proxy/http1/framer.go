package http1

import (
	"bytes"
	"fmt"
	"net/http"
)

// Limits of a request head. Zero fields mean the values of DefaultLimits.
type Limits struct {
	Head   int // bytes of request line and fields
	Target int // bytes of the request target
	Fields int // number of fields
}

// DefaultLimits are generous for callers inside a mesh.
func DefaultLimits() Limits { return Limits{Head: 64 << 10, Target: 8 << 10, Fields: 100} }

// Refusal is a violation of the framing or of a limit, and the status that answers it.
type Refusal struct {
	Status int
	Reason string
}

func (r *Refusal) Error() string { return fmt.Sprintf("refused with %d: %s", r.Status, r.Reason) }

func bad(format string, args ...any) *Refusal {
	return &Refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

const (
	maxChunkLine = 256     // a chunk size and its extension
	maxTrailers  = 8 << 10 // all fields after the last chunk
	maxChunkSize = 1 << 60
)

type framerState uint8

const (
	inHead framerState = iota
	inBody
	inChunkSize
	inChunkEnd
	inTrailers
)

// framer follows the requests of one connection and says how many bytes of a buffer are in order.
type framer struct {
	limits  Limits
	state   framerState
	remain  int64 // of the body or of the chunk
	scanned int   // bytes of an incomplete head that were looked at already
}

// next returns how many leading bytes of b may be passed on. A head, a chunk's size line and the trailers are passed
// on whole or not at all; the caller shows what was left again, with more behind it.
func (f *framer) next(b []byte) (n int, refused *Refusal) {
	for n < len(b) {
		k, refused := f.step(b[n:])
		if refused != nil || k == 0 {
			return n, refused
		}
		n += k
	}
	return n, nil
}

func (f *framer) step(b []byte) (int, *Refusal) {
	switch f.state {
	case inHead:
		return f.head(b)
	case inBody:
		k := int(min(f.remain, int64(len(b))))
		if f.remain -= int64(k); f.remain == 0 {
			f.state = inHead
		}
		return k, nil
	case inChunkSize:
		return f.chunkSize(b)
	case inChunkEnd:
		return f.chunkEnd(b)
	default:
		return f.trailers(b)
	}
}

// midHead says whether the next byte belongs to a head.
func (f *framer) midHead() bool { return f.state == inHead }

func (f *framer) head(b []byte) (int, *Refusal) {
	if b[0] == '\r' || b[0] == '\n' {
		return 0, bad("empty line before the request line")
	}
	end, refused := f.block(b, f.limits.Head, http.StatusRequestHeaderFieldsTooLarge, "request head")
	if line := bytes.IndexByte(b, '\n'); refused == nil && line < 0 && len(b) > f.limits.Target+64 {
		return 0, &Refusal{http.StatusRequestURITooLong, "request line too long"}
	}
	if refused != nil || end == 0 {
		return 0, refused
	}
	length, chunked, refused := parseHead(b[:end], f.limits)
	if refused != nil {
		return 0, refused
	}
	switch {
	case chunked:
		f.state = inChunkSize
	case length > 0:
		f.state, f.remain = inBody, length
	}
	return end, nil
}

// block finds the empty line that ends a head, and refuses line ends other than CRLF.
func (f *framer) block(b []byte, limit, status int, what string) (int, *Refusal) {
	for i := f.scanned; i < len(b); i++ {
		switch b[i] {
		case '\n':
			if i == 0 || b[i-1] != '\r' {
				return 0, bad("bare LF in the %s", what)
			}
			if i == 1 || i >= 3 && b[i-2] == '\n' {
				f.scanned = 0
				if i >= limit {
					return 0, &Refusal{status, what + " too large"}
				}
				return i + 1, nil
			}
		case '\r':
			if i+1 < len(b) && b[i+1] != '\n' {
				return 0, bad("bare CR in the %s", what)
			}
		case 0:
			return 0, bad("NUL in the %s", what)
		}
	}
	if len(b) > limit {
		return 0, &Refusal{status, what + " too large"}
	}
	f.scanned = max(0, len(b)-1) // a last CR is looked at again with its LF
	return 0, nil
}

func (f *framer) chunkSize(b []byte) (int, *Refusal) {
	end := bytes.IndexByte(b, '\n')
	if end < 0 {
		if len(b) > maxChunkLine {
			return 0, bad("chunk size line too long")
		}
		return 0, nil
	}
	if end > maxChunkLine {
		return 0, bad("chunk size line too long")
	}
	size, refused := parseChunkSize(b[:end+1])
	if refused != nil {
		return 0, refused
	}
	f.state, f.remain = inChunkEnd, size
	if size == 0 {
		f.state = inTrailers
	}
	return end + 1, nil
}

func parseChunkSize(line []byte) (int64, *Refusal) {
	if len(line) < 2 || line[len(line)-2] != '\r' {
		return 0, bad("chunk size line does not end in CRLF")
	}
	line = line[:len(line)-2]
	size, ext, hasExt := bytes.Cut(line, []byte(";"))
	if len(size) == 0 || len(size) > 16 {
		return 0, bad("chunk size is missing or too long")
	}
	var v int64
	for _, c := range size {
		d := hexDigit(c)
		if d < 0 {
			return 0, bad("chunk size %q is not hexadecimal", size)
		}
		if v = v<<4 | int64(d); v > maxChunkSize || v < 0 {
			return 0, bad("chunk size %q is too large", size)
		}
	}
	if hasExt && !fieldValue(ext) {
		return 0, bad("control character in a chunk extension")
	}
	return v, nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// chunkEnd passes the data of a chunk and the CRLF behind it.
func (f *framer) chunkEnd(b []byte) (int, *Refusal) {
	if f.remain > 0 {
		k := int(min(f.remain, int64(len(b))))
		f.remain -= int64(k)
		return k, nil
	}
	if len(b) == 1 && b[0] == '\r' {
		return 0, nil
	}
	if len(b) < 2 || b[0] != '\r' || b[1] != '\n' {
		return 0, bad("chunk data is not followed by CRLF")
	}
	f.state = inChunkSize
	return 2, nil
}

func (f *framer) trailers(b []byte) (int, *Refusal) {
	end, refused := f.block(b, maxTrailers, http.StatusBadRequest, "trailers")
	if refused != nil || end == 0 {
		return 0, refused
	}
	for line := range lines(b[:end]) {
		name, _, refused := parseField(line)
		if refused != nil {
			return 0, refused
		}
		switch lower(name) {
		case "content-length", "transfer-encoding", "host":
			return 0, bad("field %q in the trailers", name)
		}
	}
	f.state = inHead
	return end, nil
}
