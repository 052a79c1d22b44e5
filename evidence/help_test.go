package evidence

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
)

var epoch = time.Date(2026, 11, 20, 12, 41, 0, 123456789, time.UTC)

// testKey is a key from a seed, so that test data is the same everywhere.
func testKey(seed string) ed25519.PrivateKey {
	sum := sha256.Sum256([]byte(seed))
	return ed25519.NewKeyFromSeed(sum[:])
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func testSigner(t testing.TB, name string) *Signer {
	t.Helper()
	skey, _, err := note.GenerateKey(strings.NewReader(strings.Repeat(name, 64)), name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testLog grows a log in memory.
type testLog struct {
	t       testing.TB
	signer  *Signer
	hashes  MemoryHashes
	records []Record
	seq     map[string]int64
}

func newTestLog(t testing.TB, signer *Signer) *testLog {
	return &testLog{t: t, signer: signer, seq: map[string]int64{}}
}

func (l *testLog) add(run, kind string, data any) Record {
	l.t.Helper()
	n := int64(len(l.records))
	r := Record{Index: n, Run: run, At: epoch.Add(time.Duration(n) * 137 * time.Millisecond), Kind: kind, Actor: "server"}
	if run != "" {
		r.RunSeq = l.seq[run]
		l.seq[run]++
	}
	if data != nil {
		b, err := json.Marshal(data)
		if err != nil {
			l.t.Fatal(err)
		}
		r.Data = b
	}
	line, err := r.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	more, err := StoredHashes(n, line, l.hashes)
	if err != nil {
		l.t.Fatal(err)
	}
	l.hashes = append(l.hashes, more...)
	l.records = append(l.records, r)
	return r
}

func (l *testLog) run(run string) []Record {
	var out []Record
	for _, r := range l.records {
		if r.Run == run {
			out = append(out, r)
		}
	}
	return out
}

func (l *testLog) checkpoint() []byte {
	l.t.Helper()
	size := int64(len(l.records))
	root, err := TreeHash(size, l.hashes)
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := l.signer.Checkpoint(size, root)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

const testRun = "site-loss-20261120-1"

// fixture is a run in a log with records of others before, between and after. Each field may be changed by a
// test before bundle is called.
type fixture struct {
	log       *testLog
	proposal  []byte
	approvals map[string][]byte
	samples   map[string][]byte // by SHA-256
	in        BundleInput
}

type fixtureOptions struct {
	before   int                           // records of others before the run
	groups   []string                      // default: development, security
	key      func(string) string           // seed of a group's key; default: its name
	approval func(*Approval)               // changes what is signed
	record   func(kind string, p any) bool // changes a payload; false leaves the record out
}

func (o *fixtureOptions) defaults() {
	if o.groups == nil {
		o.groups = []string{"development", "security"}
	}
	if o.key == nil {
		o.key = func(group string) string { return group }
	}
	if o.approval == nil {
		o.approval = func(*Approval) {}
	}
	if o.record == nil {
		o.record = func(string, any) bool { return true }
	}
}

func newFixture(t testing.TB, o fixtureOptions) *fixture {
	t.Helper()
	o.defaults()
	f := &fixture{
		log: newTestLog(t, testSigner(t, "livefire.example/log")), proposal: []byte(`{"run":"` + testRun + `"}` + "\n"),
		approvals: map[string][]byte{}, samples: map[string][]byte{},
	}
	add := func(kind string, p any) {
		if o.record(kind, p) {
			f.log.add(testRun, kind, p)
			f.log.add("", "lever", map[string]any{"engaged": false})
		}
	}
	for i := range o.before {
		f.log.add("other-run", "run.state", map[string]any{"to": fmt.Sprint(i)})
	}
	add(KindProposed, &proposed{Drill: "site-loss", Scenario: "site-loss", By: "ops1", ByKey: KeyID(publicOf(testKey("runner"))),
		ProposalSHA256: hexDigest(f.proposal), Groups: o.groups, Software: "v0.1.0"})
	for _, g := range o.groups {
		f.approve(t, g, o, add)
	}
	add(KindIntent, &intent{What: "inject"})
	add(KindApplied, &map[string]any{"target": "payments-1"})
	for i := range int64(2) {
		b := fmt.Appendf(nil, "{\"format\":\"livefire-samples/1\",\"chunk\":%d}\n{\"n\":%d}\n", i, i)
		f.samples[hexDigest(b)] = b
		add(KindChunk, &sampled{Order: testRun + "/payments", Chunk: i, SHA256: hexDigest(b), Bytes: int64(len(b))})
	}
	ids := []byte("a\nb\n")
	f.samples[hexDigest(ids)] = ids
	add(KindExecuted, &sampled{Workload: "payments-1", SHA256: hexDigest(ids), Bytes: int64(len(ids))})
	add(KindClosed, &closed{Verdict: "passed", Restored: true})

	f.in = BundleInput{
		Signer: f.log.signer, Records: f.log.run(testRun), Checkpoint: f.log.checkpoint(), Hashes: f.log.hashes,
		Proposal: f.proposal, Approvals: f.approvals, Open: f.open,
		Objectives: []Objective{{Service: "payments", Name: "rto", Objective: "5s", Actual: "0s", Uncertainty: "0.02s", Verdict: "pass"}},
		ReportJSON: []byte("{}\n"), ReportHTML: []byte("<!doctype html>\n"),
	}
	return f
}

func (f *fixture) approve(t testing.TB, group string, o fixtureOptions, add func(string, any)) {
	t.Helper()
	key := testKey(o.key(group))
	a := Approval{Run: testRun, ProposalSHA256: hexDigest(f.proposal), Group: group, Decision: Approve, By: group + "1", At: epoch}
	o.approval(&a)
	b, err := SignApproval(key, a)
	if err != nil {
		t.Fatal(err)
	}
	f.approvals[group] = b
	add(KindApproved, &approved{Group: group, By: group + "1", At: epoch, Key: KeyID(publicOf(key)), PublicKey: publicOf(key),
		ProposalSHA256: hexDigest(f.proposal), EnvelopeSHA256: hexDigest(b), Decision: a.Decision})
}

func (f *fixture) open(s SampleFile) (io.ReadCloser, error) {
	b, ok := f.samples[s.SHA256]
	if !ok {
		return nil, os.ErrNotExist
	}
	return io.NopCloser(strings.NewReader(string(b))), nil
}

// write writes the bundle into a new directory.
func (f *fixture) write(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), testRun)
	if err := WriteBundle(dir, f.in); err != nil {
		t.Fatalf("WriteBundle: %v", err)
	}
	return dir
}

// filesOf reads a whole bundle.
func filesOf(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(rel)], err = os.ReadFile(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func sortedNames(files map[string][]byte) []string { return slices.Sorted(maps.Keys(files)) }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
