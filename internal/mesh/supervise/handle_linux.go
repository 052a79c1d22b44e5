package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	sigTerm = unix.SIGTERM
	sigKill = unix.SIGKILL
	sigCont = unix.SIGCONT
)

func supported() error { return nil }

// Open holds a process by pidfd and then checks its start time, so that a pid that was used again is never taken for
// it; start 0 takes whoever has the pid now. It returns ErrGone if there is no such process.
func Open(pid int, start uint64) (*Handle, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("open pidfd of %d: %w", pid, err)
	}
	h := &Handle{PID: pid, f: os.NewFile(uintptr(fd), "pidfd")}
	st, err := ReadStat(pid)
	if err == nil && start != 0 && st.Start != start {
		err = ErrGone
	}
	if err != nil {
		h.Close()
		return nil, err
	}
	// The pidfd was there before the start time was read, and a pid is not given away while its process is a
	// zombie: if the process still exists now, it was the one whose start time was read.
	h.Start = st.Start
	if start == 0 {
		return h, nil // our own child, not reaped: its pid is its own even if it has ended
	}
	if gone, err := h.Exited(); err != nil || gone {
		h.reap()
		h.Close()
		return nil, errors.Join(ErrGone, err)
	}
	return h, nil
}

// control runs do with the descriptor, which cannot be closed meanwhile.
func (h *Handle) control(do func(fd int) error) error {
	rc, err := h.f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := rc.Control(func(fd uintptr) { inner = do(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// Signal sends a signal to the process alone. It returns ErrGone if it has ended.
func (h *Handle) Signal(sig unix.Signal) error { return h.signal(sig, 0) }

// SignalGroup sends a signal to the process and its process group, where the kernel can (6.9 and later), otherwise to
// the process alone. It returns ErrGone if it has ended.
func (h *Handle) SignalGroup(sig unix.Signal) error {
	err := h.signal(sig, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	if errors.Is(err, unix.EINVAL) {
		err = h.signal(sig, 0)
	}
	return err
}

func (h *Handle) signal(sig unix.Signal, flags int) error {
	err := h.control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, flags) })
	if errors.Is(err, unix.ESRCH) {
		return ErrGone
	}
	if err != nil {
		return fmt.Errorf("send %s to %s: %w", unix.SignalName(sig), h, err)
	}
	return nil
}

// Exited says whether the process has ended, reaped or not.
func (h *Handle) Exited() (bool, error) {
	var gone bool
	err := h.control(func(fd int) error {
		var err error
		gone, err = readable(fd)
		return err
	})
	return gone, err
}

func readable(fd int) (bool, error) {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// Wait returns nil once the process has ended, and ctx's error if ctx ends first. It has one caller at a time.
func (h *Handle) Wait(ctx context.Context) error {
	if gone, err := h.Exited(); gone || err != nil {
		return err
	}
	rc, err := h.f.SyscallConn()
	if err != nil {
		return err
	}
	if err := h.f.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = h.f.SetReadDeadline(time.Unix(1, 0)) }) // closed: the read ends too
	defer stop()
	var inner error
	err = rc.Read(func(fd uintptr) bool {
		gone, err := readable(int(fd))
		inner = err
		return gone || err != nil
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, inner)
}

// Stat reads the state of the process. It returns ErrGone if it has ended.
func (h *Handle) Stat() (Stat, error) {
	st, err := ReadStat(h.PID)
	if err == nil && st.Start != h.Start {
		err = ErrGone
	}
	return st, err
}

// reap takes the exit status of a child of ours and says it; a process that was adopted has a parent elsewhere.
func (h *Handle) reap() string {
	var info unix.Siginfo
	err := h.control(func(fd int) error {
		for {
			err := unix.Waitid(unix.P_PIDFD, fd, &info, unix.WEXITED|unix.WNOHANG, nil)
			if !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
	switch {
	case err != nil:
		return "status unknown, not our child"
	case info.Code == 1: // CLD_EXITED
		return "exited"
	case info.Code == 2 || info.Code == 3: // CLD_KILLED, CLD_DUMPED
		return "killed by a signal"
	}
	return "not ended"
}

// ReadStat reads /proc/PID/stat. It returns ErrGone if there is no such process.
func ReadStat(pid int) (Stat, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return Stat{}, ErrGone
	}
	if err != nil {
		return Stat{}, fmt.Errorf("read state of pid %d: %w", pid, err)
	}
	return parseStat(b)
}

// parseStat reads fields 3 (state), 6 (session) and 22 (starttime). Field 2 is the name in parentheses and may hold
// anything, also parentheses and spaces.
func parseStat(b []byte) (Stat, error) {
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	if i < 0 || len(fields) < 20 || len(fields[0]) != 1 {
		return Stat{}, fmt.Errorf("read process state: %q is no line of /proc/PID/stat", b)
	}
	session, err := strconv.Atoi(fields[3])
	if err != nil {
		return Stat{}, fmt.Errorf("read session: %w", err)
	}
	start, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return Stat{}, fmt.Errorf("read start time: %w", err)
	}
	return Stat{State: fields[0][0], Session: session, Start: start}, nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// findMarked looks for the leader of a session that carries a mark in its environment; nil if there is none. Children
// of it inherit the mark, but not its place as leader.
func findMarked(mark string) *Handle {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	want := []byte(MarkEnv + "=" + mark)
	for _, d := range dirs {
		env, err := os.ReadFile(filepath.Join(d, "environ"))
		if err != nil {
			continue // gone, or somebody else's
		}
		found := false
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			found = found || bytes.Equal(kv, want)
		}
		pid, err := strconv.Atoi(filepath.Base(d))
		if !found || err != nil {
			continue
		}
		st, err := ReadStat(pid)
		if err != nil || st.Session != pid {
			continue
		}
		if h, err := Open(pid, st.Start); err == nil {
			return h
		}
	}
	return nil
}
