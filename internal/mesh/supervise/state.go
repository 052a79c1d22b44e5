package supervise

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// stateFormat is the first word of a state file.
const stateFormat = "livefire-process/1"

// state is what a state file says: enough to find the process again, and to start it as it was started.
type state struct {
	Format   string   `json:"format"`
	Spec     Spec     `json:"spec"`
	Env      []string `json:"env"` // complete
	PID      int      `json:"pid"`
	Start    uint64   `json:"start"` // clock ticks since boot
	Boot     string   `json:"boot"`  // boot id: pids and ticks begin anew at each boot
	Restarts int      `json:"restarts"`
}

const statePrefix, stateSuffix = "p-", ".json"

func statePath(dir, name string) string {
	return filepath.Join(dir, statePrefix+url.PathEscape(name)+stateSuffix)
}

// open holds the process that the file speaks of, or says ErrGone.
func (st state) open() (*Handle, error) {
	if boot, err := bootID(); err != nil || boot != st.Boot || st.PID <= 0 {
		return nil, errors.Join(ErrGone, err)
	}
	return Open(st.PID, st.Start)
}

func readState(dir, name string) (state, error) {
	b, err := os.ReadFile(statePath(dir, name))
	if err != nil {
		return state{}, fmt.Errorf("read process state: %w", err)
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return state{}, fmt.Errorf("read state of process %s: %w", name, err)
	}
	if st.Format != stateFormat || st.Spec.Name != name {
		return state{}, fmt.Errorf("read state of process %s: format %q of %q, want %q", name, st.Format, st.Spec.Name, stateFormat)
	}
	return st, nil
}

// states lists every state file of a directory that can be read.
func states(dir string) []state {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // no directory, no processes
	}
	var out []state
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), statePrefix)
		name, json := strings.CutSuffix(name, stateSuffix)
		if !ok || !json {
			continue
		}
		if name, err = url.PathUnescape(name); err != nil {
			continue
		}
		if st, err := readState(dir, name); err == nil {
			out = append(out, st)
		}
	}
	return out
}

func sameSpec(a, b Spec) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// WriteFile replaces a file in one step and returns once both the bytes and the name are on disk.
func WriteFile(path string, b []byte) error {
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

func (l launcher) read(name string) (state, error) { return readState(l.dir, name) }

func (l launcher) write(st state) error {
	b, err := json.Marshal(st)
	if err == nil {
		err = WriteFile(statePath(l.dir, st.Spec.Name), append(b, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write state of process %s: %w", st.Spec.Name, err)
	}
	return nil
}

// remove forgets a process. A file that stays behind is harmless: it names a process that has ended.
func (l launcher) remove(name string) {
	if err := os.Remove(statePath(l.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	_ = syncDir(l.dir) // see above
}

// without drops variables that the launcher sets itself.
func without(env []string, keys ...string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return slices.Contains(keys, k)
	})
}
