package image

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/builder/recipe"
	"github.com/semper-os/semper/fault"
)

// A version that cannot be used is found before the recipe is even looked for.
func TestBadVersion(t *testing.T) {
	for _, version := range []string{"", "v1", "1.2.0+1", "1_0", "1.0.0-RC1", strings.Repeat("1", 40)} {
		_, err := Build(t.Context(), Options{Image: "/nonexistent", Version: version})
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "--version") {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

// The recipe's min-version is in what servers read, the manifest, and in what machines read, the payload.
func TestMinVersion(t *testing.T) {
	for _, c := range []struct {
		version string
		ok      bool
	}{{"1.1.0", true}, {"1.10.0", true}, {"1.1.0~rc1", false}, {"1.0.9", false}} {
		b := build{Options: Options{Version: c.version}, recipe: &recipe.Recipe{Name: "semper", MinVersion: "1.1.0"}, lock: &lock.Lock{}}
		if err := b.checkMinVersion(); (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Input) {
			t.Errorf("%s: %v", c.version, err)
		}
		if a, p := b.manifest().MinVersion, b.payloadImage().MinVersion; a != "1.1.0" || p != "1.1.0" {
			t.Errorf("manifest %q, payload %q", a, p)
		}
	}
	b := build{Options: Options{Version: "1.0.0"}, recipe: &recipe.Recipe{Name: "semper"}, lock: &lock.Lock{}}
	if err := b.checkMinVersion(); err != nil || b.manifest().MinVersion != "" {
		t.Errorf("none: %v, %q", err, b.manifest().MinVersion)
	}
}

func TestCheckRoom(t *testing.T) {
	const mib = 1 << 20
	room := func(disks map[string][2]int64) roomFor {
		return func(dir string) (uint64, int64, error) {
			d, ok := disks[dir]
			if !ok {
				return 0, 0, errors.New("no such disk")
			}
			return uint64(d[0]), d[1], nil
		}
	}
	places := []place{{"--out", "out", 300 * mib}, {"--cache", "cache", 300 * mib}}
	for _, c := range []struct {
		name  string
		disks map[string][2]int64
		want  string
	}{
		{"two disks", map[string][2]int64{"out": {1, 300 * mib}, "cache": {2, 300 * mib}}, ""},
		{"one disk", map[string][2]int64{"out": {1, 600 * mib}, "cache": {1, 600 * mib}}, ""},
		{
			"one disk, too small",
			map[string][2]int64{"out": {1, 500 * mib}, "cache": {1, 500 * mib}},
			"not enough room for a build at --out out and --cache cache: 500.0 MiB are free, about 600.0 MiB are needed",
		},
		{
			"the second disk too small",
			map[string][2]int64{"out": {1, 900 * mib}, "cache": {2, 300*mib - 1}},
			"not enough room for a build at --cache cache: 300.0 MiB are free, about 300.0 MiB are needed",
		},
		{"unreadable", map[string][2]int64{"out": {1, 900 * mib}}, "free space at --cache cache: no such disk"},
	} {
		err := checkRoom(places, room(c.disks))
		switch {
		case c.want == "" && err != nil, c.want != "" && (!fault.Is(err, fault.IO) || err.Error() != c.want):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestStatRoom(t *testing.T) {
	dir := t.TempDir()
	device, free, err := statRoom(dir)
	if err != nil || free <= 0 {
		t.Fatalf("%d bytes, %v", free, err)
	}
	if d, f, err := statRoom(filepath.Join(dir, "not", "there")); d != device || f <= 0 || err != nil {
		t.Errorf("a folder that is not there yet: device %d, want %d; %d bytes, %v", d, device, f, err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := statRoom(filepath.Join(file, "below")); err == nil {
		t.Error("a folder below a file has room")
	}
}
