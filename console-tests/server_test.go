package consoletests

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/people"
	"github.com/semper-os/semper/omaha/server/people/oidctest"
	"github.com/semper-os/semper/omaha/server/store"
	"github.com/semper-os/semper/omaha/server/store/postgrestest"
)

// running is a server, as the browsers reach it.
type running struct {
	t     *testing.T
	s     *server.Server
	url   string
	link  string // of the first start
	admin *client.Client
}

// onBoth runs a test with a server on each database.
func onBoth(t *testing.T, test func(t *testing.T, database string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, "") })
	t.Run("postgres", func(t *testing.T) {
		p, err := postgrestest.Start(t.Context(), "fsync=off")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		})
		url, err := p.Schema(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		test(t, url)
	})
}

// serve starts a server; with a provider people sign in there.
func serve(t *testing.T, database string, provider *oidctest.Provider) *running {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, url: "http://" + l.Addr().String()}
	cfg := server.Config{Dir: dir, Database: database, PublicURL: r.url}
	if provider != nil {
		secret := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(secret, []byte(oidctest.ClientSecret), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg.OIDC = people.Config{
			Issuer: provider.URL, ClientID: oidctest.ClientID, SecretFile: secret, Name: "Acme",
			Roles: []fleet.GroupRole{{Group: "ops", Role: fleet.Operator}, {Group: "all", Role: fleet.Viewer}, {Group: "root", Role: fleet.Admin}},
		}
		provider.SetRedirects(r.url + "/auth/oidc/callback")
	}
	if r.s, err = server.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if provider == nil {
		if r.link, err = r.s.FirstLink(t.Context(), r.url); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.s.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := r.s.Close(); err != nil {
			t.Error(err)
		}
	})
	name := database
	if name == "" {
		name = dir
	}
	r.admin = r.token(name)
	return r
}

// token makes an administrator's token, as 'semper-server token new' does.
func (r *running) token(database string) *client.Client {
	r.t.Helper()
	s, err := store.Open(r.t.Context(), database)
	if err != nil {
		r.t.Fatal(err)
	}
	var token string
	err = s.Write(r.t.Context(), func(tx store.Tx) (err error) {
		token, err = server.NewToken(r.t.Context(), tx, rand.Reader, fleet.Admin, "the test", "test", time.Now())
		return err
	})
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	c, err := client.NewClient(r.url, token)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// publish uploads a release, as 'semper publish' does.
func (r *running) publish(version string) {
	r.t.Helper()
	payload := bytes.Repeat([]byte("CrAU "+version+"\n"), 1000)
	packages := packagesOf(version)
	file := func(name string, content []byte) api.File {
		sum := sha256.Sum256(content)
		return api.File{Name: name, Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
	}
	f := file(api.Payload, payload)
	manifest, err := json.Marshal(map[string]any{"format": 1, "name": "semper", "version": version, "architecture": "amd64", "files": []api.File{f, file("packages.lock", packages)}})
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.admin.Upload(r.t.Context(), f, bytes.NewReader(payload), nil); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.admin.PutRelease(r.t.Context(), version, client.PutReleaseQuery{}, api.NewRelease{Manifest: manifest, Signature: []byte("{}"), Packages: packages}); err != nil {
		r.t.Fatal(err)
	}
}

func packagesOf(version string) []byte {
	var b strings.Builder
	b.WriteString(`{"format":"semper lock 1","suite":"trixie","architecture":"amd64","components":["main"]}` + "\n" + `{"release":"trixie","date":"2026-11-21T09:15:44Z"}` + "\n")
	for i, p := range []struct{ name, version, group string }{{"bash", "5.2-" + version, "image"}, {"linux-image", "6.12", "kernel"}, {"openssl", "3.5.1", "image"}} {
		sum := sha256.Sum256([]byte(p.name + p.version))
		fmt.Fprintf(&b, `{"package":%q,"version":%q,"architecture":"amd64","groups":[%q],"size":%d,"sha256":"%x","archive":"debian","path":"pool/%s.deb"}`+"\n", p.name, p.version, p.group, 1000*(i+1), sum, p.name)
	}
	return []byte(b.String())
}

// box is a machine that speaks Omaha.
type box struct {
	r       *running
	id      string
	alias   string
	version string
	boot    int
}

func (r *running) box(n int) *box {
	return &box{r, fmt.Sprintf("%032x", 0xabc0000+n), fmt.Sprintf("web-%d", n), "1.0.0", 1}
}

// ask sends events and, without any, a check.
func (b *box) ask(events ...omaha.Event) *omaha.AppResponse {
	b.r.t.Helper()
	request := omaha.Request{Apps: []omaha.AppRequest{{
		ID: omaha.SemperApp, Version: b.version, Track: "stable", MachineID: b.id, MachineAlias: b.alias, BootID: fmt.Sprintf("{%s-%d}", b.id, b.boot), Board: "amd64-usr", Ping: true, UpdateCheck: len(events) == 0,
		Events: events,
	}}}
	req, err := http.NewRequestWithContext(b.r.t.Context(), http.MethodPost, b.r.url+"/v1/update", bytes.NewReader(request.Encode()))
	if err != nil {
		b.r.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.r.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		b.r.t.Fatalf("status %d: %s (%v)", res.StatusCode, body, err)
	}
	answer, err := omaha.DecodeResponse(body)
	if err != nil {
		b.r.t.Fatal(err)
	}
	return &answer.Apps[0]
}

// offered reports whether the machine may have a version now.
func (b *box) offered(version string) bool {
	b.r.t.Helper()
	u := b.ask().UpdateCheck
	return u != nil && u.Manifest != nil && u.Manifest.Version == version
}

// update installs a version and boots it: it works, or the machine comes back from it.
func (b *box) update(version string, works bool) {
	b.r.t.Helper()
	b.ask(omaha.DownloadStarted(version), omaha.DownloadFinished(version), omaha.Installed(version))
	b.boot++
	if !works {
		b.ask(omaha.Failed(version, omaha.CodeRollback, "health check web: <img src=x onerror=alert(1)> connection refused"))
		return
	}
	was := b.version
	b.version = version
	b.ask(omaha.Completed(was))
}

// lock asks for a reboot slot, as a machine does.
func lock(t *testing.T, r *running, id string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/v1/pre-reboot", strings.NewReader(`{"client_params":{"id":"`+id+`","group":"default"}}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("fleet-lock-protocol", "true")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}
