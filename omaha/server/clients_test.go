package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	goomaha "github.com/flatcar/go-omaha/omaha"
	goclient "github.com/flatcar/go-omaha/omaha/client"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
)

// TestGoOmahaClient drives a whole update with go-omaha's client.
func TestGoOmahaClient(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	c, err := goclient.NewAppClient(f.http.URL, machineID, flatcarApp, "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetTrack("stable"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UpdateCheck(); !errors.Is(err, goomaha.NoUpdate) {
		t.Fatalf("check without a release: %v", err)
	}
	f.publish("flatcar", "1.1.0", "stable")
	u, err := c.UpdateCheck()
	if err != nil {
		t.Fatal(err)
	}
	data := payloadOf("1.1.0")
	sum := sha256.Sum256(data)
	p := u.Manifests[0].Packages[0]
	if u.Manifests[0].Version != "1.1.0" || p.Name != "full.crau" || p.Size != uint64(len(data)) || p.SHA1 != sha1Base64(data) || !p.Required ||
		u.Manifests[0].Actions[0].SHA256 != base64.StdEncoding.EncodeToString(sum[:]) {
		t.Errorf("manifest %+v, package %+v", u.Manifests[0], p)
	}
	res, err := http.Get(u.URLs[0].CodeBase + p.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || sha256.Sum256(body) != sum {
		t.Errorf("payload of %d bytes (%v)", len(body), err)
	}
	f.expect("granted", "1.0.0", "1.1.0", 0)
	for i, step := range []struct {
		event *goomaha.EventRequest
		state string
	}{
		{goclient.EventDownloading, "downloading"}, {goclient.EventDownloaded, "downloaded"}, {goclient.EventInstalled, "installed"},
	} {
		if err := <-c.Event(step.event); err != nil {
			t.Fatal(err)
		}
		f.expect(step.state, "1.0.0", "1.1.0", i+1)
	}
	if err := c.SetVersion("1.1.0"); err != nil {
		t.Fatal(err)
	}
	done := *goclient.EventComplete
	done.PreviousVersion = "1.0.0"
	if err := <-c.Event(&done); err != nil {
		t.Fatal(err)
	}
	f.expect("complete", "1.1.0", "1.1.0", 4)
	if _, err := c.UpdateCheck(); !errors.Is(err, goomaha.NoUpdate) { // with its 3/2 that says nothing
		t.Errorf("check of the new version: %v", err)
	}
	if err := c.Ping(); err != nil {
		t.Error(err)
	}
	f.expect("complete", "1.1.0", "1.1.0", 4)
	if err := <-c.Event(goclient.NewErrorEvent(goclient.ExitCodeOmahaRequestError)); err != nil {
		t.Error(err)
	}
	f.expect("complete", "1.1.0", "1.1.0", 5)
}

// TestOurClient drives a failing update, then a good one, with the agent's client.
func TestOurClient(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	c, err := client.New(f.http.URL, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := client.Machine{
		App: omaha.SemperApp, ID: machineID, Alias: "web-1", BootID: "b", Version: "1.0.0", FirstVersion: "1.0.0", Channel: "stable",
		Board: "amd64-usr", Platform: "qemu", UserAgent: "semperd/1.0.0",
	}
	ctx := t.Context()
	check := func(events ...omaha.Event) client.Answer {
		t.Helper()
		a, err := c.Check(ctx, m, client.Scheduled, events...)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	report := func(events ...omaha.Event) {
		t.Helper()
		if err := c.Report(ctx, m, events...); err != nil {
			t.Fatal(err)
		}
	}
	want := client.Answer{PollInterval: 45 * time.Minute, Reason: "channel stable has no release for amd64 yet"}
	if got := check(); !reflect.DeepEqual(got, want) {
		t.Fatalf("answer %+v, want %+v", got, want)
	}
	f.publish("semper", "1.1.0", "stable")
	u := check().Update
	if u == nil || u.Version != "1.1.0" {
		t.Fatalf("update %+v", u)
	}
	res, err := http.Get(u.URLs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || int64(len(body)) != u.Size || sha256.Sum256(body) != u.SHA256 {
		t.Errorf("payload of %d bytes (%v)", len(body), err)
	}
	report(omaha.DownloadStarted("1.1.0"), omaha.DownloadFinished("1.1.0"))
	report(omaha.Installed("1.1.0"))
	a := check(omaha.RolledBack("1.1.0", "health check web: connection refused"))
	if a.Update != nil || a.PollInterval != 45*time.Minute || !strings.HasPrefix(a.Reason, "1.1.0 failed on this machine on 2026-01-02 03:0") ||
		!strings.HasSuffix(a.Reason, " UTC and is not offered to it again: health check web: connection refused (code 44 rollback)") {
		t.Errorf("answer after the failure %+v", a)
	}
	f.publish("semper", "1.2.0", "stable")
	if u := check().Update; u == nil || u.Version != "1.2.0" {
		t.Fatalf("update %+v", u)
	}
	report(omaha.Installed("1.2.0"))
	m.Version = "1.2.0"
	if a := check(omaha.Completed("1.0.0")); a.Update != nil {
		t.Errorf("answer after the completion %+v", a)
	}
	got := f.machine("semper")
	if got.State != "complete" || got.Version != "1.2.0" || got.Alias != "web-1" || got.Arch != "amd64" || len(got.Events) != 6 ||
		got.Events[3].Sentence != "1.1.0 failed: health check web: connection refused (code 44 rollback)" {
		t.Errorf("machine %+v", got)
	}

	stranger := m
	stranger.App = "{00000000-0000-0000-0000-000000000000}"
	var unknown *client.AppError
	if _, err := c.Check(ctx, stranger, client.OnDemand); !errors.As(err, &unknown) || unknown.Status != omaha.AppUnknown || !fault.Is(err, fault.Input) {
		t.Errorf("unknown application: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Report(cancelled, m, omaha.Installed("1.2.0")); !errors.Is(err, context.Canceled) || !fault.Is(err, fault.Network) {
		t.Errorf("cancelled: %v", err)
	}
}
