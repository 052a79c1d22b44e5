package evidence

import (
	"bytes"
	"maps"
	"strings"
	"testing"
)

// reseal gives changed files a right manifest and a signature, as a server would that signs whatever it is given.
func reseal(t *testing.T, s *Signer, files map[string][]byte) {
	t.Helper()
	var m Manifest
	for _, name := range sortedNames(files) {
		if name != FileManifest && name != FileStatement {
			m = append(m, ManifestEntry{digest(files[name]), int64(len(files[name])), name})
		}
	}
	st, err := OpenStatement(files[FileStatement], s.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	files[FileManifest] = m.Encode()
	st.Subject[0].Digest.SHA256 = digest(files[FileManifest])
	if files[FileStatement], err = s.SignStatement(st); err != nil {
		t.Fatal(err)
	}
}

// innerCase is a change that only an inner check can find, and what must be named.
type innerCase struct {
	name   string
	change func(map[string][]byte)
	file   string
	record int64 // -2: any
}

// With manifest and statement made to fit, each inner check must hold alone.
func TestInnerChecksHoldWithoutTheManifest(t *testing.T) {
	f := newFixture(t, fixtureOptions{before: 300})
	good := filesOf(t, f.write(t))
	for _, c := range append(logCases(t, f), runCases(t, f, good)...) {
		t.Run(c.name, func(t *testing.T) {
			m := maps.Clone(good)
			c.change(m)
			reseal(t, f.log.signer, m)
			_, err := Verify(mapFS(m), f.log.signer.VerifierKey())
			wantRefused(t, err, c.file, c.record)
		})
	}
}

func flip(name string, at int) func(map[string][]byte) {
	return func(m map[string][]byte) { m[name] = bytes.Clone(m[name]); m[name][at] ^= 1 }
}

func logCases(t *testing.T, f *fixture) []innerCase {
	last := f.in.Records[len(f.in.Records)-1].Index
	partial := Tiles(int64(len(f.log.records)))[1]
	older := func(size int64) func(map[string][]byte) {
		return func(m map[string][]byte) {
			maps.DeleteFunc(m, func(name string, _ []byte) bool { return strings.HasPrefix(name, "log/") })
			maps.Copy(m, logFiles(t, f.log, size))
		}
	}
	return []innerCase{
		{"checkpoint is not canonical", func(m map[string][]byte) {
			m[FileCheckpoint] = append(bytes.Clone(m[FileCheckpoint]), "— x AAAAAAAA\n"...)
		}, FileCheckpoint, -1},
		{"checkpoint of another log", func(m map[string][]byte) { m[FileCheckpoint] = newFixture(t, fixtureOptions{before: 1}).in.Checkpoint }, "log/" + Tiles(19)[0].Path(), -1},
		{"leaf of another run changed", flip("log/tile/0/000", 40), "log/tile/1/000.p/1", -1},
		{"leaf in the partial tile changed", flip("log/"+partial.Path(), 0), FileCheckpoint, -1},
		{"upper tile changed", flip("log/tile/1/000.p/1", 0), "log/tile/1/000.p/1", -1},
		{"tile of half a hash", func(m map[string][]byte) { m["log/tile/1/000.p/1"] = m["log/tile/1/000.p/1"][:16] }, "log/tile/1/000.p/1", -1},
		{"leaf and a half", func(m map[string][]byte) {
			m["log/"+partial.Path()] = append(bytes.Clone(m["log/"+partial.Path()]), 1)
		}, "log/" + partial.Path(), -1},
		{"tile too many", func(m map[string][]byte) { m["log/tile/2/000"] = make([]byte, 8192) }, "log/tile/2/000", -1},
		{"tile missing", func(m map[string][]byte) { delete(m, "log/tile/1/000.p/1") }, "log/tile/1/000.p/1", -1},
		{"level 0 missing", func(m map[string][]byte) { delete(m, "log/tile/0/000") }, FileCheckpoint, -1},
		{"older checkpoint without the terminal record", older(last), FileRecords, last},
		{"older checkpoint without the run", older(3), FileRecords, f.in.Records[0].Index},
	}
}

func runCases(t *testing.T, f *fixture, good map[string][]byte) []innerCase {
	last := f.in.Records[len(f.in.Records)-1].Index
	chunk := "" // a sample file
	for _, name := range sortedNames(good) {
		if strings.HasPrefix(name, "samples/"+testRun) {
			chunk = name
		}
	}
	return []innerCase{
		{"record removed", dropLine(3), FileRecords, f.in.Records[4].Index},
		{"first record removed", dropLine(0), FileRecords, f.in.Records[1].Index},
		{"record doubled", doubleLine(3), FileRecords, f.in.Records[3].Index},
		{"record of another run", func(m map[string][]byte) {
			line, err := f.log.records[1].Encode()
			if err != nil {
				t.Fatal(err)
			}
			m[FileRecords] = append(append(bytes.Clone(m[FileRecords]), line...), '\n')
		}, FileRecords, 1},
		{"record changed", func(m map[string][]byte) {
			m[FileRecords] = bytes.Replace(m[FileRecords], []byte(`"passed"`), []byte(`"failed"`), 1)
		}, FileRecords, last},
		{"record in another form", func(m map[string][]byte) {
			m[FileRecords] = bytes.Replace(m[FileRecords], []byte(`,"at"`), []byte(`, "at"`), 1)
		}, FileRecords, -2},
		{"no newline at the end", func(m map[string][]byte) { m[FileRecords] = bytes.TrimSuffix(m[FileRecords], []byte("\n")) }, FileRecords, -2},
		{"no records", func(m map[string][]byte) { m[FileRecords] = nil }, FileRecords, -1},
		{"proposal changed", flip(FileProposal, 3), FileProposal, f.in.Records[0].Index},
		{"approval changed", flip(ApprovalFile("security"), 80), ApprovalFile("security"), f.in.Records[2].Index},
		{"approvals swapped", func(m map[string][]byte) {
			a, b := ApprovalFile("security"), ApprovalFile("development")
			m[a], m[b] = m[b], m[a]
		}, ApprovalFile("development"), f.in.Records[1].Index},
		{"approval missing", func(m map[string][]byte) { delete(m, ApprovalFile("security")) }, ApprovalFile("security"), f.in.Records[2].Index},
		{"approval too many", func(m map[string][]byte) { m[ApprovalFile("zebra")] = m[ApprovalFile("security")] }, ApprovalFile("zebra"), -1},
		{"sample changed", flip(chunk, 5), chunk, -2},
		{"sample missing", func(m map[string][]byte) { delete(m, chunk) }, chunk, -2},
		{"sample too many", func(m map[string][]byte) { m["samples/x"] = []byte("x") }, "samples/x", -1},
		{"report missing", func(m map[string][]byte) { delete(m, FileReport) }, FileManifest, -1},
	}
}

func TestSizeInTheManifestIsChecked(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	files := filesOf(t, f.write(t))
	m, err := ParseManifest(files[FileManifest])
	if err != nil {
		t.Fatal(err)
	}
	for i := range m {
		if m[i].Path == FileReport {
			m[i].Size++
		}
	}
	st, err := OpenStatement(files[FileStatement], f.log.signer.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	files[FileManifest] = m.Encode()
	st.Subject[0].Digest.SHA256 = digest(files[FileManifest])
	if files[FileStatement], err = f.log.signer.SignStatement(st); err != nil {
		t.Fatal(err)
	}
	_, err = Verify(mapFS(files), f.log.signer.VerifierKey())
	wantRefused(t, err, FileReport, -1)
}

func dropLine(i int) func(map[string][]byte) {
	return func(m map[string][]byte) {
		lines := bytes.SplitAfter(m[FileRecords], []byte("\n"))
		m[FileRecords] = bytes.Join(append(lines[:i:i], lines[i+1:]...), nil)
	}
}

func doubleLine(i int) func(map[string][]byte) {
	return func(m map[string][]byte) {
		lines := bytes.SplitAfter(m[FileRecords], []byte("\n"))
		m[FileRecords] = bytes.Join(append(lines[:i+1:i+1], lines[i:]...), nil)
	}
}

// logFiles is checkpoint and tiles of the first size records.
func logFiles(t *testing.T, l *testLog, size int64) map[string][]byte {
	t.Helper()
	root, err := TreeHash(size, l.hashes)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	if files[FileCheckpoint], err = l.signer.Checkpoint(size, root); err != nil {
		t.Fatal(err)
	}
	for _, tile := range Tiles(size) {
		if files["log/"+tile.Path()], err = tile.Read(l.hashes); err != nil {
			t.Fatal(err)
		}
	}
	return files
}
