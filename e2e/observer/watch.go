package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Ways in which a fault shows.
const (
	howGone    = "gone"
	howStopped = "stopped"
)

// sighting is what was seen of one target.
type sighting struct {
	Target string   `json:"target"`
	PID    int      `json:"pid"`
	How    string   `json:"how"`
	Seen   bracket  `json:"seen"`             // when it was gone or stopped
	Back   *bracket `json:"back,omitempty"`   // when it lived again
	NewPID int      `json:"newPid,omitempty"` // of a killed target
}

// faultSeen is the first sighting's bracket; zero if there is none.
func faultSeen(list []sighting) (first sighting) {
	for _, s := range list {
		if first.Target == "" || s.Seen.To.Before(first.Seen.To) {
			first = s
		}
	}
	return first
}

// holdEnd is when the first target lived again; zero if none has.
func holdEnd(list []sighting) (end time.Time) {
	for _, s := range list {
		if s.Back != nil && (end.IsZero() || s.Back.To.Before(end)) {
			end = s.Back.To
		}
	}
	return end
}

// stat reads the state and the start time (in ticks since the boot) of a process. ok is false if there is no such process.
func stat(pid int) (state byte, started uint64, ok bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	i := bytes.LastIndexByte(b, ')') // the command's name may hold anything
	if i < 0 {
		return 0, 0, false
	}
	f := bytes.Fields(b[i+1:])
	if len(f) < 20 {
		return 0, 0, false
	}
	started, err = strconv.ParseUint(string(f[19]), 10, 64)
	return f[0][0], started, err == nil
}
