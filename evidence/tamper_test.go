package evidence

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// others are three values that b could have instead: one bit, the other letter case or a neighbour, and a far one.
func others(b byte) [3]byte { return [3]byte{b ^ 1, b ^ 0x20, b + 127} }

// The rule: one byte of an evidence bundle changed, and verification fails and names the record or file.
func TestAnyChangedByteIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{before: 300})
	files := filesOf(t, f.write(t))
	type place struct {
		name string
		at   int
	}
	var places []place
	whole := []string{FileCheckpoint, FileManifest, FileStatement, ApprovalFile("security")}
	for _, name := range whole {
		for at := range files[name] {
			places = append(places, place{name, at})
		}
	}
	names := sortedNames(files)
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		name := names[random.IntN(len(names))]
		places = append(places, place{name, random.IntN(len(files[name]))})
	}
	bundle := mapFS(files)
	for _, p := range places {
		for _, b := range others(files[p.name][p.at]) {
			changed := bytes.Clone(files[p.name])
			changed[p.at] = b
			bundle[p.name] = &fstest.MapFile{Data: changed}
			_, err := Verify(bundle, f.log.signer.VerifierKey())
			wantRefused(t, err, p.name, -2)
			if t.Failed() {
				t.Fatalf("byte %d of %s changed from %q to %q", p.at, p.name, files[p.name][p.at], b)
			}
		}
		bundle[p.name] = &fstest.MapFile{Data: files[p.name]}
	}
	if _, err := Verify(bundle, f.log.signer.VerifierKey()); err != nil {
		t.Errorf("restored bundle: %v", err)
	}
}

// What manifest and statement catch first must also fail by itself: the decoders of everything signed.
func TestDecodersOfSignedBytesRefuseEveryChangedByte(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	files := filesOf(t, f.write(t))
	signer := f.log.signer
	for _, c := range []struct {
		name string
		open func([]byte) error
	}{
		{FileCheckpoint, func(b []byte) error { _, err := OpenCheckpoint(b, signer.VerifierKey()); return err }},
		{FileStatement, func(b []byte) error { _, err := OpenStatement(b, signer.PublicKey()); return err }},
		{ApprovalFile("security"), func(b []byte) error { _, err := VerifyApproval(b, publicOf(testKey("security"))); return err }},
	} {
		good := files[c.name]
		if err := c.open(good); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		for at, was := range good {
			values := others(was)
			all := values[:]
			if was != '=' && at+1 < len(good) && good[at+1] == '=' { // unused bits of base64
				all = []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")
			}
			for _, b := range all {
				if b == was {
					continue
				}
				changed := bytes.Clone(good)
				changed[at] = b
				if c.open(changed) == nil {
					t.Errorf("%s: accepted %q instead of %q at byte %d", c.name, b, was, at)
				}
			}
		}
		for _, changed := range [][]byte{nil, good[:len(good)-1], append(bytes.Clone(good), '\n'), append([]byte(" "), good...)} {
			if c.open(changed) == nil {
				t.Errorf("%s: accepted %d bytes instead of %d", c.name, len(changed), len(good))
			}
		}
	}
}

func TestDeletedAddedTruncatedOrSwappedFileIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{before: 300})
	files := filesOf(t, f.write(t))
	verify := func(change func(map[string][]byte)) error {
		m := maps.Clone(files)
		change(m)
		_, err := Verify(mapFS(m), f.log.signer.VerifierKey())
		return err
	}
	names := sortedNames(files)
	for i, name := range names {
		t.Run(strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
			wantRefused(t, verify(func(m map[string][]byte) { delete(m, name) }), name, -2)
			wantRefused(t, verify(func(m map[string][]byte) { m[name] = m[name][:len(m[name])-1] }), name, -2)
			wantRefused(t, verify(func(m map[string][]byte) { m[name] = nil }), name, -2)
			wantRefused(t, verify(func(m map[string][]byte) { m[name] = append(bytes.Clone(m[name]), 0) }), name, -2)
			other := names[(i+1)%len(names)]
			err := verify(func(m map[string][]byte) { m[name], m[other] = m[other], m[name] })
			if err == nil || !strings.Contains(err.Error(), name) && !strings.Contains(err.Error(), other) {
				t.Errorf("swapped with %s: %v", other, err)
			}
		})
	}
	for _, name := range []string{"extra", "samples/extra.jsonl", "approvals/operations.dsse.json", "log/tile/0/009", "Manifest", "sub/dir/file"} {
		file := name
		if name == "sub/dir/file" {
			file = "sub" // the directory is met first
		}
		wantRefused(t, verify(func(m map[string][]byte) { m[name] = []byte("x") }), file, -2)
	}
}

func TestChangedRecordLineIsNamed(t *testing.T) {
	f := newFixture(t, fixtureOptions{before: 5})
	files := filesOf(t, f.write(t))
	for i, r := range f.in.Records {
		lines := bytes.SplitAfter(files[FileRecords], []byte("\n"))
		lines[i] = bytes.Replace(lines[i], []byte(`"actor":"server"`), []byte(`"actor":"servex"`), 1)
		m := maps.Clone(files)
		m[FileRecords] = bytes.Join(lines, nil)
		_, err := Verify(mapFS(m), f.log.signer.VerifierKey())
		wantRefused(t, err, FileRecords, r.Index)
	}
}

func TestLinksAndStrayDirectoriesAreRefused(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	dir := f.write(t)
	key := f.log.signer.VerifierKey()
	stray := filepath.Join(dir, "samples", "more")
	if err := os.Mkdir(stray, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := Verify(os.DirFS(dir), key)
	wantRefused(t, err, "samples/more", -1)
	if err := os.Remove(stray); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{FileReport, FileManifest, FileStatement} {
		aside := filepath.Join(t.TempDir(), "aside")
		full := filepath.Join(dir, name)
		if err := os.Rename(full, aside); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(aside, full); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(os.DirFS(dir), key)
		wantRefused(t, err, name, -1)
		if err := os.Rename(aside, full); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Verify(os.DirFS(dir), key); err != nil {
		t.Errorf("restored bundle: %v", err)
	}
}

func TestStatementMustFollowFromTheRecords(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	good := filesOf(t, f.write(t))
	for name, change := range map[string]func(*Statement){
		"verdict":       func(s *Statement) { s.Predicate.Drill.Verdict = "failed" },
		"result":        func(s *Statement) { s.Predicate.Result = "WARNED" },
		"passed tests":  func(s *Statement) { s.Predicate.PassedTests = append(s.Predicate.PassedTests, "orders/rto") },
		"approver":      func(s *Statement) { s.Predicate.Drill.Approvals[0].Name = "nobody" },
		"start":         func(s *Statement) { s.Predicate.Drill.StartedAt = epoch.AddDate(0, 0, 1) },
		"size of log":   func(s *Statement) { s.Predicate.Drill.Log.Size++ },
		"configuration": func(s *Statement) { s.Predicate.Configuration[0].Digest.SHA256 = digest(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			st, err := OpenStatement(good[FileStatement], f.log.signer.PublicKey())
			if err != nil {
				t.Fatal(err)
			}
			change(&st)
			m := maps.Clone(good)
			if m[FileStatement], err = f.log.signer.SignStatement(st); err != nil {
				t.Fatal(err)
			}
			_, err = Verify(mapFS(m), f.log.signer.VerifierKey())
			wantRefused(t, err, FileStatement, -1)
		})
	}
}

func TestStatementOfAnotherFormIsRefused(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	good := filesOf(t, f.write(t))[FileStatement]
	for name, change := range map[string]func(*Statement){
		"type":              func(s *Statement) { s.Type = "https://in-toto.io/Statement/v0.1" },
		"predicate type":    func(s *Statement) { s.PredicateType = DrillResultType },
		"no subject":        func(s *Statement) { s.Subject = nil },
		"two subjects":      func(s *Statement) { s.Subject = append(s.Subject, s.Subject[0]) },
		"subject's name":    func(s *Statement) { s.Subject[0].Name = FileReport },
		"digest upper case": func(s *Statement) { s.Subject[0].Digest.SHA256 = strings.ToUpper(s.Subject[0].Digest.SHA256) },
	} {
		st, err := OpenStatement(good, f.log.signer.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		change(&st)
		b, err := f.log.signer.SignStatement(st)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenStatement(b, f.log.signer.PublicKey()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
