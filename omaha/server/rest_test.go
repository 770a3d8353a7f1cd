package server

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func (f *fixture) newToken(role fleet.Role) (token string) {
	f.Helper()
	err := f.s.store.Write(f.Context(), func(tx store.Tx) (err error) {
		token, err = NewToken(f.Context(), tx, rand.Reader, role, "test", "test", time.Now())
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return token
}

func TestTokens(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	viewer := f.newToken(fleet.Viewer)
	last := f.token[len(f.token)-1:]
	for _, c := range []struct {
		name, header, method, path string
		status                     int
	}{
		{"publisher looks", "Bearer " + f.token, "GET", "channels", 200},
		{"scheme in lower case", "bearer " + f.token, "GET", "channels", 200},
		{"viewer looks", "Bearer " + viewer, "GET", "machines", 200},
		{"viewer must not publish", "Bearer " + viewer, "PUT", "channels/stable", 403},
		{"viewer must not see uploads", "Bearer " + viewer, "GET", "blobs/" + strings.Repeat("0", 64), 403},
		{"no token", "", "GET", "channels", 401},
		{"no token, no such route", "", "GET", "nothing", 401},
		{"no such route", "Bearer " + viewer, "GET", "nothing", 404},
		{"another scheme", "Basic " + f.token, "GET", "channels", 401},
		{"another last letter", "Bearer " + strings.TrimSuffix(f.token, last) + map[bool]string{true: "B", false: "A"}[last == "A"], "GET", "channels", 401},
		{"one letter more", "Bearer " + f.token + "A", "GET", "channels", 401},
		{"the id alone", "Bearer " + f.token[:len("semper_00000000_")], "GET", "channels", 401},
		{"another's secret", "Bearer " + viewer[:len("semper_00000000_")] + f.token[len("semper_00000000_"):], "PUT", "channels/stable", 401},
		{"unknown id", "Bearer semper_zzzzzzzz_" + f.token[len("semper_00000000_"):], "GET", "channels", 401},
		{"very long", "Bearer semper_" + strings.Repeat("a", 4000), "GET", "channels", 401},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, header, body := f.do(c.method, "/api/v1/"+c.path, "{}", "Authorization", c.header)
			if status != c.status {
				t.Fatalf("status %d, want %d: %s", status, c.status, body)
			}
			var e api.Error
			if status >= 400 && (json.Unmarshal([]byte(body), &e) != nil || e.Message == "" || e.Kind == "") {
				t.Errorf("error body %s", body)
			}
			if (header.Get("WWW-Authenticate") == "Bearer") != (status == 401) {
				t.Errorf("WWW-Authenticate %q with status %d", header.Get("WWW-Authenticate"), status)
			}
		})
	}
	var stored string
	err := f.s.store.Write(t.Context(), func(tx store.Tx) error {
		known, err := tx.Token(t.Context(), f.token[len("semper_"):len("semper_")+8])
		stored = fmt.Sprint(known)
		return err
	})
	if err != nil || strings.Contains(stored, f.token[len("semper_00000000_"):]) {
		t.Errorf("the secret is kept in the clear: %s (%v)", stored, err)
	}
}

func fileOf(data []byte) api.File {
	sum := sha256.Sum256(data)
	return api.File{Name: "full.crau", Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}

func newRelease(version string, file api.File) string {
	return newReleaseOf(manifestOf(version, "amd64", file))
}

func newReleaseOf(manifest []byte) string {
	body, _ := json.Marshal(api.NewRelease{Manifest: manifest, Signature: []byte("sig")})
	return string(body)
}

func TestPublishing(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	data := payloadOf("1.1.0")
	file := fileOf(data)
	var e api.Error

	f.rest("PUT", "releases/1.1.0", newRelease("1.1.0", file), 409, &e)
	if !strings.Contains(e.Message, "the payload of 1.1.0 was not uploaded") {
		t.Errorf("a release before its payload: %+v", e)
	}
	f.rest("PUT", "channels/stable", `{"version":"1.1.0"}`, 409, &e)
	if !strings.Contains(e.Message, `version "1.1.0" for amd64 is not published`) {
		t.Errorf("a channel before its release: %+v", e)
	}
	put := fmt.Sprintf("blobs/%s?size=%d", file.SHA256, file.Size)
	var b api.Blob
	f.rest("PUT", put, string(data), 200, &b)
	if want := (api.Blob{SHA256: file.SHA256, Offset: file.Size, Complete: true}); b != want {
		t.Errorf("blob %+v, want %+v", b, want)
	}
	f.rest("PUT", "channels/stable", `{"version":"1.1.0"}`, 409, &e) // uploaded is not published

	for _, c := range []struct {
		name, path, body string
		status           int
		want             string
	}{
		{"version without order", "releases/one", newRelease("one", file), 400, `"one" is not a version`},
		{"manifest of another version", "releases/1.2.0", newRelease("1.1.0", file), 400, `the manifest is of version "1.1.0" for "amd64", not 1.2.0 for amd64`},
		{"manifest of another architecture", "releases/1.1.0?arch=arm64", newRelease("1.1.0", file), 400, `for "amd64", not 1.1.0 for arm64`},
		{"unknown architecture", "releases/1.1.0?arch=mips", newReleaseOf(manifestOf("1.1.0", "mips", file)), 400, `architecture "mips"`},
		{"unknown format", "releases/1.1.0", newReleaseOf([]byte(`{"format":2}`)), 400, "format 2, this server knows 1"},
		{"bad min_version", "releases/1.1.0", newReleaseOf([]byte(`{"format":1,"version":"1.1.0","architecture":"amd64","min_version":"x"}`)), 400, `min_version: "x"`},
		{"no hash", "releases/1.1.0", newRelease("1.1.0", api.File{Name: "full.crau", Size: 1}), 400, "is not a SHA-256"},
		{"unknown application", "releases/1.1.0?app=other", newRelease("1.1.0", file), 404, "application other: not found"},
		{"another name", "releases/1.1.0", newRelease("1.1.0", api.File{Name: "../x", Size: file.Size, SHA256: file.SHA256}), 400, "lists no full.crau"},
		{"another size", "releases/1.1.0", newRelease("1.1.0", api.File{Name: file.Name, Size: 1, SHA256: file.SHA256}), 400, "bytes, not 1"},
		{"no manifest", "releases/1.1.0", `{}`, 400, "needs a manifest"},
		{"manifest that is no JSON", "releases/1.1.0", `{"manifest":"AAAA","signature":"AAAA"}`, 400, "the manifest is not JSON"},
		{"unknown field", "releases/1.1.0", `{"manifests":1}`, 400, `unknown field`},
		{"two values", "releases/1.1.0", newRelease("1.1.0", file) + "{}", 400, "more than one JSON value"},
		{"large body", "releases/1.1.0", strings.Repeat(" ", api.MaxBody+1), 400, "too large"},
		{"large manifest", "releases/1.1.0", `{"signature":"AAAA","manifest":"` + strings.Repeat("AAAA", api.MaxManifest/3+1) + `"}`, 400, "of at most 1048576 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			fc := *f
			fc.T = t
			var e api.Error
			fc.rest("PUT", c.path, c.body, c.status, &e)
			if !strings.Contains(e.Message, c.want) {
				t.Errorf("error %q, want %q", e.Message, c.want)
			}
		})
	}
	var releases api.Releases
	if f.rest("GET", "releases", "", 200, &releases); len(releases.Releases) != 0 {
		t.Fatalf("releases are visible: %+v", releases)
	}
	var first, again api.Release
	f.rest("PUT", "releases/1.1.0", newRelease("1.1.0", file), 200, &first)
	f.rest("PUT", "releases/1.1.0", newRelease("1.1.0", file), 200, &again)
	if !reflect.DeepEqual(first, again) || first.Payload != file || first.Arch != "amd64" {
		t.Errorf("release %+v, then %+v", first, again)
	}
	other := payloadOf("other")
	f.rest("PUT", fmt.Sprintf("blobs/%s?size=%d", fileOf(other).SHA256, len(other)), string(other), 200, &b)
	f.rest("PUT", "releases/1.1.0", newRelease("1.1.0", fileOf(other)), 409, &e)
	if !strings.Contains(e.Message, "a published version never changes") {
		t.Errorf("other bytes under the same version: %+v", e)
	}
	var detail api.ReleaseDetail
	f.rest("GET", "releases/1.1.0", "", 200, &detail)
	if string(detail.Manifest) != string(manifestOf("1.1.0", "amd64", file)) || string(detail.Signature) != "sig" || !reflect.DeepEqual(detail.Release, first) {
		t.Errorf("detail %+v", detail)
	}
	var c api.Channel
	f.rest("PUT", "channels/stable", `{"version":"1.1.0"}`, 200, &c)
	if c.Name != "stable" || c.Arch != "amd64" || c.Version != "1.1.0" {
		t.Errorf("channel %+v", c)
	}
	f.rest("PUT", "channels/edge", `{"version":"1.1.0"}`, 404, &e)
	f.rest("PUT", "channels/stable?arch=arm64", `{"version":"1.1.0"}`, 409, &e)
}

func TestUploads(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	data := payloadOf("1.1.0")
	file := fileOf(data)
	path := "blobs/" + file.SHA256
	var e api.Error
	var b api.Blob
	wrong := bytes.Clone(data)
	wrong[0] ^= 1
	f.rest("PUT", fmt.Sprintf("%s?size=%d", path, file.Size), string(wrong), 422, &e)
	if e.Kind != "verification" || !strings.Contains(e.Message, "another SHA-256 than announced") {
		t.Errorf("wrong content: %+v", e)
	}
	if f.rest("GET", path, "", 200, &b); b.Offset != 0 || b.Complete {
		t.Errorf("after wrong content %+v", b)
	}
	for query, status := range map[string]int{
		"": 400, "?size=x": 400, "?size=0": 411, "?size=-5": 400, "?size=5": 411, "?size=5&offset=6": 400, "?size=5&offset=-1": 400,
		fmt.Sprintf("?size=%d&offset=5", file.Size+5): 409, fmt.Sprintf("?size=%d", int64(1)<<40): 411,
	} {
		f.rest("PUT", path+query, string(data), status, &e)
	}
	f.rest("PUT", "blobs/xyz?size=1", "x", 400, &e)
	f.rest("GET", "blobs/xyz", "", 400, &e)
}

// TestInterruptedUpload breaks the connection half-way: nothing becomes visible, and the client's next upload sends only the rest.
func TestInterruptedUpload(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	data := payloadOf("1.1.0")
	file := fileOf(data)
	half := len(data) / 2
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.http.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PUT /api/v1/blobs/%s?size=%d HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", file.SHA256, file.Size, f.token, file.Size)
	if _, err := conn.Write(data[:half]); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn) // returns once the server has given up
	conn.Close()
	if strings.HasPrefix(string(answer), "HTTP/1.1 2") {
		t.Fatalf("half a file was accepted: %s", answer)
	}
	var e api.Error
	f.rest("PUT", "releases/1.1.0", newRelease("1.1.0", file), 409, &e)
	if status, _, _ := f.do("GET", "/payloads/"+file.SHA256+"/full.crau", ""); status != http.StatusNotFound {
		t.Errorf("half a payload is visible: %d", status)
	}
	c, err := client.NewClient(f.http.URL, f.token)
	if err != nil {
		t.Fatal(err)
	}
	sent, err := c.Upload(t.Context(), file, bytes.NewReader(data), nil)
	if err != nil || sent != int64(len(data)-half) {
		t.Errorf("%d bytes were sent (%v), want %d", sent, err, len(data)-half)
	}
	if sent, err := c.Upload(t.Context(), file, bytes.NewReader(data), nil); err != nil || sent != 0 {
		t.Errorf("the second time %d bytes were sent (%v)", sent, err)
	}
	f.publish("semper", "1.1.0", "stable")
	if _, _, body := f.do("GET", "/payloads/"+file.SHA256+"/full.crau", ""); body != string(data) {
		t.Errorf("the payload served differs: %d bytes", len(body))
	}
}

// TestFileOnDiskUnknownToTheDatabase is the power cut between the two: the next upload mends it without sending a byte.
func TestFileOnDiskUnknownToTheDatabase(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	data := payloadOf("1.1.0")
	file := fileOf(data)
	if _, err := f.s.payloads.Append(t.Context(), sha256.Sum256(data), file.Size, 0, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	c, err := client.NewClient(f.http.URL, f.token)
	if err != nil {
		t.Fatal(err)
	}
	if sent, err := c.Upload(t.Context(), file, bytes.NewReader(data), nil); err != nil || sent != 0 {
		t.Errorf("%d bytes were sent (%v)", sent, err)
	}
	var r api.Release
	f.rest("PUT", "releases/1.1.0", newRelease("1.1.0", file), 200, &r)
}

func TestMachinePages(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	for _, id := range []string{"a/b", "c d", "e"} {
		f.omaha(vector(t, "1-first-check", machineID, id))
	}
	var page api.Machines
	f.rest("GET", "machines?app=flatcar&limit=2", "", 200, &page)
	if len(page.Machines) != 2 || page.Machines[0].ID != "a/b" || page.Next != "c d" {
		t.Errorf("first page %+v", page)
	}
	page = api.Machines{}
	f.rest("GET", "machines?app=flatcar&limit=2&after=c+d", "", 200, &page)
	if len(page.Machines) != 1 || page.Machines[0].ID != "e" || page.Next != "" {
		t.Errorf("last page %+v", page)
	}
	var m api.MachineDetail
	if f.rest("GET", "machines/a%2Fb?app=flatcar", "", 200, &m); m.ID != "a/b" {
		t.Errorf("machine %+v", m)
	}
	var e api.Error
	f.rest("GET", "machines/nobody", "", 404, &e)
	f.rest("GET", "machines?limit=0", "", 400, &e)
	f.rest("GET", "machines?limit=1001", "", 400, &e)
}
