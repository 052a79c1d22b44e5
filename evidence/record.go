package evidence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"
	"unicode/utf8"
)

// MaxRecordBytes bounds the line of one record.
const MaxRecordBytes = 1 << 20

// Kinds that the verifier itself reads. The list of all kinds and payloads is in docs/spec/evidence.md.
const (
	KindProposed = "run.proposed"    // first record of a run
	KindApproved = "run.approved"    // one approval, with the public key
	KindIntent   = "run.intent"      // before an effect
	KindClosed   = "run.closed"      // terminal record of a run
	KindApplied  = "fault.applied"   // a fault took hold
	KindChunk    = "sample.chunk"    // digest of a file of samples
	KindExecuted = "sample.executed" // digest of a list of executed requests
)

// Record is one entry of the log.
//
//  1. Index is its place in the log, RunSeq its place among the records of Run; both count from 0 without gaps.
//  2. A record of no run has Run "" and RunSeq 0.
//  3. Data is one JSON object or absent; its members are unique.
type Record struct {
	Index   int64           `json:"index"`
	Run     string          `json:"run,omitempty"`
	RunSeq  int64           `json:"runSeq"`
	At      time.Time       `json:"at"` // server's wall clock, UTC
	Kind    string          `json:"kind"`
	Actor   string          `json:"actor"` // who did it: an account, "policy:...", "server" or a node
	Subject string          `json:"subject,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"` // payload of the kind
}

var kindForm = regexp.MustCompile(`^[a-z]+(\.[a-z]+)*$`)

// Validate reports the first invariant that r breaks.
func (r Record) Validate() error {
	switch {
	case r.Index < 0 || r.RunSeq < 0:
		return errors.New("index and runSeq must not be negative")
	case r.Run == "" && r.RunSeq != 0:
		return errors.New("a record of no run must have runSeq 0")
	case !kindForm.MatchString(r.Kind):
		return fmt.Errorf("kind %q is not of the form a.b", r.Kind)
	case r.Actor == "":
		return errors.New("actor is missing")
	case r.At.IsZero():
		return errors.New("at is missing")
	case !utf8.ValidString(r.Run + r.Actor + r.Subject):
		return errors.New("text is not UTF-8")
	}
	if len(r.Data) == 0 {
		return nil
	}
	if !json.Valid(r.Data) || !utf8.Valid(r.Data) || bytes.TrimLeft(r.Data, " \t\r\n")[0] != '{' {
		return errors.New("data is not a JSON object")
	}
	if err := uniqueMembers(r.Data); err != nil {
		return fmt.Errorf("data: %w", err)
	}
	return nil
}

// Encode returns the line of r without its newline: the bytes of the leaf.
func (r Record) Encode() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, fmt.Errorf("encode record %d: %w", r.Index, err)
	}
	r.At = r.At.UTC()
	line, err := encodeCanonical(r)
	if err != nil {
		return nil, fmt.Errorf("encode record %d: %w", r.Index, err)
	}
	if len(line) > MaxRecordBytes {
		return nil, fmt.Errorf("encode record %d: %d bytes, more than %d", r.Index, len(line), MaxRecordBytes)
	}
	return line, nil
}

// DecodeRecord reads a line without its newline. It accepts nothing that Encode would not have written.
func DecodeRecord(line []byte) (Record, error) {
	if len(line) > MaxRecordBytes {
		return Record{}, fmt.Errorf("decode record: more than %d bytes", MaxRecordBytes)
	}
	var r Record
	if err := decodeCanonical(line, &r); err != nil {
		return Record{}, fmt.Errorf("decode record: %w", err)
	}
	if err := r.Validate(); err != nil {
		return Record{}, fmt.Errorf("decode record %d: %w", r.Index, err)
	}
	if !isUTC(r.At) {
		return Record{}, fmt.Errorf("decode record %d: time is not UTC", r.Index)
	}
	return r, nil
}

// isUTC tells whether t was written with "Z".
func isUTC(t time.Time) bool {
	return t.Location() == time.UTC
}
