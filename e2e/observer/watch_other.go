//go:build !linux

package main

import (
	"context"
	"errors"
	"time"
)

type watcher struct{}

func newWatcher(string, string, map[string]int) (*watcher, error) {
	return nil, errors.New("processes can be watched on Linux only")
}

func (*watcher) run(context.Context, time.Duration) error { return nil }

func (*watcher) sightings() []sighting { return nil }
