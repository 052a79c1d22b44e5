package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Names in a bundle.
const (
	FileStatement  = "statement.dsse.json"
	FileManifest   = "manifest"
	FileCheckpoint = "checkpoint"
	FileProposal   = "proposal.json"
	FileRecords    = "records.jsonl"
	FileReport     = "report.json"
	FileReportHTML = "report.html"
	dirApprovals   = "approvals/"
	dirLog         = "log/"
	dirSamples     = "samples/"
	approvalSuffix = ".dsse.json"
)

// ApprovalFile is the path of a group's approval in a bundle.
func ApprovalFile(group string) string { return dirApprovals + group + approvalSuffix }

const manifestHeader = "livefire-bundle/1"

// ManifestEntry is one file of a bundle.
type ManifestEntry struct {
	SHA256 string
	Size   int64
	Path   string
}

// Manifest lists every file of a bundle but itself and the statement that signs its digest, sorted by path.
type Manifest []ManifestEntry

// Encode returns the bytes of the file: a header line, then "<sha256> <size> <path>" per file.
func (m Manifest) Encode() []byte {
	var b bytes.Buffer
	b.WriteString(manifestHeader + "\n")
	for _, e := range m {
		fmt.Fprintf(&b, "%s %d %s\n", e.SHA256, e.Size, e.Path)
	}
	return b.Bytes()
}

// ParseManifest accepts only what Encode writes for a sorted list of allowed paths without collision.
func ParseManifest(b []byte) (Manifest, error) {
	head, rest, _ := strings.Cut(string(b), "\n")
	if head != manifestHeader {
		return nil, fmt.Errorf("parse manifest: first line is not %q", manifestHeader)
	}
	var m Manifest
	for line := range strings.Lines(rest) {
		e, err := parseManifestLine(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("parse manifest: line %d: %w", len(m)+2, err)
		}
		m = append(m, e)
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("parse manifest: %w", err)
	}
	if !bytes.Equal(b, m.Encode()) {
		return nil, fmt.Errorf("parse manifest: %w", errNotCanonical)
	}
	return m, nil
}

func parseManifestLine(line string) (ManifestEntry, error) {
	parts := strings.SplitN(line, " ", 3)
	if len(parts) != 3 || !digestForm.MatchString(parts[0]) {
		return ManifestEntry{}, errors.New("not <sha256> <size> <path>")
	}
	size, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil || size < 0 {
		return ManifestEntry{}, fmt.Errorf("size %q", parts[1])
	}
	return ManifestEntry{parts[0], size, parts[2]}, nil
}

func (m Manifest) validate() error {
	folded := map[string]string{}
	for i, e := range m {
		if !allowedPath(e.Path) {
			return fmt.Errorf("%q is not a file of a bundle", e.Path)
		}
		if i > 0 && m[i-1].Path >= e.Path {
			return fmt.Errorf("%q is not sorted or stands twice", e.Path)
		}
		low := strings.ToLower(e.Path)
		if other, ok := folded[low]; ok {
			return fmt.Errorf("%q and %q differ by case only", other, e.Path)
		}
		folded[low] = e.Path
	}
	return nil
}

// Find returns the entry of path.
func (m Manifest) Find(path string) (ManifestEntry, bool) {
	i, ok := slices.BinarySearchFunc(m, path, func(e ManifestEntry, p string) int { return strings.Compare(e.Path, p) })
	if !ok {
		return ManifestEntry{}, false
	}
	return m[i], true
}

var (
	tileForm   = regexp.MustCompile(`^log/tile/(0|[1-9][0-9]?)/(x[0-9]{3}/)*[0-9]{3}(\.p/[1-9][0-9]{0,2})?$`)
	sampleForm = regexp.MustCompile(`^samples/[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// allowedPath is the closed list of what a manifest may name.
func allowedPath(path string) bool {
	switch path {
	case FileCheckpoint, FileProposal, FileRecords, FileReport, FileReportHTML:
		return true
	}
	if group, ok := strings.CutPrefix(path, dirApprovals); ok {
		group, ok = strings.CutSuffix(group, approvalSuffix)
		return ok && groupForm.MatchString(group)
	}
	return tileForm.MatchString(path) || sampleForm.MatchString(path)
}
