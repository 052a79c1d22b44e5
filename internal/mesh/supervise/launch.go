package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/livefire-mesh/livefire/api"
)

// lifetimeFD is the number of the lifetime pipe in a process: the first after stdin, stdout, stderr.
const lifetimeFD = 3

// launcher brings processes up: what the Supervisor and a watchdog have in common. It is a value.
type launcher struct {
	dir      string
	env      []string
	lifetime *os.File
}

func newLauncher(cfg Config) (launcher, error) {
	if cfg.Dir == "" {
		return launcher{}, api.Errorf(api.Invalid, "supervisor", "no directory for state files")
	}
	if err := supported(); err != nil {
		return launcher{}, err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return launcher{}, fmt.Errorf("make directory for process state: %w", err)
	}
	env := cfg.Env
	if env == nil {
		env = os.Environ()
	}
	return launcher{dir: dir, env: without(env, LifetimeEnv, MarkEnv), lifetime: cfg.Lifetime}, nil
}

// up adopts the process if it runs with this Spec and starts it if not; one that runs with another Spec is ended
// first. It returns how often it has been started again.
func (l launcher) up(spec Spec) (h *Handle, restarts int, adopted bool, err error) {
	st, err := l.read(spec.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Never started, or its starter died between the start and the state file.
		if h := findMarked(l.mark(spec.Name)); h != nil {
			st = state{Spec: spec, Env: l.environ(spec), PID: h.PID, Start: h.Start}
			return h, 0, true, l.save(st, h)
		}
		return l.start(spec, l.environ(spec), 0)
	case err != nil:
		return nil, 0, false, err
	}
	h, err = st.open()
	switch {
	case err != nil && !errors.Is(err, ErrGone):
		return nil, st.Restarts, false, err
	case err != nil:
		return l.start(spec, l.environ(spec), st.Restarts+1)
	case sameSpec(st.Spec, spec):
		return h, st.Restarts, true, nil
	}
	defer h.Close()
	if err := end(h); err != nil {
		return nil, st.Restarts, false, fmt.Errorf("end process %s, whose description has changed: %w", spec.Name, err)
	}
	return l.start(spec, l.environ(spec), st.Restarts)
}

func (l launcher) mark(name string) string { return l.dir + ":" + name }

// environ is the complete environment of a process. The Spec wins over the agent's: of a variable that is there
// twice, most programs see the first.
func (l launcher) environ(spec Spec) []string {
	var keys []string
	for _, kv := range spec.Env {
		k, _, _ := strings.Cut(kv, "=")
		keys = append(keys, k)
	}
	return append(append(without(l.env, keys...), spec.Env...), MarkEnv+"="+l.mark(spec.Name))
}

// start forks the process in a session of its own, then writes its state file.
func (l launcher) start(spec Spec, env []string, restarts int) (*Handle, int, bool, error) {
	h, err := l.fork(spec, env)
	if err != nil {
		return nil, restarts, false, fmt.Errorf("start process %s: %w", spec.Name, err)
	}
	st := state{Spec: spec, Env: env, PID: h.PID, Start: h.Start, Restarts: restarts}
	return h, restarts, false, l.save(st, h)
}

// save writes the state file. Without it the process could not be found by name again, but it runs: an error is
// for the log.
func (l launcher) save(st state, h *Handle) error {
	boot, err := bootID()
	if err != nil {
		return err
	}
	st.Format, st.Boot, st.PID, st.Start = stateFormat, boot, h.PID, h.Start
	return l.write(st)
}

func (l launcher) fork(spec Spec, env []string) (*Handle, error) {
	path, err := exec.LookPath(spec.Command[0])
	if err == nil {
		path, err = filepath.Abs(path) // the process starts in a directory of its own
	}
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	out := null
	if spec.Log != "" {
		if out, err = os.OpenFile(spec.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			return nil, err
		}
		defer out.Close()
	}
	files := []*os.File{null, out, out}
	if l.lifetime != nil {
		if closed(l.lifetime) {
			return nil, ErrLifetime
		}
		files = append(files, l.lifetime)
		env = append(slices.Clone(env), LifetimeEnv+"="+strconv.Itoa(lifetimeFD))
	}
	child, err := os.StartProcess(path, spec.Command, &os.ProcAttr{
		Dir: spec.Dir, Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, err
	}
	// Until it is reaped, which is ours to do, its pid cannot belong to another process.
	h, err := Open(child.Pid, 0)
	if err != nil {
		return nil, errors.Join(err, child.Kill())
	}
	return h, child.Release()
}
