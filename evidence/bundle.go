package evidence

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// BundleInput is what the server knows of a run. All fields are required, but Approvals, Objectives and Open
// where the run has none.
type BundleInput struct {
	Signer     *Signer
	Records    []Record        // of the run, by RunSeq
	Checkpoint []byte          // by Signer; covers the last record
	Hashes     tlog.HashReader // of the log, at least up to the checkpoint
	Proposal   []byte          // the stored bytes
	Approvals  map[string][]byte
	Open       func(SampleFile) (io.ReadCloser, error) // a file that a record names
	Objectives []Objective
	ReportJSON []byte
	ReportHTML []byte
}

// WriteBundle writes the bundle to dir, which must not exist. It appears whole or not at all: it is written
// beside dir, synced, verified with the signer's own public key and renamed. A run without terminal record
// gives a bundle that Verify calls incomplete.
func WriteBundle(dir string, in BundleInput) error {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return fmt.Errorf("write bundle %s: %w", dir, err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".tmp-")
	if err != nil {
		return fmt.Errorf("write bundle %s: %w", dir, err)
	}
	defer func() { _ = os.RemoveAll(tmp) }() // nothing is left of it after the rename
	w := &bundleWriter{dir: tmp}
	if err := w.write(in); err != nil {
		return fmt.Errorf("write bundle %s: %w", dir, err)
	}
	if err := publish(tmp, dir); err != nil {
		return fmt.Errorf("write bundle %s: %w", dir, err)
	}
	return nil
}

// publish makes the directory tmp durable and visible as dir.
func publish(tmp, dir string) error {
	if err := os.Chmod(tmp, 0o755); err != nil { // MkdirTemp gives 0700
		return err
	}
	err := filepath.WalkDir(tmp, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type bundleWriter struct {
	dir      string
	manifest Manifest
}

func (w *bundleWriter) write(in BundleInput) error {
	if in.Signer == nil {
		return errors.New("no signer")
	}
	c, err := OpenCheckpoint(in.Checkpoint, in.Signer.VerifierKey())
	if err != nil {
		return err
	}
	if err := w.writeRun(in); err != nil {
		return err
	}
	if err := w.add(FileCheckpoint, bytes.NewReader(in.Checkpoint)); err != nil {
		return err
	}
	for _, t := range Tiles(c.Size) {
		b, err := t.Read(in.Hashes)
		if err != nil {
			return err
		}
		if err := w.add(dirLog+t.Path(), bytes.NewReader(b)); err != nil {
			return err
		}
	}
	slices.SortFunc(w.manifest, func(a, b ManifestEntry) int { return strings.Compare(a.Path, b.Path) })
	manifest := w.manifest.Encode()
	st, err := newStatement(manifest, w.manifest, in.Records, c, in.Objectives)
	if err != nil {
		return err
	}
	envelope, err := in.Signer.SignStatement(st)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{FileManifest: manifest, FileStatement: envelope} {
		if _, _, err := w.create(name, bytes.NewReader(b)); err != nil {
			return err
		}
	}
	var verr *VerifyError
	if _, err := Verify(os.DirFS(w.dir), in.Signer.VerifierKey()); err != nil && (!errors.As(err, &verr) || !verr.Incomplete) {
		return fmt.Errorf("refused by its own verifier: %w", err)
	}
	return nil
}

// writeRun writes what belongs to the run: records, proposal, approvals, samples, reports.
func (w *bundleWriter) writeRun(in BundleInput) error {
	var lines bytes.Buffer
	for _, r := range in.Records {
		line, err := r.Encode()
		if err != nil {
			return err
		}
		lines.Write(append(line, '\n'))
	}
	files := map[string][]byte{
		FileRecords: lines.Bytes(), FileProposal: in.Proposal, FileReport: in.ReportJSON, FileReportHTML: in.ReportHTML,
	}
	for group, b := range in.Approvals {
		files[ApprovalFile(group)] = b
	}
	for path, b := range files {
		if err := w.add(path, bytes.NewReader(b)); err != nil {
			return err
		}
	}
	samples, err := sampleFiles(in.Records)
	if err != nil {
		return err
	}
	for _, s := range samples {
		if in.Open == nil {
			return fmt.Errorf("no way to open %s", s.Path)
		}
		r, err := in.Open(s)
		if err != nil {
			return fmt.Errorf("open %s: %w", s.Path, err)
		}
		if err := errors.Join(w.add(s.Path, r), r.Close()); err != nil {
			return err
		}
	}
	return nil
}

// add writes one file and its line of the manifest.
func (w *bundleWriter) add(path string, r io.Reader) error {
	if !allowedPath(path) {
		return fmt.Errorf("%q is not a file of a bundle", path)
	}
	sum, size, err := w.create(path, r)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	w.manifest = append(w.manifest, ManifestEntry{sum, size, path})
	return nil
}

func (w *bundleWriter) create(path string, r io.Reader) (sum string, size int64, err error) {
	full := filepath.Join(w.dir, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return "", 0, err
	}
	f, err := os.OpenFile(full, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	size, err = io.Copy(io.MultiWriter(f, h), r)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// Archive writes the directory of a bundle as a tar file and nothing else: the files sorted by path, under the
// directory's own name, without times and owners. The same bundle gives the same bytes.
func Archive(dir string, w io.Writer) error {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is not a regular file", path)
		}
		paths = append(paths, path)
		return nil
	})
	if err != nil {
		return fmt.Errorf("archive %s: %w", dir, err)
	}
	slices.Sort(paths)
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("archive %s: %w", dir, err)
	}
	tw := tar.NewWriter(w)
	for _, path := range paths {
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return fmt.Errorf("archive %s: %w", dir, err)
		}
		if err := archiveFile(tw, path, filepath.Base(abs)+"/"+filepath.ToSlash(rel)); err != nil {
			return fmt.Errorf("archive %s: %w", path, err)
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("archive %s: %w", dir, err)
	}
	return nil
}

func archiveFile(tw *tar.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(tw, f)
	return err
}
