//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/report"
)

// short is the profile of every test but the README's.
var short = []string{"--set", "baseline=2s", "--set", "hold=4s", "--set", "verify=2s"}

// lease of the demo's faults.
const lease = 5 * time.Second

// demoRun is one `livefire demo`.
type demoRun struct {
	*rig
	*proc
	home string // --dir
}

// demoState is demo.json.
type demoState struct {
	Client  string
	Clients map[string]string
	API     string
	Server  struct{ PID int }
	Agents  map[string]struct{ PID int }
	Sites   map[string][]instance
}

type instance struct {
	Name, Service, Address string
	PID, SidecarPID        int
}

func (r *rig) demo(args ...string) *demoRun {
	r.t.Helper()
	home := filepath.Join(r.dir, "demo")
	p := r.start("demo", built.livefire, append([]string{"demo", "--dir", home}, args...)...)
	return &demoRun{rig: r, proc: p, home: home}
}

func (d *demoRun) state() (s demoState, err error) {
	b, err := os.ReadFile(filepath.Join(d.home, "demo.json"))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// serving waits for demo.json with every process of every site.
func (d *demoRun) serving() (s demoState) {
	d.t.Helper()
	d.rig.await(30*time.Second, "demo.json with every process", func() bool {
		var err error
		if s, err = d.state(); err != nil {
			if d.ended() {
				d.t.Fatalf("the demo has ended: %v", d.cmd.ProcessState)
			}
			return false
		}
		n := 0
		for _, site := range s.Sites {
			for _, i := range site {
				if i.PID > 0 && i.SidecarPID > 0 {
					n++
				}
			}
		}
		return n == 11
	})
	d.portsOf(s)
	return s
}

// portsOf remembers every address of the state: none may be open when the test has ended.
func (d *demoRun) portsOf(s demoState) {
	for _, site := range s.Sites {
		for _, i := range site {
			d.ports = append(d.ports, i.Address)
		}
	}
	for _, raw := range append([]string{s.API}, s.Clients["payments"], s.Clients["orders"]) {
		if u, err := url.Parse(raw); err == nil && u.Host != "" {
			d.ports = append(d.ports, u.Host)
		}
	}
}

// bundle is the evidence of the demo's only run, "" if there is none.
func (d *demoRun) bundle() string {
	dirs, _ := filepath.Glob(filepath.Join(d.home, "evidence", "*"))
	if len(dirs) != 1 {
		return ""
	}
	return dirs[0]
}

func readReport(t *testing.T, path string) report.Report {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r report.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatalf("decode %s: %v", path, err)
	}
	return r
}

func (d *demoRun) report() report.Report {
	d.t.Helper()
	return readReport(d.t, filepath.Join(d.home, "report.json"))
}

func serviceOf(t *testing.T, r report.Report, name string) report.Service {
	t.Helper()
	for _, s := range r.Services {
		if string(s.Service) == name {
			return s
		}
	}
	t.Fatalf("the report has no service %s", name)
	return report.Service{}
}

func (d *demoRun) key() string {
	d.t.Helper()
	b, err := os.ReadFile(filepath.Join(d.home, "evidence.pub"))
	if err != nil {
		d.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

// verify checks the bundle offline and returns the records of its run.
func (d *demoRun) verify() []evidence.Record {
	d.t.Helper()
	bundle := d.bundle()
	if bundle == "" {
		d.t.Fatalf("no single bundle in %s", filepath.Join(d.home, "evidence"))
	}
	v, err := report.Verify(os.DirFS(bundle), d.key())
	if err != nil {
		d.t.Fatalf("evidence verify %s: %v", filepath.Base(bundle), err)
	}
	return v.Evidence.Records
}

// payload decodes a record's data.
func payload[T any](t *testing.T, r evidence.Record) (v T) {
	t.Helper()
	if err := json.Unmarshal(r.Data, &v); err != nil {
		t.Fatalf("record %d (%s): %v", r.Index, r.Kind, err)
	}
	return v
}

// closed is the run's terminal record; there must be exactly one, at the end.
func closed(t *testing.T, records []evidence.Record) record.Closed {
	t.Helper()
	n := 0
	for _, r := range records {
		if r.Kind == string(record.RunClosed) {
			n++
		}
	}
	last := records[len(records)-1]
	if n != 1 || last.Kind != string(record.RunClosed) {
		t.Fatalf("%d records run.closed, the last record is %s", n, last.Kind)
	}
	return payload[record.Closed](t, last)
}

// entered is when the run entered a state, zero if never.
func entered(t *testing.T, records []evidence.Record, state string) time.Time {
	t.Helper()
	for _, r := range records {
		if r.Kind == string(record.RunState) && payload[record.State](t, r).To == state {
			return r.At
		}
	}
	return time.Time{}
}

// executed are the request ids that a site's workloads of a service wrote to their own files, with how often.
func (d *demoRun) executed(site, service string) map[string]int {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.home, "agents", site, "workloads", "*-"+service+"-*", "requests.log"))
	if err != nil || len(files) == 0 {
		d.t.Fatalf("no request logs of %s at %s: %v", service, site, err)
	}
	out := map[string]int{}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			d.t.Fatal(err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			out[lines.Text()]++
		}
		_ = f.Close()
	}
	return out
}

// noFault fails the test if a process of the lost site is still gone or stopped at the deadline.
func (d *demoRun) noFault(deadline time.Time) {
	d.t.Helper()
	var left []string
	if !poll(time.Until(deadline), func() bool { left = d.faulty(); return len(left) == 0 }) {
		d.t.Errorf("faults left at %s: %v", deadline.UTC().Format(time.RFC3339Nano), left)
	}
}

// ctx ends with the test.
func (r *rig) ctx(limit time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	r.t.Cleanup(cancel)
	return ctx
}

func exists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && (info.Mode().IsRegular() && info.Size() > 0 || info.Mode()&fs.ModeDir != 0)
}
