package evidence

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// VerifyError says why a bundle is refused.
type VerifyError struct {
	File       string // path in the bundle
	Record     int64  // index in the log; -1 = none
	Reason     string
	Incomplete bool // everything there is right, but the run's terminal record is missing
	Err        error
}

func (e *VerifyError) Error() string {
	where := e.File
	if e.Record >= 0 {
		where = fmt.Sprintf("%s, record %d", e.File, e.Record)
	}
	return fmt.Sprintf("verify: %s: %s", where, e.Reason)
}

func (e *VerifyError) Unwrap() error { return e.Err }

func fail(file string, record int64, format string, args ...any) *VerifyError {
	err := fmt.Errorf(format, args...)
	return &VerifyError{File: file, Record: record, Reason: err.Error(), Err: errors.Unwrap(err)}
}

// Verified is a bundle whose structure is right. Its fields are not to be changed.
type Verified struct {
	Run        string
	Records    []Record // of the run, by RunSeq
	Proposal   []byte
	Approvals  []Approval // that count: the last one of each group, in the order of the records
	Samples    []SampleFile
	Statement  Statement
	Checkpoint Checkpoint
	Manifest   Manifest

	files fs.FS
}

// Verify checks a bundle with the server's public key in note verifier form. It returns *VerifyError if the
// bundle is refused; with Incomplete set, what could be verified is returned too. The order of steps is that of
// docs/spec/evidence.md.
func Verify(bundle fs.FS, vkey string) (*Verified, error) {
	_, pub, err := ParseVerifierKey(vkey)
	if err != nil {
		return nil, err
	}
	v := &Verified{files: bundle}
	manifest, err := v.openManifest(pub)
	if err != nil {
		return nil, err
	}
	if err := v.checkFiles(); err != nil {
		return nil, err
	}
	leaves, err := v.checkLog(vkey)
	if err != nil {
		return nil, err
	}
	if err := v.checkRecords(leaves); err != nil {
		return nil, err
	}
	if err := v.checkRun(); err != nil {
		return nil, err
	}
	want, err := newStatement(manifest, v.Manifest, v.Records, v.Checkpoint, v.Statement.Predicate.Drill.Objectives)
	if err != nil {
		return nil, fail(FileStatement, -1, "%w", err)
	}
	if !sameStatement(v.Statement, want) {
		return nil, fail(FileStatement, -1, "the statement does not follow from the records")
	}
	if last := v.Records[len(v.Records)-1]; last.Kind != KindClosed {
		e := fail(FileRecords, last.Index, "incomplete: the terminal record (%s) of run %s is missing", KindClosed, v.Run)
		e.Incomplete = true
		return v, e
	}
	return v, nil
}

// openManifest verifies the statement and reads the manifest that it signs.
func (v *Verified) openManifest(pub ed25519.PublicKey) ([]byte, error) {
	envelope, err := fs.ReadFile(v.files, FileStatement)
	if err != nil {
		return nil, fail(FileStatement, -1, "%w", err)
	}
	if v.Statement, err = OpenStatement(envelope, pub); err != nil {
		return nil, fail(FileStatement, -1, "%w", err)
	}
	manifest, err := fs.ReadFile(v.files, FileManifest)
	if err != nil {
		return nil, fail(FileManifest, -1, "%w", err)
	}
	if hexDigest(manifest) != v.Statement.Subject[0].Digest.SHA256 {
		return nil, fail(FileManifest, -1, "its SHA-256 is not the one that the statement signs")
	}
	if v.Manifest, err = ParseManifest(manifest); err != nil {
		return nil, fail(FileManifest, -1, "%w", err)
	}
	for _, name := range []string{FileCheckpoint, FileProposal, FileRecords, FileReport, FileReportHTML} {
		if _, ok := v.Manifest.Find(name); !ok {
			return nil, fail(FileManifest, -1, "does not name %s", name)
		}
	}
	return manifest, nil
}

// checkFiles compares every file with the manifest and refuses everything else in the directory.
func (v *Verified) checkFiles() error {
	dirs := map[string]bool{".": true}
	for _, e := range v.Manifest {
		for d := path.Dir(e.Path); d != "."; d = path.Dir(d) {
			dirs[d] = true
		}
	}
	err := fs.WalkDir(v.files, ".", func(name string, d fs.DirEntry, err error) error {
		switch _, listed := v.Manifest.Find(name); {
		case err != nil:
			return fail(name, -1, "%w", err)
		case d.IsDir():
			if !dirs[name] {
				return fail(name, -1, "a directory that does not belong to the bundle")
			}
		case !listed && name != FileManifest && name != FileStatement:
			return fail(name, -1, "a file that the manifest does not name")
		case !d.Type().IsRegular():
			return fail(name, -1, "not a regular file")
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range v.Manifest {
		if err := v.checkFile(e); err != nil { // before anything is read into memory
			err.Record = v.recordBehind(e.Path)
			return err
		}
	}
	return nil
}

// checkFile hashes one file without holding it in memory.
func (v *Verified) checkFile(e ManifestEntry) *VerifyError {
	f, err := v.files.Open(e.Path)
	if err != nil {
		return fail(e.Path, -1, "%w", err)
	}
	defer func() { _ = f.Close() }() // read only
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, e.Size+1))
	switch {
	case err != nil:
		return fail(e.Path, -1, "%w", err)
	case n != e.Size:
		return fail(e.Path, -1, "its size is not the %d bytes of the manifest", e.Size)
	case hex.EncodeToString(h.Sum(nil)) != e.SHA256:
		return fail(e.Path, -1, "its SHA-256 is not the one of the manifest")
	}
	return nil
}

// ReadFile returns a file of the bundle and checks it again: the directory may have changed since Verify.
func (v *Verified) ReadFile(name string) ([]byte, error) {
	e, ok := v.Manifest.Find(name)
	if !ok {
		return nil, fail(name, -1, "missing: the manifest does not name it")
	}
	f, err := v.files.Open(name)
	if err != nil {
		return nil, fail(name, -1, "%w", err)
	}
	defer func() { _ = f.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(f, e.Size+1))
	if err != nil {
		return nil, fail(name, -1, "%w", err)
	}
	if int64(len(b)) != e.Size || hexDigest(b) != e.SHA256 {
		return nil, fail(name, -1, "changed while it was read")
	}
	return b, nil
}

// checkLog verifies the checkpoint and recomputes every tile from the leaves, and the root from the tiles.
func (v *Verified) checkLog(vkey string) ([]tlog.Hash, error) {
	b, err := v.ReadFile(FileCheckpoint)
	if err != nil {
		return nil, err
	}
	if v.Checkpoint, err = OpenCheckpoint(b, vkey); err != nil {
		return nil, fail(FileCheckpoint, -1, "%w", err)
	}
	// A size that the bundle cannot hold must not make us allocate: each record has 32 bytes in a tile.
	if have := v.tileBytes(); v.Checkpoint.Size > have/tlog.HashSize {
		return nil, fail(FileCheckpoint, -1, "signs %d records, the tiles hold fewer", v.Checkpoint.Size)
	}
	tiles := Tiles(v.Checkpoint.Size)
	want := map[string]bool{}
	var leaves []tlog.Hash
	content := make([][]byte, len(tiles))
	for i, t := range tiles {
		name := dirLog + t.Path()
		want[name] = true
		if content[i], err = v.ReadFile(name); err != nil {
			return nil, err
		}
		if len(content[i]) != t.Width*tlog.HashSize {
			return nil, fail(name, -1, "%d bytes, want %d", len(content[i]), t.Width*tlog.HashSize)
		}
		for b := content[i]; t.Level == 0 && len(b) > 0; b = b[tlog.HashSize:] {
			leaves = append(leaves, tlog.Hash(b[:tlog.HashSize]))
		}
	}
	for _, e := range v.Manifest {
		if strings.HasPrefix(e.Path, dirLog) && !want[e.Path] {
			return nil, fail(e.Path, -1, "not a tile of a log of %d records", v.Checkpoint.Size)
		}
	}
	hashes, err := hashesOfLeaves(leaves)
	if err != nil {
		return nil, fail(FileCheckpoint, -1, "%w", err)
	}
	for i, t := range tiles {
		if again, err := t.Read(hashes); err != nil || !bytes.Equal(again, content[i]) {
			return nil, fail(dirLog+t.Path(), -1, "does not follow from the tiles below")
		}
	}
	if root, err := TreeHash(v.Checkpoint.Size, hashes); err != nil || root != v.Checkpoint.Root {
		return nil, fail(FileCheckpoint, -1, "the tiles do not have the root that it signs")
	}
	return leaves, nil
}

func (v *Verified) tileBytes() int64 {
	var n int64
	for _, e := range v.Manifest {
		if strings.HasPrefix(e.Path, dirLog+"tile/0/") {
			n += e.Size
		}
	}
	return n
}
