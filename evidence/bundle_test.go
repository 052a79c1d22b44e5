package evidence

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
)

func TestUntouchedBundleVerifiesInAnEmptyDirectory(t *testing.T) {
	f := newFixture(t, fixtureOptions{before: 300})
	dir := f.write(t)
	v, err := Verify(os.DirFS(dir), f.log.signer.VerifierKey())
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if v.Run != testRun || len(v.Records) != len(f.in.Records) || len(v.Samples) != 3 || len(v.Approvals) != 2 {
		t.Errorf("run %q, %d records, %d samples, %d approvals", v.Run, len(v.Records), len(v.Samples), len(v.Approvals))
	}
	for _, s := range v.Samples {
		b, err := v.ReadFile(s.Path)
		if err != nil || digest(b) != s.SHA256 {
			t.Errorf("ReadFile(%s) = %d bytes, %v", s.Path, len(b), err)
		}
	}
	if got := v.Statement.Predicate; got.Result != "PASSED" || len(got.PassedTests) != 1 || got.PassedTests[0] != "payments/rto" {
		t.Errorf("predicate %+v", got)
	}
}

func TestBundleOfAnotherKeyIsRefused(t *testing.T) {
	dir := newFixture(t, fixtureOptions{}).write(t)
	_, err := Verify(os.DirFS(dir), testSigner(t, "another").VerifierKey())
	wantRefused(t, err, FileStatement, -1)
}

func TestReadFileRefusesWhatChangedAfterVerify(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	files := mapFS(filesOf(t, f.write(t)))
	v, err := Verify(files, f.log.signer.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	files[FileReport] = &fstest.MapFile{Data: []byte("[]\n")}
	if _, err := v.ReadFile(FileReport); err == nil {
		t.Error("ReadFile returned a file that changed after Verify")
	}
	if _, err := v.ReadFile("other"); err == nil {
		t.Error("ReadFile returned a file that is not of the bundle")
	}
}

func TestBundleAppearsWholeOrNotAtAll(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	broken := errors.New("disk gone")
	calls := 0
	f.in.Open = func(s SampleFile) (io.ReadCloser, error) {
		if calls++; calls == 2 {
			return nil, broken
		}
		return f.open(s)
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "bundle")
	if err := WriteBundle(dir, f.in); !errors.Is(err, broken) {
		t.Errorf("WriteBundle = %v, want %v", err, broken)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	f.in.Open = f.open
	if err := WriteBundle(dir, f.in); err != nil {
		t.Fatalf("WriteBundle after a failure: %v", err)
	}
	before := filesOf(t, dir)
	if err := WriteBundle(dir, f.in); !errors.Is(err, fs.ErrExist) {
		t.Errorf("WriteBundle over a bundle = %v, want ErrExist", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 1 || len(filesOf(t, dir)) != len(before) {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestSameRunGivesSameBytes(t *testing.T) {
	a, b := filesOf(t, newFixture(t, fixtureOptions{}).write(t)), filesOf(t, newFixture(t, fixtureOptions{}).write(t))
	if len(a) != len(b) {
		t.Errorf("%d files, then %d", len(a), len(b))
	}
	for name := range a {
		if !bytes.Equal(a[name], b[name]) {
			t.Errorf("%s differs", name)
		}
	}
}

func TestArchiveHoldsTheDirectoryAndNothingElse(t *testing.T) {
	f := newFixture(t, fixtureOptions{before: 3})
	dir := f.write(t)
	var first, second bytes.Buffer
	if err := Archive(dir, &first); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, FileManifest), epoch, epoch); err != nil {
		t.Fatal(err)
	}
	if err := Archive(dir, &second); err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(first.Bytes()) != sha256.Sum256(second.Bytes()) {
		t.Error("the same bundle gave two archives")
	}
	out := fstest.MapFS{}
	for tr := tar.NewReader(&first); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = &fstest.MapFile{Data: b}
	}
	sub, err := fs.Sub(out, testRun)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(sub, f.log.signer.VerifierKey()); err != nil {
		t.Errorf("Verify of the unpacked archive: %v", err)
	}
	if want := filesOf(t, dir); len(out) != len(want) {
		t.Errorf("archive holds %d files, the directory %d", len(out), len(want))
	}
	if err := os.Symlink(FileManifest, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := Archive(dir, io.Discard); err == nil {
		t.Error("Archive followed a link")
	}
}

func mapFS(files map[string][]byte) fstest.MapFS {
	m := fstest.MapFS{}
	for name, b := range files {
		m[name] = &fstest.MapFile{Data: b, Mode: 0o644}
	}
	return m
}

// wantRefused checks that err names file, and record unless that is -2.
func wantRefused(t *testing.T, err error, file string, record int64) {
	t.Helper()
	var v *VerifyError
	if !errors.As(err, &v) {
		t.Errorf("error %v, want a refusal of %s", err, file)
		return
	}
	if v.File != file || record != -2 && v.Record != record {
		t.Errorf("refused for %s, record %d (%s); want %s, record %d", v.File, v.Record, v.Reason, file, record)
	}
}
