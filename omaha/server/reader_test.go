package server

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
)

func TestDescriptionIsServed(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	status, header, body := f.do("GET", "/api/v1/openapi.json", "")
	var document struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(body), &document); err != nil || status != 200 || header.Get("Content-Type") != "application/json" || document.OpenAPI != "3.1.1" {
		t.Fatalf("status %d, %v (%v)", status, header, err)
	}
	for _, o := range api.Operations {
		method, path, _ := strings.Cut(o.Pattern, " ")
		if document.Paths[path][strings.ToLower(method)] == nil {
			t.Errorf("%s is not described", o.Pattern)
		}
	}
	status, header, body = f.do("GET", "/api/v1/", "")
	if status != 200 || !strings.HasPrefix(header.Get("Content-Security-Policy"), "default-src 'none'") || strings.Contains(body, "<script") {
		t.Errorf("the page: status %d, %v", status, header)
	}
	var ids []string
	for _, m := range regexp.MustCompile(` id="([\w-]+)"`).FindAllStringSubmatch(body, -1) {
		if slices.Contains(ids, m[1]) {
			t.Errorf("the page has two places of the name %s", m[1])
		}
		ids = append(ids, m[1])
	}
	for _, m := range regexp.MustCompile(`href="#(\w+)"`).FindAllStringSubmatch(body, -1) {
		if !slices.Contains(ids, m[1]) {
			t.Errorf("a link to %s, which is not on the page", m[1])
		}
	}
}

// TestProblems has errors described as RFC 9457 says.
func TestProblems(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	token := "Bearer " + f.newToken(fleet.Viewer)
	for _, c := range []struct {
		path, token string
		want        api.Error
	}{
		{"machines/nobody", token, api.Error{Type: "about:blank", Title: "Not Found", Status: 404, Message: "machine nobody: not found", Kind: "internal"}},
		{"nowhere", token, api.Error{Type: "about:blank", Title: "Not Found", Status: 404, Message: "there is no such route", Kind: "input"}},
		{"machines?limit=0", token, api.Error{Type: "about:blank", Title: "Bad Request", Status: 400, Message: `limit "0": want a number from 1 to 1000`, Kind: "input"}},
		{"machines", "", api.Error{Type: "about:blank", Title: "Unauthorized", Status: 401, Message: "a valid token is needed: Authorization: Bearer TOKEN", Kind: "verification"}},
	} {
		status, header, body := f.do("GET", "/api/v1/"+c.path, "", "Authorization", c.token)
		var got api.Error
		err := json.Unmarshal([]byte(body), &got)
		if err != nil || got != c.want || status != c.want.Status || header.Get("Content-Type") != api.ProblemType {
			t.Errorf("%s: status %d, %s %s (%v)", c.path, status, header.Get("Content-Type"), body, err)
		}
	}
}
