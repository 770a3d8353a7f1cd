package lock

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
)

const sum = "e50984d2e1ef6300e3fd51303839842189a077b10cb5cadff1923df10c61c493"

func small() *Lock {
	return &Lock{
		Suite: "trixie", Architecture: "amd64", Components: []string{"main"},
		Releases: []Release{
			{"trixie", time.Date(2025, 11, 15, 9, 57, 51, 0, time.UTC)},
			{"trixie-security", time.Date(2025, 11, 16, 0, 0, 0, 0, time.UTC)},
		},
		Wants: []Want{{"podman", Image}, {"linux-image-amd64", Kernel}, {"erofs-utils", Tools}},
		Packages: []Package{
			{"erofs-utils", "1.8.6-1", "amd64", []Group{Tools}, 138944, sum, Debian, "pool/main/e/erofs-utils/erofs-utils_1.8.6-1_amd64.deb"},
			{"libc6", "1:2.41~a+b", "amd64", []Group{Image, Tools}, 2850108, sum, Security, "pool/updates/main/g/glibc/libc6_2.41~a+b_amd64.deb"},
			{"linux-image-6.12-amd64", "6.12-1", "amd64", []Group{Kernel}, 1, sum, Debian, "pool/main/l/linux/linux-image_6.12-1_amd64.deb"},
			{"podman", "5.4.2", "all", []Group{Image}, 24686200, sum, Debian, "pool/main/p/podman/podman_5.4.2_all.deb"},
		},
	}
}

const written = `{"format":"semper lock 1","suite":"trixie","architecture":"amd64","components":["main"]}
{"release":"trixie","date":"2025-11-15T09:57:51Z"}
{"release":"trixie-security","date":"2025-11-16T00:00:00Z"}
{"wants":"podman","for":"image"}
{"wants":"linux-image-amd64","for":"kernel"}
{"wants":"erofs-utils","for":"tools"}
{"package":"erofs-utils","version":"1.8.6-1","architecture":"amd64","groups":["tools"],"size":138944,"sha256":"` + sum + `","archive":"debian","path":"pool/main/e/erofs-utils/erofs-utils_1.8.6-1_amd64.deb"}
{"package":"libc6","version":"1:2.41~a+b","architecture":"amd64","groups":["image","tools"],"size":2850108,"sha256":"` + sum + `","archive":"security","path":"pool/updates/main/g/glibc/libc6_2.41~a+b_amd64.deb"}
{"package":"linux-image-6.12-amd64","version":"6.12-1","architecture":"amd64","groups":["kernel"],"size":1,"sha256":"` + sum + `","archive":"debian","path":"pool/main/l/linux/linux-image_6.12-1_amd64.deb"}
{"package":"podman","version":"5.4.2","architecture":"all","groups":["image"],"size":24686200,"sha256":"` + sum + `","archive":"debian","path":"pool/main/p/podman/podman_5.4.2_all.deb"}
`

func TestForm(t *testing.T) {
	if got := string(small().Encode()); got != written {
		t.Errorf("written:\n%s\nwant:\n%s", got, written)
	}
	l, err := Parse("packages.lock", []byte(written))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(l, small()) {
		t.Errorf("read %+v", l)
	}
	if got := l.Epoch(); !got.Equal(time.Date(2025, 11, 16, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("Epoch = %v", got)
	}
	var names []string
	for _, p := range l.Group(Tools) {
		names = append(names, p.Name)
	}
	if !reflect.DeepEqual(names, []string{"erofs-utils", "libc6"}) {
		t.Errorf("Group(Tools) = %v", names)
	}
	if p, ok := l.Package("libc6"); !ok || p.Archive != Security {
		t.Errorf("Package(libc6) = %+v, %t", p, ok)
	}
	if _, ok := l.Package("nano"); ok {
		t.Error("Package(nano) was found")
	}
}

func TestParseRefused(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(written, old) {
			t.Fatalf("the lock has no %q", old)
		}
		return strings.Replace(written, old, new, 1)
	}
	lines := strings.SplitAfter(written, "\n")
	swap := func(i, j int) string {
		l := append([]string(nil), lines...)
		l[i], l[j] = l[j], l[i]
		return strings.Join(l, "")
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", `l:1: the last line is not complete`},
		{"cut off", written[:len(written)-3], `l:10: the last line is not complete`},
		{"other format", replace("semper lock 1", "semper lock 2"), `l:1: format "semper lock 2" is not "semper lock 1"`},
		{"no header", strings.Join(lines[1:], ""), `l:1: json: unknown field "release"`},
		{"unknown key", replace(`"for":"image"`, `"for":"image","x":1`), `l:4: json: unknown field "x"`},
		{"key twice", replace(`"for":"image"`, `"for":"image","for":"image"`), `l:4: not in the form that semper writes`},
		{"key in capitals", replace(`"for":"image"`, `"For":"image"`), `l:4: not in the form that semper writes`},
		{"blank", replace(`"for":"image"`, `"for": "image"`), `l:4: not in the form that semper writes`},
		{"two values on a line", replace(`"for":"image"}`, `"for":"image"}{}`), `l:4: not in the form that semper writes`},
		{"carriage return", replace("\n", "\r\n"), `l:1: not in the form that semper writes`},
		{"unknown line", replace(`{"wants":"podman","for":"image"}`, `{}`), `l:4: neither a release, nor a wish, nor a package`},
		{"empty line", replace("\n", "\n\n"), `l:2: neither a release, nor a wish, nor a package`},
		{"number as a string", replace(`"size":1,`, `"size":"1",`), `l:9: json: cannot unmarshal string into Go struct field Package.size of type int64`},
		{"releases out of order", swap(1, 2), `l:3: release "trixie" is out of order`},
		{"release after a wish", swap(2, 3), `l:4: a release line must come before wishes and packages`},
		{"wishes out of order", swap(3, 4), `l:5: "podman" is out of order`},
		{"packages out of order", swap(6, 7), `l:8: package "erofs-utils" is out of order`},
		{"package twice", strings.Join(append(append([]string(nil), lines[:7]...), lines[6:]...), ""), `l:8: package "erofs-utils" is out of order`},
		{"wish after packages", strings.Join(lines, "") + lines[5], `l:11: wishes must come before packages`},
		{"no release", strings.Join(append([]string{lines[0]}, lines[3:]...), ""), `l:8: there is no release line`},
		{"no kernel", strings.Join(append(append([]string(nil), lines[:8]...), lines[9:]...), ""), `l:9: there must be one kernel package, not 0`},
		{"local time", replace("51Z", "51+01:00"), `l:2: date 2025-11-15T09:57:51+01:00 is not a whole second in UTC between 1970 and 2999`},
		{"parts of a second", replace("51Z", "51.5Z"), `l:2: date 2025-11-15T09:57:51.5Z is not a whole second in UTC between 1970 and 2999`},
		{"group", replace(`"for":"image"`, `"for":"initrd"`), `l:4: "initrd" is not a group`},
		{"groups not sorted", replace(`["image","tools"]`, `["tools","image"]`), `l:8: package "libc6": groups must be sorted and not empty`},
		{"group twice", replace(`["image","tools"]`, `["tools","tools"]`), `l:8: package "libc6": groups must be sorted and not empty`},
		{"name", replace(`"package":"podman"`, `"package":"Podman"`), `l:10: "Podman" is not a package name`},
		{"version", replace(`"version":"5.4.2"`, `"version":"5 4"`), `l:10: package "podman": "5 4" is not a version`},
		{"architecture", replace(`"architecture":"all"`, `"architecture":"i386"`), `l:10: package "podman" is for "i386", not for "amd64"`},
		{"size 0", replace(`"size":1,`, `"size":0,`), `l:9: package "linux-image-6.12-amd64": 0 bytes is not a size between 1 byte and 4 GiB`},
		{"huge", replace(`"size":1,`, `"size":4294967297,`), `l:9: package "linux-image-6.12-amd64": 4294967297 bytes is not a size between 1 byte and 4 GiB`},
		{"short hash", replace(sum, sum[:62]), `l:7: package "erofs-utils": "` + sum[:62] + `" is not a SHA-256`},
		{"hash in capitals", replace(sum, strings.ToUpper(sum)), `l:7: package "erofs-utils": "` + strings.ToUpper(sum) + `" is not a SHA-256`},
		{"archive", replace(`"archive":"security"`, `"archive":"backports"`), `l:8: package "libc6": "backports" is not an archive`},
		{"path upwards", replace("pool/main/p/", "pool/../../"), `l:10: package "podman": "pool/../../podman/podman_5.4.2_all.deb" is not a path of an archive`},
		{"path with a host", replace("pool/main/p/", "http://x/"), `l:10: package "podman": "http://x/podman/podman_5.4.2_all.deb" is not a path of an archive`},
		{"path with a query", replace("podman_5.4.2_all.deb", "x?y.deb"), `l:10: package "podman": "pool/main/p/podman/x?y.deb" is not a path of an archive`},
		{"no package", replace("podman_5.4.2_all.deb", "x.tar"), `l:10: package "podman": "pool/main/p/podman/x.tar" is not a path of an archive`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("l", []byte(c.text))
			if err == nil {
				t.Fatal("accepted")
			}
			want := c.want + "; run 'semper lock' to write it anew"
			if err.Error() != want || !fault.Is(err, fault.Input) {
				t.Errorf("got  %v (%s)\nwant %s", err, fault.KindOf(err), want)
			}
		})
	}
}

func TestLoadSave(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); !fault.Is(err, fault.Input) || !strings.HasSuffix(err.Error(), "run 'semper lock "+dir+"'") {
		t.Errorf("missing lock: %v", err)
	}
	if err := small().Save(dir); err != nil {
		t.Fatal(err)
	}
	l, err := Load(dir)
	if err != nil || l.Digest() != small().Digest() {
		t.Errorf("Load: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("Save left %v, %v", entries, err)
	}
	info, err := os.Stat(filepath.Join(dir, FileName))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := small().Save(filepath.Join(dir, "none")); !fault.Is(err, fault.IO) {
		t.Errorf("Save into a folder that is not there: %v", err)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name    string
		replace []string
		want    string
	}{
		{"the same", []string{`["dpkg"]`, `["libc6"]`}, ""},
		{"package added", []string{`"podman"`, `"podman", "nano"`}, `image package "nano" was added`},
		{"package removed and added", []string{`"podman"`, `"nano"`}, `image package "nano" was added, image package "podman" was removed`},
		{"tool", []string{`["erofs-utils"]`, `["erofs-utils", "kmod"]`}, `tools package "kmod" was added`},
		{"kernel", []string{"[root]", "[kernel]\npackage = \"linux-image-cloud-amd64\"\n[root]"}, `kernel package "linux-image-cloud-amd64" was added, kernel package "linux-image-amd64" was removed`},
		{"suite", []string{`"trixie"`, `"forky"`}, `suite was "trixie" and is "forky"`},
		{"components", []string{"[root]", "", "[tools]", "[root]\nslot-size = \"2GiB\"\n[tools]", "slot-size = \"2GiB\"", "", "remove-packages", "components = [\"main\", \"contrib\"]\nremove-packages"}, `components was "main" and is "contrib main"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := small().Check(parseRecipe(t, c.replace...))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			want := "images/x/packages.lock no longer matches images/x/recipe.toml: " + c.want + "; run 'semper lock images/x'"
			if err == nil || err.Error() != want || !fault.Is(err, fault.Input) {
				t.Errorf("got  %v\nwant %s", err, want)
			}
		})
	}
	err := small().Check(parseRecipe(t))
	if want := `images/x/recipe.toml:7: remove-packages: "dpkg" is not among the image's 2 packages`; err == nil || err.Error() != want {
		t.Errorf("removal of what is not there: got %v, want %s", err, want)
	}
}

func TestSameAndChanges(t *testing.T) {
	older, newer := small(), small()
	newer.Releases[0].Date = newer.Releases[0].Date.AddDate(0, 0, 1)
	if !newer.Same(older) || newer.Digest() == older.Digest() {
		t.Error("another date alone must be the same resolution, in another lock")
	}
	if c := newer.Changes(older); len(c) != 0 {
		t.Errorf("Changes = %v", c)
	}
	newer.Packages[1].Version, newer.Packages[1].SHA256 = "1:2.42", strings.Repeat("0", 64)
	newer.Packages = append(newer.Packages[1:], Package{Name: "zlib1g", Version: "1.3"})
	if newer.Same(older) {
		t.Error("other packages must not be the same resolution")
	}
	want := []Change{{"erofs-utils", "1.8.6-1", ""}, {"libc6", "1:2.41~a+b", "1:2.42"}, {"zlib1g", "", "1.3"}}
	if got := newer.Changes(older); !reflect.DeepEqual(got, want) {
		t.Errorf("Changes = %v, want %v", got, want)
	}
	if got := older.Changes(nil); len(got) != 4 || got[0] != (Change{"erofs-utils", "", "1.8.6-1"}) {
		t.Errorf("Changes(nil) = %v", got)
	}
}

func TestIndex(t *testing.T) {
	x := newIndex()
	text := "Package: a\nVersion: 1\nArchitecture: amd64\nDepends: b (>= 1) | c:any, d [amd64]\nProvides: v (= 1), w\nDescription: x\n Version: 9\nFilename: ./a.deb\nSize: 5\nSHA256: " + sum + "\n\n\n" +
		"Package: a\nVersion: 2\nArchitecture: amd64\nFilename: a2.deb\nSize: 6\nSHA256: " + sum
	if err := x.add(text, Security); err != nil {
		t.Fatal(err)
	}
	p, err := x.find("a", "1", "amd64")
	if err != nil || p.Version != "1" || p.Path != "a.deb" || p.Size != 5 || p.Archive != Security {
		t.Errorf("find: %+v, %v", p, err)
	}
	if _, err := x.find("a", "3", "amd64"); err == nil {
		t.Error("found what is not there")
	}
	var names []string
	for n := range dependencies(p.depends) {
		names = append(names, n)
	}
	if strings.Join(names, " ") != "b c d" || len(x.provided["v"]) != 1 || len(x.provided["w"]) != 1 {
		t.Errorf("depends on %v, provides %v", names, x.provided)
	}
	if err := x.add("Package: a\nSize: many\n", Debian); err == nil {
		t.Error("accepted a size that is no number")
	}
}

func TestComplaints(t *testing.T) {
	for _, c := range []struct{ stderr, want string }{
		{"", ""},
		{"W: one\nN: note\nE: two \n", "two; one"},
		{"W: Download is performed unsandboxed as root\nE: a\nE: b\nE: c\nW: d\nW: e\n", "a; b; c; and 2 more"},
		{"sh: 1:  not\n found\n", "sh: 1: not found"},
		{"E: " + strings.Repeat("x", 2000), strings.Repeat("x", 1000) + "…"},
	} {
		if got := complaints(c.stderr); got != c.want {
			t.Errorf("complaints(%q) = %q, want %q", c.stderr, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(written))
	f.Add([]byte(strings.Replace(written, `"size":1`, `"size":1e0`, 1)))
	f.Add([]byte(strings.Replace(written, "podman", `\u0070odman`, 1)))
	f.Add([]byte("{\"format\":\"semper lock 1\"}\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse("l", data)
		if err != nil {
			if !fault.Is(err, fault.Input) {
				t.Errorf("kind %s: %v", fault.KindOf(err), err)
			}
			return
		}
		if string(l.Encode()) != string(data) {
			t.Errorf("%q was accepted, and is not how it is written", data)
		}
	})
}

func FuzzIndex(f *testing.F) {
	f.Add("Package: a\nVersion: 1\nSize: 1\nProvides: b | c (= 1)\n\n\nPackage: b\nSize: 0\n")
	f.Add("\n\n:\n")
	f.Fuzz(func(_ *testing.T, text string) {
		x := newIndex()
		_ = x.add(text, Debian)
	})
}
