package supervise

import (
	"fmt"
	"os"
)

// Handle is one process held by pidfd: it never comes to mean another process, even if the pid is used again.
// A nil Handle can be closed.
type Handle struct {
	PID   int
	Start uint64 // clock ticks since boot

	f *os.File // the pidfd
}

// Stat is what /proc/PID/stat says of a process.
type Stat struct {
	State   byte // 'R', 'S', 'D', 'T' (stopped), 'Z', ...
	Session int
	Start   uint64 // clock ticks since boot
}

// Close lets go of the process; it runs on.
func (h *Handle) Close() {
	if h != nil {
		_ = h.f.Close() // a pidfd holds no data
	}
}

func (h *Handle) String() string { return fmt.Sprintf("pid %d (start %d)", h.PID, h.Start) }
