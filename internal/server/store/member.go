package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/livefire-mesh/livefire/api"
)

// Limits of one transaction in the embedded etcd. Etcd's own (128 operations, 1.5 MiB) are too small for an apply of a whole mesh.
const (
	maxTxnOps       = 8192
	maxRequestBytes = 8 << 20
)

// The data directory holds these, and etcd's own files in a subdirectory.
const (
	formatFile = "format"
	lockFile   = "lock"
	etcdDir    = "etcd"
	newSuffix  = ".new" // a file that was being written when the process died
)

// format is written as "livefire-store <format>\n". A change that an older binary cannot read raises it.
const (
	format       = 1
	formatPrefix = "livefire-store "
)

// member is the etcd inside this process.
type member struct {
	etcd   *embed.Etcd
	client *clientv3.Client
	lock   *os.File
}

func startMember(ctx context.Context, dir string, log *slog.Logger) (*member, error) {
	lock, err := claimDir(dir)
	if err != nil {
		return nil, err
	}
	etcd, err := startEtcd(ctx, filepath.Join(dir, etcdDir), log)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return &member{etcd: etcd, client: v3client.New(etcd.Server), lock: lock}, nil
}

func startEtcd(ctx context.Context, dir string, log *slog.Logger) (*embed.Etcd, error) {
	cfg := embed.NewConfig()
	cfg.Name = "livefire"
	cfg.Dir = dir
	cfg.ListenClientUrls, cfg.ListenPeerUrls = nil, nil // no socket: everything passes through the in-process client
	cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls = nil, []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.MaxTxnOps, cfg.MaxRequestBytes = maxTxnOps, maxRequestBytes
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.New(&slogCore{log: log}))
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, &failure{api.Errorf(api.Unavailable, dir, "the embedded etcd does not start: %v", err), err}
	}
	select {
	case <-e.Server.ReadyNotify():
		return e, nil
	case err := <-e.Err():
		e.Close()
		return nil, &failure{api.Errorf(api.Unavailable, dir, "the embedded etcd stopped while starting: %v", err), err}
	case <-ctx.Done():
		e.Close()
		return nil, &failure{api.Errorf(api.Unavailable, dir, "the embedded etcd was not ready in time: %v", context.Cause(ctx)), context.Cause(ctx)}
	}
}

func (m *member) close() error {
	err := m.client.Close()
	if errors.Is(err, context.Canceled) {
		err = nil // the in-process client has no connection to close and says so with its own cancellation
	}
	m.etcd.Close()
	<-m.etcd.Server.StopNotify()
	if err := errors.Join(err, m.lock.Close()); err != nil {
		return fmt.Errorf("close the embedded etcd: %w", err)
	}
	return nil
}

// claimDir makes dir ours alone: mode 0700, locked, in a format that this binary reads.
func claimDir(dir string) (*os.File, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	if err := checkFormat(dir); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return lock, nil
}

// checkDir makes the directory if it does not exist, and refuses one that others can read or that is not ours.
func checkDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &failure{api.Errorf(api.Invalid, dir, "the data directory cannot be made: %v", err), err}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return &failure{api.Errorf(api.Invalid, dir, "the data directory cannot be read: %v", err), err}
	}
	ours, foreign := false, ""
	for _, e := range entries {
		switch name := e.Name(); {
		case name == formatFile:
			ours = true
		case name != lockFile && name != formatFile+newSuffix:
			foreign = name
		}
	}
	if !ours && foreign != "" {
		return api.Errorf(api.Invalid, dir, "is not a livefire data directory: it holds %s and no %s file", foreign, formatFile).
			WithHint("name a directory that does not exist or is empty")
	}
	info, err := os.Stat(dir)
	if err != nil {
		return &failure{api.Errorf(api.Invalid, dir, "the data directory cannot be read: %v", err), err}
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if ours {
		return api.Errorf(api.Invalid, dir, "the data directory is open to other users (mode %04o)", info.Mode().Perm()).
			WithHint("chmod 700 %s", dir)
	}
	if err := os.Chmod(dir, 0o700); err != nil { // empty: nothing was exposed yet
		return &failure{api.Errorf(api.Invalid, dir, "the data directory cannot be closed to other users: %v", err), err}
	}
	return nil
}

// lockDir holds an exclusive lock until the file is closed, also when the process dies.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, &failure{api.Errorf(api.Invalid, dir, "the data directory cannot be locked: %v", err), err}
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(f.Name()) // only for the message
		_ = f.Close()                      // nothing was written
		return nil, &failure{api.Errorf(api.Conflict, dir, "the data directory is in use by process %s", strings.TrimSpace(string(holder))).
			WithHint("stop that server, or use another data directory"), err}
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, &failure{api.Errorf(api.Unavailable, dir, "the data directory cannot be written: %v", err), errors.Join(err, f.Close())}
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// checkFormat reads the format file, and writes it first thing in a new directory. The caller holds the lock.
func checkFormat(dir string) error {
	name := filepath.Join(dir, formatFile)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeFormat(name); err != nil {
			return &failure{api.Errorf(api.Unavailable, dir, "the data directory cannot be written: %v", err), err}
		}
		return nil
	}
	if err != nil {
		return &failure{api.Errorf(api.Invalid, name, "cannot be read: %v", err), err}
	}
	text, ok := strings.CutPrefix(strings.TrimSuffix(string(b), "\n"), formatPrefix)
	found, err := strconv.Atoi(text)
	switch {
	case !ok || err != nil || found < 1:
		return api.Errorf(api.Invalid, name, "%q is not a format of livefire", b).WithHint("restore the data directory from a snapshot")
	case found > format:
		return api.Errorf(api.Invalid, dir, "the data directory has format %d; this livefire reads up to %d", found, format).
			WithHint("start the newer livefire that wrote it, or restore a snapshot taken by this version into an empty directory")
	}
	return nil
}

func writeFormat(name string) error {
	f, err := os.OpenFile(name+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s%d\n", formatPrefix, format)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(name+newSuffix, name)
}
