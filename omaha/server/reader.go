package server

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/api/openapi"
)

// readerTemplate is the page at /api/v1/: the OpenAPI document for people. It needs no script.
//
//go:embed reader.html
var readerTemplate string

// readerPolicy lets the page have its own style and nothing else.
const readerPolicy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// schemaField is a field of a message, as the page shows it.
type schemaField struct{ Name, Type, Link, Meaning string }

type readerSchema struct {
	Name, Meaning string
	Fields        []schemaField
}

// schema is what the page reads of one in the document.
type schema struct {
	Ref                  string             `json:"$ref"`
	Type                 string             `json:"type"`
	Format               string             `json:"format"`
	ContentEncoding      string             `json:"contentEncoding"`
	Description          string             `json:"description"`
	Items                *schema            `json:"items"`
	Properties           map[string]*schema `json:"properties"`
	Required             []string           `json:"required"`
	AdditionalProperties any                `json:"additionalProperties"`
}

// words is a schema's type for people, and the name of the message that it refers to.
func (s *schema) words() (text, link string) {
	switch {
	case s.Ref != "":
		link = s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
		return link, link
	case s.Type == "array" && s.Items != nil:
		text, link = s.Items.words()
		return "list of " + text, link
	case s.Format == "date-time":
		return "time", ""
	case s.ContentEncoding != "":
		return "bytes, base64", ""
	}
	return s.Type, ""
}

var reader = sync.OnceValues(func() ([]byte, error) {
	var document struct {
		Components struct {
			Schemas map[string]*schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(openapi.Document, &document); err != nil {
		return nil, err
	}
	var schemas []readerSchema
	for _, name := range slices.Sorted(maps.Keys(document.Components.Schemas)) {
		s := document.Components.Schemas[name]
		out := readerSchema{Name: name, Meaning: s.Description}
		for _, field := range slices.Sorted(maps.Keys(s.Properties)) {
			p := s.Properties[field]
			text, link := p.words()
			if !slices.Contains(s.Required, field) {
				text += ", may be missing"
			}
			out.Fields = append(out.Fields, schemaField{field, text, link, p.Description})
		}
		schemas = append(schemas, out)
	}
	t, err := template.New("reader").Funcs(template.FuncMap{"message": func(v any) string {
		if v == nil {
			return ""
		}
		_, name, _ := strings.Cut(fmt.Sprintf("%T", v), ".")
		return name
	}}).Parse(readerTemplate)
	if err != nil {
		return nil, err
	}
	var page strings.Builder
	err = t.Execute(&page, map[string]any{"Operations": api.Operations, "Schemas": schemas})
	return []byte(page.String()), err
})

func readerPage(w http.ResponseWriter, _ *http.Request) {
	page, err := reader()
	if err != nil {
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", readerPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(page) // whoever left does not miss it
}
