package evidence

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"
)

// ApprovalPayloadType is the DSSE payload type of an approval.
const ApprovalPayloadType = "application/vnd.livefire.approval.v1+json"

// Decisions of an approver.
const (
	Approve = "approve"
	Reject  = "reject"
)

// Approval is what an approver signs with the own key.
type Approval struct {
	Run            string    `json:"run"`
	ProposalSHA256 string    `json:"proposalSha256"` // hex, of the stored bytes of proposal.json
	Group          string    `json:"group"`          // whom the approver speaks for
	Decision       string    `json:"decision"`       // Approve or Reject
	By             string    `json:"by"`
	At             time.Time `json:"at"` // approver's clock
}

// Validate reports the first member that is missing or malformed.
func (a Approval) Validate() error {
	switch {
	case a.Run == "":
		return errors.New("run is missing")
	case !digestForm.MatchString(a.ProposalSHA256):
		return errors.New("proposalSha256 is not a SHA-256 in lower-case hex")
	case !groupForm.MatchString(a.Group):
		return fmt.Errorf("group %q is not a name", a.Group)
	case a.Decision != Approve && a.Decision != Reject:
		return fmt.Errorf("decision %q, want %s or %s", a.Decision, Approve, Reject)
	case a.By == "":
		return errors.New("by is missing")
	case a.At.IsZero():
		return errors.New("at is missing")
	}
	return nil
}

// SignApproval returns the signed envelope: the bytes of approvals/<group>.dsse.json.
func SignApproval(key ed25519.PrivateKey, a Approval) ([]byte, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("sign approval: private key of %d bytes", len(key))
	}
	if err := a.Validate(); err != nil {
		return nil, fmt.Errorf("sign approval: %w", err)
	}
	a.At = a.At.UTC()
	payload, err := encodeCanonical(a)
	if err != nil {
		return nil, fmt.Errorf("sign approval: %w", err)
	}
	b, err := sealEnvelope(key, ApprovalPayloadType, payload)
	if err != nil {
		return nil, fmt.Errorf("sign approval: %w", err)
	}
	return b, nil
}

// VerifyApproval checks envelope against pub and returns what was approved. Run, digest and group are for the
// caller to compare.
func VerifyApproval(envelope []byte, pub ed25519.PublicKey) (Approval, error) {
	payload, err := openEnvelope(envelope, ApprovalPayloadType, pub)
	if err != nil {
		return Approval{}, fmt.Errorf("verify approval: %w", err)
	}
	var a Approval
	if err := decodeCanonical(payload, &a); err != nil {
		return Approval{}, fmt.Errorf("verify approval: payload: %w", err)
	}
	if err := a.Validate(); err != nil {
		return Approval{}, fmt.Errorf("verify approval: %w", err)
	}
	if !isUTC(a.At) {
		return Approval{}, errors.New("verify approval: time is not UTC")
	}
	return a, nil
}
