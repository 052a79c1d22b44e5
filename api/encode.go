package api

import (
	"fmt"

	"github.com/goccy/go-yaml"
)

// EncodeYAML writes o as YAML that Decode reads back: fields in the order of the Go types, spans as texts,
// nothing that was left empty.
func EncodeYAML(o Object) ([]byte, error) {
	setType(o)
	out, err := yaml.MarshalWithOptions(ordered(o), yaml.IndentSequence(true))
	if err != nil {
		return nil, fmt.Errorf("write %s as YAML: %w", RefOf(o), err)
	}
	return out, nil
}
