package api

import (
	"errors"
	"fmt"
	"strings"
)

// ErrorKind is the closed set of reasons that a caller can branch on.
type ErrorKind string

const (
	Invalid     ErrorKind = "Invalid"     // the input is wrong; the same call fails again
	NotFound    ErrorKind = "NotFound"    // the subject does not exist
	Conflict    ErrorKind = "Conflict"    // the subject changed meanwhile; read it again
	Denied      ErrorKind = "Denied"      // refused by a rule, a missing approval or a role
	Unavailable ErrorKind = "Unavailable" // could not run now; may succeed later
	Internal    ErrorKind = "Internal"    // a broken invariant of livefire itself
)

// Error is an error for people: what, about what, and what to do.
type Error struct {
	Kind    ErrorKind  `json:"kind"`
	Code    string     `json:"code,omitempty"`    // rule or finding code LFnnnn, if there is one
	Subject string     `json:"subject,omitempty"` // for example "Service/payments" or "shop.yaml:3:7"
	Message string     `json:"message"`
	Hint    string     `json:"hint,omitempty"`    // the next command or the fix
	Details []Position `json:"details,omitempty"` // one entry for each error in a file, in order
}

// Position is one error in a file, with the line quoted.
type Position struct {
	File    string `json:"file"`
	Line    int    `json:"line"`           // from 1
	Column  int    `json:"column"`         // from 1
	Quote   string `json:"quote"`          // the line itself
	Code    string `json:"code,omitempty"` // LFnnnn
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// Error gives the message on one line, details following on lines of their own.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Subject != "" {
		b.WriteString(e.Subject)
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	if e.Code != "" {
		fmt.Fprintf(&b, " (%s)", e.Code)
	}
	for _, d := range e.Details {
		fmt.Fprintf(&b, "\n%s", d.File)
		if d.Line > 0 { // else File names an object, which has no lines
			fmt.Fprintf(&b, ":%d:%d", d.Line, d.Column)
		}
		fmt.Fprintf(&b, ": %s", d.Message)
		if d.Code != "" {
			fmt.Fprintf(&b, " (%s)", d.Code)
		}
		if d.Quote != "" {
			fmt.Fprintf(&b, "\n    %s", d.Quote)
		}
		if d.Hint != "" {
			fmt.Fprintf(&b, "\n    fix: %s", d.Hint)
		}
	}
	return b.String()
}

// Errorf makes an *Error of a kind about a subject.
func Errorf(kind ErrorKind, subject, format string, args ...any) *Error {
	return &Error{Kind: kind, Subject: subject, Message: fmt.Sprintf(format, args...)}
}

// WithHint returns a copy with the hint set.
func (e *Error) WithHint(format string, args ...any) *Error {
	c := *e
	c.Hint = fmt.Sprintf(format, args...)
	return &c
}

// WithCode returns a copy with the rule code set.
func (e *Error) WithCode(code string) *Error {
	c := *e
	c.Code = code
	return &c
}

// KindOf is the kind of the first *Error in err's chain, Internal if there is none, "" for nil.
func KindOf(err error) ErrorKind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// HTTPStatus is the one place where a kind becomes an HTTP status.
func (k ErrorKind) HTTPStatus() int {
	switch k {
	case Invalid:
		return 400
	case NotFound:
		return 404
	case Conflict:
		return 409
	case Denied:
		return 403
	case Unavailable:
		return 503
	default:
		return 500
	}
}

// ExitCode is the one place where a kind becomes an exit status.
func (k ErrorKind) ExitCode() int {
	switch k {
	case "":
		return 0
	case Invalid, NotFound:
		return 2
	case Denied, Conflict:
		return 4
	default:
		return 3
	}
}
