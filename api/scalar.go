package api

import (
	"math"
	"reflect"
	"regexp"
	"strconv"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// text is a scalar as a word: a string, or a number as it is written.
func (r *reader) text(n ast.Node) (string, bool) {
	switch x := n.(type) {
	case *ast.StringNode:
		return x.Value, true
	case *ast.LiteralNode:
		return x.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return x.GetToken().Value, true
	case *ast.MappingKeyNode:
		return "", false
	case *ast.AnchorNode:
		return r.text(x.Value)
	}
	return "", false
}

func (r *reader) duration(n ast.Node, v reflect.Value, path string) {
	text, ok := r.text(n)
	if !ok {
		r.bad(path, CodeDuration, r.placeOf(n), "for example 300ms, 5s or 1d12h", "%s%s is not a duration", named(path), shape(n))
		return
	}
	d, err := ParseDuration(text)
	if err != nil {
		hint := "for example 300ms, 5s or 1d12h"
		if _, isNumber := n.(*ast.IntegerNode); isNumber {
			hint = "write the unit: " + text + "s, " + text + "ms or " + text + "m"
		}
		r.bad(path, CodeDuration, r.placeOf(n), hint, "%s%q is not a duration", named(path), text)
		return
	}
	if d == 0 {
		r.zero(path, n)
	}
	v.SetInt(int64(d))
}

// zero notes a written zero: whether it can stand is known once the defaults are.
func (r *reader) zero(path string, n ast.Node) { r.zeros[path] = r.placeOf(n) }

func (r *reader) scalar(n ast.Node, v reflect.Value, path string) {
	wrong := func(want, hint string) {
		r.bad(path, CodeType, r.placeOf(n), hint, "%s%s where %s is expected", named(path), shape(n), want)
	}
	switch v.Kind() {
	case reflect.String:
		text, ok := r.text(n)
		if !ok {
			wrong("text", "write text, in quotes if it is one of true, false or null")
			return
		}
		if text == "" {
			r.zero(path, n)
		}
		v.SetString(text)
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			wrong("true or false", "write true or false")
			return
		}
		v.SetBool(b.Value)
	case reflect.Int, reflect.Int64:
		i, ok := whole(n)
		if !ok {
			wrong("a whole number", "write a whole number without quotes")
			return
		}
		if i == 0 {
			r.zero(path, n)
		}
		v.SetInt(i)
	case reflect.Uint64:
		i, ok := whole(n)
		if !ok || i < 0 {
			wrong("a whole number", "write a whole number from 0 on")
			return
		}
		v.SetUint(uint64(i))
	case reflect.Float64:
		x, ok := number(n)
		if !ok {
			wrong("a number", "write a number without quotes and without %")
			return
		}
		if x == 0 {
			r.zero(path, n)
		}
		v.SetFloat(x)
	default:
		panic("internal error: no reader for " + v.Type().String())
	}
}

func whole(n ast.Node) (int64, bool) {
	x, ok := n.(*ast.IntegerNode)
	if !ok {
		return 0, false
	}
	switch i := x.Value.(type) {
	case int64:
		return i, true
	case uint64:
		return int64(i), i <= math.MaxInt64
	}
	return 0, false
}

var jsonNumber = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)

func number(n ast.Node) (float64, bool) {
	if i, ok := whole(n); ok {
		return float64(i), true
	}
	switch x := n.(type) {
	case *ast.FloatNode:
		return x.Value, finite(x.Value)
	case *ast.StringNode: // the parser takes 1e+21 and whole numbers beyond 64 bits for words
		if x.Token.Type == token.StringType && jsonNumber.MatchString(x.Value) {
			f, err := strconv.ParseFloat(x.Value, 64)
			return f, err == nil
		}
	}
	return 0, false
}

// any is a value of no declared type (the value of a patch), as encoding/json would read it.
func (r *reader) any(n ast.Node, path string) (any, bool) {
	switch x := n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		m := map[string]any{}
		r.dictionary(n, reflect.ValueOf(&m).Elem(), path)
		return m, true
	case *ast.SequenceNode:
		s := []any{}
		r.list(n, reflect.ValueOf(&s).Elem(), path)
		return s, true
	case *ast.BoolNode:
		return x.Value, true
	}
	if f, ok := number(n); ok {
		return f, true
	}
	if text, ok := r.text(n); ok {
		return text, true
	}
	r.bad(path, CodeType, r.placeOf(n), "write a value that JSON knows", "%s%s cannot be read", named(path), shape(n))
	return nil, false
}
