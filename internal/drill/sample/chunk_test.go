package sample

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var t0 = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)

func chunk() Chunk {
	return Chunk{
		Header: Header{
			Format: Format, Order: "r-1/orders", Service: "orders", From: "client", Rate: 100, Chunk: 3,
			Offset: -2 * time.Millisecond, OffsetError: 300 * time.Microsecond,
		},
		Samples: []Sample{
			{Seq: 300, Intended: t0, Start: 10, End: 4_000_000, Class: OK, Code: 200, Attempts: 1, Site: "eu", Workload: "orders-1",
				Version: "v1", Instance: "orders-1", Request: "r-1.orders.300"},
			{Seq: 301, Intended: t0.Add(10 * time.Millisecond), Start: 5, End: 6, Class: Refused, Request: "r-1.orders.301",
				Err: "connect: <refused> & \"gone\" \u2028"},
			{Seq: 302, Intended: t0.Add(20 * time.Millisecond), Class: Unknown, Request: "r-1.orders.302"},
		},
	}
}

func TestChunkRoundTrip(t *testing.T) {
	for name, c := range map[string]Chunk{"samples": chunk(), "header only": {Header: chunk().Header}} {
		b := EncodeChunk(c)
		got, err := DecodeChunk(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(c, got); d != "" {
			t.Errorf("%s: decoded chunk differs (-want +got):\n%s", name, d)
		}
		if !bytes.Equal(EncodeChunk(got), b) {
			t.Errorf("%s: encoded again, the bytes differ", name)
		}
	}
}

// The bytes are a format that others read: they change only with its name.
func TestChunkBytes(t *testing.T) {
	c := chunk()
	c.Samples = c.Samples[:1]
	want := `{"format":"livefire-samples/1","order":"r-1/orders","service":"orders","from":"client","rate":100,"chunk":3,"clockOffset":-2000000,"clockError":300000}
{"n":300,"at":"2026-11-20T12:00:00.123456789Z","s":10,"e":4000000,"c":"ok","code":200,"att":1,"site":"eu","wl":"orders-1","v":"v1","inst":"orders-1","id":"r-1.orders.300"}
`
	if got := string(EncodeChunk(c)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestDecodeRefusesEveryOtherForm(t *testing.T) {
	good := string(EncodeChunk(chunk()))
	edit := func(old, next string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("chunk does not contain %q", old)
		}
		return strings.Replace(good, old, next, 1)
	}
	for name, in := range map[string]string{
		"empty":                    "",
		"no line feed at the end":  strings.TrimSuffix(good, "\n"),
		"an empty line":            good + "\n",
		"carriage returns":         strings.ReplaceAll(good, "\n", "\r\n"),
		"another format":           edit("livefire-samples/1", "livefire-samples/2"),
		"an unknown field":         edit(`"chunk":3`, `"chunk":3,"x":1`),
		"another order of fields":  edit(`"rate":100,"chunk":3`, `"chunk":3,"rate":100`),
		"white space":              edit(`"n":300,`, `"n": 300,`),
		"a field in another case":  edit(`"n":300`, `"N":300`),
		"a repeated field":         edit(`"n":300`, `"n":1,"n":300`),
		"two values on a line":     edit(`"id":"r-1.orders.300"}`, `"id":"r-1.orders.300"}{}`),
		"a gap in the sequence":    edit(`"n":301`, `"n":302`),
		"a class that is unknown":  edit(`"c":"refused"`, `"c":"tired"`),
		"an end before the start":  edit(`"s":10,"e":4000000`, `"s":10,"e":9`),
		"a negative start":         edit(`"s":10`, `"s":-1`),
		"a time that goes back":    edit("12:00:00.133456789Z", "12:00:00.013456789Z"),
		"a local time":             edit("12:00:00.123456789Z", "13:00:00.123456789+01:00"),
		"no rate":                  edit(`"rate":100`, `"rate":0`),
		"a negative chunk number":  edit(`"chunk":3`, `"chunk":-3`),
		"an error text too long":   edit("connect:", strings.Repeat("é", 121)),
		"the header missing":       good[strings.Index(good, "\n")+1:],
		"more bytes than allowed":  good + strings.Repeat(" ", MaxBytes),
		"a number instead of text": edit(`"c":"ok"`, `"c":1`),
	} {
		if c, err := DecodeChunk([]byte(in)); err == nil {
			t.Errorf("chunk with %s was accepted: %+v", name, c)
		}
	}
}

func TestDecodeBoundsTheNumberOfSamples(t *testing.T) {
	c := Chunk{Header: chunk().Header}
	for i := range int64(MaxSamples + 1) {
		c.Samples = append(c.Samples, Sample{Seq: i, Intended: t0, Class: OK, Request: "x"})
	}
	if _, err := DecodeChunk(EncodeChunk(c)); err == nil {
		t.Errorf("%d samples were accepted", len(c.Samples))
	}
	c.Samples = c.Samples[:MaxSamples]
	if _, err := DecodeChunk(EncodeChunk(c)); err != nil {
		t.Errorf("%d samples were refused: %v", len(c.Samples), err)
	}
}

func TestRequestIDHasNoSlash(t *testing.T) {
	if got, want := RequestID("loss-20261120-1/orders", 17), "loss-20261120-1.orders.17"; got != want {
		t.Errorf("RequestID = %q, want %q", got, want)
	}
}

func TestDueDoesNotDrift(t *testing.T) {
	if got, want := Due(t0, 3, 3_000_000), t0.Add(1_000_000*time.Second); !got.Equal(want) {
		t.Errorf("sample 3,000,000 at 3/s is due at %v, want %v", got, want)
	}
}

func FuzzDecodeChunk(f *testing.F) {
	f.Add(EncodeChunk(chunk()))
	f.Add(EncodeChunk(Chunk{Header: chunk().Header}))
	f.Add([]byte("{}\n{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeChunk(b)
		if err != nil {
			return
		}
		if !bytes.Equal(EncodeChunk(c), b) {
			t.Errorf("accepted bytes that are not canonical: %q", b)
		}
	})
}
