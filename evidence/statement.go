package evidence

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"
)

// Types of the statement. The predicate is the test-result of in-toto; ours stands inside it as an extension
// member named by a URI, which in-toto readers ignore.
const (
	StatementPayloadType = "application/vnd.in-toto+json"
	StatementType        = "https://in-toto.io/Statement/v1"
	TestResultType       = "https://in-toto.io/attestation/test-result/v0.1"
	DrillResultType      = "https://livefire.dev/evidence/drill-result/v1"
)

// Statement is an in-toto Statement v1 about the manifest of a bundle.
type Statement struct {
	Type          string       `json:"_type"`
	Subject       []Descriptor `json:"subject"`
	PredicateType string       `json:"predicateType"`
	Predicate     TestResult   `json:"predicate"`
}

// Descriptor names a file by digest.
type Descriptor struct {
	Name   string `json:"name"`
	Digest Digest `json:"digest"`
}

// Digest of a file.
type Digest struct {
	SHA256 string `json:"sha256"`
}

// TestResult is in-toto's test-result v0.1, with the drill's own result beside its members.
type TestResult struct {
	Result        string       `json:"result"` // PASSED, WARNED (inconclusive) or FAILED
	Configuration []Descriptor `json:"configuration"`
	PassedTests   []string     `json:"passedTests,omitempty"` // "<service>/<objective>"
	WarnedTests   []string     `json:"warnedTests,omitempty"`
	FailedTests   []string     `json:"failedTests,omitempty"`
	Drill         DrillResult  `json:"https://livefire.dev/evidence/drill-result/v1"`
}

// DrillResult is what the server says of the run. All but Objectives follows from the records.
type DrillResult struct {
	Run        string      `json:"run"`
	Drill      string      `json:"drill"`
	Scenario   string      `json:"scenario"`
	Software   string      `json:"software"`
	Verdict    string      `json:"verdict"` // of run.closed; "incomplete" without that record
	Reason     string      `json:"reason,omitempty"`
	Restored   bool        `json:"restored"`
	StartedAt  time.Time   `json:"startedAt"` // first record
	EndedAt    time.Time   `json:"endedAt"`   // last record
	Runner     Person      `json:"runner"`
	Approvals  []Person    `json:"approvals"` // of the standing proposal, in the order of the records
	Objectives []Objective `json:"objectives"`
	Log        LogHead     `json:"log"`
}

// Person who acted, with the key where one was used.
type Person struct {
	Name     string    `json:"name"`
	Group    string    `json:"group,omitempty"`
	Decision string    `json:"decision,omitempty"`
	Key      string    `json:"key,omitempty"` // key id
	At       time.Time `json:"at"`
}

// Objective is one line of the result. Values are texts, equal to those of report.json.
type Objective struct {
	Service     string `json:"service"`
	Name        string `json:"name"`
	Objective   string `json:"objective"`
	Actual      string `json:"actual"`
	Uncertainty string `json:"uncertainty,omitempty"`
	Verdict     string `json:"verdict"` // pass, fail, or why it was not judged
}

// LogHead is the head of the log that the bundle's checkpoint signs.
type LogHead struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
}

const verdictIncomplete = "incomplete"

// newStatement derives the whole statement but the objectives.
func newStatement(manifest []byte, m Manifest, records []Record, c Checkpoint, objectives []Objective) (Statement, error) {
	drill, err := drillResult(records, c, objectives)
	if err != nil {
		return Statement{}, err
	}
	proposal, ok := m.Find(FileProposal)
	if !ok {
		return Statement{}, errors.New("manifest names no proposal")
	}
	s := Statement{
		Type:          StatementType,
		Subject:       []Descriptor{{FileManifest, Digest{hexDigest(manifest)}}},
		PredicateType: TestResultType,
		Predicate: TestResult{
			Result:        result(drill.Verdict),
			Configuration: []Descriptor{{FileProposal, Digest{proposal.SHA256}}},
			Drill:         drill,
		},
	}
	p := &s.Predicate
	for _, o := range objectives {
		name := o.Service + "/" + o.Name
		switch o.Verdict {
		case "pass":
			p.PassedTests = append(p.PassedTests, name)
		case "fail":
			p.FailedTests = append(p.FailedTests, name)
		default:
			p.WarnedTests = append(p.WarnedTests, name)
		}
	}
	return s, nil
}

func result(verdict string) string {
	switch verdict {
	case "passed":
		return "PASSED"
	case "inconclusive", verdictIncomplete:
		return "WARNED"
	}
	return "FAILED"
}

func drillResult(records []Record, c Checkpoint, objectives []Objective) (DrillResult, error) {
	if len(records) == 0 {
		return DrillResult{}, errors.New("no records")
	}
	first, last := records[0], records[len(records)-1]
	st, err := standingOf(records)
	if err != nil {
		return DrillResult{}, err
	}
	p := st.proposal
	d := DrillResult{
		Run: first.Run, Drill: p.Drill, Scenario: p.Scenario, Software: p.Software,
		Verdict: verdictIncomplete, StartedAt: first.At.UTC(), EndedAt: last.At.UTC(),
		Runner:     Person{Name: p.By, Key: p.ByKey, At: first.At.UTC()},
		Approvals:  []Person{},
		Objectives: append([]Objective{}, objectives...),
		Log:        LogHead{c.Origin, c.Size},
	}
	if last.Kind == KindClosed {
		end, err := payloadOf[closed](last)
		if err != nil {
			return DrillResult{}, err
		}
		d.Verdict, d.Reason, d.Restored = end.Verdict, end.Reason, end.Restored
	}
	for _, r := range st.approvals {
		a, err := payloadOf[approved](r)
		if err != nil {
			return DrillResult{}, err
		}
		d.Approvals = append(d.Approvals, Person{a.By, a.Group, a.Decision, a.Key, a.At.UTC()})
	}
	return d, nil
}

// SignStatement returns the bytes of statement.dsse.json.
func (s *Signer) SignStatement(st Statement) ([]byte, error) {
	payload, err := encodeCanonical(st)
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	b, err := sealEnvelope(s.key, StatementPayloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign statement: %w", err)
	}
	return b, nil
}

// OpenStatement verifies the bytes of statement.dsse.json against the server's public key.
func OpenStatement(b []byte, pub ed25519.PublicKey) (Statement, error) {
	payload, err := openEnvelope(b, StatementPayloadType, pub)
	if err != nil {
		return Statement{}, fmt.Errorf("open statement: %w", err)
	}
	var s Statement
	if err := decodeCanonical(payload, &s); err != nil {
		return Statement{}, fmt.Errorf("open statement: payload: %w", err)
	}
	switch {
	case s.Type != StatementType || s.PredicateType != TestResultType:
		return Statement{}, fmt.Errorf("open statement: type %q with predicate %q", s.Type, s.PredicateType)
	case len(s.Subject) != 1 || s.Subject[0].Name != FileManifest || !digestForm.MatchString(s.Subject[0].Digest.SHA256):
		return Statement{}, errors.New("open statement: the subject is not the manifest")
	}
	return s, nil
}

// sameStatement compares by encoding.
func sameStatement(a, b Statement) bool {
	x, errX := encodeCanonical(a)
	y, errY := encodeCanonical(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
