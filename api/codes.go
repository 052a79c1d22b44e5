package api

// Code is what livefire explain says about one rule or finding.
type Code struct {
	Code        string `json:"code"`        // LFnnnn
	Title       string `json:"title"`       // a few words
	Explanation string `json:"explanation"` // what it means and why it matters
	Action      string `json:"action"`      // what to do
}

// Codes of files (LF00xx) and of references between objects (LF01xx). The rules of readiness, findings and
// refusals (LF21xx, LF31xx) are named where they are decided, and explained in codeTable.
const (
	CodeSyntax   = "LF0001"
	CodeField    = "LF0002"
	CodeTwice    = "LF0003"
	CodeType     = "LF0004"
	CodeDuration = "LF0005"
	CodeKind     = "LF0006"
	CodeMissing  = "LF0007"
	CodeSameName = "LF0008"
	CodeLimit    = "LF0009"
	CodeValue    = "LF0010"
	CodeZero     = "LF0011"
	CodeYAML     = "LF0012"
	CodeName     = "LF0013"
	CodeList     = "LF0014"
	CodeRamp     = "LF0015"
	CodeRPO      = "LF0016"
	CodeTimeout  = "LF0017"
	CodeDeadline = "LF0018"
	CodeAddress  = "LF0019"
	CodeIdentity = "LF0020"
	CodeScenario = "LF0021"
	CodeProbe    = "LF0022"

	CodeUnresolved    = "LF0101"
	CodePatterns      = "LF0102"
	CodeReflex        = "LF0103"
	CodeAutomatic     = "LF0104"
	CodeHold          = "LF0105"
	CodeParameter     = "LF0106"
	CodeResidencySite = "LF0107"
	CodeHost          = "LF0108"
	CodeDeadlineAll   = "LF0109"
)

// LookupCode explains one code. NotFound: there is no such code.
func LookupCode(code string) (Code, error) {
	for _, c := range codeTable {
		if c.Code == code {
			return c, nil
		}
	}
	return Code{}, Errorf(NotFound, code, "is not a code that this livefire knows").WithHint("docs/reference/codes.md lists all of them")
}

// Codes are all codes in ascending order.
func Codes() []Code {
	out := make([]Code, len(codeTable))
	copy(out, codeTable)
	return out
}
