package http1

import (
	"bytes"
	"iter"
	"net/http"
	"strconv"
	"strings"
)

// parseHead checks a whole request head, its empty line included, and says how its body is framed.
func parseHead(head []byte, limits Limits) (length int64, chunked bool, refused *Refusal) {
	var h headFields
	first := true
	count := 0
	for line := range lines(head) {
		if first {
			if refused := h.requestLine(line, limits); refused != nil {
				return 0, false, refused
			}
			first = false
			continue
		}
		if count++; count > limits.Fields {
			return 0, false, &Refusal{http.StatusRequestHeaderFieldsTooLarge, "too many fields"}
		}
		if refused := h.field(line); refused != nil {
			return 0, false, refused
		}
	}
	return h.finish()
}

// headFields is what decides on the framing and on who is meant.
type headFields struct {
	method, target string
	minor          byte // of HTTP/1.x
	hosts          int
	host           string
	lengths        int
	length         int64
	codings        int
}

func (h *headFields) requestLine(line []byte, limits Limits) *Refusal {
	method, rest, ok1 := bytes.Cut(line, []byte(" "))
	target, version, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 || !token(method) || len(target) == 0 {
		return bad("malformed request line")
	}
	if len(target) > limits.Target {
		return &Refusal{http.StatusRequestURITooLong, "request target too long"}
	}
	for _, c := range target {
		if c <= ' ' || c >= 0x7f {
			return bad("character %#x in the request target", c)
		}
	}
	switch string(version) {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
	default:
		if bytes.HasPrefix(version, []byte("HTTP/")) && len(version) == len("HTTP/1.1") {
			return &Refusal{http.StatusHTTPVersionNotSupported, "unsupported protocol version"}
		}
		return bad("malformed protocol version")
	}
	h.method, h.target = string(method), string(target)
	if h.target[0] != '/' && h.method != http.MethodConnect && !strings.Contains(h.target, "://") && (h.target != "*" || h.method != http.MethodOptions) {
		return bad("malformed request target")
	}
	return nil
}

func (h *headFields) field(line []byte) *Refusal {
	name, value, refused := parseField(line)
	if refused != nil {
		return refused
	}
	switch lower(name) {
	case "host":
		h.hosts++
		h.host = string(value)
	case "content-length":
		h.lengths++
		n, err := strconv.ParseUint(string(value), 10, 63)
		if err != nil || value[0] == '+' {
			return bad("malformed Content-Length %q", value)
		}
		h.length = int64(n)
	case "transfer-encoding":
		h.codings++
		if lower(value) != "chunked" {
			return bad("unknown transfer coding %q", value)
		}
	}
	return nil
}

func (h *headFields) finish() (length int64, chunked bool, refused *Refusal) {
	switch {
	case h.hosts > 1:
		return 0, false, bad("repeated Host")
	case h.hosts == 0 && h.minor == 1:
		return 0, false, bad("missing Host")
	case h.lengths > 1:
		return 0, false, bad("repeated Content-Length")
	case h.codings > 1:
		return 0, false, bad("repeated Transfer-Encoding")
	case h.codings == 1 && h.lengths == 1:
		return 0, false, bad("both Content-Length and Transfer-Encoding")
	case h.codings == 1 && h.minor == 0:
		return 0, false, bad("Transfer-Encoding in HTTP/1.0")
	}
	if _, rest, ok := strings.Cut(h.target, "://"); ok && h.target[0] != '/' {
		authority, _, _ := strings.Cut(rest, "/")
		authority, _, _ = strings.Cut(authority, "?")
		if !strings.EqualFold(authority, h.host) || strings.Contains(authority, "@") {
			return 0, false, bad("target %q disagrees with Host", authority)
		}
	}
	return h.length, h.codings == 1, nil
}

// lines gives the lines of a head without their CRLF, up to the empty one. The framer has checked the line ends.
func lines(head []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for {
			line, rest, ok := bytes.Cut(head, []byte("\r\n"))
			if !ok || len(line) == 0 || !yield(line) {
				return
			}
			head = rest
		}
	}
}

func parseField(line []byte) (name, value []byte, refused *Refusal) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, bad("folded line")
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return nil, nil, bad("field without a colon")
	}
	if !token(name) {
		return nil, nil, bad("malformed field name %q", name)
	}
	if !fieldValue(value) {
		return nil, nil, bad("control character in the value of %q", name)
	}
	return name, bytes.Trim(value, " \t"), nil
}

func fieldValue(v []byte) bool {
	for _, c := range v {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func token(b []byte) bool {
	for _, c := range b {
		if !tokenByte(c) {
			return false
		}
	}
	return len(b) > 0
}

func tokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c != 0 && strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func lower(b []byte) string { return strings.ToLower(string(b)) }
