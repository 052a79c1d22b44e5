package evidence

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// checkRecords reads records.jsonl: each line stands in the log at its index, and the run has no gap.
func (v *Verified) checkRecords(leaves []tlog.Hash) error {
	b, err := v.ReadFile(FileRecords)
	if err != nil {
		return err
	}
	last := int64(-1)
	for line := range bytes.Lines(b) {
		line, ended := bytes.CutSuffix(line, []byte("\n"))
		r, err := DecodeRecord(line)
		switch {
		case !ended:
			return fail(FileRecords, last, "no newline at the end")
		case err != nil:
			return fail(FileRecords, last, "line %d: %w", len(v.Records)+1, err)
		case r.Index >= int64(len(leaves)):
			return fail(FileRecords, r.Index, "the checkpoint covers %d records only", len(leaves))
		case LeafHash(line) != leaves[r.Index]:
			return fail(FileRecords, r.Index, "the log holds another record at this index")
		case r.Run == "" || len(v.Records) > 0 && r.Run != v.Run:
			return fail(FileRecords, r.Index, "a record of run %q in a bundle of run %q", r.Run, v.Run)
		case r.Index <= last:
			return fail(FileRecords, r.Index, "out of order")
		case r.RunSeq != int64(len(v.Records)):
			return fail(FileRecords, r.Index, "runSeq %d where %d is next", r.RunSeq, len(v.Records))
		case r.RunSeq == 0 && r.Kind != KindProposed:
			return fail(FileRecords, r.Index, "the first record of a run must be %s", KindProposed)
		case len(v.Records) > 0 && v.Records[len(v.Records)-1].Kind == KindClosed:
			return fail(FileRecords, r.Index, "a record after %s", KindClosed)
		}
		last = r.Index
		v.Run = r.Run
		v.Records = append(v.Records, r)
	}
	if len(v.Records) == 0 {
		return fail(FileRecords, -1, "no records")
	}
	return nil
}

// checkRun compares proposal, approvals and samples with the records that name them.
func (v *Verified) checkRun() error {
	st, err := standingOf(v.Records)
	if err != nil {
		return err
	}
	if v.Proposal, err = v.ReadFile(FileProposal); err != nil {
		return err
	}
	if hexDigest(v.Proposal) != st.proposal.ProposalSHA256 {
		return fail(FileProposal, st.at, "its SHA-256 is not the one that was proposed")
	}
	if err := v.checkApprovals(st); err != nil {
		return err
	}
	return v.checkSamples()
}

// checkSamples compares samples/ with the records: each file named, each name there.
func (v *Verified) checkSamples() error {
	var err error
	if v.Samples, err = sampleFiles(v.Records); err != nil {
		return err
	}
	named := map[string]bool{}
	for _, s := range v.Samples {
		named[s.Path] = true
		e, ok := v.Manifest.Find(s.Path)
		switch {
		case !ok:
			return fail(s.Path, s.Record, "missing")
		case e.SHA256 != s.SHA256 || e.Size != s.Bytes:
			return fail(s.Path, s.Record, "not the content that the record names")
		}
	}
	for _, e := range v.Manifest {
		if strings.HasPrefix(e.Path, dirSamples) && !named[e.Path] {
			return fail(e.Path, -1, "no record names it")
		}
	}
	return nil
}

// checkApprovals verifies the envelope of every standing approval, and that there are no others.
func (v *Verified) checkApprovals(st standing) error {
	known := map[string]bool{}
	holder := map[string]string{st.proposal.ByKey: "the runner"}
	for _, r := range st.approvals {
		a, err := payloadOf[approved](r)
		if err != nil {
			return fail(FileRecords, r.Index, "%w", err)
		}
		if a.Decision == Reject && a.EnvelopeSHA256 == "" {
			continue // a refusal that nobody signed stops the run all the same
		}
		known[ApprovalFile(a.Group)] = true
		if err := v.checkApproval(r, st.proposal, holder); err != nil {
			return err
		}
	}
	for _, e := range v.Manifest {
		if strings.HasPrefix(e.Path, dirApprovals) && !known[e.Path] {
			return fail(e.Path, -1, "no record names this approval")
		}
	}
	return nil
}

// checkApproval verifies one envelope with the key of its record. holder maps key ids to who used them.
func (v *Verified) checkApproval(r Record, p proposed, holder map[string]string) error {
	rec, err := payloadOf[approved](r)
	if err != nil {
		return fail(FileRecords, r.Index, "%w", err)
	}
	name := ApprovalFile(rec.Group)
	if _, ok := v.Manifest.Find(name); !ok {
		return fail(name, r.Index, "missing")
	}
	b, err := v.ReadFile(name)
	if err != nil {
		return err
	}
	id := KeyID(rec.PublicKey)
	a, err := VerifyApproval(b, rec.PublicKey)
	switch {
	case err != nil:
		return fail(name, r.Index, "%w", err)
	case hexDigest(b) != rec.EnvelopeSHA256 || rec.Key != id:
		return fail(name, r.Index, "not the envelope or key that the record names")
	case a.Run != v.Run || a.Group != rec.Group || a.By != rec.By || a.Decision != rec.Decision || !a.At.Equal(rec.At):
		return fail(name, r.Index, "says something else than its record")
	case a.ProposalSHA256 != p.ProposalSHA256 || rec.ProposalSHA256 != p.ProposalSHA256:
		return fail(name, r.Index, "approves other bytes than proposal.json")
	case holder[id] != "":
		return fail(name, r.Index, "signed with the key of %s", holder[id])
	}
	holder[id] = "group " + rec.Group
	v.Approvals = append(v.Approvals, a)
	return nil
}

// recordBehind finds, in a bundle that is already refused, the record to name beside a file. It trusts
// nothing and changes nothing about the refusal.
func (v *Verified) recordBehind(name string) int64 {
	b, err := fs.ReadFile(v.files, FileRecords)
	if err != nil {
		return -1
	}
	inLog := v.claimedLeaves()
	last := int64(-1)
	for line := range bytes.Lines(b) {
		line = bytes.TrimSuffix(line, []byte("\n"))
		var r Record
		readable := json.Unmarshal(line, &r) == nil
		if name == FileRecords && !inLog[LeafHash(line)] {
			if !readable || r.Index <= last {
				return last + 1
			}
			return r.Index
		}
		if readable && names(r, name) {
			return r.Index
		}
		last = r.Index
	}
	return -1
}

// names tells whether the payload of r names the file.
func names(r Record, file string) bool {
	switch r.Kind {
	case KindProposed:
		return file == FileProposal
	case KindApproved:
		a, err := payloadOf[approved](r)
		return err == nil && ApprovalFile(a.Group) == file
	}
	f, ok, err := SampleFileOf(r)
	return err == nil && ok && f.Path == file
}

// claimedLeaves is what the tiles of level 0 hold, unverified.
func (v *Verified) claimedLeaves() map[tlog.Hash]bool {
	leaves := map[tlog.Hash]bool{}
	for _, e := range v.Manifest {
		if !strings.HasPrefix(e.Path, dirLog+"tile/0/") {
			continue
		}
		b, err := fs.ReadFile(v.files, e.Path)
		if err != nil {
			continue // the caller already reports a file
		}
		for ; len(b) >= tlog.HashSize; b = b[tlog.HashSize:] {
			leaves[tlog.Hash(b[:tlog.HashSize])] = true
		}
	}
	return leaves
}
