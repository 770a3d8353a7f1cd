package server

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/rollout"
)

var metricName = regexp.MustCompile(`semper_server_[a-z_]+`)

// Every metric that alert rules and dashboard name is one that a server shows, and has the labels that they ask for.
func TestMonitoring(t *testing.T) {
	f := startRolling(t)
	f.start(rollout.Plan{})
	bad := f.box("bad")
	bad.check()
	bad.ask(false, omaha.Failed("1.1.0", omaha.CodePayloadHash, ""))
	for range failureBurst + 1 {
		f.do("GET", "/api/v1/channels", "", "Authorization", "Bearer semper_guess")
	}
	f.s.metrics.add("semper_server_limited_total", "cause", "rate") // no limits in these tests
	_, _, shown := f.do("GET", "/metrics", "")
	for _, name := range []string{"alerts.yml", "grafana.json", "README.md"} {
		text, err := os.ReadFile("../../docs/monitoring/" + name)
		if err != nil {
			t.Fatal(err)
		}
		found := metricName.FindAllString(string(text), -1)
		if len(found) < 5 {
			t.Errorf("%s names %d metrics", name, len(found))
		}
		for _, m := range found {
			if !strings.Contains(shown, "\n"+m+"{") {
				t.Errorf("%s: the server does not show %s", name, m)
			}
		}
		if strings.HasSuffix(name, ".json") && !json.Valid(text) {
			t.Errorf("%s is no JSON", name)
		}
	}
	for _, want := range []string{
		`semper_server_machines{app="semper",channel="stable",arch="amd64",version="1.0.0"} 1`,
		`semper_server_machine_states{app="semper",state="failed"} 1`,
		`step="failed"} 1`, `state="ramping"} 1`,
	} {
		if !strings.Contains(shown, want) {
			t.Errorf("the metrics lack %s:\n%s", want, shown)
		}
	}
}

// However many versions and channels machines claim, the series stay few.
func TestSeriesAreBounded(t *testing.T) {
	f := startRolling(t)
	for i := range 100 {
		b := f.box(fmt.Sprint("m", i))
		b.version = fmt.Sprintf("1.0.%d", i)
		b.check()
	}
	for i := range 100 {
		b := f.box(fmt.Sprint("c", i))
		b.track = fmt.Sprint("channel", i)
		b.check()
	}
	_, _, shown := f.do("GET", "/metrics", "")
	if n := strings.Count(shown, "\nsemper_server_machines{"); n > 2*maxVersionSeries+1 {
		t.Errorf("%d series", n)
	}
}
