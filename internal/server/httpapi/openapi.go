package httpapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/livefire-mesh/livefire/api"
)

// OpenAPI is the document of every call, made from the table of operations: deterministic bytes.
func OpenAPI() ([]byte, error) {
	doc := (&Server{}).document()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(doc); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func (s *Server) openapi(w http.ResponseWriter, _ *http.Request, _ Caller) (any, error) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(s.openAPI) // a caller that is gone needs no answer
	return nil, errAnswered
}

var pathParameter = regexp.MustCompile(`\{([a-z]+)\}`)

type object = map[string]any

func (s *Server) document() object {
	schemas := object{}
	paths := object{}
	for _, op := range s.operations() {
		item, _ := paths[op.Path].(object)
		if item == nil {
			item = object{}
			paths[op.Path] = item
		}
		item[strings.ToLower(op.Method)] = s.describe(op, schemas)
	}
	return object{
		"openapi": "3.1.0",
		"info":    object{"title": "livefire", "version": "v1alpha1", "license": object{"name": "Apache-2.0"}},
		"paths":   paths,
		"components": object{
			"schemas": schemas,
			"securitySchemes": object{
				"certificate": object{"type": "mutualTLS", "description": "certificate of an account or a node"},
				"bearer":      object{"type": "http", "scheme": "bearer"},
			},
		},
	}
}

func (s *Server) describe(op operation, schemas object) object {
	d := object{"operationId": op.ID, "summary": op.Summary, "x-livefire-role": op.Allow.String(), "x-livefire-mutates": op.Mutates}
	var parameters []object
	for _, m := range pathParameter.FindAllStringSubmatch(op.Path, -1) {
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, q := range op.Query {
		parameters = append(parameters, object{"name": q, "in": "query", "schema": object{"type": "string"}})
	}
	if parameters != nil {
		d["parameters"] = parameters
	}
	if op.Allow != anyone {
		d["security"] = []object{{"certificate": []string{}}, {"bearer": []string{}}}
	}
	if op.In != nil {
		d["requestBody"] = object{"content": object{"application/json": object{"schema": schemaOf(op.In, schemas)}}}
	}
	if op.Large {
		d["requestBody"] = object{"required": true, "content": object{"application/octet-stream": object{"schema": object{"type": "string", "format": "binary"}}}}
	}
	answer := object{"description": "done"}
	if op.Out != nil {
		mediaType := "application/json"
		if op.Lines {
			mediaType = "application/x-ndjson"
		}
		answer["content"] = object{mediaType: object{"schema": schemaOf(op.Out, schemas)}}
	}
	failure := object{"description": "refused or failed", "content": object{"application/json": object{"schema": schemaOf(api.Error{}, schemas)}}}
	d["responses"] = object{"200": answer, "default": failure}
	return d
}

// schemaOf puts the type's schema and those of its parts under schemas and returns a reference to it.
func schemaOf(v any, schemas object) object {
	t := reflect.TypeOf(v)
	switch {
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return object{"type": "array", "items": schemaOf(reflect.New(t.Elem()).Elem().Interface(), schemas)}
	case t.Kind() == reflect.Slice:
		return object{"type": "array", "items": object{}}
	case t.Kind() == reflect.Map, t.Name() == "":
		return object{"type": "object"}
	}
	reflector := jsonschema.Reflector{ExpandedStruct: false, AllowAdditionalProperties: false, Anonymous: true, Namer: schemaName}
	schema := reflector.ReflectFromType(t)
	for name, def := range schema.Definitions {
		raw, err := json.Marshal(def)
		if err != nil {
			panic("internal error: encode a schema: " + err.Error())
		}
		var o object
		if err := json.Unmarshal(bytes.ReplaceAll(raw, []byte(`"#/$defs/`), []byte(`"#/components/schemas/`)), &o); err != nil {
			panic("internal error: decode a schema: " + err.Error())
		}
		schemas[name] = o
	}
	return object{"$ref": "#/components/schemas/" + schemaName(t)}
}

// schemaName keeps types of the same name in different packages apart.
func schemaName(t reflect.Type) string {
	pkg := t.PkgPath()
	pkg = pkg[strings.LastIndexByte(pkg, '/')+1:]
	if pkg == "api" || pkg == "" {
		return t.Name()
	}
	return pkg + "." + t.Name()
}
