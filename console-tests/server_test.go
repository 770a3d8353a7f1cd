package consoletests

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
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
	t     testing.TB
	s     *server.Server
	url   string
	link  string // of the first start
	admin *client.Client

	database string           // where it is
	now      func() time.Time // the server's
}

// option changes how a server is started.
type option func(*server.Config)

// runner is a test or a benchmark that has parts.
type runner[T testing.TB] interface {
	testing.TB
	Run(name string, part func(T)) bool
}

// onBoth runs a test with a server on each database.
func onBoth[T runner[T]](t T, test func(t T, database string)) {
	t.Run("sqlite", func(t T) { test(t, "") })
	t.Run("postgres", func(t T) {
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
func serve(t testing.TB, database string, provider *oidctest.Provider, options ...option) *running {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, url: "http://" + l.Addr().String()}
	cfg := server.Config{Dir: dir, Database: database, PublicURL: r.url, Now: time.Now}
	for _, o := range options {
		o(&cfg)
	}
	r.now = cfg.Now
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
	r.database = database
	if database == "" {
		r.database = dir
	}
	r.admin = r.token(fleet.Admin, "configuration management")
	return r
}

// write changes the server's database, as 'semper-server' does beside it.
func (r *running) write(change func(tx store.Tx) error) {
	r.t.Helper()
	s, err := store.Open(r.t.Context(), r.database)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := errors.Join(s.Write(r.t.Context(), change), s.Close()); err != nil {
		r.t.Fatal(err)
	}
}

// token makes a token, as 'semper-server token new' does.
func (r *running) token(role fleet.Role, label string) *client.Client {
	r.t.Helper()
	var token string
	r.write(func(tx store.Tx) (err error) {
		token, err = server.NewToken(r.t.Context(), tx, rand.Reader, role, label, "semper-server", r.now())
		return err
	})
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
	f := fleet.File{Name: api.Payload, Size: int64(len(payload)), SHA256: sha256.Sum256(payload)}
	if _, err := r.admin.Upload(r.t.Context(), fileOf(&f), bytes.NewReader(payload), nil); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.admin.PutRelease(r.t.Context(), version, client.PutReleaseQuery{}, releaseOf(version, "amd64", &f)); err != nil {
		r.t.Fatal(err)
	}
}

func fileOf(f *fleet.File) api.File {
	return api.File{Name: f.Name, Size: f.Size, SHA256: hex.EncodeToString(f.SHA256[:])}
}

// releaseOf is what is published of a version: the manifest, which two keys signed, and the packages.
func releaseOf(version, arch string, payload *fleet.File) api.NewRelease {
	packages := packagesOf(version, arch)
	sum := func(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text + version + arch)) }
	root := sum("root")
	lock := sha256.Sum256(packages)
	manifest, err := json.Marshal(map[string]any{
		"format": 1, "name": "semper", "version": version, "architecture": arch, "epoch": 3, "root_hash": hex.EncodeToString(root[:]), "packages_sha256": hex.EncodeToString(lock[:]),
		"source_date_epoch": 1795252544,
		"files": []api.File{
			fileOf(payload), fileOf(&fleet.File{Name: "packages.lock", Size: int64(len(packages)), SHA256: lock}),
			fileOf(&fleet.File{Name: "root.erofs", Size: payload.Size * 10 / 11, SHA256: sum("erofs")}), fileOf(&fleet.File{Name: "semper.efi", Size: payload.Size / 12, SHA256: sum("uki")}),
		},
	})
	if err != nil {
		panic(err)
	}
	signatures := fmt.Sprintf(`[{"key_id":"%x","algorithm":"ecdsa-p256-sha256"},{"key_id":"%x","algorithm":"ecdsa-p256-sha256"}]`, sha256.Sum256([]byte("key 1")), sha256.Sum256([]byte("key 2")))
	return api.NewRelease{Manifest: manifest, Signature: []byte(signatures), Packages: packages}
}

// packagesOf is the list of packages; of a version that has no own one, three.
func packagesOf(version, arch string) []byte {
	all := map[string]string{"bash": "5.2-" + version, "linux-image": "6.12", "openssl": "3.5.1"}
	if own := versionsOf[version]; own != nil {
		all = maps.Clone(always)
		for name, v := range own {
			if !strings.HasPrefix(name, "linux-image") || strings.HasSuffix(name, arch) {
				all[name] = v
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{"format":"semper lock 1","suite":"trixie","architecture":%q,"components":["main"]}`+"\n"+`{"release":"trixie","date":"2026-11-21T09:15:44Z"}`+"\n", arch)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		sum := sha256.Sum256([]byte(name + all[name]))
		group := "image"
		if strings.HasPrefix(name, "linux-") {
			group = "kernel"
		}
		fmt.Fprintf(&b, `{"package":%q,"version":%q,"architecture":%q,"groups":[%q],"size":%d,"sha256":"%x","archive":"debian","path":"pool/%s.deb"}`+"\n", name, all[name], arch, group, 9_000+int(sum[0])*int(sum[1])*17, sum, name)
	}
	return []byte(b.String())
}

// machines keeps the connections of many that ask at once.
var machines = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

// box is a machine that speaks Omaha.
type box struct {
	r       *running
	id      string
	alias   string
	version string
	boot    int

	track, arch, platform string
	first                 string // the version that was installed
	address               string // that a proxy tells; empty: the connection's
}

func (r *running) box(n int) *box {
	return &box{r, fmt.Sprintf("%032x", 0xabc0000+n), fmt.Sprintf("web-%d", n), "1.0.0", 1, "stable", "amd64", "qemu", "1.0.0", ""}
}

// ask sends events and, without any, a check.
func (b *box) ask(events ...omaha.Event) *omaha.AppResponse {
	b.r.t.Helper()
	answer, err := b.send(events...)
	if err != nil {
		b.r.t.Fatal(err)
	}
	return answer
}

// send is ask for machines beside each other.
func (b *box) send(events ...omaha.Event) (*omaha.AppResponse, error) {
	request := omaha.Request{Apps: []omaha.AppRequest{{
		ID: omaha.SemperApp, Version: b.version, Track: b.track, MachineID: b.id, MachineAlias: b.alias, BootID: b.bootID(), Board: b.arch + "-usr", OEM: b.platform, AlephVersion: b.first,
		Ping: true, UpdateCheck: len(events) == 0, Events: events,
	}}}
	req, err := http.NewRequestWithContext(b.r.t.Context(), http.MethodPost, b.r.url+"/v1/update", bytes.NewReader(request.Encode()))
	if err != nil {
		return nil, err
	}
	if b.address != "" {
		req.Header.Set("X-Forwarded-For", b.address)
	}
	res, err := machines.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d: %s (%w)", res.StatusCode, body, err)
	}
	answer, err := omaha.DecodeResponse(body)
	if err != nil {
		return nil, err
	}
	return &answer.Apps[0], nil
}

// bootID is another one after each boot.
func (b *box) bootID() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", b.id, b.boot))
	hex := hex.EncodeToString(sum[:16])
	return "{" + hex[:8] + "-" + hex[8:12] + "-4" + hex[13:16] + "-a" + hex[17:20] + "-" + hex[20:] + "}"
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
	fleetLock(t, r, `{"client_params":{"id":"`+id+`","group":"default"}}`)
}

func fleetLock(t *testing.T, r *running, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/v1/pre-reboot", strings.NewReader(body))
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
