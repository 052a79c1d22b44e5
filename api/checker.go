package api

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// label is a DNS label (RFC 1123), the form of every name.
var label = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// host is a DNS name (RFC 1123) with or without dots.
var host = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)

// httpToken is a method or a word of HTTP (RFC 9110, 5.6.2).
var httpToken = regexp.MustCompile("^[-!#$%&'*+.^_`|~0-9A-Za-z]+$")

// checker collects the problems of one object.
type checker struct{ problems []Problem }

func (c *checker) add(code, path, hint, format string, args ...any) {
	c.problems = append(c.problems, Problem{Path: path, Code: code, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// object checks what every kind has: a name that is a DNS label, and labels.
func (c *checker) object(o Object) {
	c.name("$.metadata.name", o.Meta().Name)
	for _, k := range sortedKeys(o.Meta().Labels) {
		if k == "" || len(k) > 253 || len(o.Meta().Labels[k]) > 1024 {
			c.add(CodeValue, child("$.metadata.labels", k), "a key of 1 to 253 bytes, a value of at most 1024 bytes", "label %q is too long or has no key", k)
		}
	}
}

func (c *checker) name(path, name string) {
	if !label.MatchString(name) {
		c.add(CodeName, path, "lower-case letters, digits and hyphens, at most 63, for example eu-west", "%q is not a name", name)
	}
}

func (c *checker) names(path string, names []string) {
	for i, n := range names {
		c.name(index(path, i), n)
		if slices.Contains(names[:i], n) {
			c.add(CodeList, index(path, i), "remove one of them", "%q is named twice", n)
		}
	}
}

func (c *checker) oneOf(path, got string, allowed ...string) {
	if !slices.Contains(allowed, got) {
		c.add(CodeValue, path, nearestHint(got, allowed), "%q is not one of %s", got, strings.Join(allowed, ", "))
	}
}

func (c *checker) positive(path string, d Duration) {
	if d <= 0 {
		c.add(CodeValue, path, "a span above zero, for example 500ms", "%s is not positive", d)
	}
}

func (c *checker) span(path string, d, low, high Duration) {
	if d < low || d > high {
		c.add(CodeValue, path, fmt.Sprintf("from %s to %s", low, high), "%s is out of range", d)
	}
}

func (c *checker) count(path string, n, low, high int) {
	if n < low || n > high {
		c.add(CodeValue, path, fmt.Sprintf("from %d to %d", low, high), "%d is out of range", n)
	}
}

func (c *checker) ratio(path string, x float64) {
	if !(x >= 0 && x <= 1) {
		c.add(CodeValue, path, "a ratio from 0 to 1: 99 % is 0.99", "%v is not a ratio", x)
	}
}

func (c *checker) number(path string, x, above, high float64) {
	if !(x > above && x <= high) {
		c.add(CodeValue, path, fmt.Sprintf("above %v, at most %v", above, high), "%v is out of range", x)
	}
}

// ramp: shares ascend within (0, 1] and end with 1.
func (c *checker) ramp(path string, r Ramp) {
	c.positive(child(path, "every"), r.Every)
	path = child(path, "shares")
	last := 0.0
	for i, s := range r.Shares {
		if !(s > last && s <= 1) {
			c.add(CodeRamp, index(path, i), "for example [0.1, 0.5, 1]", "shares ascend, above 0 and at most 1: %v follows %v", s, last)
			return
		}
		last = s
	}
	if len(r.Shares) > 0 && last != 1 {
		c.add(CodeRamp, index(path, len(r.Shares)-1), "add 1 as the last share", "the last share is %v: the traffic would never come back whole", last)
	}
}

// address: an IP and a port, because names would be resolved at another time than they are checked.
func (c *checker) address(path, addr string) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil || a.Port() == 0 || a.Addr().IsUnspecified() {
		c.add(CodeAddress, path, `for example "10.0.0.7:8443"`, "%q is not the IP and port of a listener", addr)
	}
}

// identity: a SPIFFE id; with pattern, its last path element may be "*".
func (c *checker) identity(path, id string, pattern bool) {
	if reason := badIdentity(id, pattern); reason != "" {
		c.add(CodeIdentity, path, `for example "spiffe://demo.livefire/site/client/service/caller"`, "%q is not an identity: %s", id, reason)
	}
}

var (
	trustDomain = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`)
	pathElement = regexp.MustCompile(`^[a-zA-Z0-9._-]+$`)
)

// badIdentity says why id is not a SPIFFE id, "" if it is one. Source: SPIFFE-ID, 2.1 and 2.2.
func badIdentity(id string, pattern bool) string {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok {
		return "it does not begin with spiffe://"
	}
	domain, path, _ := strings.Cut(rest, "/")
	switch {
	case len(id) > 2048:
		return "it is longer than 2048 bytes"
	case !trustDomain.MatchString(domain):
		return fmt.Sprintf("%q is not a trust domain", domain)
	case path == "":
		return "it has no path"
	}
	elements := strings.Split(path, "/")
	for i, e := range elements {
		switch {
		case e == "*" && pattern && i == len(elements)-1:
		case e == "*" && pattern:
			return `only the last path element may be "*"`
		case e == "." || e == ".." || !pathElement.MatchString(e):
			return fmt.Sprintf("%q cannot be a path element", e)
		}
	}
	return ""
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// child is the path of a key below path, quoted as goccy/go-yaml quotes it.
func child(path, key string) string {
	if strings.ContainsAny(key, "$*.[]'") {
		key = "'" + strings.ReplaceAll(key, "'", `\'`) + "'"
	}
	return path + "." + key
}

func index(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

func sortedKeys[K ~string, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func texts[S ~string](in []S) []string {
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = string(s)
	}
	return out
}

// setZero writes v into p if p holds the zero value: the field was not written.
func setZero[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}
