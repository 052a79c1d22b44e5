package sample

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
	"unicode/utf8"
)

// Format is the first word of every chunk.
const Format = "livefire-samples/1"

// Limits of a chunk. A chunk beyond them is refused whole.
const (
	MaxBytes   = 4 << 20 // as much as the server accepts in one request
	MaxSamples = 20_000
	maxErr     = 120 // characters of Sample.Err
	maxName    = 512 // bytes of any other string
)

// EncodeChunk gives the bytes of a chunk: the header, then each sample, one JSON object per line, every line
// ended by a line feed, times in UTC, no HTML escaping. Equal chunks give equal bytes. It panics for a chunk that JSON cannot
// carry (a rate that is no number, a year beyond 9999).
func EncodeChunk(c Chunk) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(c.Header); err != nil {
		panic("internal error: encode sample header: " + err.Error())
	}
	for _, s := range c.Samples {
		s.Intended = s.Intended.UTC()
		if err := e.Encode(s); err != nil {
			panic("internal error: encode sample: " + err.Error())
		}
	}
	return b.Bytes()
}

// DecodeChunk reads the bytes of one chunk. It accepts exactly what EncodeChunk writes for a valid chunk: an
// unknown field, another order of fields or a gap in the sequence is an error that names the line.
func DecodeChunk(b []byte) (Chunk, error) {
	if len(b) > MaxBytes {
		return Chunk{}, fmt.Errorf("sample chunk of %d bytes: more than %d", len(b), MaxBytes)
	}
	var c Chunk
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return Chunk{}, errors.New("sample chunk: line 1: no line feed at the end")
	}
	if err := strict(line, &c.Header); err != nil {
		return Chunk{}, fmt.Errorf("sample chunk: line 1: %w", err)
	}
	for n := 2; len(rest) > 0; n++ {
		line, rest, ok = bytes.Cut(rest, []byte("\n"))
		if !ok {
			return Chunk{}, fmt.Errorf("sample chunk: line %d: no line feed at the end", n)
		}
		if len(c.Samples) == MaxSamples {
			return Chunk{}, fmt.Errorf("sample chunk: more than %d samples", MaxSamples)
		}
		var s Sample
		if err := strict(line, &s); err != nil {
			return Chunk{}, fmt.Errorf("sample chunk: line %d: %w", n, err)
		}
		c.Samples = append(c.Samples, s)
	}
	if err := c.Validate(); err != nil {
		return Chunk{}, err
	}
	if !bytes.Equal(EncodeChunk(c), b) {
		return Chunk{}, errors.New("sample chunk: not in canonical form")
	}
	return c, nil
}

func strict(line []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// Validate checks what every chunk must fulfil:
//
//  1. The format is Format; order, service and site are named; the rate is positive; the number is not negative.
//  2. Sequence numbers follow one another without a gap; intended times never go back and are UTC.
//  3. Start is not negative; End is not before Start, unless the outcome is unknown.
func (c Chunk) Validate() error {
	if err := c.Header.validate(); err != nil {
		return fmt.Errorf("sample chunk: header: %w", err)
	}
	if len(c.Samples) > MaxSamples {
		return fmt.Errorf("sample chunk: more than %d samples", MaxSamples)
	}
	for i, s := range c.Samples {
		if err := s.validate(); err != nil {
			return fmt.Errorf("sample chunk: sample %d: %w", s.Seq, err)
		}
		if i == 0 {
			continue
		}
		if before := c.Samples[i-1]; s.Seq != before.Seq+1 {
			return fmt.Errorf("sample chunk: sample %d follows sample %d", s.Seq, before.Seq)
		} else if s.Intended.Before(before.Intended) {
			return fmt.Errorf("sample chunk: sample %d was due before sample %d", s.Seq, before.Seq)
		}
	}
	return nil
}

func (h Header) validate() error {
	switch {
	case h.Format != Format:
		return fmt.Errorf("format %q, want %q", h.Format, Format)
	case h.Order == "" || h.Service == "" || h.From == "":
		return errors.New("order, service or site is empty")
	case len(h.Order) > maxName || len(h.Service) > maxName || len(h.From) > maxName:
		return errors.New("a name is too long")
	case !(h.Rate > 0) || math.IsInf(h.Rate, 1):
		return fmt.Errorf("rate %v is not positive", h.Rate)
	case h.Chunk < 0:
		return fmt.Errorf("chunk number %d is negative", h.Chunk)
	case h.OffsetError < 0:
		return fmt.Errorf("clock error %v is negative", h.OffsetError)
	}
	return nil
}

func (s Sample) validate() error {
	switch {
	case s.Seq < 0:
		return errors.New("sequence number is negative")
	case s.Intended.Location() != time.UTC || s.Intended.IsZero():
		return errors.New("intended time is not UTC or missing")
	case s.Start < 0:
		return errors.New("sent before it was due")
	case s.Class != Unknown && s.End < s.Start:
		return errors.New("ended before it was sent")
	case !s.Class.known():
		return fmt.Errorf("unknown class %q", s.Class)
	case s.Code < 0 || s.Code > 999 || s.Attempts < 0:
		return errors.New("status or attempts out of range")
	case utf8.RuneCountInString(s.Err) > maxErr:
		return fmt.Errorf("error text longer than %d characters", maxErr)
	}
	for _, n := range []string{string(s.Site), s.Workload, s.Version, s.Instance, s.Request} {
		if len(n) > maxName {
			return errors.New("a name is too long")
		}
	}
	return nil
}

func (c Class) known() bool {
	switch c {
	case OK, Refused, Reset, Timeout, Status, Shed, Unknown:
		return true
	}
	return false
}

// RequestID is the x-request-id of one sample of an order: "<order id>/<seq>" with '/' as '.'.
func RequestID(order string, seq int64) string {
	b := []byte(fmt.Sprintf("%s.%d", order, seq))
	return string(bytes.ReplaceAll(b, []byte("/"), []byte(".")))
}

// Due is when sample n of a probe that began at start is due.
func Due(start time.Time, rate float64, n int64) time.Time {
	return start.Add(time.Duration(float64(n) / rate * float64(time.Second)))
}
