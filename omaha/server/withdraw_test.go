package server

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/rollout"
)

// A release that is withdrawn is offered and served to nobody from then on, in a rollout or as a channel's own; machines that wait are told why.
func TestWithdraw(t *testing.T) {
	f := startRolling(t)
	r := f.start(rollout.Plan{Limits: rollout.Limits{AtOnce: 1}})
	b := f.box("m")
	u := b.ask(true).UpdateCheck
	if u.Manifest == nil || u.Manifest.Version != "1.1.0" {
		t.Fatalf("before: %+v", u)
	}
	at, err := url.Parse(u.URLs[0] + u.Manifest.Packages[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	fetch := func(want int) {
		t.Helper()
		if status, header, _ := f.do("GET", at.Path, ""); status != want || want != 200 && header.Get("Cache-Control") != "no-store" {
			t.Errorf("the payload: status %d, want %d; Cache-Control %q", status, want, header.Get("Cache-Control"))
		}
	}
	fetch(200)
	var e api.Error
	f.steer("PUT", "releases/1.1.0/withdrawal", api.Steer{}, 400, &e)
	if !strings.Contains(e.Message, "give a reason") {
		t.Errorf("without a reason: %s", e.Message)
	}
	var out api.Release
	f.steer("PUT", "releases/1.1.0/withdrawal", api.Steer{Reason: "it eats disks"}, 200, &out)
	if out.WithdrawnWhy != "it eats disks" || !out.Withdrawn.Equal(noon) {
		t.Errorf("%+v", out)
	}
	fetch(410)
	if v, why := b.check(); v != "" || why != "the machine runs 1.0.0, the release of channel stable" {
		t.Errorf("the machine that had begun: %q %s", v, why)
	}
	if got := f.rollout(r.ID); got.State != "aborted" || !strings.Contains(got.Why, "it eats disks") {
		t.Errorf("the rollout is %s: %s", got.State, got.Why)
	}
	f.steer("POST", "rollouts", api.NewRollout{Version: "1.1.0", Channel: "stable"}, 409, &e)
	if !strings.Contains(e.Message, "withdrawn: it eats disks") {
		t.Errorf("a new rollout: %s", e.Message)
	}
	f.rest("PUT", "channels/stable", `{"version":"1.1.0"}`, 409, &e)
	f.steer("PUT", "releases/1.1.0/withdrawal", api.Steer{Reason: "again"}, 409, &e)
	// It is still beta's own release.
	b.track = "beta"
	if v, why := b.check(); v != "" || !strings.Contains(why, "was withdrawn on 2026-03-04 12:00:00 UTC: it eats disks") {
		t.Errorf("in the channel that has it: %q %s", v, why)
	}
	f.steer("DELETE", "releases/1.1.0/withdrawal", api.Steer{Reason: "it was the disk"}, 200, &out)
	fetch(200)
	if v, _ := b.check(); v != "1.1.0" {
		t.Errorf("after it was restored it is offered %q", v)
	}
	f.steer("DELETE", "releases/1.1.0/withdrawal", api.Steer{}, 409, &e)
	var audit api.Audits
	f.steer("GET", "audit", nil, 200, &audit)
	log := fmt.Sprint(audit)
	for _, want := range []string{"release-withdraw", "rollout-abort", "release-restore", "it was the disk", "release-publish", "channel-set"} {
		if !strings.Contains(log, want) {
			t.Errorf("the audit log lacks %s: %s", want, log)
		}
	}
}

// Payloads may be copied to other places; machines get them in their order, this server last.
func TestPayloadURLs(t *testing.T) {
	f := serve(t, t.TempDir(), Config{PayloadURLs: []string{"https://one.example/semper", "https://two.example"}, PublicURL: "https://updates.example"})
	f.publish("flatcar", "9999.0.0", "stable")
	_, _, body := f.do("POST", "/v1/update", vector(t, "1-first-check"))
	sum := fileOf(payloadOf("9999.0.0")).SHA256
	one, two, own := strings.Index(body, "https://one.example/semper/payloads/"+sum+"/"), strings.Index(body, "https://two.example/payloads/"+sum+"/"), strings.Index(body, "https://updates.example/payloads/"+sum+"/")
	if one < 0 || two < one || own < two {
		t.Errorf("addresses at %d, %d, %d: %s", one, two, own, body)
	}
	if _, err := Open(t.Context(), Config{Dir: t.TempDir(), PayloadURLs: []string{"ftp://x"}}); err == nil || !strings.Contains(err.Error(), "payload URL") {
		t.Errorf("an address of another kind: %v", err)
	}
}

func TestExternalRelease(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	good := api.External{
		URLs: []string{"https://release.example/amd64/9999.0.0/", "https://mirror.example/9999.0.0/"}, Name: "flatcar_production_update.gz", Size: 123456789,
		SHA256: strings.Repeat("ab", 32), SHA1: strings.Repeat("cd", 20),
	}
	put := func(version string, e api.External, status int) string {
		t.Helper()
		var out api.Error
		f.rest("PUT", "releases/"+version+"?app=flatcar", string(mustJSON(t, api.NewRelease{External: &e})), status, &out)
		return out.Message
	}
	for name, c := range map[string]struct {
		change func(e *api.External)
		want   string
	}{
		"no URL":        {func(e *api.External) { e.URLs = nil }, "want 1 to 8 folders"},
		"no slash":      {func(e *api.External) { e.URLs = []string{"https://x.example/a"} }, "with a slash at its end"},
		"name":          {func(e *api.External) { e.Name = "../x" }, "want a file's name"},
		"size":          {func(e *api.External) { e.Size = 0 }, "size: want"},
		"sha256":        {func(e *api.External) { e.SHA256 = "ab" }, "is not a SHA-256"},
		"sha1":          {func(e *api.External) { e.SHA1 = "zz" }, "sha1: want 40"},
		"sha1 too long": {func(e *api.External) { e.SHA1 += "ab" }, "sha1: want 40"},
	} {
		e := good
		c.change(&e)
		if got := put("9999.0.0", e, 400); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
	put("9999.0.0", good, 200)
	put("9999.0.0", good, 200)
	other := good
	other.Size++
	if got := put("9999.0.0", other, 409); !strings.Contains(got, "a published version never changes") {
		t.Errorf("other content: %s", got)
	}
	var ch api.Channel
	f.rest("PUT", "channels/stable?app=flatcar", `{"version":"9999.0.0"}`, 200, &ch)
	_, _, body := f.do("POST", "/v1/update", vector(t, "1-first-check"))
	for _, want := range []string{
		`codebase="https://release.example/amd64/9999.0.0/"`, `codebase="https://mirror.example/9999.0.0/"`, `name="flatcar_production_update.gz"`, `size="123456789"`, `hash="zc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc0="`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the answer lacks %s: %s", want, body)
		}
	}
	// Its bytes are none of this server's.
	if status, _, _ := f.do("GET", "/payloads/"+good.SHA256+"/"+good.Name, ""); status != 404 {
		t.Errorf("the payload here: status %d", status)
	}
	if _, err := hex.DecodeString(good.SHA256); err != nil {
		t.Fatal(err)
	}
}

// Machines that were not seen for long do not count, and count again once they ask.
func TestRetire(t *testing.T) {
	clock := &still{now: noon}
	f := serve(t, t.TempDir(), Config{Now: clock.read, RetireAfter: 30 * 24 * time.Hour})
	app, err := f.s.store.Read().Application(t.Context(), "semper")
	if err != nil {
		t.Fatal(err)
	}
	r := &rolling{f, clock, "", app.ID}
	stays, leaves := r.box("stays"), r.box("leaves")
	stays.check()
	leaves.check()
	list := func(query string) string {
		t.Helper()
		var out api.Machines
		f.rest("GET", "machines"+query, "", 200, &out)
		var names []string
		for _, m := range out.Machines {
			names = append(names, m.ID)
		}
		return strings.Join(names, " ")
	}
	for range 31 {
		clock.advance(24 * time.Hour)
		stays.check()
		if err := f.s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got, old := list(""), list("?retired=1"); got != "stays" || old != "leaves" {
		t.Errorf("machines %q, retired %q", got, old)
	}
	if n, err := f.s.store.Read().CountMachines(t.Context(), app.ID, "stable", "amd64"); n != 1 || err != nil {
		t.Errorf("%d machines (%v)", n, err)
	}
	leaves.check()
	if got, old := list(""), list("?retired=1"); got != "leaves stays" || old != "" {
		t.Errorf("after it asked: machines %q, retired %q", got, old)
	}
	if _, err := Open(t.Context(), Config{Dir: t.TempDir(), RetireAfter: time.Hour}); err == nil || !strings.Contains(err.Error(), "want 168h") {
		t.Errorf("after an hour: %v", err)
	}
}
