package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
)

// lockOf is a packages.lock with some packages: names, each with a version.
func lockOf(packages ...string) []byte {
	var b strings.Builder
	b.WriteString(`{"format":"semper lock 1","suite":"trixie","architecture":"amd64","components":["main"]}` + "\n")
	b.WriteString(`{"release":"trixie","date":"2026-11-21T09:15:44Z"}` + "\n")
	packages = append(packages, "linux-image", "6.12") // there is one always
	names := map[string]string{}
	for i := 0; i < len(packages); i += 2 {
		names[packages[i]] = packages[i+1]
	}
	for i, name := range slices.Sorted(maps.Keys(names)) {
		group := map[string]string{"mmdebstrap": "tools", "linux-image": "kernel"}[name]
		if group == "" {
			group = "image"
		}
		sum := sha256.Sum256([]byte(name + names[name]))
		fmt.Fprintf(&b, `{"package":%q,"version":%q,"architecture":"amd64","groups":[%q],"size":%d,"sha256":"%x","archive":"debian","path":"pool/%s.deb"}`+"\n",
			name, names[name], group, 100+i, sum, name)
	}
	return []byte(b.String())
}

// TestPackages publishes releases with the lists of what they are made of.
func TestPackages(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	publisher, err := client.NewClient(f.http.URL, f.token)
	if err != nil {
		t.Fatal(err)
	}
	publish := func(version string, list []byte, change func(*api.NewRelease)) error {
		t.Helper()
		data := payloadOf(version)
		file := fileOf(data)
		if _, err := publisher.Upload(t.Context(), file, bytes.NewReader(data), nil); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(list)
		n := api.NewRelease{Signature: []byte("s"), Packages: list, Manifest: manifestOf(version, "amd64", file, api.File{Name: "packages.lock", Size: int64(len(list)), SHA256: hex.EncodeToString(sum[:])})}
		if change != nil {
			change(&n)
		}
		_, err := publisher.PutRelease(t.Context(), version, client.PutReleaseQuery{}, n)
		return err
	}
	for _, r := range []struct {
		version string
		list    []byte
	}{
		{"1.0.0", lockOf("bash", "5.2-1", "curl", "8.0-1", "mmdebstrap", "1.0")},
		{"1.1.0", nil},
		{"1.2.0", lockOf("bash", "5.2-2", "mmdebstrap", "2.0", "zstd", "1.5")},
	} {
		if err := publish(r.version, r.list, nil); err != nil {
			t.Fatal(err)
		}
	}
	packages := func(query string) (p api.Packages) {
		t.Helper()
		f.rest("GET", "releases/"+query, "", 200, &p)
		return p
	}
	p := packages("1.2.0/packages")
	want := []api.PackageChange{{Name: "bash", From: "5.2-1", To: "5.2-2"}, {Name: "curl", From: "8.0-1"}, {Name: "zstd", To: "1.5"}}
	if len(p.Packages) != 3 || p.Against != "1.0.0" || !slices.Equal(p.Changes, want) {
		t.Errorf("packages %+v", p)
	}
	p = packages("1.0.0/packages")
	if p.Against != "" || len(p.Changes) != 0 {
		t.Errorf("the first one's changes: %+v", p)
	}
	p = packages("1.0.0/packages?against=1.2.0")
	if p.Against != "1.2.0" || len(p.Changes) != 3 {
		t.Errorf("backwards: %+v", p)
	}
	var e api.Error
	f.rest("GET", "releases/1.1.0/packages", "", 404, &e)
	if !strings.Contains(e.Message, "without its list of packages") {
		t.Errorf("error %q", e.Message)
	}
	f.rest("GET", "releases/1.2.0/packages?against=9.9.9", "", 404, &e)

	// Published again, with the list that was missing.
	list := lockOf("bash", "5.2-1")
	if err := publish("1.3.0", list, func(n *api.NewRelease) { n.Packages = nil }); err != nil {
		t.Fatal(err)
	}
	if err := publish("1.3.0", list, nil); err != nil {
		t.Fatal(err)
	}
	packages("1.3.0/packages")

	for name, c := range map[string]struct {
		change func(*api.NewRelease)
		want   string
	}{
		"another list":         {func(n *api.NewRelease) { n.Packages = lockOf("bash", "6") }, "is not the manifest's"},
		"none in the manifest": {func(n *api.NewRelease) { n.Manifest = manifestOf("1.4.0", "amd64", fileOf(payloadOf("1.4.0"))) }, "lists no packages.lock"},
		"too long":             {func(n *api.NewRelease) { n.Packages = make([]byte, api.MaxPackages+1) }, "at most"},
		"no list": {func(n *api.NewRelease) {
			n.Packages = []byte("bash\n")
			sum := sha256.Sum256(n.Packages)
			var m manifest
			if err := json.Unmarshal(n.Manifest, &m); err != nil {
				t.Fatal(err)
			}
			m.Files[1].SHA256 = hex.EncodeToString(sum[:])
			n.Manifest = manifestOf("1.4.0", "amd64", m.Files...)
		}, "packages.lock:1"},
	} {
		if err := publish("1.4.0", list, c.change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}
