package evidence

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// The members of payloads that the verifier reads. Further members are allowed: their owner checks them.
type (
	proposed struct {
		Drill          string   `json:"drill"`
		Scenario       string   `json:"scenario"`
		By             string   `json:"by"`
		ByKey          string   `json:"byKey"` // key id
		ProposalSHA256 string   `json:"proposalSha256"`
		Groups         []string `json:"groups"`
		Software       string   `json:"software"`
	}
	approved struct {
		Group          string    `json:"group"`
		By             string    `json:"by"`
		At             time.Time `json:"at"`
		Key            string    `json:"key"`
		PublicKey      []byte    `json:"publicKey"`
		ProposalSHA256 string    `json:"proposalSha256"`
		EnvelopeSHA256 string    `json:"envelopeSha256"`
		Decision       string    `json:"decision"`
	}
	intent struct {
		What string `json:"what"`
	}
	closed struct {
		Verdict  string `json:"verdict"`
		Reason   string `json:"reason"`
		Restored bool   `json:"restored"`
	}
	sampled struct {
		Order    string `json:"order"`    // of a chunk
		Chunk    int64  `json:"chunk"`    // of a chunk
		Workload string `json:"workload"` // of a list of executed requests
		SHA256   string `json:"sha256"`
		Bytes    int64  `json:"bytes"`
	}
)

func payloadOf[T any](r Record) (T, error) {
	var p T
	if err := json.Unmarshal(r.Data, &p); err != nil {
		return p, fmt.Errorf("payload of record %d (%s): %w", r.Index, r.Kind, err)
	}
	return p, nil
}

// standing is the proposal that counts at the end of a run, and the approvals of it.
type standing struct {
	proposal  proposed
	at        int64    // index of its record
	approvals []Record // the last one of each group, in the order of their first
}

// standingOf walks the records of a run. A later proposal voids every approval before it. Nothing may take
// effect before every group that the standing proposal names has approved it.
func standingOf(records []Record) (standing, error) {
	var st standing
	for _, r := range records {
		effect := r.Kind == KindApplied
		var err error
		switch r.Kind {
		case KindProposed:
			st = standing{at: r.Index}
			st.proposal, err = payloadOf[proposed](r)
		case KindApproved:
			err = st.approve(r)
		case KindIntent:
			var i intent
			i, err = payloadOf[intent](r)
			effect = i.What == "inject"
		}
		if err != nil {
			return standing{}, fail(FileRecords, r.Index, "%w", err)
		}
		if group, ok := st.missing(); effect && ok {
			return standing{}, fail(FileRecords, r.Index, "%s before group %q had approved", r.Kind, group)
		}
	}
	return st, nil
}

func (st *standing) approve(r Record) error {
	a, err := payloadOf[approved](r)
	if err != nil {
		return err
	}
	for i, old := range st.approvals {
		if o, err := payloadOf[approved](old); err == nil && o.Group == a.Group {
			st.approvals[i] = r
			return nil
		}
	}
	st.approvals = append(st.approvals, r)
	return nil
}

// missing is the first group of the proposal that has not approved it.
func (st *standing) missing() (string, bool) {
	for _, g := range st.proposal.Groups {
		ok := false
		for _, r := range st.approvals {
			a, err := payloadOf[approved](r)
			ok = ok || err == nil && a.Group == g && a.Decision == Approve
		}
		if !ok {
			return g, true
		}
	}
	return "", false
}

// SampleFile is one file under samples/, as a record of the log names it.
type SampleFile struct {
	Path   string
	SHA256 string
	Bytes  int64
	Kind   string // KindChunk or KindExecuted
	Record int64  // index of the record
}

var sampleLabel = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// SampleFileOf tells which file a record names; ok is false if its kind names none. The digest is part of the
// name, so that two records with other contents never compete for one file:
//
//	samples/<order, '/' as '.'>.<chunk, 6 digits>.<first 16 hex digits>.jsonl
//	samples/executed.<workload>.<first 16 hex digits>.txt
func SampleFileOf(r Record) (f SampleFile, ok bool, err error) {
	if r.Kind != KindChunk && r.Kind != KindExecuted {
		return SampleFile{}, false, nil
	}
	p, err := payloadOf[sampled](r)
	if err != nil {
		return SampleFile{}, false, err
	}
	if !digestForm.MatchString(p.SHA256) || p.Bytes < 0 || p.Chunk < 0 {
		return SampleFile{}, false, fmt.Errorf("payload of record %d (%s): bad sha256, bytes or chunk", r.Index, r.Kind)
	}
	label, end := fmt.Sprintf("%s.%06d", strings.ReplaceAll(p.Order, "/", "."), p.Chunk), ".jsonl"
	if r.Kind == KindExecuted {
		label, end = "executed."+p.Workload, ".txt"
	}
	if p.Order+p.Workload == "" || !sampleLabel.MatchString(label) {
		return SampleFile{}, false, fmt.Errorf("payload of record %d (%s): %q cannot be part of a file name", r.Index, r.Kind, label)
	}
	return SampleFile{dirSamples + label + "." + p.SHA256[:16] + end, p.SHA256, p.Bytes, r.Kind, r.Index}, true, nil
}

// sampleFiles lists the files that records name, once each, in the order of the records.
func sampleFiles(records []Record) ([]SampleFile, error) {
	var files []SampleFile
	seen := map[string]bool{}
	for _, r := range records {
		f, ok, err := SampleFileOf(r)
		if err != nil {
			return nil, &VerifyError{File: FileRecords, Record: r.Index, Reason: err.Error()}
		}
		if ok && !seen[f.Path] {
			seen[f.Path] = true
			files = append(files, f)
		}
	}
	return files, nil
}
