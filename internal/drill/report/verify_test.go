package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/report"
)

func TestVerifyComputesTheReportAgain(t *testing.T) {
	for name, s := range scripts() {
		s.Baseline, s.Hold, s.Verify = 2*time.Second, min(s.Hold, 6*time.Second), 2*time.Second
		x := newBundle(t, s.Build())
		r := x.report()
		v, err := x.verify(x.write(encode(t, r), page(t, r), r.Objectives()))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !v.SamePage || v.Report.Run.ID != s.Run {
			t.Errorf("%s: same page %v, run %s", name, v.SamePage, v.Report.Run.ID)
		}
	}
}

// A server that lies signs what it likes: the structure is right, and a number does not follow from the samples.
func TestAForgedNumberIsNamed(t *testing.T) {
	x := newBundle(t, small().Build())
	r := x.report()
	forged := bytes.Replace(encode(t, r), []byte(`"rtaSeconds":2.311`), []byte(`"rtaSeconds":1.311`), 1)
	_, err := x.verify(x.write(forged, page(t, r), r.Objectives()))
	var d *report.DiffError
	if !errors.As(err, &d) || d.File != evidence.FileReport || d.Field != "services[1].rtaSeconds" || d.Found != "1.311" || d.Want != "2.311" {
		t.Errorf("got %v, want a difference in services[1].rtaSeconds of %s", err, evidence.FileReport)
	}
}

func TestObjectivesOfTheStatementAreCompared(t *testing.T) {
	x := newBundle(t, small().Build())
	r := x.report()
	o := r.Objectives()
	o[0].Actual = "9s"
	_, err := x.verify(x.write(encode(t, r), page(t, r), o))
	var d *report.DiffError
	if !errors.As(err, &d) || d.File != evidence.FileStatement {
		t.Errorf("got %v, want a difference in %s", err, evidence.FileStatement)
	}
}

func TestARunClosedBetterThanMeasuredIsRefused(t *testing.T) {
	s := small()
	s.Hold = 10000 * ms
	s.Services[1].HurtTo = 8000 * ms // an RTO of 5 s missed, and yet:
	s.Verdict = "passed"
	x := newBundle(t, s.Build())
	r := x.report()
	_, err := x.verify(x.write(encode(t, r), page(t, r), r.Objectives()))
	var d *report.DiffError
	if !errors.As(err, &d) || d.Field != "run.verdict" || d.Found != "passed" || d.Want != "failed" {
		t.Errorf("got %v, want run.verdict passed against failed", err)
	}
}

func TestAnotherPageIsSaidNotRefused(t *testing.T) {
	x := newBundle(t, small().Build())
	r := x.report()
	v, err := x.verify(x.write(encode(t, r), bytes.Replace(page(t, r), []byte("PASSED"), []byte("SPLENDID"), 1), r.Objectives()))
	if err != nil || v.SamePage {
		t.Errorf("got %+v, %v; want a verified bundle whose page is another one", v, err)
	}
}

func TestAnIncompleteRunIsReturnedWithItsError(t *testing.T) {
	s := small()
	s.Verdict = "-"
	x := newBundle(t, s.Build())
	r := x.report()
	v, err := x.verify(x.write(encode(t, r), page(t, r), r.Objectives()))
	var bad *evidence.VerifyError
	if !errors.As(err, &bad) || !bad.Incomplete || v == nil || v.Report.Run.Verdict != "incomplete" || v.Report.Run.Restored {
		t.Errorf("got %+v, %v; want the report and an incomplete bundle", v, err)
	}
}

func TestAChangedByteIsNamed(t *testing.T) {
	x := newBundle(t, small().Build())
	r := x.report()
	dir := x.write(encode(t, r), page(t, r), r.Objectives())
	files, err := filepath.Glob(filepath.Join(dir, "samples", "*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	b, err := os.ReadFile(files[3])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(files[3], b, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = x.verify(dir)
	var bad *evidence.VerifyError
	if !errors.As(err, &bad) || bad.File != "samples/"+filepath.Base(files[3]) || bad.Record < 100 {
		t.Errorf("got %v, want the file and its record", err)
	}
}

// A chunk that says something else than its record is refused even if every digest is right.
func TestAChunkOfAnotherOrderIsRefused(t *testing.T) {
	b := small().Build()
	for i, r := range b.Records {
		if r.Kind == evidence.KindChunk {
			b.Records[i].Data = json.RawMessage(strings.Replace(string(r.Data), `"samples":`, `"samples":1`, 1))
			break
		}
	}
	x := newBundle(t, b)
	r := x.report()
	if _, err := x.verify(x.write(encode(t, r), page(t, r), r.Objectives())); err == nil || !strings.Contains(err.Error(), "samples/") {
		t.Errorf("got %v, want the file named", err)
	}
}
