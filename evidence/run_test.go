package evidence

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// refusal writes a bundle and returns why its own verifier refuses it.
func refusal(t *testing.T, f *fixture) error {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	err := WriteBundle(dir, f.in)
	if err == nil {
		t.Fatal("the bundle was written")
	}
	if _, missing := os.Lstat(dir); missing == nil {
		t.Error("a refused bundle was published")
	}
	return err
}

func TestRunWithoutTerminalRecordIsIncomplete(t *testing.T) {
	f := newFixture(t, fixtureOptions{record: func(kind string, _ any) bool { return kind != KindClosed }})
	v, err := Verify(os.DirFS(f.write(t)), f.log.signer.VerifierKey())
	last := f.in.Records[len(f.in.Records)-1]
	wantRefused(t, err, FileRecords, last.Index)
	var e *VerifyError
	if !errors.As(err, &e) || !e.Incomplete {
		t.Errorf("error %v, want incomplete", err)
	}
	if v == nil || len(v.Records) != len(f.in.Records) || v.Statement.Predicate.Drill.Verdict != "incomplete" {
		t.Errorf("what could be verified was not returned: %+v", v)
	}
}

func TestVerdictGivesTestResult(t *testing.T) {
	for verdict, want := range map[string]string{
		"passed": "PASSED", "inconclusive": "WARNED", "failed": "FAILED", "aborted": "FAILED", "dirty": "FAILED",
	} {
		f := newFixture(t, fixtureOptions{record: func(_ string, p any) bool {
			if c, ok := p.(*closed); ok {
				c.Verdict = verdict
			}
			return true
		}})
		v, err := Verify(os.DirFS(f.write(t)), f.log.signer.VerifierKey())
		if err != nil || v.Statement.Predicate.Result != want || v.Statement.Predicate.Drill.Verdict != verdict {
			t.Errorf("%s: %v, %+v", verdict, err, v)
		}
	}
}

func TestRecordsAfterTheTerminalRecordAreRefused(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	r := f.log.add(testRun, "run.state", map[string]any{"to": "Done"})
	f.in.Records, f.in.Checkpoint, f.in.Hashes = f.log.run(testRun), f.log.checkpoint(), f.log.hashes
	wantRefused(t, refusal(t, f), FileRecords, r.Index)
}

func TestSequenceOfARunHasNoGapAndNoDuplicate(t *testing.T) {
	for name, change := range map[string]func(l *testLog){
		"gap":       func(l *testLog) { l.seq[testRun]++ },
		"duplicate": func(l *testLog) { l.seq[testRun]-- },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, fixtureOptions{record: func(kind string, _ any) bool { return kind != KindClosed }})
			change(f.log)
			r := f.log.add(testRun, KindClosed, closed{Verdict: "passed"})
			f.in.Records, f.in.Checkpoint, f.in.Hashes = f.log.run(testRun), f.log.checkpoint(), f.log.hashes
			wantRefused(t, refusal(t, f), FileRecords, r.Index)
		})
	}
}

func TestFirstRecordIsTheProposal(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	f.log = newTestLog(t, f.log.signer)
	f.log.add(testRun, "run.state", map[string]any{"to": "Draft"})
	f.in.Records, f.in.Checkpoint, f.in.Hashes = f.log.run(testRun), f.log.checkpoint(), f.log.hashes
	wantRefused(t, refusal(t, f), FileRecords, 0)
}

func TestRecordsOfARunStandInTheLogInTheirOrder(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	f.log = newTestLog(t, f.log.signer)
	f.log.seq[testRun] = 1
	late := f.log.add(testRun, KindClosed, closed{Verdict: "passed"})
	f.log.seq[testRun] = 0
	first := f.log.add(testRun, KindProposed, proposed{ProposalSHA256: digest(f.proposal)})
	f.in.Records, f.in.Checkpoint, f.in.Hashes, f.in.Approvals = []Record{first, late}, f.log.checkpoint(), f.log.hashes, nil
	wantRefused(t, refusal(t, f), FileRecords, late.Index)
}

func TestBundleHoldsRecordsOfOneRun(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	f.log = newTestLog(t, f.log.signer)
	first := f.log.add(testRun, KindProposed, proposed{ProposalSHA256: digest(f.proposal)})
	f.log.seq["other"] = 1
	other := f.log.add("other", KindClosed, closed{Verdict: "passed"})
	f.in.Records, f.in.Checkpoint, f.in.Hashes, f.in.Approvals = []Record{first, other}, f.log.checkpoint(), f.log.hashes, nil
	wantRefused(t, refusal(t, f), FileRecords, other.Index)
}

func TestApprovalsAreRefused(t *testing.T) {
	set := func(change func(*approved)) func(string, any) bool {
		return func(_ string, p any) bool {
			if a, ok := p.(*approved); ok && a.Group == "security" {
				change(a)
			}
			return true
		}
	}
	other := publicOf(testKey("other"))
	security := ApprovalFile("security")
	for _, c := range []struct {
		name string
		o    fixtureOptions
		file string
	}{
		{"two groups with one key", fixtureOptions{key: func(string) string { return "one" }}, security},
		{"approved with the runner's key", fixtureOptions{key: func(g string) string {
			if g == "security" {
				return "runner"
			}
			return g
		}}, security},
		{"another run", fixtureOptions{approval: func(a *Approval) { a.Run = "other" }}, ApprovalFile("development")},
		{"another proposal", fixtureOptions{approval: func(a *Approval) { a.ProposalSHA256 = digest(nil) }}, ApprovalFile("development")},
		{"another group", fixtureOptions{approval: func(a *Approval) { a.Group = "board" }}, ApprovalFile("development")},
		{"another person", fixtureOptions{record: set(func(a *approved) { a.By = "other" })}, security},
		{"another time", fixtureOptions{record: set(func(a *approved) { a.At = a.At.Add(1) })}, security},
		{"another key", fixtureOptions{record: set(func(a *approved) { a.PublicKey = other })}, security},
		{"another key and id", fixtureOptions{record: set(func(a *approved) { a.PublicKey, a.Key = other, KeyID(other) })}, security},
		{"another key id", fixtureOptions{record: set(func(a *approved) { a.Key = KeyID(other) })}, security},
		{"no key", fixtureOptions{record: set(func(a *approved) { a.PublicKey = nil })}, security},
		{"another envelope", fixtureOptions{record: set(func(a *approved) { a.EnvelopeSHA256 = digest(nil) })}, security},
		{"another digest", fixtureOptions{record: set(func(a *approved) { a.ProposalSHA256 = digest(nil) })}, security},
		{"a fault although one group rejected", fixtureOptions{approval: func(a *Approval) {
			if a.Group == "security" {
				a.Decision = Reject
			}
		}}, FileRecords},
		{"another decision", fixtureOptions{record: func(kind string, p any) bool {
			set(func(a *approved) { a.Decision = Reject })(kind, p)
			return kind != KindIntent && kind != KindApplied
		}}, security},
		{"an unsigned approval", fixtureOptions{record: set(func(a *approved) { a.EnvelopeSHA256 = "" })}, security},
	} {
		t.Run(c.name, func(t *testing.T) { wantRefused(t, refusal(t, newFixture(t, c.o)), c.file, -2) })
	}
}

func TestUnsignedApprovalNeedsItsEnvelope(t *testing.T) {
	f := newFixture(t, fixtureOptions{record: func(_ string, p any) bool {
		if a, ok := p.(*approved); ok {
			a.EnvelopeSHA256 = ""
		}
		return true
	}})
	f.in.Approvals = nil
	wantRefused(t, refusal(t, f), ApprovalFile("development"), f.in.Records[1].Index)
}

func TestNothingTakesEffectBeforeEveryGroupHasApproved(t *testing.T) {
	for _, kind := range []string{KindIntent, KindApplied} {
		f := newFixture(t, fixtureOptions{})
		o := fixtureOptions{}
		o.defaults()
		f.log = newTestLog(t, f.log.signer)
		var effect Record
		f.log.add(testRun, KindProposed, proposed{ProposalSHA256: digest(f.proposal), Groups: o.groups})
		f.approve(t, "development", o, func(kind string, p any) { f.log.add(testRun, kind, p) })
		if kind == KindIntent {
			f.log.add(testRun, KindIntent, intent{What: "probe-start"}) // no effect on anybody
			effect = f.log.add(testRun, KindIntent, intent{What: "inject"})
		} else {
			effect = f.log.add(testRun, KindApplied, map[string]any{"target": "payments-1"})
		}
		f.approve(t, "security", o, func(kind string, p any) { f.log.add(testRun, kind, p) })
		f.log.add(testRun, KindClosed, closed{Verdict: "passed"})
		f.in.Records, f.in.Checkpoint, f.in.Hashes = f.log.run(testRun), f.log.checkpoint(), f.log.hashes
		wantRefused(t, refusal(t, f), FileRecords, effect.Index)
	}
}

// "Before injection the server renders again: other bytes void all approvals."
func TestNewProposalVoidsTheApprovalsBeforeIt(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	o := fixtureOptions{}
	o.defaults()
	f.log = newTestLog(t, f.log.signer)
	add := func(kind string, p any) { f.log.add(testRun, kind, p) }
	propose := func() {
		add(KindProposed, proposed{ProposalSHA256: digest(f.proposal), Groups: o.groups, ByKey: KeyID(publicOf(testKey("runner")))})
	}
	seal := func() {
		f.in.Records, f.in.Checkpoint, f.in.Hashes = f.log.run(testRun), f.log.checkpoint(), f.log.hashes
		f.in.Proposal = f.proposal
	}
	propose()
	f.approve(t, "development", o, add)
	f.approve(t, "security", o, add)
	f.proposal = []byte(`{"run":"` + testRun + `","changed":true}` + "\n")
	propose()
	f.approve(t, "development", o, add)

	early := *f.log // security has approved the first proposal only
	early.seq = map[string]int64{testRun: f.log.seq[testRun]}
	effect := early.add(testRun, KindIntent, intent{What: "inject"})
	late := f.log
	f.log = &early
	seal()
	delete(f.approvals, "security")
	wantRefused(t, refusal(t, f), FileRecords, effect.Index)

	f.log = late
	f.approve(t, "security", o, add)
	add(KindIntent, intent{What: "inject"})
	add(KindClosed, closed{Verdict: "passed", Restored: true})
	seal()
	v, err := Verify(os.DirFS(f.write(t)), f.log.signer.VerifierKey())
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Approvals) != 2 || v.Approvals[0].ProposalSHA256 != digest(f.proposal) || len(v.Statement.Predicate.Drill.Approvals) != 2 {
		t.Errorf("approvals %+v", v.Approvals)
	}
}

func TestUnsignedRejectionNeedsNoEnvelope(t *testing.T) {
	f := newFixture(t, fixtureOptions{})
	f.log = newTestLog(t, f.log.signer)
	f.log.add(testRun, KindProposed, proposed{ProposalSHA256: digest(f.proposal), Groups: []string{"security"}})
	f.log.add(testRun, KindApproved, approved{Group: "security", By: "sec1", Decision: Reject, At: epoch})
	f.log.add(testRun, KindClosed, closed{Verdict: "aborted", Restored: true})
	f.in.Records, f.in.Checkpoint, f.in.Hashes, f.in.Approvals = f.log.run(testRun), f.log.checkpoint(), f.log.hashes, nil
	v, err := Verify(os.DirFS(f.write(t)), f.log.signer.VerifierKey())
	if err != nil || len(v.Approvals) != 0 {
		t.Errorf("Verify = %+v, %v", v, err)
	}
}

func TestBadSampleRecordsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*sampled){
		"path out of the directory": func(s *sampled) { s.Order, s.Workload = "../../x", "../x" },
		"digest":                    func(s *sampled) { s.SHA256 = "00" },
		"size":                      func(s *sampled) { s.Bytes++ },
		"negative":                  func(s *sampled) { s.Bytes = -1 },
		"no name":                   func(s *sampled) { s.Order, s.Workload = "", "" },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, fixtureOptions{record: func(_ string, p any) bool {
				if s, ok := p.(*sampled); ok {
					change(s)
				}
				return true
			}})
			refusal(t, f)
			for _, r := range f.in.Records {
				s, ok, err := SampleFileOf(r)
				if (r.Kind == KindChunk || r.Kind == KindExecuted) && name != "size" && (ok || err == nil) {
					t.Errorf("SampleFileOf(record %d) = %+v", r.Index, s)
				}
			}
		})
	}
}

func TestSameChunkTwiceIsOneFileAndOtherContentIsTwo(t *testing.T) {
	r := func(sha string) Record {
		return Record{Kind: KindChunk, Data: []byte(`{"order":"run-1/orders","chunk":12,"sha256":"` + sha + `","bytes":3}`)}
	}
	a, b := digest([]byte("a")), digest([]byte("b"))
	files, err := sampleFiles([]Record{r(a), r(a), r(b)})
	if err != nil || len(files) != 2 || files[0].Path != "samples/run-1.orders.000012."+a[:16]+".jsonl" {
		t.Errorf("sampleFiles = %+v, %v", files, err)
	}
}
