package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

// audited is an entry of the audit log as far as it can be said before: who is the caller of all rows.
type audited struct{ what, subject, detail, before, after string }

// auditRow is a call of an operation, and what stands in the audit log after it: no entry, where there is a reason for that.
type auditRow struct {
	operation string
	call      func(ctx context.Context, c *client.Client) error
	want      []audited
	none      string
}

// dropped makes a call one without an answer.
func dropped[T any](_ T, err error) error { return err }

// TestEveryChangeIsAudited calls each operation that may change something, in an order in which they make sense, and looks at who, what, before and after. An operation without a row fails.
func TestEveryChangeIsAudited(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	f.omaha(`<request protocol="3.0"><app appid="{5e3e2f0a-9d1b-4c58-8f53-7d1f0c6b7a11}" version="1.0.0" track="stable" machineid="m1" board="amd64-usr"><event eventtype="3" eventresult="0" errorcode="44" nextversion="0.9.0" reason="web"/></app></request>`)
	f.byLink("ada", fleet.Viewer)
	people, err := f.s.store.Read().People(t.Context())
	if err != nil || len(people) != 1 {
		t.Fatalf("people %+v, %v", people, err)
	}
	ada := people[0].ID
	if err := f.s.store.Write(t.Context(), func(tx store.Tx) error {
		return tx.PutRebootClaim(t.Context(), &fleet.RebootClaim{Group: "default", ID: "m1", Holds: true, Since: time.Now(), Seen: time.Now()})
	}); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	token := f.newToken(fleet.Admin)
	who := "token " + strings.Split(token, "_")[1] + " test"
	c, err := client.NewClient(f.http.URL, token)
	if err != nil {
		t.Fatal(err)
	}

	payload, list := payloadOf("1.0.0"), lockOf("bash", "5.2")
	file, listSum := fileOf(payload), sha256.Sum256(list)
	manifest := manifestOf("1.0.0", "amd64", file, api.File{Name: "packages.lock", Size: int64(len(list)), SHA256: hex.EncodeToString(listSum[:])})
	external := api.External{URLs: []string{"https://one.example/"}, Name: "update.gz", Size: 1, SHA256: strings.Repeat("ab", 32), SHA1: strings.Repeat("cd", 20)}
	slots, plan := 2, rollout.Plan{Canary: rollout.CanaryPlan{Group: "lab"}, Ramp: rollout.Ramp{Over: rollout.Duration(24 * time.Hour)}}
	const release, channel = "1.0.0 for amd64", "channel stable for amd64"
	var madeToken, madeHook string

	steer := func(id, verb, why, before, after string) auditRow {
		return auditRow{
			operation: "SteerRollout",
			call: func(ctx context.Context, c *client.Client) error {
				return dropped(c.SteerRollout(ctx, id, verb, api.Steer{Reason: why}))
			},
			want: []audited{{"rollout-" + verb, "rollout " + id + " of 1.1.0 in stable for amd64", why, before, after}},
		}
	}
	publish := func(version string, n api.NewRelease, want ...audited) auditRow {
		return auditRow{operation: "PutRelease", want: want, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.PutRelease(ctx, version, client.PutReleaseQuery{}, n))
		}}
	}
	member := func(group string, want audited) auditRow {
		return auditRow{operation: "PutMember", want: []audited{want}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.PutMember(ctx, "m1", client.PutMemberQuery{}, api.Member{Group: group}))
		}}
	}
	pin := func(version, why string, want audited) auditRow {
		return auditRow{operation: "PutPin", want: []audited{want}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.PutPin(ctx, "m1", client.PutPinQuery{}, api.Pin{Version: version, Reason: why}))
		}}
	}
	set := func(version string, want audited) auditRow {
		return auditRow{operation: "SetChannel", want: []audited{want}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.SetChannel(ctx, "stable", client.SetChannelQuery{}, api.SetChannel{Version: version}))
		}}
	}
	freshness := func(at time.Time, want ...audited) auditRow {
		var envelope []byte
		return auditRow{operation: "PutFreshness", want: want, call: func(ctx context.Context, c *client.Client) error {
			if envelope == nil {
				envelope = signed(t, statement("1.0.0", at), key)
			}
			if err := dropped(c.PutFreshness(ctx, "stable", client.PutFreshnessQuery{}, envelope)); err != nil {
				return err
			}
			return dropped(c.PutFreshness(ctx, "stable", client.PutFreshnessQuery{}, envelope)) // again: nothing changes
		}}
	}
	mark := func(road, why, before, after string) auditRow {
		return auditRow{operation: "MarkRelease", want: []audited{{"release-mark", release, "", before, after}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.MarkRelease(ctx, "1.0.0", client.MarkReleaseQuery{}, api.Road{Road: road, Reason: why}))
		}}
	}

	rows := []auditRow{
		{operation: "PutBlob", none: "a payload that no release names is nothing to anybody", call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.Upload(ctx, file, bytes.NewReader(payload), nil))
		}},
		publish("1.0.0", api.NewRelease{Manifest: manifest, Signature: []byte("s")}, audited{"release-publish", release, "payload " + file.SHA256, "", "published"}),
		publish("1.0.0", api.NewRelease{Manifest: manifest, Signature: []byte("s"), Packages: list}, audited{"release-packages", release, "", "no list of packages", "a list of packages"}),
		publish("1.0.0", api.NewRelease{Manifest: manifest, Signature: []byte("s"), Packages: list}),
		publish("1.1.0", api.NewRelease{External: &external}, audited{"release-publish", "1.1.0 for amd64", "payload at https://one.example/update.gz", "", "published"}),
		set("1.0.0", audited{"channel-set", channel, "", "offers nothing", "offers 1.0.0"}),
		set("1.1.0", audited{"channel-set", channel, "", "offers 1.0.0", "offers 1.1.0"}),
		set("1.0.0", audited{"channel-set", channel, "", "offers 1.1.0", "offers 1.0.0"}),
		freshness(issued, audited{"channel-freshness", channel, "", "no statement", "1.0.0 is the newest until 2026-01-16T03:00:00Z (1767322800)"}),
		freshness(issued.Add(time.Minute), audited{"channel-freshness", channel, "", "1.0.0 is the newest until 2026-01-16T03:00:00Z (1767322800)", "1.0.0 is the newest until 2026-01-16T03:01:00Z (1767322860)"}),

		{operation: "PutGroup", want: []audited{{"group-add", "lab", "", "", "0 machines"}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.PutGroup(ctx, "lab", client.PutGroupQuery{}))
		}},
		member("lab", audited{"machine-group", "m1", "", "in no group", "in group lab"}),
		pin("1.0.0", "", audited{"machine-pin", "m1", "", "not pinned", "pinned to 1.0.0"}),
		pin("", "a test", audited{"machine-pin", "m1", "", "pinned to 1.0.0", "held where it is: a test"}),
		{operation: "DeletePin", want: []audited{{"machine-unpin", "m1", "", "held where it is: a test", "not pinned"}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.DeletePin(ctx, "m1", client.DeletePinQuery{}))
		}},
		{operation: "ForgetFailures", want: []audited{{"machine-retry", "m1", "", "failed: 0.9.0", "none failed"}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.ForgetFailures(ctx, "m1", client.ForgetFailuresQuery{}))
		}},

		{operation: "PreviewRollout", none: "it only says what would be", call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.PreviewRollout(ctx, client.PreviewRolloutQuery{}, api.NewRollout{Version: "1.1.0", Channel: "stable", Plan: plan}))
		}},
		{operation: "PlanRollout", call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.PlanRollout(ctx, client.PlanRolloutQuery{}, api.NewRollout{Version: "1.1.0", Channel: "stable", Plan: plan}))
		}, want: []audited{{
			"rollout-plan", "rollout 1 of 1.1.0 in stable for amd64", "", "",
			"draft: group lab first, until each of them is healthy and 0s have passed, halting at the first failure; from 0 % to everybody over 24h0m0s; halts at no number of failures",
		}}},
		steer("1", "start", "", "draft", "canary"),
		steer("1", "pause", "lunch", "canary", "paused"),
		steer("1", "resume", "", "paused", "canary"),
		steer("1", "abort", "it is bad", "canary", "aborted"),
		{operation: "PlanRollout", call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.PlanRollout(ctx, client.PlanRolloutQuery{}, api.NewRollout{Version: "1.1.0", Channel: "stable", Start: true}))
		}, want: []audited{
			{"rollout-plan", "rollout 2 of 1.1.0 in stable for amd64", "", "", "draft: everybody at once; halts at no number of failures"},
			{"rollout-start", "rollout 2 of 1.1.0 in stable for amd64", "", "draft", "ramping"},
		}},

		mark("floor", "", "open", "floor"),
		mark("dead-end", "reinstall it", "floor", "dead-end: reinstall it"),
		mark("", "", "dead-end: reinstall it", "open"),
		{operation: "Withdraw", call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.Withdraw(ctx, "1.1.0", client.WithdrawQuery{}, api.Steer{Reason: "it eats disks"}))
		}, want: []audited{
			{"rollout-abort", "rollout 2 of 1.1.0 in stable for amd64", "the release was withdrawn: it eats disks", "ramping", "aborted"},
			{"release-withdraw", "1.1.0 for amd64", "", "can be offered", "withdrawn: it eats disks"},
		}},
		{operation: "Restore", want: []audited{{"release-restore", "1.1.0 for amd64", "it was the disk", "withdrawn: it eats disks", "can be offered"}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.Restore(ctx, "1.1.0", client.RestoreQuery{}, api.Steer{Reason: "it was the disk"}))
		}},
		member("", audited{"machine-group", "m1", "", "in group lab", "in no group"}),
		{operation: "DeleteGroup", want: []audited{{"group-delete", "lab", "", "0 machines", ""}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.DeleteGroup(ctx, "lab", client.DeleteGroupQuery{}))
		}},

		{operation: "SetRebootGroup", want: []audited{{"reboot-group", "default", "", "1 slots, lease 1h0m0s", "2 slots, lease 1h0m0s"}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.SetRebootGroup(ctx, "default", api.SetRebootGroup{Slots: &slots}))
		}},
		{operation: "ReleaseReboot", want: []audited{{"reboot-release", "default/m1", "it burnt down", "holds a slot", "neither holds nor waits"}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.ReleaseReboot(ctx, "default", "m1", api.Steer{Reason: "it burnt down"}))
		}},

		{operation: "PutApplication", want: []audited{{"app-add", "application other", "{0a1b2c3d-d1af-4bde-9a0a-97b76e56dc57}", "", "channels stable, edge"}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.PutApplication(ctx, "other", api.NewApplication{ID: "0a1b2c3d-d1af-4bde-9a0a-97b76e56dc57", Channels: []string{"stable", "edge"}}))
		}},
		{operation: "NewToken", want: []audited{{"token-new", "token ID", "a wall", "", "viewer"}}, call: func(ctx context.Context, c *client.Client) error {
			made, err := c.NewToken(ctx, api.NewToken{Role: "viewer", Label: "a wall"})
			madeToken = made.ID
			return err
		}},
		{operation: "RevokeToken", want: []audited{{"token-revoke", "token ID", "a wall", "viewer", "worthless"}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.RevokeToken(ctx, madeToken))
		}},
		{operation: "NewWebhook", want: []audited{{"webhook-new", "webhook ID", "https://chat.example", "", "told of halt, done"}}, call: func(ctx context.Context, c *client.Client) error {
			made, err := c.NewWebhook(ctx, api.NewWebhook{URL: "https://bot:secret@chat.example/hooks/secret?key=secret", Events: []string{"halt", "done"}})
			madeHook = made.ID
			return err
		}},
		{operation: "TestWebhook", want: []audited{{"webhook-test", "webhook ID", "https://chat.example", "", ""}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.TestWebhook(ctx, madeHook))
		}},
		{operation: "DeleteWebhook", want: []audited{{"webhook-delete", "webhook ID", "https://chat.example", "told of halt, done", ""}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.DeleteWebhook(ctx, madeHook))
		}},
		{operation: "PutPerson", want: []audited{{"person-role", "person " + ada, "ada", "viewer", "operator"}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.PutPerson(ctx, ada, api.SetRole{Role: "operator"}))
		}},
		{operation: "DeletePerson", want: []audited{{"person-remove", "person " + ada, "ada", "operator", ""}}, call: func(ctx context.Context, c *client.Client) error {
			return dropped(c.DeletePerson(ctx, ada))
		}},
	}

	called := map[string]bool{}
	last := f.lastAudit(t)
	for i := range rows {
		row := &rows[i]
		called[row.operation] = true
		if err := row.call(t.Context(), c); err != nil {
			t.Fatalf("row %d, %s: %v", i, row.operation, err)
		}
		log, _, err := f.s.store.Read().Audits(t.Context(), 0, "", 10)
		if err != nil {
			t.Fatal(err)
		}
		var got []audited
		for _, a := range log {
			if a.ID <= last {
				break
			}
			if a.Who != who || a.At.IsZero() || strings.Contains(a.Subject+a.Detail+a.Before+a.After, "secret") {
				t.Errorf("row %d, %s: %+v by %q", i, row.operation, a, who)
			}
			subject := strings.NewReplacer("token "+madeToken, "token ID", "webhook "+madeHook, "webhook ID").Replace(a.Subject)
			got = append([]audited{{a.What, subject, a.Detail, a.Before, a.After}}, got...)
		}
		if last = f.lastAudit(t); !slices.Equal(got, row.want) {
			t.Errorf("row %d, %s: %+v, want %+v %s", i, row.operation, got, row.want, row.none)
		}
	}
	for i := range api.Operations {
		o := &api.Operations[i]
		if changes := !strings.HasPrefix(o.Pattern, http.MethodGet+" "); changes != called[o.Name] {
			t.Errorf("%s (%s): it changes something: %v, it has a row: %v", o.Name, o.Pattern, changes, called[o.Name])
		}
	}
}

func (f *fixture) lastAudit(t *testing.T) int64 {
	t.Helper()
	log, _, err := f.s.store.Read().Audits(t.Context(), 0, "", 1)
	if err != nil || len(log) != 1 {
		t.Fatalf("audit log %+v, %v", log, err)
	}
	return log[0].ID
}
