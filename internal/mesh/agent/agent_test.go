package agent

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/internal/drill/fault"
	"github.com/livefire-mesh/livefire/internal/mesh/membership"
	"github.com/livefire-mesh/livefire/internal/mesh/nodeclient"
	"github.com/livefire-mesh/livefire/internal/mesh/xds"
	"github.com/livefire-mesh/livefire/internal/nodeapi"
)

const limit = time.Minute

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestWorkloadsFileIsRefusedWithItsPosition(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"good", "workloads:\n- {name: pay-1, service: pay, app: auto, command: [x]}\n", ""},
		{"unknown field", "workloads:\n- name: pay-1\n  servce: pay\n", "[3:3]"},
		{"not YAML", "workloads:\n- {name: pay-1\n", "["},
		{"bad name", "workloads:\n- {name: Pay_1, service: pay, app: auto}\n", "workloads[0]"},
		{"a path as name", "workloads:\n- {name: ../x, service: pay, app: auto}\n", "workloads[0]"},
		{"twice", "workloads:\n- {name: a, service: pay, app: auto}\n- {name: a, service: pay, app: auto}\n", "workloads[1]"},
		{"no service", "workloads:\n- {name: a, app: auto}\n", "workloads[0]"},
		{"command without app", "workloads:\n- {name: a, service: pay, command: [x]}\n", "workloads[0]"},
		{"does nothing", "workloads:\n- {name: a, service: pay}\n", "workloads[0]"},
		{"negative capacity", "workloads:\n- {name: a, service: pay, app: auto, capacity: -1}\n", "workloads[0]"},
	} {
		path := filepath.Join(t.TempDir(), "workloads.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadWorkloads(path)
		if c.want == "" && err != nil || c.want != "" && (api.KindOf(err) != api.Invalid || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestChosenPortsAreKeptOverRestarts(t *testing.T) {
	a := &agent{cfg: Config{Dir: t.TempDir(), Executable: "/bin/livefire"}, member: &membership.Member{Home: membership.Home{Site: "eu"}}}
	w := Workload{Name: "pay-1", Service: "pay", Version: "v1", App: "auto", Ports: map[string]string{"bank": "auto"},
		Command: []string{"{livefire}", "--listen={app}", "{name}@{site}/{service}:{version}"}, RequestLog: "{dir}/requests", Env: []string{"DIR={dir}"}}
	place := func() placed {
		p, err := a.place(w)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range p.reserved {
			r.Release()
		}
		return p
	}
	first, second := place(), place()
	if first.App == "auto" || first.Inbound == "" || first.Outbound != "" || first.App == first.Inbound {
		t.Errorf("addresses %+v", first.Workload)
	}
	if first.App != second.App || first.Inbound != second.Inbound || first.Ports["bank"] != second.Ports["bank"] {
		t.Errorf("addresses changed from %+v to %+v", first.Workload, second.Workload)
	}
	if want := []string{"/bin/livefire", "--listen=" + first.App, "pay-1@eu/pay:v1"}; !slices.Equal(first.command, want) {
		t.Errorf("command %q, want %q", first.command, want)
	}
	if want := first.dir + "/requests"; first.RequestLog != want || first.Env[0] != "DIR="+first.dir || first.Health != "/healthz" {
		t.Errorf("request log %q, environment %q, health %q", first.RequestLog, first.Env, first.Health)
	}
	if w.Env[0] != "DIR={dir}" || w.Ports["bank"] != "auto" {
		t.Errorf("the workload as it was read has changed: %+v", w)
	}
}

// upstream is a server that refuses the first calls, then takes them.
type upstream struct {
	*httptest.Server
	mu     sync.Mutex
	refuse []api.ErrorKind // guarded by mu
	bodies chan []byte     // of what was taken
}

func newUpstream(t *testing.T, refuse ...api.ErrorKind) *upstream {
	u := &upstream{refuse: refuse, bodies: make(chan []byte, 100)}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		if len(u.refuse) > 0 {
			kind := u.refuse[0]
			u.refuse = u.refuse[1:]
			w.WriteHeader(kind.HTTPStatus())
			_ = json.NewEncoder(w).Encode(api.Errorf(kind, "", "refused by the test"))
			return
		}
		_, _ = w.Write([]byte("{}"))
		u.bodies <- b
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) take(t *testing.T) []byte {
	t.Helper()
	select {
	case b := <-u.bodies:
		return b
	case <-time.After(limit):
		t.Fatal("nothing was sent")
		return nil
	}
}

// running runs f until the end of the test.
func running(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = f(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
}

func TestReportsAreSentInOrderUntilTaken(t *testing.T) {
	u := newUpstream(t, api.Unavailable, api.Internal, api.Unavailable)
	r := &reports{client: nodeclient.New(u.URL, "agent-eu", nil), log: quiet(), wake: make(chan struct{}, 1)}
	running(t, r.run)
	for _, target := range []string{"a", "b", "c"} {
		r.add([]fault.Report{{Order: "run/02", Target: target}})
	}
	var got []string
	for len(got) < 3 {
		var f nodeapi.Faults
		if err := json.Unmarshal(u.take(t), &f); err != nil {
			t.Fatal(err)
		}
		for _, rep := range f.Reports {
			got = append(got, rep.Target)
		}
	}
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("reports arrived as %q", got)
	}
}

// A report that no server will ever take must not hold up the others.
func TestReportThatIsRefusedForGoodIsDropped(t *testing.T) {
	for _, kind := range []api.ErrorKind{api.Invalid, api.Denied} {
		u := newUpstream(t, kind)
		r := &reports{client: nodeclient.New(u.URL, "agent-eu", nil), log: quiet(), wake: make(chan struct{}, 1)}
		r.add([]fault.Report{{Order: "run/02", Target: "bad"}})
		if !r.send(t.Context()) {
			t.Fatalf("%s: the report still waits", kind)
		}
		r.add([]fault.Report{{Order: "run/02", Target: "good"}})
		if !r.send(t.Context()) || !strings.Contains(string(u.take(t)), "good") {
			t.Errorf("%s: the next report was not taken", kind)
		}
	}
}

func TestExecutionsAreThoseOfTheRunOnce(t *testing.T) {
	log := filepath.Join(t.TempDir(), "requests")
	if err := os.WriteFile(log, []byte("run-1.p/0\nrun-10.p/0\nother\nrun-1.p/1\nrun-1.p/0\nrun-1.p/2"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := newUpstream(t, api.Unavailable)
	a := &agent{cfg: Config{Logger: quiet()}, member: &membership.Member{Client: nodeclient.New(u.URL, "agent-eu", nil)},
		placed: []placed{{Workload: Workload{Name: "pay-1", Service: "pay", RequestLog: log}}, {Workload: Workload{Name: "caller"}}}}
	c := &counter{agent: a, wake: make(chan struct{}, 1), wanted: map[string]xds.Count{}, done: map[string]bool{}}
	o := xds.Count{ID: "run-1/count", Run: "run-1", Prefix: "run-1."}
	for range 3 { // refused, taken, not sent again
		c.answer(t.Context(), o)
	}
	if got, want := string(u.take(t)), "run-1.p/0\nrun-1.p/1\nrun-1.p/0\nrun-1.p/2\n"; got != want {
		t.Errorf("executions %q, want %q", got, want)
	}
	if len(u.bodies) > 0 {
		t.Errorf("sent again: %q", <-u.bodies)
	}
	if ids, err := executed(filepath.Join(t.TempDir(), "none"), "x"); err != nil || len(ids) > 0 {
		t.Errorf("a workload that has executed nothing: %q, %v", ids, err)
	}
}
