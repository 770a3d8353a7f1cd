package lock

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

func TestURL(t *testing.T) {
	m := Mirrors{Debian: "http://a.example/debian", Security: "file:/srv/s"}
	if got := m.URL(Package{Archive: Debian, Path: "pool/main/g/g++/g++_4%3a14~1_amd64.deb"}); got != "http://a.example/debian/pool/main/g/g%2b%2b/g%2b%2b_4%253a14~1_amd64.deb" {
		t.Error(got)
	}
	if got := m.URL(Package{Archive: Security, Path: "pool/x.deb"}); got != "file:/srv/s/pool/x.deb" {
		t.Error(got)
	}
}

// The lines are what "apt-get update --print-uris" prints; bases and suites are written as a table to be read.
func TestChooseMirrors(t *testing.T) {
	for _, c := range []struct {
		name             string
		sources          string // "base suite,suite component" by line
		debian, security string
	}{
		{"plain", "http://a.example/debian bookworm,bookworm-updates main\nhttp://a.example/debian-security bookworm-security main", "http://a.example/debian", "http://a.example/debian-security"},
		{"one suite", "http://a.example/debian stable main", "http://a.example/debian", ""},
		{"third parties first", "https://t.example/debian/12/prod bookworm main\nhttps://d.example/linux/debian bookworm stable\nhttp://a.example/debian trixie,trixie-updates main", "http://a.example/debian", ""},
		{"only third parties", "https://t.example/debian/12/prod bookworm main\nhttps://p.example/apt bookworm-pgdg main", "", ""},
		{"mirror of another name", "http://a.example/mirrors/d13 trixie,trixie-updates main\nhttp://a.example/mirrors/s13 trixie-security main", "http://a.example/mirrors/d13", "http://a.example/mirrors/s13"},
		{"old form of the security suite", "http://a.example/debian bullseye,bullseye-updates main\nhttp://s.example/ bullseye/updates main", "http://a.example/debian", "http://s.example"},
		{"snapshot", "http://a.example/archive/debian/20251115T000000Z trixie main", "http://a.example/archive/debian/20251115T000000Z", ""},
		{"cloud image", "mirror+file:/etc/apt/mirrors/debian.list trixie,trixie-updates main\nmirror+file:/etc/apt/mirrors/debian-security.list trixie-security main", "https://list.example/etc/apt/mirrors/debian.list", "https://list.example/etc/apt/mirrors/debian-security.list"},
		{"CD-ROM", "cdrom://[Debian]/ trixie,trixie-updates main", "", ""},
		{"another distribution", "http://u.example/ubuntu noble,noble-updates,noble-security main", "http://u.example/ubuntu", "http://u.example/ubuntu"}, // its keys will be refused
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			for l := range strings.Lines(c.sources) {
				words := strings.Fields(l)
				for suite := range strings.SplitSeq(words[1], ",") {
					base := strings.TrimRight(words[0], "/") + "/dists/" + suite
					out.WriteString("'" + base + "/InRelease' x 0 \n'" + base + "/" + words[2] + "/binary-amd64/Packages.xz' y 0 \n")
				}
			}
			debian, security := chooseMirrors([]byte(out.String()), func(file string) string { return "https://list.example" + file })
			if debian != c.debian || security != c.security {
				t.Errorf("got %q and %q, want %q and %q", debian, security, c.debian, c.security)
			}
		})
	}
}

// Through the host's apt, which reads both forms of sources.
func TestFindMirrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	list := write("hosts/debian.list", "# mirrors\n\nhttp://one.example/debian/\tpriority:1\nhttp://two.example/debian\n")
	oneLine := write("old.list", "deb [arch=amd64 trusted=yes] http://a.example/debian bookworm main contrib\ndeb-src http://b.example/debian bookworm main\ndeb http://a.example/debian-security bookworm-security main\n")
	cloud := write("cloud.sources", "Types: deb\nURIs: mirror+file://"+list+"\nSuites: trixie trixie-updates\nComponents: main\n\n"+
		"Enabled: no\nTypes: deb\nURIs: http://no.example/debian\nSuites: trixie trixie-updates\nComponents: main\n")
	write("etc/sources.list.d/debian.sources", "Types: deb\nURIs: https://c.example/debian\nSuites: trixie trixie-updates\nComponents: main\n\n"+
		"Types: deb\nURIs: https://c.example/debian-security\nSuites: trixie-security\nComponents: main\n")
	write("etc/sources.list", "")
	conf := write("apt.conf", `Acquire::http::Proxy "http://proxy.example:3142";`+"\n")
	t.Setenv("APT_CONFIG", conf)
	proxies := map[string]string{"http": "http://proxy.example:3142"}
	for _, c := range []struct {
		name string
		s    Sources
		want Mirrors
	}{
		{"one-line form", Sources{AptSources: oneLine}, Mirrors{"http://a.example/debian", "http://a.example/debian-security", proxies}},
		{"folder", Sources{AptSources: filepath.Join(dir, "etc")}, Mirrors{"https://c.example/debian", "https://c.example/debian-security", proxies}},
		{"flag before host", Sources{AptSources: oneLine, Mirror: "http://f.example/debian/"}, Mirrors{"http://f.example/debian", "http://a.example/debian-security", proxies}},
		{"mirror list", Sources{AptSources: cloud, SecurityMirror: "file:/srv/security"}, Mirrors{"http://one.example/debian", "file:/srv/security", proxies}},
		{"flags alone", Sources{Mirror: "copy:/a", SecurityMirror: "file:///b"}, Mirrors{"copy:/a", "file:///b", proxies}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := FindMirrors(t.Context(), c.s)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
		})
	}
	for _, c := range []struct {
		name string
		s    Sources
		kind fault.Kind
		want string
	}{
		{"no sources", Sources{AptSources: write("empty.list", "")}, fault.Input, "name no Debian archive: give one with --mirror URL or SEMPER_MIRROR"},
		{"no security", Sources{AptSources: cloud}, fault.Input, "name no Debian security archive: give one with --security-mirror URL or SEMPER_SECURITY_MIRROR"},
		{"no such file", Sources{AptSources: filepath.Join(dir, "none")}, fault.Input, "no such file or directory"},
		{"sources that apt refuses", Sources{AptSources: write("bad.list", "deb what\n")}, fault.Input, "Malformed entry 1 in list file"},
		{"scheme", Sources{Mirror: "ftp://x/debian"}, fault.Usage, `"ftp://x/debian" is not a mirror's URL (http, https, file or copy)`},
		{"relative", Sources{Mirror: "file:debian"}, fault.Usage, `is not a mirror's URL`},
		{"options for apt", Sources{Mirror: "file:/a [trusted=yes]"}, fault.Usage, `is not a mirror's URL`},
		{"query", Sources{Mirror: "http://x/debian?a"}, fault.Usage, `it ends with the archive's folder`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := FindMirrors(t.Context(), c.s)
			if err == nil || !strings.Contains(err.Error(), c.want) || !fault.Is(err, c.kind) {
				t.Errorf("got %v (%s), want %s with %q", err, fault.KindOf(err), c.kind, c.want)
			}
		})
	}
}
