package consoletests

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/semper-os/semper/freshness"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/proxies"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

const (
	hour = time.Hour
	week = 168 * hour
)

func hours(n float64) rollout.Duration { return rollout.Duration(n * float64(hour)) }

// lived is a fleet with a week behind it: releases that went well, one that was withdrawn, a ramp half way, one that stopped itself, a draft and a pause; machines that failed and that fell silent.
func lived(t *testing.T) *simulated {
	t.Helper()
	// What is sampled for charts is sampled at full hours: the simulated time begins at one.
	past := time.Since(time.Now().Truncate(hour)) - time.Minute
	c := &clock{behind: week + past}
	acme := provider(t, staff)
	trusted, err := proxies.Parse([]string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	r := serve(t, "", acme, func(cfg *server.Config) { cfg.Now, cfg.Proxies = c.now, trusted })
	f := &simulated{t: t, r: r, clock: c, moves: map[string]bool{}, issuer: acme.URL, past: past}
	r.write(func(tx store.Tx) error { return r.knows(tx, acme.URL, 0, 0, 0, 0) })
	publisher := r.token(fleet.Publisher, "release pipeline")
	_ = r.token(fleet.Viewer, "Grafana")
	_ = r.token(fleet.Operator, "semperctl, on-call laptop")

	f.add(150, "stable", "amd64", "1.4.2")
	f.add(40, "stable", "arm64", "1.4.2")
	f.add(30, "beta", "amd64", "1.4.2")
	f.add(12, "alpha", "amd64", "1.4.2")
	f.fates()

	// The first day: everything runs 1.4.2.
	for _, arch := range []string{"amd64", "arm64"} {
		f.publish(publisher, "1.4.2", arch)
	}
	for _, where := range [][2]string{{"stable", "amd64"}, {"stable", "arm64"}, {"beta", "amd64"}, {"alpha", "amd64"}} {
		f.set(publisher, where[0], where[1], "1.4.2")
	}
	f.each(f.all, func(u *unit) error { _, err := u.send(); return err })
	grace := r.as("Grace Hopper")
	for group, some := range map[string][]*unit{"lab": f.of("stable", "amd64")[:8], "arm-pilots": f.of("stable", "arm64")[:4], "payments": f.of("stable", "amd64")[140:]} {
		_, err := grace.PutGroup(t.Context(), group, client.PutGroupQuery{})
		f.must(err)
		for _, u := range some {
			_, err := grace.PutMember(t.Context(), u.id, client.PutMemberQuery{}, api.Member{Group: group})
			f.must(err)
		}
	}

	// 1.5.0, to everybody.
	f.until(160 * hour)
	for _, arch := range []string{"amd64", "arm64"} {
		f.publish(publisher, "1.5.0", arch)
	}
	f.set(publisher, "alpha", "amd64", "1.5.0")
	f.start("Grace Hopper", "1.5.0", "beta", "amd64", rollout.Plan{Waves: []rollout.Wave{{Percent: 30}, {After: hours(8), Percent: 100}}, Halt: rollout.Limit{Percent: 10}})
	f.moves["alpha amd64"] = true
	f.until(138 * hour)
	f.start("Katherine Johnson", "1.5.0", "stable", "amd64", careful("lab", 36))
	f.start("Katherine Johnson", "1.5.0", "stable", "arm64", careful("arm-pilots", 24))

	// 1.5.1, which nobody should have.
	f.until(92 * hour)
	f.publish(publisher, "1.5.1", "amd64")
	bad := f.start("Grace Hopper", "1.5.1", "beta", "amd64", rollout.Plan{Ramp: rollout.Ramp{Over: hours(24)}, Halt: rollout.Limit{Percent: 10}})
	f.until(86 * hour)
	f.steer("Grace Hopper", bad, "abort", "certificates are not renewed on machines behind the proxy")
	_, err = r.as("Ada Lovelace").Withdraw(t.Context(), "1.5.1", client.WithdrawQuery{}, api.Steer{Reason: "certificates are not renewed on machines behind the proxy"})
	f.must(err)
	f.moves["beta amd64"] = false

	// 1.6.0: through on beta, half way on stable, stopped on arm64.
	f.until(62 * hour)
	for _, arch := range []string{"amd64", "arm64"} {
		f.publish(publisher, "1.6.0", arch)
	}
	f.set(publisher, "alpha", "amd64", "1.6.0")
	f.start("Katherine Johnson", "1.6.0", "beta", "amd64", rollout.Plan{Waves: []rollout.Wave{{Percent: 20}, {After: hours(4), Percent: 60}, {After: hours(12), Percent: 100}}, Halt: rollout.Limit{Percent: 10}})
	f.until(30 * hour)
	main := f.start("Grace Hopper", "1.6.0", "stable", "amd64", careful("lab", 40))
	f.start("Katherine Johnson", "1.6.0", "stable", "arm64", rollout.Plan{Ramp: rollout.Ramp{Over: hours(30)}, Halt: rollout.Limit{Failures: 4}})
	f.until(20 * hour)
	f.steer("Katherine Johnson", main, "pause", "storage maintenance in fra1")
	f.until(18 * hour)
	f.steer("Katherine Johnson", main, "resume", "maintenance is over")
	f.until(7 * hour)
	f.publish(publisher, "1.7.0", "amd64")
	_, err = r.as("Grace Hopper").PlanRollout(t.Context(), client.PlanRolloutQuery{}, api.NewRollout{Version: "1.7.0", Channel: "alpha", Plan: careful("", 6)})
	f.must(err)
	old := f.start("Katherine Johnson", "1.7.0", "beta", "amd64", rollout.Plan{Ramp: rollout.Ramp{Over: hours(48)}, Halt: rollout.Limit{Percent: 5}})
	f.moves["beta amd64"] = true
	f.until(3 * hour)
	f.steer("Grace Hopper", old, "pause", "waits for the new driver of the NVMe disks")
	f.administer(publisher)
	f.until(40 * time.Minute)
	f.greet()
	f.until(0)
	return f
}

// careful is a plan with canaries.
func careful(group string, ramp float64) rollout.Plan {
	p := rollout.Plan{Ramp: rollout.Ramp{Over: hours(ramp)}, Halt: rollout.Limit{Percent: 8, Sample: 40}, Limits: rollout.Limits{AtOnce: 40}}
	if group != "" {
		p.Canary = rollout.CanaryPlan{Group: group, Need: 4, Healthy: hours(2), Failures: 2}
	}
	return p
}

// fates decides what goes wrong, and who is switched off.
func (f *simulated) fates() {
	web := fate("health check web: connection refused on port 443 for 90 s")
	disk := fate("health check disks: /dev/nvme0n1 reports 214 media errors")
	amd, arm, beta := f.of("stable", "amd64"), f.of("stable", "arm64"), f.of("beta", "amd64")
	for _, i := range []int{23, 61} {
		amd[i].fates["1.6.0"] = web
	}
	amd[77].fates["1.5.0"] = disk
	for _, i := range []int{31, 58} {
		amd[i].fates["1.6.0"] = ""
	}
	for _, u := range arm {
		u.fates["1.6.0"] = "health check network: eth0 has no carrier after 120 s"
	}
	for _, u := range arm[:9] { // the pilots do well, and some others
		delete(u.fates, "1.6.0")
	}
	beta[11].fates["1.6.0"] = disk
}

// publish adds a release whose payload is as large as they are, without its bytes.
func (f *simulated) publish(c *client.Client, version, arch string) {
	f.t.Helper()
	payload := fleet.File{Name: api.Payload, Size: 212_860_928 + int64(sha256.Sum256([]byte(version + arch))[0])*131_072, SHA256: sha256.Sum256([]byte(version + arch))}
	f.r.write(func(tx store.Tx) error { return tx.AddBlob(f.t.Context(), payload, f.r.now()) })
	_, err := c.PutRelease(f.t.Context(), version, client.PutReleaseQuery{Arch: arch}, releaseOf(version, arch, &payload))
	f.must(err)
}

func (f *simulated) set(c *client.Client, channel, arch, version string) {
	f.t.Helper()
	_, err := c.SetChannel(f.t.Context(), channel, client.SetChannelQuery{Arch: arch}, api.SetChannel{Version: version})
	f.must(err)
}

func (f *simulated) start(who, version, channel, arch string, plan rollout.Plan) int64 {
	f.t.Helper()
	ro, err := f.r.as(who).PlanRollout(f.t.Context(), client.PlanRolloutQuery{}, api.NewRollout{Version: version, Channel: channel, Arch: arch, Plan: plan, Start: true})
	f.must(err)
	f.moves[channel+" "+arch] = true
	return ro.ID
}

func (f *simulated) steer(who string, id int64, verb, why string) {
	f.t.Helper()
	_, err := f.r.as(who).SteerRollout(f.t.Context(), strconv.FormatInt(id, 10), verb, api.Steer{Reason: why})
	f.must(err)
}

func (f *simulated) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// administer is what administrators do besides: pins, tokens, webhooks, reboot groups, freshness.
func (f *simulated) administer(publisher *client.Client) {
	f.t.Helper()
	ctx, ada, grace := f.t.Context(), f.r.as("Ada Lovelace"), f.r.as("Grace Hopper")
	pinned := f.of("stable", "amd64")[145]
	_, err := grace.PutPin(ctx, pinned.id, client.PutPinQuery{}, api.Pin{Version: "1.5.0", Reason: "the card terminal's vendor certifies 1.5 only"})
	f.must(err)
	_, err = ada.MarkRelease(ctx, "1.5.0", client.MarkReleaseQuery{}, api.Road{Road: "floor", Reason: "moves the configuration to its new place"})
	f.must(err)
	made, err := ada.NewToken(ctx, api.NewToken{Role: "viewer", Label: "old status page"})
	f.must(err)
	_, err = ada.RevokeToken(ctx, made.ID)
	f.must(err)
	slots, lease := 2, "2h0m0s"
	_, err = grace.SetRebootGroup(ctx, "fra1", api.SetRebootGroup{Slots: &slots, Lease: &lease})
	f.must(err)

	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.must(err)
	for i, s := range []struct {
		channel, arch, version string
		days                   int
	}{{"stable", "amd64", "1.5.0", 11}, {"stable", "arm64", "1.5.0", 11}, {"beta", "amd64", "1.6.0", 2}} {
		now := f.r.now().UTC().Truncate(time.Second)
		envelope, err := freshness.Sign(freshness.Statement{
			Product: "semper", Channel: s.channel, Architecture: s.arch, Version: s.version, Issued: now, Expires: now.Add(time.Duration(s.days) * 24 * hour), Sequence: uint64(41 + i),
		}, []crypto.Signer{key})
		f.must(err)
		_, err = publisher.PutFreshness(ctx, s.channel, client.PutFreshnessQuery{Arch: s.arch}, envelope)
		f.must(err)
	}
}

// greet has the machines that are there ask, so that they were seen just now; webhooks are there that were told something.
func (f *simulated) greet() {
	f.t.Helper()
	waiting := f.of("stable", "amd64")[40:45]
	claim(f.t, f.r, waiting[0].id, "fra1")
	for turn := range 4 {
		if turn == 2 {
			for _, u := range waiting[1:4] {
				claim(f.t, f.r, u.id, "fra1")
			}
		}
		var some []*unit
		for i, u := range f.all {
			if !u.off && u.step == 0 && i%4 == turn {
				some = append(some, u)
			}
		}
		f.each(some, (*unit).live)
		f.clock.until(f.clock.ago() - 8*time.Minute)
	}
	f.r.write(func(tx store.Tx) error { return f.r.knows(tx, f.issuer, 0, 50*time.Minute, 3*hour, 26*hour) })
	ada := f.r.as("Ada Lovelace")
	_, err := ada.PutPerson(f.t.Context(), "oidc:4", api.SetRole{Role: "operator"})
	f.must(err)
	for _, h := range []struct {
		url    string
		events []string
		status int
		tells  string
	}{
		{"https://chat.example.org/hooks/semper-alerts", []string{"halt", "withdrawn", "silent"}, http.StatusNoContent, ""},
		{"https://status.example.org/api/events", []string{"done"}, http.StatusServiceUnavailable, "it answered 503 Service Unavailable"},
	} {
		made, err := ada.NewWebhook(f.t.Context(), api.NewWebhook{URL: h.url, Events: h.events})
		f.must(err)
		f.r.write(func(tx store.Tx) error {
			d := store.Delivery{Webhook: made.ID, Event: h.events[0], Body: []byte("{}"), At: f.r.now().Add(-9 * hour)}
			if err := tx.AddDelivery(f.t.Context(), &d); err != nil {
				return err
			}
			d.Attempts, d.Status, d.Error, d.Done, d.Next = 1, h.status, h.tells, h.tells == "", f.r.now().Add(3*hour)
			return tx.PutDelivery(f.t.Context(), &d)
		})
	}
}

// versions of Debian packages in each release, as far as they change.
var versionsOf = map[string]map[string]string{
	"1.4.2": {"linux-image-amd64": "6.12.48-1", "linux-image-arm64": "6.12.48-1", "openssl": "3.5.1-1+deb13u1", "systemd": "257.8-1~deb13u2", "curl": "8.14.1-2", "libc6": "2.41-12"},
	"1.5.0": {"linux-image-amd64": "6.12.57-1", "linux-image-arm64": "6.12.57-1", "openssl": "3.5.4-1~deb13u1", "systemd": "257.9-1~deb13u1", "curl": "8.14.1-2", "libc6": "2.41-12"},
	"1.5.1": {"linux-image-amd64": "6.12.57-1", "openssl": "3.5.4-1~deb13u1", "systemd": "257.9-1~deb13u1", "curl": "8.14.1-2+deb13u2", "libc6": "2.41-12+deb13u1", "chrony": "4.6.1-3"},
	"1.6.0": {"linux-image-amd64": "6.12.63-1", "linux-image-arm64": "6.12.63-1", "openssl": "3.5.4-1~deb13u2", "systemd": "257.9-1~deb13u1", "curl": "8.14.1-2+deb13u2", "libc6": "2.41-12+deb13u1", "chrony": "4.6.1-3", "nftables": "1.1.3-1"},
	"1.7.0": {"linux-image-amd64": "6.12.69-1", "openssl": "3.5.5-1~deb13u1", "systemd": "257.10-1~deb13u1", "curl": "8.14.1-2+deb13u2", "libc6": "2.41-12+deb13u2", "chrony": "4.6.1-3", "nftables": "1.1.3-1"},
}

// always are packages that are the same in all releases.
var always = map[string]string{
	"bash": "5.2.37-2+b5", "ca-certificates": "20250419", "coreutils": "9.7-3", "cryptsetup-bin": "2:2.7.5-2", "dbus": "1.16.2-2", "e2fsprogs": "1.47.2-3+b3", "iproute2": "6.15.0-1",
	"kmod": "34.2-2", "libssh2-1t64": "1.11.1-1", "openssh-server": "1:10.0p1-7", "podman": "5.4.2+ds1-2+b1", "procps": "2:4.0.4-9", "tzdata": "2025b-4+deb13u1", "udev": "257.8-1~deb13u2", "zstd": "1.5.7+dfsg-1",
}

// claim asks for a reboot slot in a group.
func claim(t *testing.T, r *running, id, group string) {
	t.Helper()
	fleetLock(t, r, fmt.Sprintf(`{"client_params":{"id":%q,"group":%q}}`, id, group))
}
