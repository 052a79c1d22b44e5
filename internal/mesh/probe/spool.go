package probe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

const (
	metaFormat = "livefire-probe/1"
	metaFile   = "order.json"
	aliveFile  = "alive"
	suffix     = ".jsonl"
)

// Kinds of chunk files; see the package comment.
const (
	openPrefix    = "open-"
	chunkPrefix   = "chunk-"
	sentPrefix    = "sent-"
	refusedPrefix = "refused-"
)

// maxFileName bounds the name of a spool directory, which is the escaped order id.
const maxFileName = 200

// meta is what must be known of a probe to continue or to close it.
type meta struct {
	Format   string        `json:"format"`
	Order    sample.Order  `json:"order"`
	Boot     string        `json:"boot"`     // boot id: the two times below count within one boot
	Start    time.Duration `json:"start"`    // since boot
	Deadline time.Duration `json:"deadline"` // since boot; end of the lease
	Wall     time.Time     `json:"wall"`     // of the start
	Ended    bool          `json:"ended"`    // never started again
	End      time.Duration `json:"end"`      // after the start; if ended
	Finished time.Time     `json:"finished,omitzero"`
}

// opened is the first line of an open chunk.
type opened struct {
	Wall        time.Time     `json:"wall"` // start of the probe, by the wall clock as it was in this second
	Offset      time.Duration `json:"clockOffset"`
	OffsetError time.Duration `json:"clockError"`
}

// spool is the directory of one probe.
type spool struct{ dir string }

func spoolName(id string) string { return url.PathEscape(id) }

func (sp spool) path(prefix string, k int64) string {
	return filepath.Join(sp.dir, fmt.Sprintf("%s%09d%s", prefix, k, suffix))
}

func (sp spool) writeMeta(m meta) error {
	m.Format = metaFormat
	b, err := json.Marshal(m)
	if err == nil {
		err = writeFile(filepath.Join(sp.dir, metaFile), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write probe %s: %w", m.Order.ID, err)
	}
	return nil
}

func (sp spool) readMeta() (meta, error) {
	b, err := os.ReadFile(filepath.Join(sp.dir, metaFile))
	if err != nil {
		return meta{}, fmt.Errorf("read probe: %w", err)
	}
	var m meta
	if err := json.Unmarshal(b, &m); err != nil {
		return meta{}, fmt.Errorf("read probe in %s: %w", sp.dir, err)
	}
	if m.Format != metaFormat {
		return meta{}, fmt.Errorf("read probe in %s: format %q, want %q", sp.dir, m.Format, metaFormat)
	}
	return m, nil
}

// writeAlive notes how far the probe comes; one small write in place.
func writeAlive(f *os.File, elapsed time.Duration) error {
	_, err := f.WriteAt(fmt.Appendf(nil, "%020d\n", elapsed.Nanoseconds()), 0)
	return err
}

// alive reads it; 0 if there is nothing to be read.
func (sp spool) alive() time.Duration {
	b, err := os.ReadFile(filepath.Join(sp.dir, aliveFile))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(n)
}

// writeChunk makes a chunk complete; its open file is no longer needed.
func (sp spool) writeChunk(c sample.Chunk) error {
	if err := writeFile(sp.path(chunkPrefix, c.Header.Chunk), sample.EncodeChunk(c)); err != nil {
		return fmt.Errorf("write chunk %d of %s: %w", c.Header.Chunk, c.Header.Order, err)
	}
	if err := os.Remove(sp.path(openPrefix, c.Header.Chunk)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove open chunk %d of %s: %w", c.Header.Chunk, c.Header.Order, err)
	}
	return nil
}

// readOpen reads the samples of a second that had ended. A last line that is cut off ended with the process.
func (sp spool) readOpen(k int64) (opened, map[int64]sample.Sample, bool) {
	b, err := os.ReadFile(sp.path(openPrefix, k))
	if err != nil {
		return opened{}, nil, false
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 1<<20)
	var head opened
	if !sc.Scan() || json.Unmarshal(sc.Bytes(), &head) != nil || head.Wall.IsZero() {
		return opened{}, nil, false
	}
	out := map[int64]sample.Sample{}
	for sc.Scan() {
		var s sample.Sample
		if json.Unmarshal(sc.Bytes(), &s) == nil && s.Request != "" {
			out[s.Seq] = s
		}
	}
	return head, out, true
}

// numbers lists the chunks that exist as files of one kind, in order.
func (sp spool) numbers(prefix string) []int64 {
	entries, err := os.ReadDir(sp.dir)
	if err != nil {
		return nil
	}
	var out []int64
	for _, e := range entries {
		s, ok := strings.CutPrefix(e.Name(), prefix)
		s, ok2 := strings.CutSuffix(s, suffix)
		if n, err := strconv.ParseInt(s, 10, 64); ok && ok2 && err == nil {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// exists says whether a chunk is complete, uploaded or not.
func (sp spool) exists(k int64) bool {
	for _, prefix := range []string{chunkPrefix, sentPrefix, refusedPrefix} {
		if _, err := os.Stat(sp.path(prefix, k)); err == nil {
			return true
		}
	}
	return false
}

// next is the chunk to upload now, if it is complete: uploads go in order.
func (sp spool) next() (k int64, ok bool) {
	complete := sp.numbers(chunkPrefix)
	if len(complete) == 0 {
		return 0, false
	}
	first := int64(0) // that has not been uploaded
	for _, k := range append(sp.numbers(sentPrefix), sp.numbers(refusedPrefix)...) {
		first = max(first, k+1)
	}
	// A lower one has been uploaded and its new name lost in a crash: once more does no harm.
	return complete[0], complete[0] <= first
}

// clear removes everything but the order and chunks that were refused: it stays known that the order has ended.
func (sp spool) clear() error {
	entries, err := os.ReadDir(sp.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != metaFile && !strings.HasPrefix(e.Name(), refusedPrefix) {
			errs = append(errs, os.Remove(filepath.Join(sp.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// writeFile replaces a file in one step and returns once both the bytes and the name are on disk.
func writeFile(path string, b []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".tmp-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone after the rename
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
