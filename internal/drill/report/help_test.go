package report_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/drilltest"
	"github.com/livefire-mesh/livefire/internal/drill/report"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

const ms = time.Millisecond

// scripts are the runs that every view must show.
func scripts() map[string]drilltest.Script {
	edit := func(f func(*drilltest.Script)) drilltest.Script {
		s := drilltest.SiteLoss()
		f(&s)
		return s
	}
	return map[string]drilltest.Script{
		"site-loss": drilltest.SiteLoss(),
		"not-recovered": edit(func(s *drilltest.Script) {
			s.Services[1].HurtTo, s.Verdict = time.Hour, "failed"
		}),
		"late-ack": edit(func(s *drilltest.Script) { s.Propagate = time.Second }),
		"by-reflex": edit(func(s *drilltest.Script) {
			s.Services[0].HurtTo, s.Services[0].RetriedUntil, s.Services[0].Class = 400*ms, 0, sample.Reset
		}),
		"no-switch":    edit(func(s *drilltest.Script) { s.Decide = -1; s.Services[1].HurtTo = time.Hour; s.Verdict = "aborted" }),
		"not-measured": edit(func(s *drilltest.Script) { s.Hold = 500 * ms; s.Verdict = "inconclusive" }),
	}
}

// small is site-loss in less time: a bundle has a file for each second of each probe, and every one is synced.
func small() drilltest.Script {
	s := drilltest.SiteLoss()
	s.Baseline, s.Hold, s.Verify = 2*time.Second, 5*time.Second, 2*time.Second
	s.Services[0].Rate = 50
	return s
}

func input(b drilltest.Built) report.Input {
	var in report.Input
	in.Proposal, in.Records, in.Chunks, in.Executions = b.Proposal, b.Records, b.Chunks, b.Executions
	in.Log = evidence.Checkpoint{Origin: "livefire.example/log", Size: in.Records[len(in.Records)-1].Index + 1}
	in.Checkpoint = []byte("livefire.example/log\n")
	return in
}

func build(t testing.TB, s drilltest.Script) report.Report {
	t.Helper()
	r, err := report.Build(input(s.Build()))
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	return r
}

func text(t testing.TB, r report.Report, o report.TextOptions) string {
	t.Helper()
	var b strings.Builder
	if err := report.Text(&b, r, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func page(t testing.TB, r report.Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := report.HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bundle is a run in a log, ready to be written.
type bundle struct {
	t      *testing.T
	built  drilltest.Built
	signer *evidence.Signer
	check  []byte
	hashes evidence.MemoryHashes
}

func newBundle(t *testing.T, b drilltest.Built) *bundle {
	t.Helper()
	skey, _, err := note.GenerateKey(strings.NewReader(strings.Repeat("k", 64)), "livefire.example/log")
	if err != nil {
		t.Fatal(err)
	}
	x := &bundle{t: t, built: b}
	if x.signer, err = evidence.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	add := func(r evidence.Record) {
		line, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		more, err := evidence.StoredHashes(n, line, x.hashes)
		if err != nil {
			t.Fatal(err)
		}
		x.hashes = append(x.hashes, more...)
		n++
	}
	for n < b.Records[0].Index { // other records of the same log
		add(evidence.Record{Index: n, At: drilltest.T0.Add(-time.Hour), Kind: "resource", Actor: "dev1"})
	}
	for _, r := range b.Records {
		add(r)
	}
	root, err := evidence.TreeHash(n, x.hashes)
	if err != nil {
		t.Fatal(err)
	}
	if x.check, err = x.signer.Checkpoint(n, root); err != nil {
		t.Fatal(err)
	}
	return x
}

// report is the report of the bundle, with its real checkpoint.
func (x *bundle) report() report.Report {
	x.t.Helper()
	in := input(x.built)
	c, err := evidence.OpenCheckpoint(x.check, x.signer.VerifierKey())
	if err != nil {
		x.t.Fatal(err)
	}
	in.Log, in.Checkpoint = c, x.check
	r, err := report.Build(in)
	if err != nil {
		x.t.Fatal(err)
	}
	return r
}

// write writes the bundle with a report and objectives of the caller's choice, and gives its directory.
func (x *bundle) write(reportJSON, reportHTML []byte, o []evidence.Objective) string {
	x.t.Helper()
	dir := filepath.Join(x.t.TempDir(), "bundle")
	err := evidence.WriteBundle(dir, evidence.BundleInput{
		Signer: x.signer, Records: x.built.Records, Checkpoint: x.check, Hashes: x.hashes, Proposal: x.built.ProposalJSON,
		Approvals: x.built.Approvals, Objectives: o, ReportJSON: reportJSON, ReportHTML: reportHTML,
		Open: func(f evidence.SampleFile) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(x.built.Files[f.SHA256])), nil
		},
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return dir
}

func (x *bundle) verify(dir string) (*report.Verification, error) {
	return report.Verify(os.DirFS(dir), x.signer.VerifierKey())
}

func encode(t testing.TB, r report.Report) []byte {
	t.Helper()
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tree is a report as anybody else would read it.
func tree(t testing.TB, b []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
