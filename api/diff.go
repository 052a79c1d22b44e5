package api

import (
	"maps"
	"reflect"
	"slices"
	"strings"
)

// FieldChange is one field that differs. Old or New is nil where the field says nothing; spans are texts ("5s").
type FieldChange struct {
	Path string `json:"path"` // "$.spec.failover.after"
	Old  any    `json:"old,omitempty"`
	New  any    `json:"new,omitempty"`
}

// Field is the path as people say it: "failover.after", "metadata.labels.tier".
func (c FieldChange) Field() string { return strings.TrimPrefix(fieldName(c.Path), "spec.") }

// Diff lists what an operator owns and what differs between two states of one object: labels and spec. Call it
// with completed objects; nil stands for an object that does not exist. The order is that of the paths.
func Diff(old, next Object) []FieldChange {
	changes, _ := compare(old, next)
	return changes
}

// Unchanged counts the fields that an operator owns, that say something, and that are the same in both.
func Unchanged(old, next Object) int {
	_, same := compare(old, next)
	return same
}

func compare(old, next Object) (changes []FieldChange, same int) {
	a, b := owned(old), owned(next)
	wholeLists(a, b)
	la, lb := map[string]any{}, map[string]any{}
	collect(la, "$", a)
	collect(lb, "$", b)
	all := maps.Clone(la)
	maps.Copy(all, lb)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		x, y := la[path], lb[path]
		switch {
		case path == "$", isZero(x) && isZero(y) && (x == nil || y == nil || reflect.DeepEqual(x, y)):
		case reflect.DeepEqual(x, y):
			same++
		default:
			changes = append(changes, FieldChange{Path: path, Old: saying(x), New: saying(y)})
		}
	}
	return changes, same
}

// saying drops what says nothing: an empty text or list reads as "not there".
func saying(x any) any {
	if isEmpty(x) {
		return nil
	}
	if l, ok := x.(wholeList); ok {
		return []any(l)
	}
	return x
}

// isEmpty is true for an empty text, list or mapping, but not for 0, false or 0s, which are words of their own.
func isEmpty(x any) bool {
	switch x := x.(type) {
	case string:
		return x == ""
	case map[string]any:
		return len(x) == 0
	case []any:
		return len(x) == 0
	}
	return x == nil
}

// owned is the part of an object that an operator writes.
func owned(o Object) map[string]any {
	out := map[string]any{}
	if o == nil || reflect.ValueOf(o).IsNil() {
		return out
	}
	t, _ := tree(reflect.ValueOf(o))
	whole := t.(map[string]any)
	if labels, ok := whole["metadata"].(map[string]any)["labels"]; ok {
		out["metadata"] = map[string]any{"labels": labels}
	}
	out["spec"] = whole["spec"]
	return out
}

// wholeList stands for a list that is compared as one value.
type wholeList []any

// wholeLists marks the lists that differ in length or hold scalars: "added an entry at the front" is one change,
// not one of each entry.
func wholeLists(a, b any) {
	ma, okA := a.(map[string]any)
	mb, okB := b.(map[string]any)
	if !okA && !okB {
		return
	}
	all := maps.Clone(ma)
	if all == nil {
		all = map[string]any{}
	}
	maps.Copy(all, mb)
	for k := range all {
		la, isA := ma[k].([]any)
		lb, isB := mb[k].([]any)
		switch {
		case !isA && !isB:
			wholeLists(ma[k], mb[k])
		case len(la) != len(lb) || scalars(la) || scalars(lb):
			if isA && len(la) > 0 {
				ma[k] = wholeList(la)
			}
			if isB && len(lb) > 0 {
				mb[k] = wholeList(lb)
			}
		default:
			for i := range la {
				wholeLists(la[i], lb[i])
			}
		}
	}
}

func scalars(list []any) bool {
	for _, e := range list {
		switch e.(type) {
		case map[string]any, []any:
			return false
		}
	}
	return true
}
