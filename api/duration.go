package api

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/prometheus/common/model"
)

// Duration is a time.Duration that is written as "300ms", "5s" or "1d12h". Zero is written "0s".
type Duration time.Duration

// D is the standard library's form.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String is the shortest form that ParseDuration reads back ("1d12h", "300ms", "1.5s" as "1s500ms").
func (d Duration) String() string {
	if time.Duration(d)%time.Millisecond != 0 || d < 0 {
		return time.Duration(d).String()
	}
	return model.Duration(d).String()
}

// ParseDuration reads the forms of Prometheus ("1d12h") and of Go ("1.5s").
func ParseDuration(s string) (Duration, error) {
	if d, err := model.ParseDuration(s); err == nil {
		return Duration(d), nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write for example 300ms, 5s or 1d12h", s)
	}
	return Duration(d), nil
}

func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("a duration is a string such as \"300ms\": %w", err)
	}
	v, err := ParseDuration(s)
	if err != nil {
		return err
	}
	*d = v
	return nil
}

func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

func (d *Duration) UnmarshalYAML(b []byte) error {
	s := string(trimYAMLScalar(b))
	v, err := ParseDuration(s)
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// trimYAMLScalar strips white space and quotes of a plain or quoted scalar.
func trimYAMLScalar(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\n' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\n' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	if len(b) >= 2 && (b[0] == '"' || b[0] == '\'') && b[len(b)-1] == b[0] {
		b = b[1 : len(b)-1]
	}
	return b
}
