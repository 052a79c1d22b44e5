package evidence

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Checkpoint is a signed head of the log.
type Checkpoint struct {
	Origin string    // name of the key that signed it
	Size   int64     // records in the log
	Root   tlog.Hash // of the tree of these records
}

func (c Checkpoint) text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]))
}

// Checkpoint signs a head of the log. Ed25519 is deterministic: the same head gives the same bytes.
func (s *Signer) Checkpoint(size int64, root tlog.Hash) ([]byte, error) {
	if size < 0 {
		return nil, fmt.Errorf("sign checkpoint: size %d", size)
	}
	b, err := note.Sign(&note.Note{Text: Checkpoint{s.Name(), size, root}.text()}, s.note)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return b, nil
}

// OpenCheckpoint verifies a checkpoint. It accepts exactly three lines of text and one signature, by vkey.
func OpenCheckpoint(b []byte, vkey string) (Checkpoint, error) {
	if _, _, err := ParseVerifierKey(vkey); err != nil {
		return Checkpoint{}, err
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %w", err)
	}
	n, err := note.Open(b, note.VerifierList(v))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %w", err)
	}
	c, err := parseCheckpoint(n.Text)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %w", err)
	}
	if c.Origin != v.Name() {
		return Checkpoint{}, fmt.Errorf("open checkpoint: origin %q, signed by %q", c.Origin, v.Name())
	}
	// note.Open tolerates unused base64 bits, further signature lines and repeated ones.
	sig, err := base64.StdEncoding.DecodeString(n.Sigs[0].Base64)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %w", err)
	}
	again := fmt.Sprintf("%s\n— %s %s\n", c.text(), v.Name(), base64.StdEncoding.EncodeToString(sig))
	if !bytes.Equal(b, []byte(again)) {
		return Checkpoint{}, fmt.Errorf("open checkpoint: %w", errNotCanonical)
	}
	return c, nil
}

func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Checkpoint{}, errors.New("not three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return Checkpoint{}, fmt.Errorf("size %q", lines[1])
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return Checkpoint{}, fmt.Errorf("root %q", lines[2])
	}
	return Checkpoint{lines[0], size, tlog.Hash(root)}, nil
}
