package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
)

var errNotCanonical = errors.New("not the canonical encoding")

// encodeCanonical is the one encoding of v: members in the order of the fields, no white space, no escapes of
// '<', '>' and '&', no newline at the end.
func encodeCanonical(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

// decodeCanonical decodes b into v and refuses every byte string but the one that encodeCanonical gives for v:
// encoding/json alone accepts other letter cases, repeated members, white space and unknown escapes.
func decodeCanonical(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("bytes after the JSON value")
	}
	again, err := encodeCanonical(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(b, again) {
		return errNotCanonical
	}
	return nil
}

// uniqueMembers refuses an object that names a member twice at any depth: two readers could see two values.
func uniqueMembers(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	return uniqueValue(dec)
}

func uniqueValue(dec *json.Decoder) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			name, err := dec.Token()
			if err != nil {
				return err
			}
			s, _ := name.(string)
			if seen[s] {
				return fmt.Errorf("member %q stands twice", s)
			}
			seen[s] = true
		}
		if err := uniqueValue(dec); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

func hexDigest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

var (
	digestForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	groupForm  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)
