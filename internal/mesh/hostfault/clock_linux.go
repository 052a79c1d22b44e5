package hostfault

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot is the clock that leases are counted on: it never jumps, goes on during a suspend, and is the same for
// every process of this boot.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("internal error: clock since boot: " + err.Error()) // every kernel with pidfd has it
	}
	return time.Duration(ts.Nano())
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// ticksPerSecond is USER_HZ, which is 100 on every architecture that Go runs on.
const ticksPerSecond = 100

// startedAt turns a start time in clock ticks since boot into wall time, as good as the wall clock is now.
func startedAt(ticks uint64) time.Time {
	started := time.Duration(ticks) * (time.Second / ticksPerSecond)
	return time.Now().Add(started - sinceBoot())
}
