//go:build e2e

package etcd

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/examples"
	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/mesh/freeport"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

const root = "../.."

// process runs until the test ends or it is killed.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	gone chan struct{}
}

func start(t *testing.T, dir, name string, args ...string) *process {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(dir, filepath.Base(name)+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := &process{t: t, cmd: exec.Command(name, args...), gone: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = log, log, dir
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.gone)
	}()
	t.Cleanup(func() { p.end(syscall.SIGTERM) })
	return p
}

func (p *process) end(sig syscall.Signal) {
	_ = p.cmd.Process.Signal(sig)
	select {
	case <-p.gone:
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s did not end", p.cmd.Path)
		_ = p.cmd.Process.Kill()
		<-p.gone
	}
}

// eventually asks until it is answered, or the deadline is over.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(40 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 40 s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func address(t *testing.T) string {
	t.Helper()
	r, err := freeport.Reserve(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Release)
	r.Release()
	return r.Address
}

// "the same code works with an external one, tested with a real etcd process"
func TestServerOnExternalEtcdSurvivesItsOwnAndEtcdsDeath(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "livefire")
	build := exec.Command("go", "build", "-o", binary, "./cmd/livefire")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	etcdBinary, err := filepath.Abs(filepath.Join(root, ".tools", "etcd"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(etcdBinary); err != nil {
		t.Fatalf("%v; run scripts/install-test-tools", err)
	}
	first, second := reserveTwo(t)
	startEtcd := func() *process {
		return start(t, dir, etcdBinary, "--data-dir", filepath.Join(dir, "etcd"), "--listen-client-urls", "http://"+first,
			"--advertise-client-urls", "http://"+first, "--listen-peer-urls", "http://"+second, "--initial-advertise-peer-urls", "http://"+second,
			"--initial-cluster", "default=http://"+second)
	}
	etcd := startEtcd()
	eventually(t, "etcd", func() bool {
		resp, err := http.Get("http://" + first + "/health")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})

	data := filepath.Join(dir, "server")
	apiAddr, xdsAddr := reserveTwo(t)
	startServer := func() *process {
		return start(t, dir, binary, "server", "--data-dir", data, "--etcd", "http://"+first, "--listen", apiAddr, "--listen-xds", xdsAddr, "--trust-domain", "demo.livefire")
	}
	server := startServer()
	c := connect(t, data)
	docs, err := api.DecodeFS(examples.FS, examples.DemoResources()...)
	if err != nil {
		t.Fatal(err)
	}
	var objects []api.Object
	for _, d := range docs {
		objects = append(objects, d.Object)
	}
	resp, err := c.ApplyObjects(t.Context(), objects, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.Changes) != len(objects) {
		t.Fatalf("%d changes for %d objects", len(resp.Changes), len(objects))
	}
	if _, err := os.Stat(filepath.Join(data, "etcd")); err == nil {
		t.Error("a server with an external etcd has made an embedded one")
	}

	server.end(syscall.SIGKILL)
	server = startServer()
	eventually(t, "the server after its own death", func() bool { return serves(t, c) })

	etcd.end(syscall.SIGKILL)
	startEtcd()
	eventually(t, "the server after the death of etcd", func() bool { return serves(t, c) })
	_ = server
}

func reserveTwo(t *testing.T) (string, string) {
	t.Helper()
	a, err := freeport.Reserve(t.Name())
	if err != nil {
		t.Fatal(err)
	}
	b := address(t)
	a.Release()
	return a.Address, b
}

func connect(t *testing.T, data string) *client.Client {
	t.Helper()
	var c *client.Client
	eventually(t, "the server", func() bool {
		var err error
		if c, err = client.Load(filepath.Join(data, "context.yaml")); err != nil {
			return false
		}
		_, err = c.Status(t.Context())
		return err == nil
	})
	t.Cleanup(c.Close)
	return c
}

// serves says whether the state is there and can be written.
func serves(t *testing.T, c *client.Client) bool {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	st, err := c.Status(ctx)
	if err != nil || len(st.Services) != 3 {
		return false
	}
	drills, err := c.List(ctx, api.KindDrill)
	if err != nil || len(drills) != 2 {
		return false
	}
	_, err = c.SetLever(ctx, userapi.Lever{Reason: "a write"})
	return err == nil
}
