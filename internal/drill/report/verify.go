package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/record"
	"github.com/livefire-mesh/livefire/internal/drill/sample"
)

// DiffError names a field of a report that does not follow from the records and samples.
type DiffError struct {
	File  string // report.json or statement.dsse.json
	Field string // "services[1].rtaSeconds"
	Found string // what stands there; empty if nothing does
	Want  string // what was computed; empty if nothing
}

func (e *DiffError) Error() string {
	return fmt.Sprintf("verify: %s: %s is %s, the records and samples give %s", e.File, e.Field, shorten(e.Found), shorten(e.Want))
}

func shorten(s string) string {
	switch {
	case s == "":
		return "absent"
	case len(s) > 80:
		return s[:77] + "..."
	}
	return s
}

// Verification is a bundle that was found right.
type Verification struct {
	Report   Report
	Evidence *evidence.Verified
	// SamePage: report.html is, byte for byte, what this version of livefire makes of the report. Another version
	// may lay the page out differently; the manifest covers its bytes in either case.
	SamePage bool
}

// Verify checks a bundle with the server's public key in note verifier form: its structure, then every field of
// report.json and the statement's objectives against what the records and samples give. A bundle without terminal
// record is returned together with the error of evidence.Verify.
func Verify(bundle fs.FS, vkey string) (*Verification, error) {
	v, structure := evidence.Verify(bundle, vkey)
	var bad *evidence.VerifyError
	if structure != nil && !(errors.As(structure, &bad) && bad.Incomplete && v != nil) {
		return nil, structure
	}
	in, err := Load(v)
	if err != nil {
		return nil, err
	}
	want, err := Build(in)
	if err != nil {
		return nil, fmt.Errorf("verify: %s: %w", evidence.FileReport, err)
	}
	stored, err := v.ReadFile(evidence.FileReport)
	if err != nil {
		return nil, err
	}
	wanted, err := want.Encode()
	if err != nil {
		return nil, err
	}
	if err := compare(stored, wanted); err != nil {
		return nil, err
	}
	if got, want := v.Statement.Predicate.Drill.Objectives, want.Objectives(); len(got) != len(want) || !slices.Equal(got, want) {
		return nil, &DiffError{evidence.FileStatement, "objectives", fmt.Sprint(got), fmt.Sprint(want)}
	}
	if slices.ContainsFunc(want.Run.Deviations, func(d string) bool { return strings.HasPrefix(d, betterThanMeasured) }) {
		return nil, &DiffError{evidence.FileReport, "run.verdict", want.Run.Verdict, want.Run.Measured}
	}
	out := &Verification{Report: want, Evidence: v}
	page, err := v.ReadFile(evidence.FileReportHTML)
	if err != nil {
		return nil, err
	}
	var again bytes.Buffer
	if err := HTML(&again, want); err != nil {
		return nil, err
	}
	out.SamePage = bytes.Equal(page, again.Bytes())
	return out, structure
}

// Load reads from a verified bundle what a report is computed from.
func Load(v *evidence.Verified) (Input, error) {
	in := Input{Log: v.Checkpoint}
	in.Records, in.Executions = v.Records, map[string][]string{}
	if err := json.Unmarshal(v.Proposal, &in.Proposal); err != nil {
		return Input{}, fmt.Errorf("verify: %s: %w", evidence.FileProposal, err)
	}
	if in.Proposal.Run != v.Run {
		return Input{}, fmt.Errorf("verify: %s: of run %q, the records are of %q", evidence.FileProposal, in.Proposal.Run, v.Run)
	}
	var err error
	if in.Checkpoint, err = v.ReadFile(evidence.FileCheckpoint); err != nil {
		return Input{}, err
	}
	byIndex := map[int64]evidence.Record{}
	for _, r := range v.Records {
		byIndex[r.Index] = r
	}
	for _, f := range v.Samples {
		b, err := v.ReadFile(f.Path)
		if err != nil {
			return Input{}, err
		}
		if err := in.take(byIndex[f.Record], b); err != nil {
			return Input{}, fmt.Errorf("verify: %s, record %d: %w", f.Path, f.Record, err)
		}
	}
	return in, nil
}

// take reads one file of samples/ and compares it with the record that names it.
func (in *Input) take(r evidence.Record, b []byte) error {
	if r.Kind == evidence.KindExecuted {
		x, err := record.Decode[record.Executed](r)
		if err != nil {
			return err
		}
		if n := bytes.Count(b, []byte("\n")); n != x.IDs {
			return fmt.Errorf("%d request ids, the record says %d", n, x.IDs)
		}
		in.Executions[x.Workload] = append(in.Executions[x.Workload], ParseExecutions(b)...)
		return nil
	}
	x, err := record.Decode[record.Chunk](r)
	if err != nil {
		return err
	}
	c, err := sample.DecodeChunk(b)
	switch {
	case err != nil:
		return err
	case c.Header.Order != x.Order || c.Header.Service != x.Service || c.Header.Chunk != x.Chunk || len(c.Samples) != x.Samples:
		return errors.New("the chunk is another one than its record says")
	}
	in.Chunks = append(in.Chunks, c)
	return nil
}

// ParseExecutions reads a workload's list of executed requests: one id per line. A last line that a kill cut short is
// an id that no probe sent.
func ParseExecutions(b []byte) []string { return strings.Fields(string(b)) }

// compare finds the first field in which a stored report differs from the computed one.
func compare(stored, want []byte) error {
	if bytes.Equal(stored, want) {
		return nil
	}
	var a, b any
	if err := json.Unmarshal(stored, &a); err != nil {
		return fmt.Errorf("verify: %s: %w", evidence.FileReport, err)
	}
	if err := json.Unmarshal(want, &b); err != nil {
		return err
	}
	if d := diff("", a, b); d != nil {
		return d
	}
	return &DiffError{evidence.FileReport, "its form", "not the one that is written", "the same fields in other bytes"}
}

func diff(path string, found, want any) *DiffError {
	switch w := want.(type) {
	case map[string]any:
		f, ok := found.(map[string]any)
		if !ok {
			break
		}
		keys := map[string]bool{}
		for k := range f {
			keys[k] = true
		}
		for k := range w {
			keys[k] = true
		}
		names := make([]string, 0, len(keys))
		for k := range keys {
			names = append(names, k)
		}
		slices.Sort(names)
		for _, k := range names {
			x, inFound := f[k]
			y, inWant := w[k]
			at := strings.TrimPrefix(path+"."+k, ".")
			if inFound != inWant {
				return &DiffError{evidence.FileReport, at, text(x, inFound), text(y, inWant)}
			}
			if d := diff(at, x, y); d != nil {
				return d
			}
		}
		return nil
	case []any:
		f, ok := found.([]any)
		if !ok || len(f) != len(w) {
			break
		}
		for i := range w {
			if d := diff(fmt.Sprintf("%s[%d]", path, i), f[i], w[i]); d != nil {
				return d
			}
		}
		return nil
	}
	if f, w := text(found, true), text(want, true); f != w {
		return &DiffError{evidence.FileReport, path, f, w}
	}
	return nil
}

func text(v any, there bool) string {
	if !there {
		return ""
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}
