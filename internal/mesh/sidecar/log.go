package sidecar

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/livefire-mesh/livefire/api"
)

// maxLog is where a log file is put aside: the file and the one before it are all that is kept.
const maxLog = 64 << 20

// LogFile appends lines to a file of bounded size. Full, it becomes <path>.1 in the place of the one before it.
// Each Write is one whole line; Write and Close are safe from any goroutine.
type LogFile struct {
	path string // set once
	max  int64  // set once

	mu   sync.Mutex
	file *os.File // guarded by mu; nil after Close
	size int64    // guarded by mu
}

// OpenLog opens a log file, or makes it with mode 0600. Invalid: it cannot be written.
func OpenLog(path string) (*LogFile, error) {
	l := &LogFile{path: path, max: maxLog}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.open(); err != nil {
		return nil, api.Errorf(api.Invalid, path, "log: %v", err)
	}
	return l, nil
}

// open opens the file; the caller holds mu.
func (l *LogFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, info.Size()
	return nil
}

// Write appends one line. A file that cannot be put aside goes on growing: a log is worth more than its bound.
func (l *LogFile) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return 0, os.ErrClosed
	}
	if l.size > 0 && l.size+int64(len(line)) > l.max && os.Rename(l.path, l.path+".1") == nil {
		full := l.file
		if err := l.open(); err != nil {
			return 0, fmt.Errorf("begin a new log: %w", err)
		}
		_ = full.Close() // written whole: each line was one write
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	return n, err
}

// Close ends the log.
func (l *LogFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	f := l.file
	l.file = nil
	return f.Close()
}
