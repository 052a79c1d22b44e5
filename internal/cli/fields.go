package cli

import (
	"reflect"
	"slices"
	"strings"

	"github.com/livefire-mesh/livefire/api"
)

// field is one field of a kind as explain shows it.
type field struct {
	Path     string `json:"path"`
	Type     string `json:"type"`
	Required bool   `json:"required,omitempty"`
	Default  string `json:"default,omitempty"`
}

// explainKind lists the fields of a kind from its Go type: what an operator may write, with the default of each.
func (s *streams) explainKind(out format, kind api.Kind) error {
	o, err := api.New(kind)
	if err != nil {
		return err
	}
	o.Default()
	p := page{kind: "Field", head: []string{"FIELD", "TYPE", "REQUIRED", "DEFAULT"}}
	for _, f := range fieldsOf(reflect.ValueOf(o).Elem(), "") {
		required := ""
		if f.Required {
			required = "yes"
		}
		p.rows = append(p.rows, []string{f.Path, f.Type, dash(required), dash(f.Default)})
		p.items = append(p.items, item{p.kind, f.Path, f})
	}
	return s.print(out, p)
}

var durationType = reflect.TypeFor[api.Duration]()

// fieldsOf walks the fields that an operator writes: spec and what stands in metadata, not status and not revision.
func fieldsOf(v reflect.Value, prefix string) []field {
	var out []field
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		path := prefix + name
		if name == "" || path == "status" || path == "metadata.revision" {
			continue
		}
		x := v.Field(i)
		required := !slices.Contains(strings.Split(options, ","), "omitempty") && !slices.Contains(strings.Split(options, ","), "omitzero")
		t := x.Type()
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
			if x.IsNil() {
				x = reflect.New(t)
			}
			x = x.Elem()
		}
		switch {
		case t.Kind() == reflect.Struct:
			out = append(out, fieldsOf(x, path+".")...)
		case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
			out = append(out, field{Path: path, Type: "list of objects", Required: required})
			out = append(out, fieldsOf(reflect.New(t.Elem()).Elem(), path+"[].")...)
		case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct:
			out = append(out, field{Path: path, Type: "map of objects", Required: required})
			out = append(out, fieldsOf(reflect.New(t.Elem()).Elem(), path+".NAME.")...)
		default:
			out = append(out, field{Path: path, Type: typeName(t), Required: required, Default: defaultOf(v.Field(i))})
		}
	}
	return out
}

func typeName(t reflect.Type) string {
	switch {
	case t == durationType:
		return "duration"
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem())
	case t.Kind() == reflect.Map:
		return "map of " + typeName(t.Elem())
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "true|false"
	case t.Kind() == reflect.Interface:
		return "any"
	}
	return "number"
}

func defaultOf(v reflect.Value) string {
	if v.IsZero() || v.Kind() == reflect.Map {
		return ""
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if d, ok := v.Interface().(api.Duration); ok {
		return d.String()
	}
	return word(v.Interface())
}
