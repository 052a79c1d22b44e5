//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/livefire-mesh/livefire/internal/cli/client"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

func sha256Hex(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func readContext(t *testing.T, path string) (c userapi.Context) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(b, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// kept is a demo whose drill is over and whose mesh goes on.
func (r *rig) keptDemo() (*demoRun, *client.Client) {
	r.t.Helper()
	d := r.demo(append(short, "--keep")...)
	d.serving()
	r.await(100*time.Second, "the drill's end", func() bool {
		if d.ended() {
			r.t.Fatalf("the demo ended: %v", d.cmd.ProcessState)
		}
		return strings.Contains(d.text("err"), "until Ctrl-C")
	})
	admin, err := client.Load(filepath.Join(d.home, "context.yaml"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(admin.Close)
	return d, admin
}

// caller starts one more caller's sidecar, with a port of its own for payments.
func (d *demoRun) caller(admin *client.Client, name, program string, args ...string) (*proc, string) {
	port := d.rig.port()
	args = append(args, "--service", "caller", "--site", "client", "--name", name, "--dir", filepath.Join(d.dir, name), "--port", "payments="+port)
	if admin != nil {
		args = append(args, "--token", tokenFile(d.rig, admin, nodeapi.TokenRequest{Site: "client", Service: "caller"}))
	}
	return d.rig.start(name, program, args...), "http://" + port + "/"
}

func answers200(url string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK && resp.Header.Get("x-site") != ""
}

// "Idle RSS (not -race): livefire-proxy under 25 MB, livefire proxy under 45 MB, server with the demo mesh under 150 MB."
// The two sidecars are callers that hold the whole table and have sent a handful of requests.
func TestIdleMemory(t *testing.T) {
	d, admin := newRig(t).keptDemo()
	small, url := d.caller(admin, "caller-small", built.proxy)
	d.rig.await(15*time.Second, "livefire-proxy serves", func() bool { return answers200(url) })
	whole, url := d.caller(admin, "caller-whole", built.livefire, "proxy")
	d.rig.await(15*time.Second, "livefire proxy serves", func() bool { return answers200(url) })
	s := d.serving()
	for _, c := range []struct {
		what  string
		pid   int
		limit float64 // MB
	}{
		{"livefire-proxy", small.cmd.Process.Pid, 25},
		{"livefire proxy", whole.cmd.Process.Pid, 45},
		{"the server with the demo mesh", s.Server.PID, 150},
	} {
		// Idle is some seconds after the start, when what only the start needed has been given back.
		_ = poll(15*time.Second, func() bool { all, _, _ := rss(t, c.pid); return all < c.limit })
		all, own, file := rss(t, c.pid)
		t.Logf("%s: %.1f MB resident (limit %.0f MB), %.1f MB of it anonymous, %.1f MB pages of the binary", c.what, all, c.limit, own, file)
		if all >= c.limit {
			t.Errorf("%s: %.1f MB resident, want less than %.0f MB", c.what, all, c.limit)
		}
	}
	for _, i := range s.Sites["client"] {
		all, own, _ := rss(t, i.SidecarPID)
		t.Logf("after the drill's load: sidecar of %s %.1f MB resident, %.1f MB of it anonymous", i.Name, all, own)
	}
	for _, p := range []*proc{small, whole} {
		p.signal(syscall.SIGTERM)
		p.exit(20*time.Second, 0)
	}
	d.endKept()
}

// endKept ends a demo that stays: Ctrl-C is its ordinary end (0), or an interruption (130).
func (d *demoRun) endKept() {
	d.t.Helper()
	d.signal(syscall.SIGINT)
	if !d.endWithin(60 * time.Second) {
		d.t.Fatal("the demo did not end within 60 s after Ctrl-C")
	}
	if got := d.cmd.ProcessState.ExitCode(); got != 0 && got != 130 {
		d.t.Errorf("the demo ended with status %d, want 0 or 130", got)
	}
}

// "A sidecar starts and serves within 2 s from its disk copy with no server at all."
func TestSidecarStartsWithoutServer(t *testing.T) {
	d, admin := newRig(t).keptDemo()
	p, url := d.caller(admin, "caller-2", built.livefire, "proxy")
	d.rig.await(15*time.Second, "the sidecar serves", func() bool { return answers200(url) })
	p.signal(syscall.SIGTERM)
	p.exit(20*time.Second, 0)
	s := d.serving()
	server := openPID(t, s.Server.PID)
	d.rig.kill(s.Server.PID)
	if !server.gone(5 * time.Second) {
		t.Fatal("the server lives")
	}
	port := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")
	p = d.rig.start("caller-2-again", built.livefire, "proxy", "--service", "caller", "--site", "client", "--name", "caller-2",
		"--dir", filepath.Join(d.dir, "caller-2"), "--port", "payments="+port)
	ok := poll(5*time.Second, func() bool { return answers200(url) })
	took := time.Since(p.started)
	for _, m := range d.marked() {
		if len(m.args) > 1 && m.args[1] == "server" {
			t.Fatalf("a server runs again (pid %d): nothing is shown", m.pid)
		}
	}
	t.Logf("served %v after its start, without a server", took)
	if !ok || took > 2*time.Second {
		t.Errorf("served: %t, %v after its start, want within 2 s", ok, took)
	}
	p.signal(syscall.SIGTERM)
	p.exit(20*time.Second, 0)
	d.endKept()
}
