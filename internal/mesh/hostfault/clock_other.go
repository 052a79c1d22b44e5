//go:build !linux

package hostfault

import (
	"errors"
	"time"
)

// New refuses to make a Host on such a system, so nothing below is reached.

func sinceBoot() time.Duration   { return 0 }
func bootID() (string, error)    { return "", errors.New("no boot id on this system") }
func startedAt(uint64) time.Time { return time.Time{} }
