package store_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/server/store"
	"github.com/livefire-mesh/livefire/internal/testkit/testetcd"
)

// holdStore is the other process: it opens the store, writes a key, says so, and closes when its input ends.
func holdStore(dir string) int {
	s, err := store.Open(context.Background(), store.Config{Dir: dir, Logger: quiet()})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if _, err := s.Txn(context.Background(), store.Fence{}, store.Op{Key: "/held", IfRevision: store.AnyRevision}); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("held")
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test closes it
	if err := s.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

type holder struct {
	cmd  *exec.Cmd
	stop io.Closer
	out  *bufio.Reader
	err  *bytes.Buffer
}

func hold(t *testing.T, dir string) holder {
	t.Helper()
	h := holder{cmd: exec.CommandContext(within(t), os.Args[0]), err: &bytes.Buffer{}}
	h.cmd.Env = append(os.Environ(), "STORE_TEST_HOLD="+dir)
	h.cmd.Stderr = h.err
	in, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.stop, h.out = in, bufio.NewReader(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := h.out.ReadString('\n'); line != "held\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	return h
}

func TestDirectoryHasOneOwner(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	other := hold(t, dir)
	_, err := store.Open(within(t), store.Config{Dir: dir, Logger: quiet()})
	if want := fmt.Sprintf("in use by process %d", other.cmd.Process.Pid); api.KindOf(err) != api.Conflict || !strings.Contains(err.Error(), want) {
		t.Errorf("Open of a directory in use = %v, want a conflict that says %q", err, want)
	}
	// A process that dies frees it and loses nothing that it was told is written.
	if err := other.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = other.cmd.Wait() // killed
	s := testetcd.OpenConfig(t, store.Config{Dir: dir})
	if _, err := s.Get(within(t), "/held"); err != nil {
		t.Errorf("Get of what the killed process wrote: %v", err)
	}
}

// The embedded etcd speaks on neither output, not even when it stops, and opens no socket.
func TestEmbeddedEtcdIsSilentAndHasNoSocket(t *testing.T) {
	t.Parallel()
	h := hold(t, filepath.Join(t.TempDir(), "store"))
	if sockets := socketsOf(t, h.cmd.Process.Pid); len(sockets) > 0 {
		t.Errorf("the process has sockets: %v", sockets)
	}
	if err := h.stop.Close(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(h.out)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Wait(); err != nil {
		t.Errorf("the process ended with %v", err)
	}
	if len(rest) > 0 || h.err.Len() > 0 {
		t.Errorf("output:\n%s\nerrors:\n%s", rest, h.err)
	}
}

func socketsOf(t *testing.T, pid int) []string {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("open files of process %d: %v, %v", pid, fds, err)
	}
	var out []string
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "socket:") {
			out = append(out, to)
		}
	}
	return out
}

func TestDirectoryIsRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		files map[string]string
		mode  os.FileMode
		want  string // in the message; "" for accepted
		hint  string
	}{
		{"empty, open to others", nil, 0o755, "", ""},
		{"our format", map[string]string{"format": "livefire-store 1\n"}, 0o700, "", ""},
		{"died while it was made", map[string]string{"format.new": "live", "lock": ""}, 0o700, "", ""},
		{"a newer format", map[string]string{"format": "livefire-store 2\n"}, 0o700, "has format 2; this livefire reads up to 1", "start the newer livefire"},
		{"no format of ours", map[string]string{"format": "something else\n"}, 0o700, "is not a format of livefire", "restore"},
		{"format zero", map[string]string{"format": "livefire-store 0\n"}, 0o700, "is not a format of livefire", "restore"},
		{"somebody else's files", map[string]string{"notes.txt": "x"}, 0o700, "is not a livefire data directory: it holds notes.txt", "is empty"},
		{"ours, open to others", map[string]string{"format": "livefire-store 1\n"}, 0o750, "is open to other users (mode 0750)", "chmod 700"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "store")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(dir, tt.mode); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(within(t), store.Config{Dir: dir, Logger: quiet()})
			if tt.want != "" {
				var shown *api.Error
				if !errors.As(err, &shown) || shown.Kind != api.Invalid || !strings.Contains(shown.Message, tt.want) || !strings.Contains(shown.Hint, tt.hint) {
					t.Fatalf("Open = %#v, want Invalid with %q and the hint %q", err, tt.want, tt.hint)
				}
				return
			}
			if err != nil {
				t.Fatalf("Open = %v", err)
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
			if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("mode of the directory = %v, %v, want 0700", info.Mode(), err)
			}
			if b, err := os.ReadFile(filepath.Join(dir, "format")); string(b) != "livefire-store 1\n" {
				t.Errorf("format = %q, %v", b, err)
			}
		})
	}
}

func TestDataOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	s, err := store.Open(within(t), store.Config{Dir: dir, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	rev := put(t, s, "/k", "v")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close = %v, want nil", err)
	}
	s = testetcd.OpenConfig(t, store.Config{Dir: dir})
	if item, err := s.Get(within(t), "/k"); err != nil || item.Revision != rev {
		t.Errorf("Get after a restart = %+v, %v, want revision %d", item, err, rev)
	}
	if next := put(t, s, "/k", "w"); next <= rev {
		t.Errorf("revision after a restart = %d, want more than %d", next, rev)
	}
}

func TestOpenRefusesWhatItCannotReach(t *testing.T) {
	t.Parallel()
	link := testetcd.Start(t).Link(t)
	link.Cut()
	for _, tt := range []struct {
		name string
		cfg  store.Config
		want api.ErrorKind
	}{
		{"no place", store.Config{Logger: quiet()}, api.Invalid},
		{"two places", store.Config{Dir: "x", Endpoints: []string{"y"}, Logger: quiet()}, api.Invalid},
		{"no logger", store.Config{Dir: "x"}, api.Invalid},
		{"nobody answers", store.Config{Endpoints: []string{link.Endpoint()}, Timeout: 1, Logger: quiet()}, api.Unavailable},
	} {
		if _, err := store.Open(within(t), tt.cfg); api.KindOf(err) != tt.want {
			t.Errorf("%s: Open = %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestExternalEtcdIsReachedThroughTLS(t *testing.T) {
	t.Parallel()
	server, trusted := testetcd.StartTLS(t)
	s := testetcd.OpenConfig(t, store.Config{Endpoints: []string{server.Endpoint()}, TLS: trusted})
	put(t, s, "/k", "v")
	for what, cfg := range map[string]*tls.Config{"without TLS": nil, "with a stranger's roots": {RootCAs: x509.NewCertPool()}} {
		_, err := store.Open(within(t), store.Config{Endpoints: []string{server.Endpoint()}, TLS: cfg, Timeout: 500 * time.Millisecond, Logger: quiet()})
		if api.KindOf(err) != api.Unavailable {
			t.Errorf("Open %s = %v, want Unavailable", what, err)
		}
	}
}

// A snapshot is a whole etcd database, as etcdutl restores it.
func TestSnapshotIsAWholeDatabase(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, s *store.Store) {
		put(t, s, "/k", "the value to find")
		var b bytes.Buffer
		if err := s.Snapshot(within(t), &b); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := bbolt.Open(name, 0o600, &bbolt.Options{ReadOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		found := false
		err = db.View(func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("key")).ForEach(func(_, v []byte) error {
				found = found || bytes.Contains(v, []byte("the value to find"))
				return nil
			})
		})
		if err != nil || !found {
			t.Errorf("the snapshot holds the value: %t, %v", found, err)
		}
	})
}
