//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/report"
)

func unmarshal(b []byte, v any) error { return json.Unmarshal(b, v) }

// kept is the bundle of an earlier test, read whole: one run serves several tests.
var kept struct {
	files fstest.MapFS
	key   string
}

func keepBundle(d *demoRun) {
	if kept.files != nil || d.t.Failed() {
		return
	}
	kept.files, kept.key = readBundle(d.t, d.bundle()), d.key()
}

func readBundle(t *testing.T, dir string) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		out[filepath.ToSlash(rel)] = &fstest.MapFile{Data: b, Mode: 0o600}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// "At 300 random positions over all files of a bundle, and at every byte of checkpoint and of the envelope, three other values
// each: verify fails and names the file. Deleting, adding, swapping or truncating a file, or cutting the log to an older
// checkpoint: fails."
func TestEvidenceTamper(t *testing.T) {
	if kept.files == nil {
		d := newRig(t).demo(short...)
		d.exit(100*time.Second, 0)
		keepBundle(d)
	}
	rng := rand.New(rand.NewPCG(seed, 300))
	files := maps.Clone(kept.files)
	names := slices.Sorted(maps.Keys(files))
	if _, err := report.Verify(files, kept.key); err != nil {
		t.Fatalf("the untouched bundle: %v", err)
	}
	total := 0
	for _, n := range names {
		total += len(files[n].Data)
	}
	t.Logf("%d files, %d bytes", len(names), total)
	for range 300 {
		at := rng.IntN(total)
		for _, n := range names {
			if size := len(files[n].Data); at >= size {
				at -= size
				continue
			}
			change(t, files, n, at, rng)
			break
		}
	}
	for _, n := range []string{evidence.FileCheckpoint, evidence.FileStatement} {
		for at := range files[n].Data {
			change(t, files, n, at, rng)
		}
	}
	wholeFiles(t, files, names)
}

// change gives one byte three other values, one after another.
func change(t *testing.T, files fstest.MapFS, name string, at int, rng *rand.Rand) {
	t.Helper()
	original := files[name].Data
	defer func() { files[name] = &fstest.MapFile{Data: original, Mode: 0o600} }()
	for _, x := range []byte{1, 0x20, byte(64 + rng.IntN(192))} { // never twice the same, never 0
		data := slices.Clone(original)
		data[at] ^= x
		files[name] = &fstest.MapFile{Data: data, Mode: 0o600}
		names(t, files, name, "byte changed")
	}
}

// names says that verify must fail and name the file.
func names(t *testing.T, files fstest.MapFS, name, what string) {
	t.Helper()
	_, err := report.Verify(files, kept.key)
	var bad *evidence.VerifyError
	switch {
	case err == nil:
		t.Errorf("%s: %s: verify passes", name, what)
	case !errors.As(err, &bad) || bad.File != name:
		t.Errorf("%s: %s: verify does not name the file: %v", name, what, err)
	}
}

func wholeFiles(t *testing.T, files fstest.MapFS, all []string) {
	for _, n := range all {
		without := maps.Clone(files)
		delete(without, n)
		names(t, without, n, "deleted")
		cut := maps.Clone(files)
		cut[n] = &fstest.MapFile{Data: files[n].Data[:len(files[n].Data)/2], Mode: 0o600}
		names(t, cut, n, "truncated")
	}
	more := maps.Clone(files)
	more["samples/more"] = &fstest.MapFile{Data: []byte("x"), Mode: 0o600}
	names(t, more, "samples/more", "added")
	for i := range all[1:] {
		a, b := all[i], all[i+1]
		swapped := maps.Clone(files)
		swapped[a], swapped[b] = files[b], files[a]
		if _, err := report.Verify(swapped, kept.key); err == nil {
			t.Errorf("%s and %s swapped: verify passes", a, b)
		}
	}
}
