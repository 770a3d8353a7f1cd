package server

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

// TestFeed listens while things change.
func TestFeed(t *testing.T) {
	f := startRolling(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.http.URL+"/api/v1/feed", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.operator)
	req.Header.Set("Accept", "text/event-stream")
	res, err := f.http.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("status %d, %v", res.StatusCode, res.Header)
	}
	lines := bufio.NewScanner(res.Body)
	until := func(topic string) {
		t.Helper()
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "data: ") && strings.Contains(lines.Text(), `"`+topic+`"`) {
				return
			}
		}
		t.Fatalf("nothing of %s: %v", topic, lines.Err())
	}
	time.Sleep(2 * feedEvery) // it compares with what it saw when somebody came
	f.box("m1").check()
	until("machines")
	f.start(rollout.Plan{})
	until("rollouts")
	f.steer("PUT", "releases/1.1.0/road", api.Road{Road: "floor"}, 200, nil)
	until("releases")
	f.box("m1").update("1.1.0")
	until("rollouts")
	_, _, _ = f.do("POST", "/v1/pre-reboot", `{"client_params":{"id":"a","group":"default"}}`, "fleet-lock-protocol", "true")
	until("reboots")
	err = f.s.store.Write(ctx, func(tx store.Tx) error {
		return tx.PutFreshness(ctx, &fleet.Freshness{App: omaha.SemperApp, Channel: "stable", Arch: "amd64", Envelope: []byte("{}"), Version: "1.1.0", Issued: noon, Expires: noon, Stored: noon})
	})
	if err != nil {
		t.Fatal(err)
	}
	until("channels")
	f.s.feeds.close()
	for lines.Scan() {
	}
	if lines.Err() != nil {
		t.Errorf("the feed's end: %v", lines.Err())
	}
	if status, _, _ := f.do("GET", "/api/v1/feed", "", "Authorization", "Bearer "+f.operator, "Accept", "text/event-stream"); status != 503 {
		t.Errorf("status %d while it shuts down", status)
	}
}
