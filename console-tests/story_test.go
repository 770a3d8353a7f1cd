package consoletests

import (
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/people/oidctest"
	"github.com/semper-os/semper/omaha/server/rollout"
)

// TestFirstRun goes from a server that was just started to a halted rollout, by clicking.
func TestFirstRun(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		r := serve(t, database, nil)
		b := start(t, r.url)

		// The link of the first start, and what an empty server teaches.
		b.open(r.link[len(r.url):])
		b.see("semper keys new")
		b.see("semper build")
		b.see("semper publish")

		for _, v := range []string{"1.0.0", "1.1.0"} {
			r.publish(v)
		}
		if _, err := r.admin.SetChannel(t.Context(), "stable", client.SetChannelQuery{}, api.SetChannel{Version: "1.0.0"}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.admin.MarkRelease(t.Context(), "1.0.0", client.MarkReleaseQuery{}, api.Road{Road: "floor", Reason: "<svg onload=alert(1)> moves the keys"}); err != nil {
			t.Fatal(err)
		}
		var all []*box
		for i := range 12 {
			box := r.box(i)
			box.alias = "<b onmouseover=alert(1)>" + box.alias
			box.ask()
			all = append(all, box)
		}

		// It is live: nobody reloads.
		b.click("Machines")
		b.see("<b onmouseover=alert(1)>web-11")
		b.click("Releases")
		b.click("1.0.0")
		b.see("<svg onload=alert(1)> moves the keys")
		b.click("Releases")
		b.click("1.1.0")
		b.see("bash")
		b.see("5.2-1.0.0") // what it was

		// Plan, look, start.
		b.click("Roll out")
		b.see("Plan a rollout")
		b.fill("Or at failures", "2")
		b.click("All at once")
		b.see("all machines may have it at once") // the preview's warning
		b.click("Start…")
		b.confirm("Start now")
		b.see("Ramping")
		b.click("Pause")
		b.answer("Reason", "lunch")
		b.confirm("Pause")
		b.see("Paused")
		if all[0].offered("1.1.0") {
			t.Error("a paused rollout gives the release")
		}
		b.click("Resume")
		b.confirm("Resume")
		b.see("Ramping")

		// It stops itself, and says why, without anybody asking.
		for i, box := range all[:4] {
			if !box.offered("1.1.0") {
				t.Fatalf("machine %d is not offered it", i)
			}
			box.update("1.1.0", i%2 == 0)
		}
		b.see("Halted")
		b.see("health check web: <img src=x onerror=alert(1)> connection refused")
		b.see("2 machines failed")
		b.click("Overview")
		b.see("stopped itself")
		b.open("/rollouts/1")
		b.click("Resume")
		b.see("do not count any more")
		b.answer("Reason", "the web server was broken before")
		b.confirm("Resume")
		b.see("Ramping")

		// What failed on a machine may be tried there again.
		b.open("/machines/" + all[1].id)
		b.see("Failed here")
		b.click("Retry failed versions")
		b.see("1.1.0 may be offered to it again")
		b.confirm("Let it retry")
		b.eventually("nothing to retry", func() bool { return !b.can("Retry failed versions") })
		if m, err := r.admin.Machine(t.Context(), all[1].id, client.MachineQuery{}); err != nil || len(m.FailedVersions) != 0 {
			t.Errorf("after the retry: %v, %v", m.FailedVersions, err)
		}
		b.click("Audit log")
		b.see("machine-retry")

		// A slot that nobody gives back.
		lock(t, r, "m1")
		lock(t, r, "m2")
		b.click("Reboot locks")
		b.see("Waits")
		b.click("Release the slot of m1")
		b.answer("Reason", "it burnt down")
		b.confirm("Release")
		b.see("0 of 1 slot taken")
	})
}

// TestPeople signs in at an OpenID provider, and has a token.
func TestPeople(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		r := serve(t, database, provider(t, []oidctest.User{
			{Subject: "1", Name: "Ada", Password: "lovelace", Email: "ada@example.org", Groups: []string{"root"}},
			{Subject: "2", Name: "Vi", Password: "viewer", Email: "vi@example.org", Groups: []string{"all"}},
		}))
		r.publish("1.0.0")
		r.publish("1.1.0")
		ro, err := r.admin.PlanRollout(t.Context(), client.PlanRolloutQuery{}, api.NewRollout{Version: "1.1.0", Channel: "stable", Plan: rollout.Plan{Ramp: rollout.Ramp{Over: rollout.Duration(time.Hour)}}, Start: true})
		if err != nil || ro.ID != 1 {
			t.Fatal(ro, err)
		}

		signIn := func(name, password string) *browser {
			b := start(t, r.url)
			b.open("/rollouts/1")
			b.click("Sign in with Acme")
			b.see("password")
			b.fill("User", name)
			b.fill("Password", password)
			b.press("\r")
			b.see("1.1.0 to stable") // where it began
			return b
		}
		viewer := signIn("Vi", "viewer")
		if viewer.can("Pause") || viewer.can("Abort") {
			t.Error("a viewer is shown what it may not do")
		}
		admin := signIn("Ada", "lovelace")
		admin.click("People")
		admin.see("vi@example.org")
		admin.click("New token")
		admin.answer("Label", "a wall")
		admin.confirm("Make it")
		admin.see("semper_")
		var secret string
		admin.js(&secret, `() => (document.body?.innerText ?? '').match(/semper_[0-9a-f]{8}_[\w-]+/)[0]`)
		c, err := client.NewClient(r.url, secret)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Overview(t.Context(), client.OverviewQuery{}); err != nil {
			t.Errorf("the new token: %v", err)
		}
		admin.click("Revoke token a wall")
		admin.answer("To confirm, type", secret[len("semper_"):len("semper_")+8])
		admin.confirm("Revoke")
		admin.see("Revoked.")
		if _, err := c.Overview(t.Context(), client.OverviewQuery{}); err == nil {
			t.Error("the revoked token counts")
		}
		admin.click("Audit log")
		admin.see("token-revoke")
		admin.click("Rollouts")
		admin.click("1.1.0 to stable")
		admin.click("Abort")
		admin.answer("Reason", "enough")
		admin.fill("To confirm, type", "1.1.0")
		admin.confirm("Abort")
		admin.see("Aborted")
		viewer.see("Aborted") // live
	})
}
