//go:build !linux

package supervise

import (
	"context"
	"syscall"

	"github.com/livefire-mesh/livefire/api"
)

const (
	sigTerm = syscall.SIGTERM
	sigKill = syscall.SIGKILL
	sigCont = syscall.SIGCONT
)

// supported refuses every system without pidfd.
func supported() error {
	return api.Errorf(api.Unavailable, "supervisor", "supervised processes need Linux (pidfd)").
		WithHint("run the agent on a Linux host")
}

// Open returns *api.Error (Unavailable): there is no pidfd here.
func Open(int, uint64) (*Handle, error) { return nil, supported() }

// ReadStat returns *api.Error (Unavailable).
func ReadStat(int) (Stat, error) { return Stat{}, supported() }

// Signal returns *api.Error (Unavailable).
func (h *Handle) Signal(syscall.Signal) error { return supported() }

// SignalGroup returns *api.Error (Unavailable).
func (h *Handle) SignalGroup(syscall.Signal) error { return supported() }

// Exited returns *api.Error (Unavailable).
func (h *Handle) Exited() (bool, error) { return false, supported() }

// Wait returns *api.Error (Unavailable).
func (h *Handle) Wait(context.Context) error { return supported() }

// Stat returns *api.Error (Unavailable).
func (h *Handle) Stat() (Stat, error) { return Stat{}, supported() }

func (h *Handle) reap() string  { return "" }
func bootID() (string, error)   { return "", supported() }
func findMarked(string) *Handle { return nil }
