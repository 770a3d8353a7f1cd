package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
)

// TestRepeats sends requests again, as a client does that got no answer.
func TestRepeats(t *testing.T) {
	f := startRolling(t)
	post := func(path, body, key, token string, want int) (string, bool) {
		t.Helper()
		status, header, answer := f.do("POST", "/api/v1/"+path, body, "Authorization", "Bearer "+token, "Idempotency-Key", key)
		if status != want {
			t.Fatalf("%s with key %s: status %d, want %d: %s", path, key, status, want, answer)
		}
		return answer, header.Get("Idempotent-Replayed") == "true"
	}
	const plan = `{"version":"1.1.0","channel":"stable","arch":"","plan":{},"start":true}`
	first, again := post("rollouts", plan, "k1", f.operator, 200)
	if again {
		t.Error("the first answer is marked as a repeat")
	}
	second, again := post("rollouts", plan, "k1", f.operator, 200)
	if !again || first != second {
		t.Errorf("repeated %v:\n%s\nfirst:\n%s", again, second, first)
	}
	if answer, _ := post("rollouts", strings.Replace(plan, "true", "false", 1), "k1", f.operator, 409); !strings.Contains(answer, "another request") {
		t.Errorf("another request with the key: %s", answer)
	}
	post("rollouts", plan, "k2", f.operator, 409)                 // another key is another request, and there is a rollout
	post("rollouts", plan, "k1", f.newToken(fleet.Operator), 409) // and so is somebody else's
	var r api.Rollout
	if err := json.Unmarshal([]byte(first), &r); err != nil {
		t.Fatal(err)
	}
	pause := fmt.Sprintf("rollouts/%d/pause", r.ID)
	post(pause, `{"reason":"lunch"}`, "k3", f.operator, 200)
	if _, again := post(pause, `{"reason":"lunch"}`, "k3", f.operator, 200); !again {
		t.Error("a pause is done twice")
	}
	post(pause, `{"reason":"lunch"}`, "k4", f.operator, 409)
	post(pause, `{"reason":"lunch"}`, strings.Repeat("k", 201), f.operator, 400)

	admin := f.newToken(fleet.Admin)
	post("tokens", `{"role":"viewer","label":"x"}`, "k5", admin, 200)
	if answer, _ := post("tokens", `{"role":"viewer","label":"x"}`, "k5", admin, 409); !strings.Contains(answer, "told once") {
		t.Errorf("a token is told twice: %s", answer)
	}
	var all api.Tokens
	f.operator = admin
	f.steer("GET", "tokens", nil, 200, &all)
	made := 0
	for _, token := range all.Tokens {
		if token.Label == "x" {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d tokens were made", made)
	}
}

// TestIfMatch changes what somebody else has changed since.
func TestIfMatch(t *testing.T) {
	f := startRolling(t)
	change := func(method, path, body, tag string, want int) {
		t.Helper()
		status, _, answer := f.do(method, "/api/v1/"+path, body, "Authorization", "Bearer "+f.operator, "If-Match", tag)
		if status != want {
			t.Fatalf("%s %s: status %d, want %d: %s", method, path, status, want, answer)
		}
	}
	r := f.start(rollout.Plan{})
	tag := f.rollout(r.ID).ETag
	if _, header, _ := f.do("GET", fmt.Sprintf("/api/v1/rollouts/%d", r.ID), "", "Authorization", "Bearer "+f.operator); header.Get("ETag") != tag {
		t.Errorf("ETag %q and %q", header.Get("ETag"), tag)
	}
	f.box("m1").update("1.1.0")
	if f.rollout(r.ID).ETag != tag {
		t.Error("a machine's progress changes the ETag")
	}
	change("POST", fmt.Sprintf("rollouts/%d/pause", r.ID), `{"reason":""}`, `"x", `+tag, 200)
	change("POST", fmt.Sprintf("rollouts/%d/abort", r.ID), `{"reason":""}`, tag, 412)
	change("POST", fmt.Sprintf("rollouts/%d/abort", r.ID), `{"reason":""}`, "*", 200)

	var d api.ReleaseDetail
	f.rest("GET", "releases/1.1.0", "", 200, &d)
	change("PUT", "releases/1.1.0/road", `{"road":"floor","reason":"r"}`, d.ETag, 200)
	change("PUT", "releases/1.1.0/withdrawal", `{"reason":"r"}`, d.ETag, 412)

	var channels api.Channels
	f.rest("GET", "channels", "", 200, &channels)
	f.operator = f.newToken(fleet.Publisher)
	for _, c := range channels.Channels {
		if c.Name == "stable" && c.Arch == "amd64" {
			change("PUT", "channels/stable", `{"version":"1.1.0"}`, c.ETag, 200)
			change("PUT", "channels/stable", `{"version":"1.0.0"}`, c.ETag, 412)
		}
	}
}
