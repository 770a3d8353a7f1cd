package server

import (
	"strings"
	"testing"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
)

// mayUse says who may use each route: viewer, operator, publisher, admin. A route without a row fails the test, so that nobody adds one without a thought.
var mayUse = map[string]string{
	"GET /api/v1/applications":                     "vopa",
	"GET /api/v1/channels":                         "vopa",
	"PUT /api/v1/channels/{name}":                  "pa",
	"GET /api/v1/channels/{name}/freshness":        "vopa",
	"PUT /api/v1/channels/{name}/freshness":        "pa",
	"GET /api/v1/releases":                         "vopa",
	"GET /api/v1/releases/{version}":               "vopa",
	"PUT /api/v1/releases/{version}":               "pa",
	"GET /api/v1/machines":                         "vopa",
	"GET /api/v1/machines/{id}":                    "vopa",
	"GET /api/v1/machines/{id}/why":                "vopa",
	"PUT /api/v1/machines/{id}/pin":                "oa",
	"DELETE /api/v1/machines/{id}/pin":             "oa",
	"DELETE /api/v1/machines/{id}/failures":        "oa",
	"PUT /api/v1/machines/{id}/group":              "oa",
	"GET /api/v1/groups":                           "vopa",
	"GET /api/v1/groups/{name}":                    "vopa",
	"PUT /api/v1/groups/{name}":                    "oa",
	"DELETE /api/v1/groups/{name}":                 "oa",
	"GET /api/v1/rollouts":                         "vopa",
	"POST /api/v1/rollouts":                        "oa",
	"GET /api/v1/rollouts/{id}":                    "vopa",
	"POST /api/v1/rollouts/{id}/{verb}":            "oa",
	"PUT /api/v1/releases/{version}/road":          "oa",
	"PUT /api/v1/releases/{version}/withdrawal":    "oa",
	"DELETE /api/v1/releases/{version}/withdrawal": "oa",
	"POST /api/v1/rollouts/preview":                "vopa",
	"GET /api/v1/rollouts/{id}/progress":           "vopa",
	"GET /api/v1/releases/{version}/packages":      "vopa",
	"GET /api/v1/overview":                         "vopa",
	"GET /api/v1/charts/versions":                  "vopa",
	"GET /api/v1/reboots":                          "vopa",
	"PUT /api/v1/reboots/{name}":                   "oa",
	"DELETE /api/v1/reboots/{name}/holders/{id}":   "oa",
	"PUT /api/v1/applications/{name}":              "a",
	"GET /api/v1/tokens":                           "a",
	"POST /api/v1/tokens":                          "a",
	"DELETE /api/v1/tokens/{id}":                   "a",
	"GET /api/v1/webhooks":                         "a",
	"POST /api/v1/webhooks":                        "a",
	"DELETE /api/v1/webhooks/{id}":                 "a",
	"POST /api/v1/webhooks/{id}/test":              "a",
	"GET /api/v1/feed":                             "vopa",
	"GET /api/v1/audit":                            "vopa",
	"GET /api/v1/blobs/{sha256}":                   "pa",
	"PUT /api/v1/blobs/{sha256}":                   "pa",
	"GET /api/v1/me":                               "vopa",
	"GET /api/v1/people":                           "a",
	"PUT /api/v1/people/{id}":                      "a",
	"DELETE /api/v1/people/{id}":                   "a",
}

// mayAuth says what the routes for signing in answer to somebody who is nobody, and shows nothing. There too a route needs a row.
var mayAuth = map[string]int{
	"GET /auth/options":       200,
	"GET /auth/oidc/start":    404, // this server has no provider
	"GET /auth/oidc/callback": 404,
	"POST /auth/link":         401,
	"POST /auth/token":        401,
	"POST /auth/sign-out":     200,
}

func TestWhoMaySignIn(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	handlers := f.s.authHandlers()
	for pattern := range handlers {
		want, ok := mayAuth[pattern]
		if !ok {
			t.Errorf("%s: what it answers is not in the table", pattern)
			continue
		}
		method, path, _ := strings.Cut(pattern, " ")
		status, header, body := f.do(method, path, "{}")
		if status != want || header.Get("Cache-Control") != "no-store" || header.Get("Set-Cookie") != "" && path != "/auth/sign-out" {
			t.Errorf("%s: status %d, %v: %s", pattern, status, header, body)
		}
		if status, _, _ := f.do(map[string]string{"GET": "POST", "POST": "GET"}[method], path, "{}"); status != 404 && status != 405 {
			t.Errorf("%s by another method: status %d", path, status)
		}
	}
	if len(handlers) != len(mayAuth) {
		t.Errorf("the table has %d rows, and there are %d routes", len(mayAuth), len(handlers))
	}
}

func TestWhoMayUseWhat(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	tokens := map[string]string{
		"v": f.newToken(fleet.Viewer), "o": f.newToken(fleet.Operator), "p": f.newToken(fleet.Publisher), "a": f.newToken(fleet.Admin),
	}
	sessions := map[string]*browser{
		"v": f.byLink("v", fleet.Viewer), "o": f.byLink("o", fleet.Operator), "p": f.byLink("p", fleet.Publisher), "a": f.byLink("a", fleet.Admin),
	}
	seen := 0
	handlers := f.s.handlers()
	if len(handlers) != len(api.Operations) {
		t.Errorf("%d handlers of %d operations", len(handlers), len(api.Operations))
	}
	for _, o := range api.Operations {
		if handlers[o.Name] == nil {
			t.Errorf("%s has no handler", o.Name)
		}
		who, ok := mayUse[o.Pattern]
		if !ok {
			t.Errorf("%s: who may use it is not in the table", o.Pattern)
			continue
		}
		seen++
		method, path, _ := strings.Cut(o.Pattern, " ")
		path = strings.NewReplacer("{name}", "nowhere", "{version}", "9.9.9", "{id}", "7", "{verb}", "start", "{sha256}", strings.Repeat("0", 64)).Replace(path)
		for role, token := range tokens {
			// An empty body is refused by whoever is let in, so that nothing changes.
			status, _, body := f.do(method, path, "", "Authorization", "Bearer "+token)
			if let := status != 403 && status != 401; let != strings.Contains(who, role) {
				t.Errorf("%s as %s: status %d: %s", o.Pattern, role, status, body)
			}
		}
		for role, b := range sessions {
			status, body := b.call(method, path, "")
			if let := status != 403 && status != 401; let != strings.Contains(who, role) {
				t.Errorf("%s in a session as %s: status %d: %s", o.Pattern, role, status, body)
			}
			if status, _, body := b.send(method, path, ""); method != "GET" && status != 403 {
				t.Errorf("%s in a session as %s, without the header: status %d: %s", o.Pattern, role, status, body)
			}
		}
		if status, _, _ := f.do(method, path, ""); status != 401 {
			t.Errorf("%s without a token: status %d", o.Pattern, status)
		}
	}
	if seen != len(mayUse) {
		t.Errorf("the table has %d rows, of which %d are routes", len(mayUse), seen)
	}
}
