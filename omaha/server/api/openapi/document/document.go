// Package document makes the OpenAPI document of the update server's REST interface: of api.Operations, the types of their bodies and answers, and the comments on those types.
//
// Its limits: types are structs, slices, maps with text keys, texts, numbers and booleans; what marshals itself as text is a text.
package document

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode"

	"github.com/semper-os/semper/omaha/server/api"
)

type object = map[string]any

const problem = "application/problem+json"

var placeholder = regexp.MustCompile(`\{(\w+)\}`)

// Make makes the document, with the comments that are in folders of sources.
func Make(folders ...string) ([]byte, error) {
	comments, err := readComments(folders...)
	if err != nil {
		return nil, err
	}
	all, err := describe(api.Operations, comments)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err = e.Encode(all)
	return out.Bytes(), err
}

func describe(operations []api.Operation, comments map[string]string) (object, error) {
	s := schemas{comments: comments, done: object{}}
	paths := object{}
	for i := range operations {
		o := &operations[i]
		method, path, ok := strings.Cut(o.Pattern, " ")
		if !ok {
			return nil, fmt.Errorf("operation %s: no method in %q", o.Name, o.Pattern)
		}
		described, err := s.operation(o, method, path)
		if err != nil {
			return nil, fmt.Errorf("operation %s: %w", o.Name, err)
		}
		at, _ := paths[path].(object)
		if at == nil {
			at = object{}
			paths[path] = at
		}
		at[strings.ToLower(method)] = described
	}
	if _, err := s.of(reflect.TypeFor[api.Error]()); err != nil {
		return nil, err
	}
	return object{
		"openapi": "3.1.1",
		"info": object{
			"title": "Semper update server", "version": "1",
			"summary":     "What operators and programs do with a fleet.",
			"description": "Times are RFC 3339 in UTC, sizes bytes, hashes lower-case hexadecimal digits. Bodies have at most 4 MiB and may not have fields that are not described.",
			"license":     object{"name": "Apache 2.0", "identifier": "Apache-2.0"},
		},
		"servers":  []any{object{"url": "/"}},
		"security": []any{object{"token": []any{}}},
		"paths":    paths,
		"components": object{
			"schemas":         s.done,
			"securitySchemes": object{"token": object{"type": "http", "scheme": "bearer", "description": "A token of the server: semper-server token new."}},
			"responses": object{"Problem": object{
				"description": "It was not done; the body says why.",
				"content":     object{problem: object{"schema": object{"$ref": "#/components/schemas/Error"}}},
			}},
		},
	}, nil
}

type schemas struct {
	comments map[string]string // on types ("api.Machine") and their fields ("api.Machine.ID")
	done     object            // by name
}

func (s *schemas) operation(o *api.Operation, method, path string) (object, error) {
	out := object{
		"operationId": string(unicode.ToLower(rune(o.Name[0]))) + o.Name[1:], "summary": o.Summary,
		"description": "Role: " + string(o.Role) + ".",
		"tags":        []any{strings.Split(path, "/")[3]},
	}
	var parameters []any
	for _, m := range placeholder.FindAllStringSubmatch(path, -1) {
		parameters = append(parameters, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range o.Query {
		parameters = append(parameters, object{"name": p.Name, "in": "query", "description": p.Meaning, "schema": object{"type": "string"}})
	}
	if parameters != nil {
		out["parameters"] = parameters
	}
	body, err := s.content(o.Body)
	if err != nil {
		return nil, err
	}
	if o.Raw != "" && method != "GET" {
		body = object{o.Raw: object{}}
	}
	if body != nil {
		out["requestBody"] = object{"required": true, "content": body}
	}
	answer, err := s.content(o.Answer)
	if err != nil {
		return nil, err
	}
	if o.Raw != "" && method == "GET" {
		answer = object{o.Raw: object{}}
	}
	out["responses"] = object{"200": object{"description": "done", "content": answer}, "default": object{"$ref": "#/components/responses/Problem"}}
	return out, nil
}

func (s *schemas) content(v any) (object, error) {
	if v == nil {
		return nil, nil
	}
	schema, err := s.of(reflect.TypeOf(v))
	return object{"application/json": object{"schema": schema}}, err
}

var textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()

// of is the schema of a type: of a struct, a reference to it.
func (s *schemas) of(t reflect.Type) (object, error) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}, nil
	case t.Implements(textMarshaler):
		return object{"type": "string"}, nil
	case t == reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}, nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		return object{"type": "string"}, nil
	case reflect.Bool:
		return object{"type": "boolean"}, nil
	case reflect.Float64:
		return object{"type": "number"}, nil
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return object{"type": "integer", "format": "int64"}, nil
	case reflect.Slice:
		items, err := s.of(t.Elem())
		return object{"type": "array", "items": items}, err
	case reflect.Map:
		values, err := s.of(t.Elem())
		return object{"type": "object", "additionalProperties": values}, err
	case reflect.Struct:
		return s.reference(t)
	}
	return nil, fmt.Errorf("no schema for %s", t)
}

func (s *schemas) reference(t reflect.Type) (object, error) {
	ref := object{"$ref": "#/components/schemas/" + t.Name()}
	if had, ok := s.done[t.Name()]; ok {
		if had.(object)["x-go-type"] != t.String() {
			return nil, fmt.Errorf("%s and %s have the same name", had.(object)["x-go-type"], t)
		}
		return ref, nil
	}
	schema := object{"type": "object", "additionalProperties": false, "x-go-type": t.String()}
	if c := s.comments[t.String()]; c != "" {
		schema["description"] = c
	}
	s.done[t.Name()] = schema
	properties, required := object{}, []any{}
	err := s.fields(t, properties, &required)
	schema["properties"] = properties
	if len(required) > 0 {
		schema["required"] = required
	}
	return ref, err
}

// fields describes a struct's fields, and those of structs embedded in it as its own, as encoding/json does.
func (s *schemas) fields(t reflect.Type, properties object, required *[]any) error {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			if err := s.fields(f.Type, properties, required); err != nil {
				return err
			}
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			return fmt.Errorf("%s.%s has no name in JSON", t, f.Name)
		}
		schema, err := s.of(f.Type)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", t, f.Name, err)
		}
		if c := s.comments[t.String()+"."+f.Name]; c != "" {
			schema["description"] = c
		}
		properties[name] = schema
		if options == "" {
			*required = append(*required, name)
		}
	}
	return nil
}
