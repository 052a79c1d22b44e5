package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/livefire-mesh/livefire/api"
	"github.com/livefire-mesh/livefire/evidence"
	"github.com/livefire-mesh/livefire/internal/drill/drilltest"
	"github.com/livefire-mesh/livefire/internal/drill/report"
	"github.com/livefire-mesh/livefire/internal/userapi"
)

// writeBundles writes what `evidence verify` is tested on: bundle/, a short whole run, and bundle.tar, its archive;
// cut/, the same without its terminal record; and evidence.pub, the key of both.
func writeBundles(dir string) error {
	s := drilltest.SiteLoss()
	s.Baseline, s.Hold, s.Verify = 2*time.Second, 5*time.Second, 2*time.Second // a run in little time: each second is a file
	built := s.Build()
	skey, vkey, err := note.GenerateKey(strings.NewReader(strings.Repeat("k", 64)), "livefire.example/log")
	if err != nil {
		return err
	}
	signer, err := evidence.NewSigner(skey)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "evidence.pub"), []byte(vkey+"\n"), 0o600); err != nil {
		return err
	}
	if err := writeBundle(filepath.Join(dir, "bundle"), signer, built); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "bundle.tar"))
	if err != nil {
		return err
	}
	if err := evidence.Archive(filepath.Join(dir, "bundle"), f); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	built.Records = built.Records[:len(built.Records)-1]
	return writeBundle(filepath.Join(dir, "cut"), signer, built)
}

func writeBundle(dir string, signer *evidence.Signer, b drilltest.Built) error {
	var hashes evidence.MemoryHashes
	n := int64(0)
	add := func(r evidence.Record) error {
		line, err := r.Encode()
		if err != nil {
			return err
		}
		more, err := evidence.StoredHashes(n, line, hashes)
		hashes, n = append(hashes, more...), n+1
		return err
	}
	for n < b.Records[0].Index { // other records of the same log
		if err := add(evidence.Record{Index: n, At: drilltest.T0.Add(-time.Hour), Kind: "resource", Actor: "dev1"}); err != nil {
			return err
		}
	}
	for _, r := range b.Records {
		if err := add(r); err != nil {
			return err
		}
	}
	root, err := evidence.TreeHash(n, hashes)
	if err != nil {
		return err
	}
	check, err := signer.Checkpoint(n, root)
	if err != nil {
		return err
	}
	var in report.Input
	in.Proposal, in.Records, in.Chunks, in.Executions, in.Checkpoint = b.Proposal, b.Records, b.Chunks, b.Executions, check
	if in.Log, err = evidence.OpenCheckpoint(check, signer.VerifierKey()); err != nil {
		return err
	}
	r, err := report.Build(in)
	if err != nil {
		return err
	}
	whole, err := r.Encode()
	if err != nil {
		return err
	}
	var page bytes.Buffer
	if err := report.HTML(&page, r); err != nil {
		return err
	}
	return evidence.WriteBundle(dir, evidence.BundleInput{
		Signer: signer, Records: b.Records, Checkpoint: check, Hashes: hashes, Proposal: b.ProposalJSON, Approvals: b.Approvals,
		Objectives: r.Objectives(), ReportJSON: whole, ReportHTML: page.Bytes(),
		Open: func(f evidence.SampleFile) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(b.Files[f.SHA256])), nil
		},
	})
}

// exampleRun is a run that waits for one more approval.
func exampleRun(t *testing.T) userapi.Run {
	t.Helper()
	b := drilltest.SiteLoss().Build()
	r := userapi.Run{Proposal: b.ProposalJSON, Missing: []string{"security"}, Expect: "passed"}
	r.Run.Metadata.Name = b.Proposal.Run
	r.Run.Spec.RunBy = "ops1"
	r.Run.Status = api.DrillRunStatus{State: "Proposed", ProposalSHA256: "74c74795", Approvals: []api.Approval{
		{Group: "development", By: "dev1", Key: "29b93a63ffff", At: "2026-11-20T09:00:00.123Z"}}}
	return r
}
