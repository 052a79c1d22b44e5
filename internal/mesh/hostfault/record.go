package hostfault

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"net/url"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/supervise"
)

// undoFormat is the first word of an undo record.
const undoFormat = "livefire-undo/1"

// Stages of an undo record. A record that is not ended must be reverted by whoever finds it.
const (
	stageIntent  = "intent"  // the fault may or may not be there
	stageApplied = "applied" // the fault is there
	stageEnding  = "ending"  // its revert has begun
	stageEnded   = "ended"   // nothing of it is left; the order is dead for ever
)

// record is what must be known to undo one order, in a file of its own.
type record struct {
	Format   string         `json:"format"`
	Order    fault.Order    `json:"order"`
	Boot     string         `json:"boot"` // boot id: deadlines, pids and start times count within one boot
	Received time.Time      `json:"received"`
	Deadline time.Duration  `json:"deadline"` // time since boot at which the lease ends
	Cap      time.Duration  `json:"cap"`      // time since boot that no renewal goes beyond
	Stage    string         `json:"stage"`
	Targets  []target       `json:"targets"`
	EndedBy  string         `json:"endedBy,omitempty"`
	Ended    time.Time      `json:"ended,omitzero"`
	Reports  []fault.Report `json:"reports,omitempty"`
}

// target is one process of an order.
type target struct {
	Name    string        `json:"name"`
	Service api.ServiceID `json:"service,omitempty"`
	PID     int           `json:"pid"`
	Start   uint64        `json:"start"` // clock ticks since boot
}

const undoSuffix = ".undo.json"

// maxFileName bounds the name of an undo record, which is the escaped order id.
const maxFileName = 200

func undoName(id string) string { return url.PathEscape(id) + undoSuffix }

// journal is the directory of undo records.
type journal struct{ dir string }

// write replaces a record and returns once it is on disk, its name too.
func (j journal) write(r record) error {
	r.Format = undoFormat
	b, err := json.Marshal(r)
	if err == nil {
		err = supervise.WriteFile(filepath.Join(j.dir, undoName(r.Order.ID)), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write undo record of %s: %w", r.Order.ID, err)
	}
	return nil
}

func (j journal) read(id string) (record, error) { return j.readFile(undoName(id)) }

func (j journal) readFile(name string) (record, error) {
	b, err := os.ReadFile(filepath.Join(j.dir, name))
	if err != nil {
		return record{}, fmt.Errorf("read undo record: %w", err)
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("read undo record %s: %w", name, err)
	}
	if r.Format != undoFormat {
		return record{}, fmt.Errorf("read undo record %s: format %q, want %q", name, r.Format, undoFormat)
	}
	return r, nil
}

// all reads every record. One that cannot be read is an error: it may be a fault that nobody else ends.
func (j journal) all() ([]record, error) {
	entries, err := os.ReadDir(j.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list undo records: %w", err)
	}
	var out []record
	var errs []error
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), undoSuffix) {
			continue
		}
		r, err := j.readFile(e.Name())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out = append(out, r)
	}
	return out, errors.Join(errs...)
}

// open reads the records that are not ended.
func (j journal) open() ([]record, error) {
	all, err := j.all()
	var out []record
	for _, r := range all {
		if r.Stage != stageEnded {
			out = append(out, r)
		}
	}
	return out, err
}

const fenceFile = "fence.json"

type fenceState struct {
	Fence int64 `json:"fence"`
}

func (j journal) readFence() (int64, error) {
	b, err := os.ReadFile(filepath.Join(j.dir, fenceFile))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var f fenceState
	if err == nil {
		err = json.Unmarshal(b, &f)
	}
	if err != nil {
		return 0, fmt.Errorf("read fence: %w", err)
	}
	return f.Fence, nil
}

func (j journal) writeFence(n int64) error {
	b, err := json.Marshal(fenceState{n})
	if err == nil {
		err = supervise.WriteFile(filepath.Join(j.dir, fenceFile), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write fence: %w", err)
	}
	return nil
}
