//go:build e2e

package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/internal/mesh/freeport"
)

const markEnv = "LIVEFIRE_E2E_MARK"

// rig is the world of one test: a directory, a mark, and everything that was started with it.
type rig struct {
	t     *testing.T
	dir   string
	mark  string
	empty []string // directories that must stay empty
	env   []string
	ports []string // addresses that must be closed at the end
	procs []*proc

	reserved []freeport.Reservation // for the next process
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), mark: rand.Text()}
	r.env = []string{"PATH=" + os.Getenv("PATH"), "GOMAXPROCS=2", markEnv + "=" + r.mark}
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "TMPDIR", "PWD"} {
		dir := filepath.Join(r.dir, "empty", strings.ToLower(name))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		r.empty = append(r.empty, dir)
		r.env = append(r.env, name+"="+dir)
	}
	t.Cleanup(r.finish)
	return r
}

// finish ends what still runs and checks that nothing is left.
func (r *rig) finish() {
	for _, p := range r.procs {
		if !p.ended() {
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // the test has failed before its end, or has a process that stays
		}
	}
	for _, p := range r.procs {
		p.endWithin(60 * time.Second)
	}
	left := r.leftovers(5 * time.Second)
	for _, p := range left {
		r.t.Errorf("left behind: pid %d, state %c: %s", p.pid, p.state, p.command)
		r.kill(p.pid)
	}
	for _, addr := range r.ports {
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = c.Close()
			r.t.Errorf("%s is still open", addr)
		}
	}
	for _, dir := range r.empty {
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if path != dir {
				r.t.Errorf("a file outside of the test's directory: %s (%v)", path, err)
			}
			return nil
		})
	}
	if r.t.Failed() {
		r.dump()
	}
}

// leftovers are the processes with the mark that have not ended within the limit.
func (r *rig) leftovers(limit time.Duration) []procInfo {
	var left []procInfo
	_ = poll(limit, func() bool {
		left = r.marked()
		return len(left) == 0
	})
	return left
}

// kill ends one process, if it is one of ours.
func (r *rig) kill(pid int) {
	r.t.Helper()
	if !hasMark(pid, r.mark) {
		r.t.Errorf("pid %d does not have the mark of this test", pid)
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		r.t.Errorf("kill pid %d: %v", pid, err)
	}
}

// dump prints the end of every log, and keeps the directory if asked to.
func (r *rig) dump() {
	logs, _ := filepath.Glob(filepath.Join(r.dir, "*.log"))
	more, _ := filepath.Glob(filepath.Join(r.dir, "*", "*.log"))
	for _, path := range append(logs, more...) {
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			continue
		}
		lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
		r.t.Logf("--- %s (last of %d lines)\n%s", filepath.Base(path), len(lines), strings.Join(lines[max(0, len(lines)-40):], "\n"))
	}
	if keep := os.Getenv("LIVEFIRE_E2E_KEEP"); keep != "" {
		to := filepath.Join(keep, strings.ReplaceAll(r.t.Name(), "/", "_")+"-"+r.mark[:6])
		r.t.Logf("kept in %s: %v", to, os.CopyFS(to, os.DirFS(r.dir)))
	}
}

// poll asks until yes, at most for the limit. What it asks about (/proc, files of other processes) gives no events.
func poll(limit time.Duration, yes func() bool) bool {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if yes() {
			return true
		}
		select {
		case <-deadline.C:
			return yes()
		case <-tick.C:
		}
	}
}

// await fails the test if the answer is not yes within the limit.
func (r *rig) await(limit time.Duration, what string, yes func() bool) {
	r.t.Helper()
	if !poll(limit, yes) {
		r.t.Fatalf("%s: not within %v", what, limit)
	}
}

// proc is a process that the test started.
type proc struct {
	r       *rig
	name    string
	cmd     *exec.Cmd
	started time.Time
	took    time.Duration // set when done is closed
	done    chan struct{}
}

// start runs a program in an empty directory; what it prints goes to <name>.out.log and <name>.err.log.
func (r *rig) start(name, program string, args ...string) *proc {
	r.t.Helper()
	p := &proc{r: r, name: name, cmd: exec.Command(program, args...), done: make(chan struct{})}
	out, err1 := os.Create(p.path("out"))
	errs, err2 := os.Create(p.path("err"))
	if err1 != nil || err2 != nil {
		r.t.Fatal(err1, err2)
	}
	defer out.Close()
	defer errs.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, errs
	p.cmd.Dir = r.empty[len(r.empty)-1]
	p.cmd.Env = r.env
	for _, port := range r.reserved {
		port.Release()
	}
	r.reserved = nil
	p.started = time.Now()
	if err := p.cmd.Start(); err != nil {
		r.t.Fatalf("start %s: %v", name, err)
	}
	r.procs = append(r.procs, p)
	go func() {
		_ = p.cmd.Wait() // its status is in ProcessState
		p.took = time.Since(p.started)
		close(p.done)
	}()
	return p
}

func (p *proc) path(stream string) string { return filepath.Join(p.r.dir, p.name+"."+stream+".log") }

func (p *proc) text(stream string) string {
	b, err := os.ReadFile(p.path(stream))
	if err != nil {
		p.r.t.Fatal(err)
	}
	return string(b)
}

func (p *proc) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *proc) signal(sig syscall.Signal) {
	p.r.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.r.t.Errorf("signal %s: %v", p.name, err)
	}
}

func (p *proc) endWithin(limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	select {
	case <-p.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// exit waits for the end and checks the status.
func (p *proc) exit(limit time.Duration, want int) {
	p.r.t.Helper()
	if !p.endWithin(limit) {
		p.r.t.Fatalf("%s did not end within %v", p.name, limit)
	}
	if got := p.cmd.ProcessState.ExitCode(); got != want {
		p.r.t.Errorf("%s ended with status %d (%v), want %d", p.name, got, p.cmd.ProcessState, want)
	}
}

// run runs a program to its end.
func (r *rig) run(name string, want int, program string, args ...string) *proc {
	r.t.Helper()
	p := r.start(name, program, args...)
	p.exit(30*time.Second, want)
	return p
}

// procInfo is a process as /proc shows it.
type procInfo struct {
	pid     int
	state   byte
	command string
	args    []string
}

// marked lists the processes that have the test's mark in their environment.
func (r *rig) marked() []procInfo {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		r.t.Fatal(err)
	}
	var out []procInfo
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e.Name(), "%d", &pid); err != nil || pid == os.Getpid() || !hasMark(pid, r.mark) {
			continue
		}
		state, _, ok := stat(pid)
		if !ok || state == 'Z' || state == 'X' {
			continue // ended
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
		out = append(out, procInfo{pid, state, strings.Join(args, " "), args})
	}
	return out
}

func hasMark(pid int, mark string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && slices.Contains(strings.Split(string(b), "\x00"), markEnv+"="+mark)
}
