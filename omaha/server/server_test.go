package server

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/blobs"
	"github.com/semper-os/semper/omaha/server/blobs/s3test"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

const (
	flatcarApp = "{e96281a6-d1af-4bde-9a0a-97b76e56dc57}"
	machineID  = "0123456789abcdef0123456789abcdef"
)

// clock is a time that moves by a second whenever it is read.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Second)
	return c.now
}

type fixture struct {
	*testing.T
	s     *Server
	http  *httptest.Server
	token string
	log   *syncBuffer

	adminToken string // empty until somebody wants it
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// stop ends the server, once.
func (f *fixture) stop() {
	if f.s == nil {
		return
	}
	f.http.Close()
	if err := f.s.Close(); err != nil {
		f.Error(err)
	}
	f.s = nil
}

// serve starts a server on a data folder, with Flatcar's application beside Semper's.
func serve(t *testing.T, dir string, cfg Config) *fixture {
	t.Helper()
	log := &syncBuffer{}
	cfg.Dir, cfg.Database, cfg.Log = dir, databaseOf(t, dir), slog.New(slog.NewTextHandler(log, nil))
	if cfg.Now == nil {
		cfg.Now = (&clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}).read
	}
	if cfg.PollInterval == 0 {
		cfg.PollInterval = 45 * time.Minute
	}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(s.Handler())
	token, err := os.ReadFile(filepath.Join(dir, TokenFile))
	if err != nil {
		t.Fatal(errors.Join(err, s.Close()))
	}
	f := &fixture{T: t, s: s, http: hs, token: strings.TrimSpace(string(token)), log: log}
	t.Cleanup(f.stop)
	err = s.store.Write(t.Context(), func(tx store.Tx) error {
		if _, err := tx.Application(t.Context(), flatcarApp); err == nil {
			return nil
		}
		if err := tx.AddApplication(t.Context(), fleet.Application{ID: flatcarApp, Name: "flatcar"}); err != nil {
			return err
		}
		return tx.AddChannel(t.Context(), fleet.Channel{App: flatcarApp, Name: "stable", Arch: "amd64"})
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// do sends a request and returns the answer's status, headers and body.
func (f *fixture) do(method, path, body string, header ...string) (int, http.Header, string) {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), method, f.http.URL+path, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := f.http.Client().Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		f.Fatal(err)
	}
	return res.StatusCode, res.Header, string(data)
}

// rest sends a request with the publish token, demands a status, and decodes the answer.
func (f *fixture) rest(method, path, body string, status int, into any) {
	f.Helper()
	got, _, answer := f.do(method, "/api/v1/"+path, body, "Authorization", "Bearer "+f.token)
	if got != status {
		f.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, answer)
	}
	if err := json.Unmarshal([]byte(answer), into); err != nil {
		f.Fatalf("%s %s: %v in %s", method, path, err, answer)
	}
}

func payloadOf(version string) []byte { return bytes.Repeat([]byte("CrAU "+version+"\n"), 10_000) }

// manifestOf is as much of a manifest.json as the server reads.
func manifestOf(version, arch string, files ...api.File) []byte {
	data, _ := json.Marshal(manifest{Format: 1, Version: version, Architecture: arch, Files: files})
	return data
}

// publish uploads a release and assigns it to a channel.
func (f *fixture) publish(app, version, channel string) {
	f.Helper()
	c, err := client.NewClient(f.http.URL, f.token)
	if err != nil {
		f.Fatal(err)
	}
	data := payloadOf(version)
	sum := sha256.Sum256(data)
	file := api.File{Name: "full.crau", Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
	if _, err := c.Upload(f.Context(), file, bytes.NewReader(data), nil); err != nil {
		f.Fatal(err)
	}
	r := api.NewRelease{Manifest: manifestOf(version, "amd64", file), Signature: []byte("sig")}
	if _, err := c.PutRelease(f.Context(), version, client.PutReleaseQuery{App: app}, r); err != nil {
		f.Fatal(err)
	}
	if _, err := c.SetChannel(f.Context(), channel, client.SetChannelQuery{App: app}, api.SetChannel{Version: version}); err != nil {
		f.Fatal(err)
	}
}

// vector is a captured request, changed by pairs of old and new text.
func vector(t testing.TB, name string, change ...string) string {
	t.Helper()
	data, err := os.ReadFile("../testdata/flatcar-" + name + ".request.xml")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(change); i += 2 {
		if !strings.Contains(string(data), change[i]) {
			t.Fatalf("%s does not hold %q", name, change[i])
		}
	}
	return strings.NewReplacer(change...).Replace(string(data))
}

// omaha posts a request and returns the answer to its only application.
func (f *fixture) omaha(body string) *omaha.AppResponse {
	f.Helper()
	status, header, answer := f.do("POST", "/v1/update/", body, "Content-Type", "text/xml")
	if status != http.StatusOK || header.Get("Content-Type") != "text/xml; charset=utf-8" {
		f.Fatalf("status %d, type %q: %s", status, header.Get("Content-Type"), answer)
	}
	res, err := omaha.DecodeResponse([]byte(answer))
	if err != nil {
		f.Fatal(err)
	}
	if len(res.Apps) != 1 {
		f.Fatalf("%d applications in %s", len(res.Apps), answer)
	}
	return &res.Apps[0]
}

func (f *fixture) machine(app string) api.MachineDetail {
	f.Helper()
	var m api.MachineDetail
	f.rest("GET", "machines/"+machineID+"?app="+app, "", 200, &m)
	return m
}

// expect compares a machine's state at the server.
func (f *fixture) expect(state, version, target string, events int) api.MachineDetail {
	f.Helper()
	m := f.machine("flatcar")
	if m.State != state || m.Version != version || m.Target != target || len(m.Events) != events {
		f.Fatalf("machine is %s, runs %s, target %q, %d events; want %s, %s, %q, %d", m.State, m.Version, m.Target, len(m.Events), state, version, target, events)
	}
	return m
}

// offered demands an update to a version; noUpdate demands none, with a reason.
func (f *fixture) offered(a *omaha.AppResponse, version string) omaha.Payload {
	f.Helper()
	if a.UpdateCheck == nil || a.UpdateCheck.Status != omaha.UpdateAvailable {
		f.Fatalf("no update is offered: %+v", a.UpdateCheck)
	}
	p, err := a.UpdateCheck.Payload()
	if err != nil {
		f.Fatal(err)
	}
	if p.Version != version {
		f.Fatalf("%s is offered, want %s", p.Version, version)
	}
	return p
}

func (f *fixture) noUpdate(a *omaha.AppResponse, reason string) {
	f.Helper()
	u := a.UpdateCheck
	if u == nil || u.Status != omaha.NoUpdate || !strings.Contains(u.Reason, reason) || u.PollInterval != 45*time.Minute || a.Status != omaha.AppOK {
		f.Fatalf("answer %+v, want no update because of %q", u, reason)
	}
}

// TestGoodUpdate walks through what Flatcar's client sends from the first check to the completion.
func TestGoodUpdate(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	f.noUpdate(f.omaha(vector(t, "1-first-check")), "channel stable has no release for amd64 yet")
	f.expect("unknown", "1.0.0", "", 0)

	f.publish("flatcar", "1.1.0", "stable")
	p := f.offered(f.omaha(vector(t, "1-first-check")), "1.1.0")
	if data := payloadOf("1.1.0"); p.Size != int64(len(data)) || p.SHA256 != sha256.Sum256(data) ||
		p.URLs[0] != f.http.URL+"/payloads/"+hex.EncodeToString(p.SHA256[:])+"/full.crau" {
		t.Fatalf("payload %+v", p)
	}
	f.expect("granted", "1.0.0", "1.1.0", 0)
	f.offered(f.omaha(vector(t, "later-check-empty-previousversion")), "1.1.0") // it asks again and resumes

	for i, step := range []struct{ vector, state string }{
		{"2-download-started", "downloading"}, {"3-download-finished", "downloaded"}, {"4-applied", "installed"},
	} {
		if a := f.omaha(vector(t, step.vector)); a.Events != 1 || a.UpdateCheck != nil {
			t.Fatalf("answer to an event: %+v", a)
		}
		f.expect(step.state, "1.0.0", "1.1.0", i+1)
	}
	// After the reboot the next check carries the old version.
	done := vector(t, "later-check-empty-previousversion", `previousversion=""`, `previousversion="1.0.0"`, ` version="1.0.0"`, ` version="1.1.0"`)
	f.noUpdate(f.omaha(done), "the machine runs 1.1.0, the release of channel stable")
	m := f.expect("complete", "1.1.0", "1.1.0", 4)
	if e := m.Events[3]; e.Sentence != "completed the update from 1.0.0" || e.Version != "1.1.0" {
		t.Errorf("last event %+v", e)
	}
	if m.Alias != "lab-1" || m.Platform != "qemu" || m.FirstVersion != "1.0.0" || m.Address != "127.0.0.1" || m.Why.Cause != "up-to-date" {
		t.Errorf("machine %+v", m)
	}
	for _, line := range []string{
		`msg=granted machine=` + machineID + ` alias=lab-1 version=1.0.0 granted=1.1.0`, `event="completed the update from 1.0.0"`,
	} {
		if !strings.Contains(f.log.String(), line) {
			t.Errorf("the log lacks %s:\n%s", line, f.log)
		}
	}
	if n := strings.Count(f.log.String(), "msg=granted"); n != 1 {
		t.Errorf("%d grants are logged, want 1", n)
	}
}

// TestFailedUpdates: a version that failed is not offered to that machine again, and is to others; a newer one is offered to both.
func TestFailedUpdates(t *testing.T) {
	for _, c := range []struct{ vector, why, sentence string }{
		{"failed-bad-signature", "the payload is not signed by a trusted key (code 18 payload-signature)", "the update failed"},
		{"failed-bad-blob-hash", "an operation's data has another hash than the manifest says (code 29 operation-hash)", "the update failed"},
		{"rolled-back", "the new version was booted, and the machine went back to the old one (code 44 rollback)", "the update failed"},
	} {
		t.Run(c.vector, func(t *testing.T) {
			f := serve(t, t.TempDir(), Config{})
			f.publish("flatcar", "1.1.0", "stable")
			f.offered(f.omaha(vector(t, "1-first-check")), "1.1.0")
			f.omaha(vector(t, "2-download-started"))
			if a := f.omaha(vector(t, c.vector)); a.UpdateCheck != nil { // the rolled-back vector is a check as well
				f.noUpdate(a, "1.1.0 failed on this machine")
			}
			m := f.expect("failed", "1.0.0", "1.1.0", 2)
			if m.Detail != c.why || len(m.FailedVersions) != 1 || m.FailedVersions[0].Version != "1.1.0" || m.FailedVersions[0].Reason != c.why {
				t.Errorf("detail %q, failures %+v", m.Detail, m.FailedVersions)
			}
			if m.Why.Cause != "failed-before" || m.Why.Offer != "" || !strings.Contains(m.Why.Sentence, c.why) {
				t.Errorf("why %+v", m.Why)
			}
			f.noUpdate(f.omaha(vector(t, "later-check-empty-previousversion")), c.why)
			f.expect("failed", "1.0.0", "1.1.0", 2)

			f.offered(f.omaha(vector(t, "1-first-check", machineID, "ffff")), "1.1.0")
			f.publish("flatcar", "1.1.1", "stable")
			f.offered(f.omaha(vector(t, "later-check-empty-previousversion")), "1.1.1")
			f.expect("granted", "1.0.0", "1.1.1", 2)
			f.publish("flatcar", "1.1.0", "stable") // back to the failed one: still not for this machine
			f.noUpdate(f.omaha(vector(t, "later-check-empty-previousversion")), c.why)
		})
	}
}

// TestFailureWithNextVersion: a client that names the version attempted is believed, whatever was granted, and its reason is kept.
func TestFailureWithNextVersion(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	f.publish("flatcar", "1.1.0", "stable")
	f.omaha(vector(t, "1-first-check"))
	f.omaha(vector(t, "failed-bad-signature", `eventresult="0"`, `eventresult="0" nextversion="1.2.0" reason="key 7 is not trusted"`))
	m := f.expect("failed", "1.0.0", "1.2.0", 1)
	if m.FailedVersions[0].Version != "1.2.0" || m.Events[0].Sentence != "1.2.0 failed: key 7 is not trusted (code 18 payload-signature)" {
		t.Errorf("failures %+v, event %+v", m.FailedVersions, m.Events[0])
	}
	f.offered(f.omaha(vector(t, "later-check-empty-previousversion")), "1.1.0")
}

// TestPassingFailure: a broken connection is no reason to withhold the version.
func TestPassingFailure(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	f.publish("flatcar", "1.1.0", "stable")
	f.omaha(vector(t, "1-first-check"))
	f.omaha(vector(t, "2-download-started"))
	f.omaha(vector(t, "failed-bad-signature", `errorcode="268435474"`, `errorcode="268435465"`))
	if m := f.expect("failed", "1.0.0", "1.1.0", 2); len(m.FailedVersions) != 0 || m.Why.Offer != "1.1.0" {
		t.Errorf("failures %+v, why %+v", m.FailedVersions, m.Why)
	}
	f.offered(f.omaha(vector(t, "later-check-empty-previousversion")), "1.1.0")
	f.expect("granted", "1.0.0", "1.1.0", 2)
}

func TestSemperClientIsAnsweredToo(t *testing.T) {
	f := serve(t, t.TempDir(), Config{PublicURL: "https://updates.example.org/base"})
	f.publish("semper", "1.1.0", "beta")
	req := omaha.Request{Apps: []omaha.AppRequest{
		{ID: "5E3E2F0A-9D1B-4C58-8F53-7D1F0C6B7A11", Version: "1.0.0", Track: "beta", MachineID: machineID, Board: "amd64-usr", UpdateCheck: true},
	}}
	p := f.offered(f.omaha(string(req.Encode())), "1.1.0")
	if want := "https://updates.example.org/base/payloads/" + hex.EncodeToString(p.SHA256[:]) + "/full.crau"; p.URLs[0] != want {
		t.Errorf("URL %s, want %s", p.URLs[0], want)
	}
	if m := f.machine("semper"); m.State != "granted" || m.Channel != "beta" {
		t.Errorf("machine %+v", m.Machine)
	}
}

func TestHoldsAreNoErrors(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	f.publish("flatcar", "1.1.0", "stable")
	check := func(change ...string) *omaha.AppResponse { return f.omaha(vector(t, "1-first-check", change...)) }
	f.noUpdate(check(`track="stable"`, `track="edge"`), `there is no channel "edge" for amd64`)
	f.noUpdate(check("amd64-usr", "arm64-usr"), `there is no channel "stable" for arm64`)
	f.noUpdate(check("amd64-usr", "", "x86_64", ""), "does not say which architecture")
	f.noUpdate(check(machineID, ""), "names no machine")
	f.noUpdate(check(` version="1.0.0" track`, ` version="x" track`), "cannot be compared")
	if a := check(flatcarApp, "{00000000-0000-0000-0000-000000000000}"); a.Status != omaha.AppUnknown || a.UpdateCheck != nil {
		t.Errorf("unknown application: %+v", a)
	}
	if a := check(flatcarApp, "semper"); a.Status != omaha.AppUnknown {
		t.Errorf("an application's name instead of its id: %+v", a)
	}
	if a := check(` appid="`+flatcarApp+`"`, ""); a.Status != omaha.AppInvalidID {
		t.Errorf("no application: %+v", a)
	}
	var list api.Machines
	f.rest("GET", "machines?app=flatcar", "", 200, &list)
	if len(list.Machines) != 1 {
		t.Errorf("machines %+v, want the one with an id", list.Machines)
	}
}

func TestSeveralApplicationsInOneRequest(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	f.publish("semper", "2.0.0", "stable")
	app := func(id string) omaha.AppRequest {
		return omaha.AppRequest{
			ID: id, Version: "1.0.0", Track: "stable", MachineID: machineID, Board: "amd64-usr", Ping: true, UpdateCheck: true,
			Events: []omaha.Event{omaha.Installed("1.0.0")},
		}
	}
	req := omaha.Request{Apps: []omaha.AppRequest{app(flatcarApp), app("{unknown}"), app(omaha.SemperApp)}}
	_, _, body := f.do("POST", "/v1/update", string(req.Encode()), "Content-Type", "application/xml")
	res, err := omaha.DecodeResponse([]byte(body))
	if err != nil || len(res.Apps) != 3 {
		t.Fatalf("%s (%v)", body, err)
	}
	if a := res.Apps[0]; a.Status != omaha.AppOK || a.UpdateCheck.Status != omaha.NoUpdate || !a.Ping || a.Events != 1 {
		t.Errorf("first %+v", a)
	}
	if a := res.Apps[1]; a.Status != omaha.AppUnknown || a.UpdateCheck != nil || a.Events != 0 {
		t.Errorf("second %+v", a)
	}
	f.offered(&res.Apps[2], "2.0.0")
}

func TestRefusedUpdateRequests(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	good := vector(t, "1-first-check")
	for _, c := range []struct {
		name, method, body, contentType string
		status                          int
		text                            string
	}{
		{"not XML", "POST", "hello", "text/xml", 400, "omaha request: "},
		{"empty", "POST", "", "text/xml", 400, "the document is empty"},
		{"entities", "POST", `<!DOCTYPE r [<!ENTITY a "b">]>` + good, "text/xml", 400, "omaha request: line 1"},
		{"too large", "POST", strings.Repeat(" ", omaha.MaxRequestSize) + good, "text/xml", 413, "the request is too large"},
		{"deep", "POST", strings.Repeat("<a>", 10_000), "text/xml", 400, "nested more than 16 deep"},
		{"JSON", "POST", "{}", "application/json", 415, "text/xml"},
		{"GET", "GET", "", "", 405, "Method Not Allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, _, body := f.do(c.method, "/v1/update", c.body, "Content-Type", c.contentType)
			if status != c.status || !strings.Contains(body, c.text) || len(body) > 300 {
				t.Errorf("status %d: %s; want %d with %q", status, body, c.status, c.text)
			}
		})
	}
	t.Run("malformed host", func(t *testing.T) {
		r := httptest.NewRequest(http.MethodPost, "/v1/update", strings.NewReader(good))
		r.Host = "a\"><script>"
		w := httptest.NewRecorder()
		if f.s.Handler().ServeHTTP(w, r); w.Code != 400 {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	})
}

// TestNothingIsAnsweredThatIsNotOnDisk: with the database gone the machine is told to come back, not that all is well.
func TestNothingIsAnsweredThatIsNotOnDisk(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	if err := f.s.store.Close(); err != nil {
		t.Fatal(err)
	}
	status, header, body := f.do("POST", "/v1/update", vector(t, "4-applied"), "Content-Type", "text/xml")
	if status != 503 || header.Get("Retry-After") != "60" || !strings.Contains(body, "ask again later") {
		t.Errorf("status %d, Retry-After %q: %s", status, header.Get("Retry-After"), body)
	}
	if status, _, _ := f.do("GET", "/readyz", ""); status != 503 {
		t.Errorf("readyz: %d", status)
	}
	if status, _, _ := f.do("GET", "/healthz", ""); status != 200 {
		t.Errorf("healthz: %d", status)
	}
}

func TestPayloads(t *testing.T) {
	t.Run("folder", func(t *testing.T) {
		payloads(t, Config{}, func(s *Server, sum string) string { return filepath.Join(s.cfg.Dir, "payloads", sum[:2], sum) })
	})
	t.Run("bucket", func(t *testing.T) {
		s3, err := s3test.New(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s3.Stop(); err != nil {
				t.Error(err)
			}
		})
		if err := errors.Join(s3.MakeBucket("releases"), s3.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
		t.Setenv("AWS_ACCESS_KEY_ID", s3test.AccessKey)
		t.Setenv("AWS_SECRET_ACCESS_KEY", s3test.SecretKey)
		payloads(t, Config{Payloads: blobs.Location{Bucket: "s3://releases", Endpoint: s3.Endpoint}}, func(_ *Server, sum string) string {
			return s3.Path("releases/payloads/" + sum + "/full.crau")
		})
	})
}

// payloads publishes a release, and fetches what machines do. Path is where its payload is on some disk.
func payloads(t *testing.T, cfg Config, path func(s *Server, sum string) string) {
	f := serve(t, t.TempDir(), cfg)
	f.publish("semper", "1.1.0", "stable")
	data := payloadOf("1.1.0")
	sum := sha256.Sum256(data)
	route := "/payloads/" + hex.EncodeToString(sum[:]) + "/full.crau"
	etag := `"` + hex.EncodeToString(sum[:]) + `"`

	status, header, body := f.do("GET", route, "")
	if status != 200 || body != string(data) || header.Get("ETag") != etag || header.Get("Accept-Ranges") != "bytes" ||
		header.Get("Content-Type") != "application/octet-stream" || header.Get("Cache-Control") != "public, max-age=31536000, immutable" {
		t.Errorf("status %d, %d bytes, %v", status, len(body), header)
	}
	half := len(data) / 2
	for _, c := range []struct {
		name, header, value string
		status              int
		want                string
	}{
		{"the rest", "Range", fmt.Sprintf("bytes=%d-", half), 206, string(data[half:])},
		{"a part", "Range", "bytes=5-9", 206, string(data[5:10])},
		{"past the end", "Range", fmt.Sprintf("bytes=%d-", len(data)), 416, "invalid range: failed to overlap\n"},
		{"not changed", "If-None-Match", etag, 304, ""},
	} {
		status, header, body := f.do("GET", route, "", c.header, c.value)
		if status != c.status || body != c.want {
			t.Errorf("%s: status %d, %d bytes; want %d, %d bytes", c.name, status, len(body), c.status, len(c.want))
		}
		if want := fmt.Sprintf("bytes %d-%d/%d", half, len(data)-1, len(data)); c.name == "the rest" && header.Get("Content-Range") != want {
			t.Errorf("Content-Range %q, want %q", header.Get("Content-Range"), want)
		}
	}
	if status, _, body := f.do("HEAD", route, ""); status != 200 || body != "" {
		t.Errorf("HEAD: status %d, %d bytes", status, len(body))
	}
	for _, bad := range []string{
		"/payloads/" + hex.EncodeToString(sum[:]) + "/other", "/payloads/" + strings.Repeat("0", 64) + "/full.crau",
		"/payloads/..%2f..%2fserver.lock/full.crau", "/payloads/x/full.crau", "/payloads/", "/semper.db", "/payloads/../semper.db",
	} {
		if status, _, _ := f.do("GET", bad, ""); status != 404 {
			t.Errorf("%s: status %d, want 404", bad, status)
		}
	}
	// A file that was damaged on the disk is not passed on as if it were whole.
	file := path(f.s, hex.EncodeToString(sum[:]))
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 100); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := f.do("GET", route, ""); status != 503 || !strings.Contains(f.log.String(), "has 100 bytes instead of") {
		t.Errorf("a truncated file: status %d, log %s", status, f.log)
	}
	// One that was lost can be uploaded again.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	f.publish("semper", "1.1.0", "stable")
	if status, _, body := f.do("GET", route, ""); status != 200 || body != string(data) {
		t.Errorf("uploaded again: status %d, %d bytes", status, len(body))
	}
}

func TestFirstStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	f := serve(t, dir, Config{})
	info, err := os.Stat(filepath.Join(dir, TokenFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("token file %v (%v)", info, err)
	}
	var apps api.Applications
	f.rest("GET", "applications", "", 200, &apps)
	if len(apps.Applications) != 2 || apps.Applications[1].Name != "semper" || apps.Applications[1].ID != "{5e3e2f0a-9d1b-4c58-8f53-7d1f0c6b7a11}" {
		t.Errorf("applications %+v", apps)
	}
	var channels api.Channels
	f.rest("GET", "channels", "", 200, &channels)
	var names []string
	for _, c := range channels.Channels {
		names = append(names, c.Name+"/"+c.Arch+"="+c.Version)
	}
	if got, want := strings.Join(names, " "), "alpha/amd64= alpha/arm64= beta/amd64= beta/arm64= stable/amd64= stable/arm64="; got != want {
		t.Errorf("channels %s, want %s", got, want)
	}
	if strings.Contains(f.log.String(), f.token) {
		t.Error("the token is in the log")
	}
	if _, err := Open(t.Context(), Config{Dir: dir, Database: databaseOf(t, dir)}); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "another semper-server uses") {
		t.Errorf("a second server on the same folder: %v", err)
	}
	f.stop()
	if err := os.Remove(filepath.Join(dir, TokenFile)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{Dir: dir, Database: databaseOf(t, dir)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(filepath.Join(dir, TokenFile)); err == nil {
		t.Error("a later start made a token again")
	}
}

func TestConfigIsChecked(t *testing.T) {
	for _, cfg := range []Config{
		{PollInterval: -time.Second},
		{PollInterval: time.Millisecond},
		{PollInterval: 8 * 24 * time.Hour},
		{PublicURL: "updates.example.org"},
		{PublicURL: "ftp://updates.example.org"},
		{PublicURL: "https://user:password@updates.example.org"},
		{PublicURL: "https://updates.example.org/?x"},
	} {
		cfg.Dir = t.TempDir()
		if _, err := Open(t.Context(), cfg); !fault.Is(err, fault.Usage) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestGracefulShutdown(t *testing.T) {
	s, err := openAt(t, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := vector(t, "1-first-check")
	fmt.Fprintf(conn, "POST /v1/update HTTP/1.1\r\nHost: h\r\nContent-Type: text/xml\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", len(body))
	line := make([]byte, 25) // "HTTP/1.1 100 Continue\r\n\r\n": the handler reads the body now
	if _, err := io.ReadFull(conn, line); err != nil || !strings.HasPrefix(string(line), "HTTP/1.1 100") {
		t.Fatalf("%q (%v)", line, err)
	}
	stop()
	if _, err := io.WriteString(conn, body); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("the request under way was answered %q (%v)", answer, err)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	f.omaha(vector(t, "1-first-check"))
	f.omaha(vector(t, "rolled-back"))
	f.do("GET", "/nothing", "")
	_, _, body := f.do("GET", "/metrics", "")
	want := `# HELP semper_server_answers_total Machines' requests answered, by what was needed: memory, a look into the database, or a record in it.
# TYPE semper_server_answers_total counter
semper_server_answers_total{from="record"} 2
# HELP semper_server_checks_total Update checks decided, by the rule that decided.
# TYPE semper_server_checks_total counter
semper_server_checks_total{decision="no-release"} 2
# HELP semper_server_events_total Events that machines reported, by type and result.
# TYPE semper_server_events_total counter
semper_server_events_total{type="update complete",result="error"} 1
# HELP semper_server_requests_total HTTP requests answered, by route and status.
# TYPE semper_server_requests_total counter
semper_server_requests_total{route="POST /v1/update/{$}",status="200"} 2
semper_server_requests_total{route="none",status="404"} 1
# HELP semper_server_machines Machines that count, by channel and the version that they run.
# TYPE semper_server_machines gauge
semper_server_machines{app="flatcar",channel="stable",arch="amd64",version="1.0.0"} 1
# HELP semper_server_machine_states Machines that count, by how far they are with an update.
# TYPE semper_server_machine_states gauge
semper_server_machine_states{app="flatcar",state="failed"} 1
`
	if body != want {
		t.Errorf("got\n%s\nwant\n%s", body, want)
	}
}

// FuzzUpdate sends foreign bytes down the whole path of a machine's request: it is answered or refused, and the server stays whole.
func FuzzUpdate(f *testing.F) {
	files, err := filepath.Glob("../testdata/*.request.xml")
	if err != nil || len(files) == 0 {
		f.Fatal("no vectors", err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.ReplaceAll(data, []byte(flatcarApp), []byte(omaha.SemperApp)))
	}
	s, err := openAt(f, f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	h := s.Handler()
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/v1/update", bytes.NewReader(body))
		r.Header.Set("Content-Type", "text/xml")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 200:
			if _, err := omaha.DecodeResponse(w.Body.Bytes()); err != nil {
				t.Fatalf("the answer cannot be read: %v\n%s", err, w.Body)
			}
		case 400, 413:
		default:
			t.Fatalf("status %d: %s", w.Code, w.Body)
		}
	})
}

func sha1Base64(data []byte) string {
	sum := sha1.Sum(data)
	return base64.StdEncoding.EncodeToString(sum[:])
}
