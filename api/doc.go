// Package api holds the words of livefire: the resource kinds that an operator writes and reads, with
// their defaults, their validation and the errors that people see.
//
// A resource is decoded by Decode (strict YAML, every error with file, line and column), completed by
// its Default method and checked by its Validate method. Nothing else validates it again.
//
// Units: durations are Duration ("300ms", "1d12h"); shares and ratios are 0 to 1; capacity is requests per second.
// Errors: everything that a person must act on is an *Error with a closed Kind.
// Concurrency: values; nothing here is shared.
package api
