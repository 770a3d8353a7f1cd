package server

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	goomaha "github.com/flatcar/go-omaha/omaha"
	goclient "github.com/flatcar/go-omaha/omaha/client"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/freshness"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/omaha/server/api"
	serverclient "github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/payload"
)

var issued = time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC) // some minutes before the fixture's clock

func statement(version string, at time.Time) freshness.Statement {
	return freshness.Statement{
		Product: "semper", Channel: "stable", Architecture: "amd64", Version: version, Issued: at, Expires: at.Add(14 * 24 * time.Hour),
		Sequence: uint64(at.Unix()),
	}
}

func signed(t *testing.T, s freshness.Statement, signers ...crypto.Signer) []byte {
	t.Helper()
	b, err := freshness.Sign(s, signers)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFreshnessEndToEnd: what a key holder signs reaches a machine over HTTP, with and without an update, and a server that keeps updates back is found out.
func TestFreshnessEndToEnd(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := serverclient.NewClient(f.http.URL, f.token)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := client.New(f.http.URL, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := client.Machine{App: omaha.SemperApp, ID: machineID, Version: "1.0.0", Channel: "stable", Board: "amd64-usr", UserAgent: "semperd/1.0.0"}
	var memory freshness.Memory
	judge := func(at time.Time) freshness.Verdict {
		t.Helper()
		a, err := agent.Check(t.Context(), m, client.Scheduled)
		if err != nil {
			t.Fatal(err)
		}
		s := freshness.Situation{Machine: freshness.Machine{Product: "semper", Channel: "stable", Architecture: "amd64", Now: at}, Running: m.Version}
		if a.Update != nil {
			s.Offered = a.Update.Version
		}
		var v freshness.Verdict
		v, memory = freshness.Judge(a.Freshness, payload.Trust{Keys: []crypto.PublicKey{key.Public()}, Threshold: 1}, s, memory)
		return v
	}
	put := func(s freshness.Statement) {
		t.Helper()
		if _, err := publisher.PutFreshness(t.Context(), "stable", serverclient.PutFreshnessQuery{}, signed(t, s, key)); err != nil {
			t.Fatal(err)
		}
	}
	now := issued.Add(10 * time.Minute)

	if v := judge(now); v.Case != freshness.Missing || v.Allows() {
		t.Errorf("before there is a statement: %+v", v)
	}
	if b, err := publisher.Freshness(t.Context(), "stable", serverclient.FreshnessQuery{}); !fault.Is(err, fault.Input) {
		t.Errorf("statement %q (%v)", b, err)
	}
	f.publish("semper", "1.1.0", "stable")
	put(statement("1.1.0", issued))
	if v := judge(now); v.Case != freshness.Fresh || v.Offered != "1.1.0" || !v.Allows() {
		t.Errorf("with the update it names: %+v", v)
	}
	m.Version = "1.1.0"
	if v := judge(now); v.Case != freshness.Fresh || v.Offered != "" {
		t.Errorf("up to date: %+v", v)
	}
	put(statement("1.2.0", issued.Add(time.Minute))) // and the server never gets, or offers, 1.2.0
	if v := judge(now); v.Case != freshness.Fresh || !v.Behind.Equal(now) {
		t.Errorf("at first: %+v", v)
	}
	if v := judge(now.Add(8 * 24 * time.Hour)); v.Case != freshness.Withheld || !v.Behind.Equal(now) {
		t.Errorf("for eight days: %+v", v)
	}
	if v := judge(issued.Add(15 * 24 * time.Hour)); v.Case != freshness.Expired || !v.Alarming() || v.Allows() {
		t.Errorf("frozen: %+v", v)
	}
	if b, err := publisher.Freshness(t.Context(), "stable", serverclient.FreshnessQuery{}); !bytes.Equal(b, signed(t, statement("1.2.0", issued.Add(time.Minute)), key)) || err != nil {
		t.Errorf("statement %q (%v)", b, err)
	}
	_, _, metrics := f.do("GET", "/metrics", "")
	if want := fmt.Sprintf("# TYPE semper_freshness_expires_timestamp_seconds gauge\nsemper_freshness_expires_timestamp_seconds{app=\"semper\",channel=\"stable\",arch=\"amd64\"} %d\n",
		issued.Add(time.Minute+14*24*time.Hour).Unix()); !strings.HasSuffix(metrics, want) {
		t.Errorf("metrics\n%s\nlack\n%s", metrics, want)
	}
	if want := "freshness stated"; !strings.Contains(f.log.String(), want) {
		t.Errorf("the log lacks %q", want)
	}
	// Other channels, architectures and applications have nothing of it.
	for _, other := range []client.Machine{
		{App: omaha.SemperApp, ID: "b", Version: "1.0.0", Channel: "beta", Board: "amd64-usr"},
		{App: omaha.SemperApp, ID: "c", Version: "1.0.0", Channel: "stable", Board: "arm64-usr"},
		{App: flatcarApp, ID: "d", Version: "1.0.0", Channel: "stable", Board: "amd64-usr"},
	} {
		if a, err := agent.Check(t.Context(), other, client.Scheduled); err != nil || a.Freshness != nil {
			t.Errorf("machine %s got %q (%v)", other.ID, a.Freshness, err)
		}
	}
}

func TestFreshnessRefusals(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	at := issued
	good := string(signed(t, statement("1.1.0", at), key))
	other := statement("1.1.1", at)
	var e api.Error
	var claim api.Freshness
	f.rest("GET", "channels/stable/freshness", "", 404, &e)
	f.rest("PUT", "channels/stable/freshness", good+"\n", 200, &claim)
	if want := (api.Freshness{Channel: "stable", Arch: "amd64", Version: "1.1.0", Issued: at, Expires: at.Add(14 * 24 * time.Hour), Sequence: uint64(at.Unix())}); claim != want {
		t.Errorf("claim %+v, want %+v", claim, want)
	}
	var channels api.Channels
	f.rest("GET", "channels", "", 200, &channels)
	for _, c := range channels.Channels {
		if stated := c.Name == "stable" && c.Arch == "amd64"; (c.Freshness != nil) != stated || stated && *c.Freshness != claim {
			t.Errorf("channel %+v", c)
		}
	}
	f.rest("PUT", "channels/stable/freshness", good, 200, &claim) // once more changes nothing
	for _, c := range []struct {
		name, path, body string
		status           int
		want             string
	}{
		{"older", "stable", string(signed(t, statement("1.2.0", at.Add(-time.Second)), key)), 409, "is not newer"},
		{"same number, another version", "stable", string(signed(t, other, key)), 409, "is not newer"},
		{"expired", "stable", string(signed(t, statement("1.2.0", at.Add(-15*24*time.Hour)), key)), 400, "expired on"},
		{"from the future", "stable", string(signed(t, statement("1.2.0", at.Add(2*time.Hour)), key)), 400, "one of the two clocks is wrong"},
		{"another channel", "beta", good, 400, "is about channel stable for amd64, not beta for amd64"},
		{"another architecture", "stable/freshness?arch=arm64", good, 400, "not stable for arm64"},
		{"unknown application", "stable/freshness?app=other", good, 404, "application other: not found"},
		{"no envelope", "stable", `{"document":"e30="}`, 400, "canonical"},
		{"no JSON", "stable", `hello`, 400, "freshness envelope: "},
		{"nothing", "stable", ``, 400, "freshness envelope: "},
		{"a manifest", "stable", `{"document":"` + "e30=" + `","signatures":[]}`, 400, `type ""`},
		{"too large", "stable", strings.Repeat("x", freshness.MaxSize+2), 400, "too large"},
		{"one too large", "stable", strings.Repeat("x", freshness.MaxSize+1), 400, "more than 16384 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fc := *f
			fc.T = t
			path := c.path
			if !strings.Contains(path, "/") {
				path += "/freshness"
			}
			var e api.Error
			fc.rest("PUT", "channels/"+path, c.body, c.status, &e)
			if !strings.Contains(e.Message, c.want) || e.Kind == "" {
				t.Errorf("error %+v, want %q", e, c.want)
			}
		})
	}
	edge := statement("1.1.0", at)
	edge.Channel = "edge"
	f.rest("PUT", "channels/edge/freshness", string(signed(t, edge, key)), 404, &e)
	viewer := "Bearer " + f.newToken(fleet.Viewer)
	if status, _, _ := f.do("PUT", "/api/v1/channels/stable/freshness", good, "Authorization", viewer); status != 403 {
		t.Errorf("a viewer's PUT: %d", status)
	}
	if status, _, body := f.do("GET", "/api/v1/channels/stable/freshness", "", "Authorization", viewer); status != 200 || body != good {
		t.Errorf("a viewer's GET: %d %s", status, body)
	}
	c, err := serverclient.NewClient(f.http.URL, f.token)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.PutFreshness(t.Context(), "stable", serverclient.PutFreshnessQuery{}, signed(t, other, key))
	var status *serverclient.StatusError
	if !errors.As(err, &status) || status.Status != 409 || !fault.Is(err, fault.Input) {
		t.Errorf("client's error %v", err)
	}
}

// TestGoOmahaIgnoresFreshness: a client that knows nothing of it gets its updates as ever.
func TestGoOmahaIgnoresFreshness(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	var claim api.Freshness
	f.rest("PUT", "channels/stable/freshness?app=flatcar", string(signed(t, statement("1.1.0", issued), key)), 200, &claim)
	if _, _, body := f.do("POST", "/v1/update", vector(t, "1-first-check")); !strings.Contains(body, `semper_freshness="{&#34;document&#34;:&#34;`) {
		t.Fatalf("no statement in %s", body)
	}
	c, err := goclient.NewAppClient(f.http.URL, machineID, flatcarApp, "1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetTrack("stable"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.UpdateCheck(); !errors.Is(err, goomaha.NoUpdate) {
		t.Errorf("check without a release: %v", err)
	}
	f.publish("flatcar", "1.1.0", "stable")
	if u, err := c.UpdateCheck(); err != nil || u.Manifests[0].Version != "1.1.0" {
		t.Errorf("update %+v (%v)", u, err)
	}
}

// TestFreshnessFitsAnswers: the largest request with the largest statements gets an answer that can be read.
func TestFreshnessFitsAnswers(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	var signers []crypto.Signer
	for range 16 {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		signers = append(signers, key)
	}
	b := signed(t, statement("1.1.0", issued), signers...)
	var e struct {
		Document   json.RawMessage  `json:"document"`
		Signatures []map[string]any `json:"signatures"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		t.Fatal(err)
	}
	filler := (freshness.MaxSize - len(b)) / 16
	for _, s := range e.Signatures {
		s["algorithm"] = s["algorithm"].(string) + strings.Repeat("x", filler) // nobody here looks at it
	}
	list := []string{}
	for _, s := range e.Signatures {
		list = append(list, fmt.Sprintf(`{"key_id":%q,"algorithm":%q,"signature":%q}`, s["key_id"], s["algorithm"], s["signature"]))
	}
	large := fmt.Sprintf(`{"document":%s,"signatures":[%s]}`, e.Document, strings.Join(list, ","))
	var claim api.Freshness
	f.rest("PUT", "channels/stable/freshness", large, 200, &claim)
	app := `<app appid="` + omaha.SemperApp + `" version="1.0.0" track="stable" machineid="` + machineID + `" board="amd64-usr"><updatecheck/></app>`
	status, _, answer := f.do("POST", "/v1/update", `<request protocol="3.0">`+strings.Repeat(app, omaha.MaxApps)+`</request>`)
	if status != 200 {
		t.Fatalf("status %d: %s", status, answer)
	}
	res, err := omaha.DecodeResponse([]byte(answer))
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Apps) != omaha.MaxApps || res.Apps[0].UpdateCheck.Freshness != large {
		t.Errorf("%d applications; the first has a statement of %d bytes, want %d", len(res.Apps), len(res.Apps[0].UpdateCheck.Freshness), len(large))
	}
}
