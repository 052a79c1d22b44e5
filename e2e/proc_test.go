//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stat reads a process's state and its start time, in ticks since the boot.
func stat(pid int) (state byte, started uint64, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	i := bytes.LastIndexByte(b, ')')
	f := bytes.Fields(b[max(i, 0)+1:])
	if i < 0 || len(f) < 20 {
		return 0, 0, false
	}
	started, err = strconv.ParseUint(string(f[19]), 10, 64)
	return f[0][0], started, err == nil
}

// began is when a process was started, to 10 ms.
func began(t *testing.T, pid int) time.Time {
	t.Helper()
	_, ticks, ok := stat(pid)
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil || !ok {
		t.Fatalf("start of pid %d: %v", pid, err)
	}
	return time.Now().Add(time.Duration(ticks)*10*time.Millisecond - time.Duration(ts.Nano()))
}

// rss is the resident memory of a process in MB: all of it, what is its own, and pages of files.
func rss(t *testing.T, pid int) (all, own, file float64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		for name, to := range map[string]*float64{"VmRSS:": &all, "RssAnon:": &own, "RssFile:": &file} {
			rest, ok := strings.CutPrefix(line, name)
			if !ok {
				continue
			}
			kib, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			*to = kib * 1024 / 1e6
		}
	}
	if all == 0 {
		t.Fatalf("pid %d has no VmRSS", pid)
	}
	return all, own, file
}

// pidfd of a process that the test will wait for.
type pidfd int

func openPID(t *testing.T, pid int) pidfd {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("pidfd of %d: %v", pid, err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return pidfd(fd)
}

// gone says whether the process has ended; it waits for that at most so long.
func (fd pidfd) gone(wait time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	deadline := time.Now().Add(wait)
	for {
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if err != unix.EINTR {
			return err == nil && n > 0
		}
	}
}

// workloads are the running processes of a site, "name" and "name/sidecar", found by what stands in their command lines: this
// asks neither the server nor demo.json.
func (r *rig) workloads(prefix string) map[string]procInfo {
	out := map[string]procInfo{}
	for _, p := range r.marked() {
		for flag, suffix := range map[string]string{"--instance": "", "--name": "/sidecar"} {
			i := slices.Index(p.args, flag)
			if i > 0 && i+1 < len(p.args) && strings.HasPrefix(p.args[i+1], prefix) {
				out[p.args[i+1]+suffix] = p
			}
		}
	}
	return out
}

// faulty lists the eu-west processes that a fault holds: gone, or stopped.
func (r *rig) faulty() []string {
	running := r.workloads("eu-")
	var out []string
	for _, name := range euWest {
		switch p, ok := running[name]; {
		case !ok:
			out = append(out, name+" gone")
		case p.state == 'T' || p.state == 't':
			out = append(out, name+" stopped")
		}
	}
	return out
}

// euWest are the processes of the site that the demo loses.
var euWest = func() (out []string) {
	for _, w := range []string{"eu-orders-1", "eu-orders-2", "eu-payments-1", "eu-payments-2", "eu-payments-3"} {
		out = append(out, w, w+"/sidecar")
	}
	return out
}()
