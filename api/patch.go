package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Clone is a deep copy of o.
func Clone(o Object) (Object, error) {
	raw, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", RefOf(o), err)
	}
	return fromJSON(o.TypeOf().Kind, raw)
}

func fromJSON(kind Kind, raw []byte) (Object, error) {
	out, err := New(kind)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		return nil, Errorf(Invalid, string(kind), "%v", err)
	}
	return out, nil
}

// ApplyPatch is o with the operations of a JSON patch (RFC 6902: replace, add, remove) done, completed and
// valid; o stays as it is. Only labels and spec can be patched. Invalid: an operation that cannot be done, or a
// result that is not valid. Conflict: Old is given and something else is there.
func ApplyPatch(o Object, ops []PatchOp) (Object, error) {
	ref := RefOf(o)
	t, _ := tree(reflect.ValueOf(o))
	for i, op := range ops {
		next, err := apply(t, op)
		if err != nil {
			e := Errorf(Invalid, ref.String(), "patch operation %d (%s %s): %v", i+1, op.Op, op.Path, err)
			if c, ok := err.(*Error); ok {
				e.Kind, e.Message, e.Hint = c.Kind, c.Message, c.Hint
			}
			return nil, e
		}
		t = next
	}
	raw, err := json.Marshal(t)
	if err != nil {
		return nil, Errorf(Invalid, ref.String(), "the patched object cannot be written: %v", err)
	}
	out, err := fromJSON(ref.Kind, raw)
	if err != nil {
		return nil, Errorf(Invalid, ref.String(), "after the patch: %v", err)
	}
	out.Default()
	for i, op := range ops {
		if v, ok := replacedZero(out, op); ok {
			return nil, Errorf(Invalid, ref.String(), "patch operation %d (%s %s): what is empty or zero cannot be written here, it would become the default %v",
				i+1, op.Op, op.Path, v).WithCode(CodeZero).WithHint("remove the field for the default, or write the value that you mean")
		}
	}
	if problems := out.Validate(); len(problems) > 0 {
		e := Errorf(Invalid, ref.String(), "not valid after the patch: %s: %s", fieldName(problems[0].Path), problems[0].Message)
		e.Code, e.Hint = problems[0].Code, problems[0].Hint
		return nil, e
	}
	return out, nil
}

// replacedZero is the default that took the place of a zero that the operation wrote.
func replacedZero(o Object, op PatchOp) (any, bool) {
	value, err := plain(op.Value)
	if err != nil || op.Op == "remove" || !isZero(value) {
		return nil, false
	}
	keys, err := pointer(op.Path)
	if err != nil {
		return nil, false
	}
	path := "$"
	for _, k := range keys {
		path = child(path, k)
	}
	return valueUnder(leaves(o), path)
}

func apply(t any, op PatchOp) (any, error) {
	keys, err := pointer(op.Path)
	if err != nil {
		return nil, err
	}
	if keys[0] != "spec" && (len(keys) < 2 || keys[0] != "metadata" || keys[1] != "labels") {
		return nil, fmt.Errorf("only /spec and /metadata/labels can be patched")
	}
	value, err := plain(op.Value)
	if err != nil {
		return nil, err
	}
	old, err := plain(op.Old)
	if err != nil {
		return nil, err
	}
	e := edit{op: op, value: value, old: old}
	return e.at(t, keys)
}

// pointer reads a JSON pointer (RFC 6901).
func pointer(path string) ([]string, error) {
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("%q is not a JSON pointer", path)
	}
	keys := strings.Split(path[1:], "/")
	for i, k := range keys {
		keys[i] = strings.ReplaceAll(strings.ReplaceAll(k, "~1", "/"), "~0", "~")
	}
	return keys, nil
}

// plain is a value as encoding/json reads it back.
func plain(v any) (out any, err error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("the value cannot be written as JSON: %w", err)
	}
	return out, json.Unmarshal(raw, &out)
}

// edit is one operation on its way down to the field.
type edit struct {
	op         PatchOp
	value, old any
}

func (e edit) at(t any, keys []string) (any, error) {
	switch t := t.(type) {
	case map[string]any:
		return e.inMap(t, keys)
	case []any:
		return e.inList(t, keys)
	}
	return nil, fmt.Errorf("there is no field %q", keys[0])
}

func (e edit) inMap(m map[string]any, keys []string) (any, error) {
	k := keys[0]
	there, exists := m[k]
	if len(keys) > 1 {
		if !exists && e.op.Op == "add" {
			there = map[string]any{} // a mapping that omits what is empty: ours always may be added to
		} else if !exists {
			return nil, fmt.Errorf("there is no field %q", k)
		}
		next, err := e.at(there, keys[1:])
		if err != nil {
			return nil, err
		}
		m[k] = next
		return m, nil
	}
	if err := e.expect(there, exists); err != nil {
		return nil, err
	}
	if e.op.Op == "remove" {
		delete(m, k)
		return m, nil
	}
	m[k] = e.value
	return m, nil
}

func (e edit) inList(list []any, keys []string) (any, error) {
	if keys[0] == "-" && len(keys) == 1 && e.op.Op == "add" {
		return append(list, e.value), nil
	}
	i, err := strconv.Atoi(keys[0])
	last := len(list) - 1
	if e.op.Op == "add" && len(keys) == 1 {
		last++
	}
	if err != nil || i < 0 || i > last || strconv.Itoa(i) != keys[0] {
		return nil, fmt.Errorf("there is no entry %q in a list of %d", keys[0], len(list))
	}
	if len(keys) > 1 {
		next, err := e.at(list[i], keys[1:])
		if err != nil {
			return nil, err
		}
		list[i] = next
		return list, nil
	}
	if e.op.Op == "add" {
		return append(list[:i:i], append([]any{e.value}, list[i:]...)...), nil
	}
	if err := e.expect(list[i], true); err != nil {
		return nil, err
	}
	if e.op.Op == "remove" {
		return append(list[:i:i], list[i+1:]...), nil
	}
	list[i] = e.value
	return list, nil
}

// expect checks what the operation says about the field before it.
func (e edit) expect(there any, exists bool) error {
	switch e.op.Op {
	case "add":
	case "replace", "remove":
		if !exists {
			return fmt.Errorf("there is no such field")
		}
	default:
		return fmt.Errorf("operation %q is not one of replace, add, remove", e.op.Op)
	}
	if e.old == nil || same(there, e.old) {
		return nil
	}
	return Errorf(Conflict, "", "%s is %v now, not %v", e.op.Path, there, e.old).WithHint("the object changed since the change was proposed: look at both, then decide again")
}

// same compares two values; spans by their length, because "1000ms" and "1s" are one span.
func same(a, b any) bool {
	x, okX := a.(string)
	y, okY := b.(string)
	if okX && okY {
		dx, errX := ParseDuration(x)
		dy, errY := ParseDuration(y)
		if errX == nil && errY == nil {
			return dx == dy
		}
	}
	return reflect.DeepEqual(a, b)
}
