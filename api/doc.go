// Package api holds the words of livefire: the resource kinds that an operator writes and reads, with
// their defaults, their validation and the errors that people see.
//
// A resource is decoded by Decode (strict YAML or JSON, every error with file, line and column), completed by
// its Default method and checked by its Validate method; CheckReferences checks what needs several objects.
// Nothing else validates it again. Diff, ApplyPatch and EncodeYAML work on completed objects. LookupCode
// explains every LFnnnn. The schemas and docs/reference are generated from this package: go test ./api -update.
//
// Units: durations are Duration ("300ms", "1d12h"); shares and ratios are 0 to 1; capacity is requests per second.
// Errors: everything that a person must act on is an *Error with a closed Kind.
// Concurrency: values; nothing here is shared.
// Sources: names are DNS labels (RFC 1123), identities SPIFFE ids, patches RFC 6902 with pointers of RFC 6901;
// the window of a probe is that of docs/spec/measurement.md.
package api
