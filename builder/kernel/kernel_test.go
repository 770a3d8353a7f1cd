package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/semper-os/semper/builder/tree"
	"github.com/semper-os/semper/fault"
)

// TestMain lets the test binary stand in for depmod and modinfo.
func TestMain(m *testing.M) {
	tool, ok := map[string]func([]string) error{"depmod": depmod, "modinfo": modinfo}[os.Getenv("SEMPER_TEST_TOOL")]
	if !ok {
		os.Exit(m.Run())
	}
	if err := tool(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// modinfo prints the names of what modules need, as depmod's text has it.
func modinfo(args []string) error {
	if len(args) < 4 || !slices.Equal(args[:3], []string{"-0", "-F", "depends"}) {
		return fmt.Errorf("unexpected arguments %q", args)
	}
	for _, file := range args[3:] {
		b, err := ReadModule(file)
		if err != nil {
			return err
		}
		if string(b[4:]) == silent {
			continue
		}
		var names []string
		for _, f := range strings.Fields(string(b[4:])) {
			names = append(names, strings.TrimSuffix(path.Base(f), ".ko"))
		}
		fmt.Print(strings.Join(names, ","), "\x00")
	}
	return nil
}

const silent = "says nothing of what it needs"

// depmod writes modules.dep from modules whose text, behind the ELF magic number, is the list of what they need.
func depmod(args []string) error {
	if len(args) != 7 || args[0] != "-b" || args[2] != "-m" || args[4] != "-C" {
		return fmt.Errorf("unexpected arguments %q", args)
	}
	dir := filepath.Join(args[1], args[3], args[6])
	needs := map[string][]string{}
	err := walk(dir, func(name, path string) error {
		if !isModule(name) {
			return nil
		}
		b, err := ReadModule(path)
		if err != nil {
			return err
		}
		needs[name] = strings.Fields(string(b[4:]))
		return nil
	})
	if err != nil {
		return err
	}
	var out strings.Builder
	for _, m := range slices.Sorted(maps.Keys(needs)) {
		fmt.Fprint(&out, m, ":")
		for todo := needs[m]; len(todo) > 0; todo = todo[1:] {
			i := slices.IndexFunc(slices.Collect(maps.Keys(needs)), func(n string) bool { return strings.TrimSuffix(n, compressed) == todo[0] })
			if i < 0 {
				fmt.Println("WARNING: cannot find", todo[0])
				continue
			}
			for n := range needs {
				if strings.TrimSuffix(n, compressed) == todo[0] {
					fmt.Fprint(&out, " ", n)
					todo = append(todo, needs[n]...)
				}
			}
		}
		fmt.Fprintln(&out)
	}
	return os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(out.String()), 0o644)
}

type fakeTools struct{}

func (fakeTools) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SEMPER_TEST_TOOL="+name)
	return cmd, nil
}

const (
	release = "6.12.1+deb13-amd64"
	lib     = "usr/lib/modules/" + release + "/"
)

// bzImage is a kernel image as far as anybody looks at it here.
func bzImage(release string) []byte {
	b := make([]byte, 0x400)
	copy(b, "MZ")
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x100)
	return append(b[:0x300], release+" (debian-kernel@example.org) #1 SMP\x00"...)
}

func elf(needs string) []byte {
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		panic(err)
	}
	fmt.Fprint(w, "\x7fELF", needs)
	w.Close()
	return b.Bytes()
}

// packageFiles is a kernel with a sound system: snd, a driver that needs it, one that needs that driver, and something else.
func packageFiles() map[string][]byte {
	return map[string][]byte{
		"boot/vmlinuz-" + release:                               bzImage(release),
		"boot/config-" + release:                                []byte("CONFIG_X=y\n"),
		"usr/share/doc/linux-image-" + release + "/copyright":   []byte("GPL\n"),
		lib + "modules.builtin":                                 []byte("kernel/crypto/sha256.ko\n"),
		lib + "kernel/sound/core/snd-core.ko.xz":                elf(""),
		lib + "kernel/drivers/usb/gadget/u_audio.ko.xz":         elf("kernel/sound/core/snd-core.ko"),
		lib + "kernel/drivers/usb/gadget/u_audio_test.ko.xz":    elf("kernel/drivers/usb/gadget/u_audio.ko"),
		lib + "kernel/drivers/usb/gadget/libcomposite.ko.xz":    elf(""),
		lib + "kernel/drivers/usb/gadget/usb_f_serial.ko.xz":    elf("kernel/drivers/usb/gadget/libcomposite.ko"),
		"usr/share/bug/linux-image-" + release + "/include-cmd": []byte("#!/bin/sh\n"),
	}
}

func buildDeb(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	files["DEBIAN/control"] = []byte("Package: linux-image-test\nVersion: 1\nArchitecture: amd64\nMaintainer: T <t@example.org>\nDescription: test\n")
	for name, b := range files {
		p := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(dir, "linux-image.deb")
	if out, err := exec.Command("dpkg-deb", "-Znone", "--root-owner-group", "-b", root, deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb (Debian package dpkg): %v: %s", err, out)
	}
	return deb
}

func sound(name string) bool {
	return strings.HasPrefix(name, "kernel/sound/") && strings.HasSuffix(name, ".ko")
}

func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := walk(dir, func(name, path string) error {
		b, err := os.ReadFile(path)
		files[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestUnpack(t *testing.T) {
	files := packageFiles()
	deb := buildDeb(t, files)
	for _, plain := range []bool{false, true} {
		suffix := compressed
		if plain {
			suffix = ""
		}
		r, err := Unpack(t.Context(), Options{Deb: deb, Out: t.TempDir(), Tools: fakeTools{}, Exclude: sound, Plain: plain})
		if err != nil {
			t.Fatal(err)
		}
		gadget := "kernel/drivers/usb/gadget/"
		if want := []string{gadget + "libcomposite.ko" + suffix, gadget + "usb_f_serial.ko" + suffix}; !slices.Equal(r.Modules, want) {
			t.Errorf("plain %v: modules %q", plain, r.Modules)
		}
		if want := []string{"kernel/sound/core/snd-core.ko.xz"}; !slices.Equal(r.Excluded, want) {
			t.Errorf("excluded %q", r.Excluded)
		}
		if want := []string{gadget + "u_audio.ko.xz", gadget + "u_audio_test.ko.xz"}; !slices.Equal(r.Dependents, want) {
			t.Errorf("dependents %q", r.Dependents)
		}
		libcomposite := string(files[lib+gadget+"libcomposite.ko.xz"])
		if plain {
			libcomposite = "\x7fELF"
		}
		got := listing(t, r.Dir)
		if got["vmlinuz"] != string(bzImage(release)) || got["copyright"] != "GPL\n" ||
			got["modules/"+release+"/"+gadget+"libcomposite.ko"+suffix] != libcomposite ||
			got["modules/"+release+"/modules.builtin"] != "kernel/crypto/sha256.ko\n" || len(got) != 7 {
			t.Errorf("plain %v: files %q", plain, slices.Sorted(maps.Keys(got)))
		}
		again, err := Open(r.Dir)
		if err != nil || again.Release != release || !slices.Equal(again.Modules, r.Modules) || again.Plain != plain {
			t.Errorf("Open: %+v, %v", again, err)
		}
		root := tree.New()
		if err := r.AddTo(root); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{lib + "modules.dep", lib + gadget + "usb_f_serial.ko" + suffix, "usr/share/doc/linux-image-" + release + "/copyright"} {
			if n := root.Lookup(p); n == nil || n.Mode != 0o644 {
				t.Errorf("%s in the tree: %+v", p, n)
			}
		}
		if root.Lookup(lib+"kernel/sound") != nil {
			t.Error("the sound system is in the tree")
		}
		second, err := Unpack(t.Context(), Options{Deb: deb, Out: t.TempDir(), Tools: fakeTools{}, Exclude: sound, Plain: plain})
		if err != nil || !maps.Equal(listing(t, second.Dir), got) {
			t.Errorf("plain %v: a second run differs (%v)", plain, err)
		}
	}
}

func TestUnpackEverything(t *testing.T) {
	r, err := Unpack(t.Context(), Options{Deb: buildDeb(t, packageFiles()), Out: t.TempDir(), Tools: fakeTools{}})
	if err != nil || len(r.Modules) != 5 || r.Excluded != nil || r.Dependents != nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestUnpackRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(map[string][]byte)
		want   string
		kind   fault.Kind
	}{
		"no image":         {func(f map[string][]byte) { delete(f, "boot/vmlinuz-"+release) }, "is this a linux-image package?", fault.Input},
		"other image":      {func(f map[string][]byte) { f["boot/vmlinuz-6.1"] = bzImage("6.1"); delete(f, "boot/vmlinuz-"+release) }, "the image is of kernel 6.1, the modules are of " + release, fault.Input},
		"lying image":      {func(f map[string][]byte) { f["boot/vmlinuz-"+release] = bzImage("6.1") }, `it says that it is "6.1"`, fault.Input},
		"not an image":     {func(f map[string][]byte) { f["boot/vmlinuz-"+release] = []byte("hello") }, "not an EFI program", fault.Input},
		"two kernels":      {func(f map[string][]byte) { f["usr/lib/modules/6.1/kernel/a.ko.xz"] = elf("") }, "modules of two kernels", fault.Input},
		"odd name":         {func(f map[string][]byte) { f[lib+"kernel/a b.ko.xz"] = elf("") }, "no name of a module's file", fault.Input},
		"not xz":           {func(f map[string][]byte) { f[lib+"kernel/a.ko.xz"] = []byte("hello") }, "depmod: exit status 1", fault.IO},
		"depmod's warning": {func(f map[string][]byte) { f[lib+"kernel/a.ko.xz"] = elf("kernel/b.ko") }, "WARNING: cannot find kernel/b.ko", fault.Input},
	} {
		t.Run(name, func(t *testing.T) {
			files := packageFiles()
			tc.change(files)
			_, err := Unpack(t.Context(), Options{Deb: buildDeb(t, files), Out: t.TempDir(), Tools: fakeTools{}})
			if err == nil || !strings.Contains(err.Error(), tc.want) || !fault.Is(err, tc.kind) {
				t.Errorf("error %v (%v), want one with %q (%v)", err, fault.KindOf(err), tc.want, tc.kind)
			}
		})
	}
	for file, tc := range map[string]struct {
		content []byte
		want    string
	}{
		"libcomposite.ko.xz": {elf(silent), "modinfo: kernel " + release + ": 3 of 4 modules"},
		"libcomposite.ko":    {[]byte("hello"), "not an ELF file"},
	} {
		files := packageFiles()
		delete(files, lib+"kernel/drivers/usb/gadget/libcomposite.ko.xz")
		files[lib+"kernel/drivers/usb/gadget/"+file] = tc.content
		_, err := Unpack(t.Context(), Options{Deb: buildDeb(t, files), Out: t.TempDir(), Tools: fakeTools{}, Exclude: sound})
		if !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("modinfo of %q: error %v, want one with %q", tc.content, err, tc.want)
		}
	}
	if _, err := Unpack(t.Context(), Options{Deb: filepath.Join(t.TempDir(), "none.deb"), Out: t.TempDir()}); !fault.Is(err, fault.Input) {
		t.Errorf("no package: %v", err)
	}
	garbage := filepath.Join(t.TempDir(), "garbage.deb")
	if err := os.WriteFile(garbage, []byte("!<arch>\nnothing"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Unpack(t.Context(), Options{Deb: garbage, Out: t.TempDir()}); !fault.Is(err, fault.Input) {
		t.Errorf("garbage: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Unpack(ctx, Options{Deb: buildDeb(t, packageFiles()), Out: t.TempDir(), Tools: fakeTools{}}); err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), fs.ErrNotExist.Error()) && !strings.Contains(err.Error(), "no such file") {
		t.Errorf("empty folder: %v", err)
	}
	for _, text := range []string{"", "{}", `{"release": "../x"}`} {
		if err := os.WriteFile(filepath.Join(dir, jsonName), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); !fault.Is(err, fault.Input) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestReadModule(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.ko.xz")
	for name, b := range map[string][]byte{"not xz": []byte("\x7fELF"), "cut": elf("x")[:40], "not ELF": func() []byte {
		var b bytes.Buffer
		w, _ := xz.NewWriter(&b)
		fmt.Fprint(w, "hello")
		w.Close()
		return b.Bytes()
	}()} {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadModule(path); !fault.Is(err, fault.Input) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzImageRelease(f *testing.F) {
	f.Add(bzImage(release))
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := imageRelease(b); err == nil && len(s) > 256 {
			t.Errorf("%d bytes", len(s))
		}
	})
}
