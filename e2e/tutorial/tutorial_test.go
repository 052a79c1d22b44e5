//go:build e2e

package tutorial_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/internal/mesh/freeport"
)

const (
	mark       = "LIVEFIRE_TUTORIAL_TEST" // in the environment of everything that the page starts
	blockLimit = 3 * time.Minute
	stopLimit  = 30 * time.Second
)

// output keeps what a process writes and tells that there is more.
type output struct {
	mu   sync.Mutex
	b    bytes.Buffer // guarded by mu
	grew chan struct{}
}

func newOutput() *output { return &output{grew: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b.Write(p)
	select {
	case o.grew <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// terminal is a process that stays in the foreground of a terminal of its own.
type terminal struct {
	step step
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
	err  error // set before done is closed
}

// reader is whoever follows the page.
type reader struct {
	t         *testing.T
	dir       string // everything is in here
	env       []string
	ports     map[string]string // written in the page -> free on this machine
	terminals []*terminal
}

func TestTutorial(t *testing.T) {
	for _, tool := range []string{"bash", "curl", "tar", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("the tutorial needs %s: %v", tool, err)
		}
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "tutorial.md"))
	if err != nil {
		t.Fatal(err)
	}
	steps, err := readPage(string(page))
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) < 20 {
		t.Fatalf("only %d blocks found", len(steps))
	}
	r := newReader(t, string(page))
	for _, s := range steps {
		began := time.Now()
		r.do(s)
		t.Logf("line %d: %.1f s", s.line, time.Since(began).Seconds())
	}
	r.checkNothingIsLeft()
}

func newReader(t *testing.T, page string) *reader {
	t.Helper()
	r := &reader{t: t, dir: t.TempDir(), ports: map[string]string{}}
	bin := filepath.Join(r.dir, "work", "livefire-tutorial", "bin", "livefire")
	build := exec.Command("go", "build", "-o", bin, "./cmd/livefire")
	build.Dir = filepath.Join("..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	for name, dir := range r.homes() {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		r.env = append(r.env, name+"="+dir)
	}
	r.env = append(r.env, "PATH="+os.Getenv("PATH"), "LC_ALL=C.UTF-8", mark+"="+r.dir)
	r.reservePorts(page)
	r.write("cwd", filepath.Join(r.dir, "work"))
	r.write("state", "")
	t.Cleanup(r.killRest)
	return r
}

// homes must stay empty: what the mesh keeps is in the directories that the page names.
func (r *reader) homes() map[string]string {
	out := map[string]string{}
	for _, name := range []string{"HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"} {
		out[name] = filepath.Join(r.dir, "home", strings.ToLower(name))
	}
	return out
}

var addressRE = regexp.MustCompile(`127\.0\.0\.1:\d+`)

// reservePorts gives each port that the page writes a free one: the tests of this machine do not meet.
func (r *reader) reservePorts(page string) {
	r.t.Helper()
	for _, written := range addressRE.FindAllString(page, -1) {
		if r.ports[written] != "" {
			continue
		}
		p, err := freeport.Reserve(r.dir)
		if err != nil {
			r.t.Fatal(err)
		}
		defer p.Release() // after all were reserved
		r.ports[written] = p.Address
	}
}

func (r *reader) write(name, content string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// command runs a script where the block before it ended, with the variables that it left.
func (r *reader) command(ctx context.Context, script string) *exec.Cmd {
	r.t.Helper()
	cwd, err := os.ReadFile(filepath.Join(r.dir, "cwd"))
	if err != nil {
		r.t.Fatal(err)
	}
	script = addressRE.ReplaceAllStringFunc(script, func(a string) string { return r.ports[a] })
	cmd := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", ". "+filepath.Join(r.dir, "state")+"\nset -a\n"+script)
	cmd.Dir, cmd.Env = strings.TrimSpace(string(cwd)), r.env
	return cmd
}

func (r *reader) do(s step) {
	r.t.Helper()
	if s.stop {
		r.stopTerminals()
	}
	switch {
	case s.skip:
	case s.background:
		r.start(s)
	default:
		r.run(s)
	}
}

func (r *reader) run(s step) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), blockLimit)
	defer cancel()
	state, cwd := filepath.Join(r.dir, "state"), filepath.Join(r.dir, "cwd")
	cmd := r.command(ctx, s.script+"\nexport -p > "+state+"\npwd > "+cwd)
	out := newOutput()
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, out, 5*time.Second
	if err := cmd.Run(); err != nil {
		r.fail(s, out.String(), fmt.Sprintf("failed: %v", err))
	}
	if line := missing(s.promise, out.String()); line != "" {
		r.fail(s, out.String(), fmt.Sprintf("does not print what the page promises: %q", line))
	}
}

// start starts a block in a terminal of its own and waits until it has printed what the page promises.
func (r *reader) start(s step) {
	r.t.Helper()
	if strings.Contains(s.script, "\n") {
		r.t.Fatalf("line %d: a background block is one command", s.line)
	}
	term := &terminal{step: s, out: newOutput(), done: make(chan struct{})}
	term.cmd = r.command(context.WithoutCancel(r.t.Context()), "exec "+s.script)
	term.cmd.Stdout, term.cmd.Stderr, term.cmd.WaitDelay = term.out, term.out, 5*time.Second
	if err := term.cmd.Start(); err != nil {
		r.fail(s, "", err.Error())
	}
	go func() {
		term.err = term.cmd.Wait()
		close(term.done)
	}()
	r.terminals = append(r.terminals, term)
	limit := time.NewTimer(blockLimit)
	defer limit.Stop()
	for {
		line := missing(s.promise, term.out.String())
		if line == "" {
			return
		}
		select {
		case <-term.out.grew:
		case <-term.done:
			if missing(s.promise, term.out.String()) != "" {
				r.fail(s, term.out.String(), fmt.Sprintf("ended (%v) without %q", term.err, line))
			}
		case <-limit.C:
			r.fail(s, term.out.String(), fmt.Sprintf("does not print what the page promises: %q", line))
		}
	}
}

// stopTerminals is Ctrl-C in each terminal, the last one first. What has ended by itself has ended well.
func (r *reader) stopTerminals() {
	r.t.Helper()
	for _, term := range slices.Backward(r.terminals) {
		if err := term.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			r.t.Fatal(err)
		}
		limit := time.NewTimer(stopLimit)
		select {
		case <-term.done:
		case <-limit.C:
			r.fail(term.step, term.out.String(), "goes on after Ctrl-C")
		}
		limit.Stop()
		if term.err != nil && term.cmd.ProcessState.ExitCode() != 130 {
			r.fail(term.step, term.out.String(), fmt.Sprintf("ended with %v", term.err))
		}
	}
	r.terminals = nil
}

func (r *reader) fail(s step, out, format string) {
	r.t.Helper()
	for _, term := range r.terminals {
		r.t.Logf("--- terminal of line %d\n%s", term.step.line, tail(term.out.String()))
	}
	r.t.Fatalf("docs/tutorial.md:%d: %s\n--- commands\n%s\n--- output\n%s", s.line, format, s.script, tail(out))
}

func tail(s string) string {
	if lines := strings.Split(s, "\n"); len(lines) > 60 {
		return "...\n" + strings.Join(lines[len(lines)-60:], "\n")
	}
	return s
}

// marked are the processes that the page has started, whoever their parent is now.
func (r *reader) marked() []int {
	r.t.Helper()
	list, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		r.t.Fatal(err)
	}
	var out []int
	for _, file := range list {
		b, err := os.ReadFile(file)
		if err != nil || !slices.Contains(strings.Split(string(b), "\x00"), mark+"="+r.dir) {
			continue // gone, or of somebody else
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, pid)
	}
	return out
}

func (r *reader) checkNothingIsLeft() {
	r.t.Helper()
	if pids := r.marked(); len(pids) > 0 {
		r.t.Errorf("processes that still run: %v", pids)
	}
	for written, addr := range r.ports {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			r.t.Errorf("port of %s is still in use: %v", written, err)
			continue
		}
		_ = l.Close() // it was only tried
	}
	for name, dir := range r.homes() {
		if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
			r.t.Errorf("%s holds %v, %v; want nothing", name, list, err)
		}
	}
	if _, err := os.Stat(filepath.Join(r.dir, "work", "livefire-tutorial")); !errors.Is(err, os.ErrNotExist) {
		r.t.Errorf("the directory of the tutorial is still there: %v", err)
	}
}

// killRest ends what a failed test has left running: only processes with its mark.
func (r *reader) killRest() {
	for range 3 { // a supervisor may start one more in between
		for _, pid := range r.marked() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may be gone
		}
	}
	for _, term := range r.terminals {
		<-term.done
	}
}
