package evidence

import (
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

func TestRecordRoundTrip(t *testing.T) {
	for _, r := range []Record{
		{At: epoch, Kind: "lever", Actor: "ops1"},
		{Index: 7, Run: "run-1", RunSeq: 3, At: epoch.Truncate(time.Second), Kind: "run.state", Actor: "server", Subject: "Drill/x", Data: []byte(`{"a":[1,{"b":null}],"ü":"<&>\u2028"}`)},
		{Index: 1 << 40, At: epoch.In(time.FixedZone("x", 3600)), Kind: "a.b.c", Actor: "policy:ActivePassive/orders", Data: []byte(" { \"a\" : 1.50 }\n")},
	} {
		line, err := r.Encode()
		if err != nil {
			t.Fatalf("Encode(%+v): %v", r, err)
		}
		got, err := DecodeRecord(line)
		if err != nil {
			t.Fatalf("DecodeRecord(%s): %v", line, err)
		}
		if !got.At.Equal(r.At) || got.Index != r.Index || got.Run != r.Run || got.Subject != r.Subject {
			t.Errorf("%+v became %+v", r, got)
		}
		if again, err := got.Encode(); err != nil || !bytes.Equal(again, line) {
			t.Errorf("encoded again: %s, %v; want %s", again, err, line)
		}
	}
}

const goodLine = `{"index":7,"run":"run-1","runSeq":3,"at":"2026-11-20T12:41:00.5Z","kind":"run.state","actor":"server","data":{"to":"Holding"}}`

func TestRecordLineHasOneForm(t *testing.T) {
	if _, err := DecodeRecord([]byte(goodLine)); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"letter case":         {`"index"`, `"Index"`},
		"unknown member":      {`"actor"`, `"x":1,"actor"`},
		"member twice":        {`"kind"`, `"kind":"x","kind"`},
		"member twice inside": {`{"to":`, `{"to":"x","to":`},
		"order":               {`"index":7,"run":"run-1"`, `"run":"run-1","index":7`},
		"white space":         {`"runSeq":3`, `"runSeq": 3`},
		"white space inside":  {`{"to":`, `{ "to":`},
		"exponent":            {`"runSeq":3`, `"runSeq":3e0`},
		"negative":            {`"runSeq":3`, `"runSeq":-3`},
		"escape":              {`"server"`, `"\u0073erver"`},
		"offset":              {`.5Z"`, `.5+00:00"`},
		"other zone":          {`.5Z"`, `.5+01:00"`},
		"trailing zero":       {`.5Z"`, `.50Z"`},
		"no actor":            {`"server"`, `""`},
		"kind":                {`"run.state"`, `"Run State"`},
		"no time":             {`2026-11-20T12:41:00.5Z`, `0001-01-01T00:00:00Z`},
		"data is a list":      {`{"to":"Holding"}`, `[1]`},
		"data is null":        {`{"to":"Holding"}`, `null`},
		"seq without run":     {`"run":"run-1",`, ``},
		"empty run":           {`"run":"run-1"`, `"run":""`},
		"not UTF-8":           {`server`, "\xff"},
		"not UTF-8 inside":    {`Holding`, "\xff"},
		"trailing":            {`"Holding"}}`, `"Holding"}} `},
	} {
		line := strings.Replace(goodLine, change[0], change[1], 1)
		if r, err := DecodeRecord([]byte(line)); err == nil {
			t.Errorf("%s: accepted %s as %+v", name, line, r)
		}
	}
	if _, err := (Record{At: epoch, Kind: "x", Actor: strings.Repeat("x", MaxRecordBytes)}).Encode(); err == nil {
		t.Error("a record beyond the limit was encoded")
	}
}

// rootOf is the definition of RFC 6962 section 2.1, word for word.
func rootOf(leaves [][]byte) tlog.Hash {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	default:
		k := 1
		for k*2 < n {
			k *= 2
		}
		left, right := rootOf(leaves[:k]), rootOf(leaves[k:])
		return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
	}
}

func TestRootIsThatOfRFC6962(t *testing.T) {
	var all MemoryHashes
	var leaves [][]byte
	for n := range int64(70) {
		root, err := TreeHash(n, all)
		if err != nil || root != rootOf(leaves) {
			t.Fatalf("TreeHash(%d) = %v, %v; want %v", n, root, err, rootOf(leaves))
		}
		line := []byte{byte(n), 'x'}
		more, err := StoredHashes(n, line, all)
		if err != nil {
			t.Fatal(err)
		}
		if LeafHash(line) != more[0] {
			t.Fatalf("LeafHash(%d) is not the first stored hash", n)
		}
		all, leaves = append(all, more...), append(leaves, line)
	}
}

// C2SP tlog-tiles: "If the tile is at index 1234067 of level 0 ... tile/0/x001/x234/067".
func TestTilePathIsThatOfC2SP(t *testing.T) {
	for want, tile := range map[string]Tile{
		"tile/0/000":               {0, 0, 256},
		"tile/0/x001/x234/067":     {0, 1234067, 256},
		"tile/1/000.p/5":           {1, 0, 5},
		"tile/0/x001/000.p/255":    {0, 1000, 255},
		"tile/63/999":              {63, 999, 256},
		"tile/2/x010/x000/000.p/1": {2, 10000000, 1},
	} {
		if got := tile.Path(); got != want {
			t.Errorf("%+v.Path() = %s, want %s", tile, got, want)
		}
		if !allowedPath("log/" + want) {
			t.Errorf("log/%s is not allowed in a bundle", want)
		}
	}
}

func TestTilesCoverTheLogExactly(t *testing.T) {
	for size, want := range map[int64][]Tile{
		0:     nil,
		1:     {{0, 0, 1}},
		255:   {{0, 0, 255}},
		256:   {{0, 0, 256}, {1, 0, 1}},
		257:   {{0, 0, 256}, {0, 1, 1}, {1, 0, 1}},
		65536: nil,
	} {
		got := Tiles(size)
		if size == 65536 {
			if len(got) != 256+1+1 || got[256] != (Tile{1, 0, 256}) || got[257] != (Tile{2, 0, 1}) {
				t.Errorf("Tiles(%d): %d tiles, last %v", size, len(got), got[len(got)-2:])
			}
			continue
		}
		if !slices.Equal(got, want) {
			t.Errorf("Tiles(%d) = %v, want %v", size, got, want)
		}
	}
}

func TestManifestHasOneForm(t *testing.T) {
	d := digest(nil)
	line := func(path string) string { return d + " 0 " + path + "\n" }
	good := "livefire-bundle/1\n" + line("checkpoint") + line("samples/a") + line("samples/b")
	if _, err := ParseManifest([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty":           "",
		"other header":    strings.Replace(good, "/1", "/2", 1),
		"unsorted":        "livefire-bundle/1\n" + line("samples/b") + line("samples/a"),
		"twice":           "livefire-bundle/1\n" + line("samples/a") + line("samples/a"),
		"case only":       "livefire-bundle/1\n" + line("samples/A") + line("samples/a"),
		"itself":          good[:18] + line("manifest"),
		"statement":       "livefire-bundle/1\n" + line("statement.dsse.json"),
		"upwards":         "livefire-bundle/1\n" + line("samples/../x"),
		"dot":             "livefire-bundle/1\n" + line("samples/.x"),
		"absolute":        "livefire-bundle/1\n" + line("/samples/x"),
		"group":           "livefire-bundle/1\n" + line("approvals/../x.dsse.json"),
		"stranger":        "livefire-bundle/1\n" + line("readme"),
		"digest in upper": good[:18] + strings.ToUpper(good[18:82]) + good[82:],
		"leading zero":    strings.Replace(good, " 0 ", " 00 ", 1),
		"negative":        strings.Replace(good, " 0 ", " -1 ", 1),
		"no newline":      strings.TrimSuffix(good, "\n"),
		"blank line":      good + "\n",
		"carriage return": strings.ReplaceAll(good, "\n", "\r\n"),
	} {
		if m, err := ParseManifest([]byte(bad)); err == nil {
			t.Errorf("%s: accepted as %v", name, m)
		}
	}
}

func TestVerifierKeyHasOneForm(t *testing.T) {
	s := testSigner(t, "a.example/log")
	name, pub, err := ParseVerifierKey(s.VerifierKey())
	if err != nil || name != s.Name() || !pub.Equal(s.PublicKey()) {
		t.Fatalf("ParseVerifierKey = %q, %x, %v", name, pub, err)
	}
	for _, bad := range []string{"", "x", strings.ToUpper(s.VerifierKey()), s.VerifierKey() + "=", s.VerifierKey() + "\n", "b" + s.VerifierKey()} {
		if _, _, err := ParseVerifierKey(bad); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestNewKeySignsForItsVerifierKey(t *testing.T) {
	skey, vkey, err := NewKey("livefire.example/log")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte(skey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := LoadSigner(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Checkpoint(5, tlog.Hash{1})
	if err != nil {
		t.Fatal(err)
	}
	if c, err := OpenCheckpoint(b, vkey); err != nil || c != (Checkpoint{"livefire.example/log", 5, tlog.Hash{1}}) {
		t.Errorf("OpenCheckpoint = %+v, %v", c, err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSigner(path); err == nil {
		t.Error("a key that the group can read was loaded")
	}
	for _, name := range []string{"", "two words", "a+b"} {
		if _, _, err := NewKey(name); err == nil {
			t.Errorf("NewKey(%q) made a key", name)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add([]byte(goodLine))
	f.Add([]byte(`{"index":0,"runSeq":0,"at":"2026-11-20T12:41:00Z","kind":"lever","actor":"x"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := DecodeRecord(line)
		if err != nil {
			return
		}
		if again, err := r.Encode(); err != nil || !bytes.Equal(again, line) {
			t.Errorf("%q encodes as %q, %v", line, again, err)
		}
	})
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte("livefire-bundle/1\n" + digest(nil) + " 0 checkpoint\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err == nil && !bytes.Equal(m.Encode(), b) {
			t.Errorf("%q encodes as %q", b, m.Encode())
		}
	})
}

func FuzzOpenCheckpoint(f *testing.F) {
	s := testSigner(f, "a")
	good, err := s.Checkpoint(5, tlog.Hash{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := OpenCheckpoint(b, s.VerifierKey()); err == nil && !bytes.Equal(b, good) {
			t.Errorf("accepted %q", b)
		}
	})
}

func FuzzVerifyApproval(f *testing.F) {
	key := testKey("fuzz")
	good, err := SignApproval(key, Approval{Run: "r", ProposalSHA256: digest(nil), Group: "g", Decision: Approve, By: "b", At: epoch})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := VerifyApproval(b, publicOf(key)); err == nil && !bytes.Equal(b, good) {
			t.Errorf("accepted %q", b)
		}
	})
}
