package debs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semper-os/semper/builder/lock/archivetest"
	"github.com/semper-os/semper/fault"
)

const hello = `Package: hello
Version: 1:2.0~rc1+b1
Architecture: all
Maintainer: Nobody <nobody@example.org>
Depends: libc6 (>= 2.41), tzdata
Description: says hello
 And says it again,
 .
 and again.
`

// What dpkg-deb packs in each of its ways must read as dpkg-deb itself reads it.
func TestControlAgainstDpkg(t *testing.T) {
	files := map[string]string{"usr/bin/hello": strings.Repeat("hello\n", 10000)}
	for i := range 500 { // a long md5sums beside the control file
		files[fmt.Sprintf("usr/share/hello/%d", i)] = fmt.Sprint(i)
	}
	for _, compression := range []string{"xz", "zstd", "gzip", "none"} {
		t.Run(compression, func(t *testing.T) {
			deb := archivetest.Deb(t, compression, hello, files)
			path := filepath.Join(t.TempDir(), "x.deb")
			if err := os.WriteFile(path, deb, 0o644); err != nil {
				t.Fatal(err)
			}
			want, err := exec.Command("dpkg-deb", "--field", path).Output()
			if err != nil {
				t.Fatal(err)
			}
			got, err := Control(bytes.NewReader(deb), int64(len(deb)))
			if err != nil || got != string(want) {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		})
	}
}

// arFile makes an ar archive of members name, content, name, content…
func arFile(members ...string) []byte {
	b := bytes.NewBufferString(arMagic)
	for i := 0; i < len(members); i += 2 {
		fmt.Fprintf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", members[i], 0, 0, 0, "100644", len(members[i+1]), members[i+1])
		if len(members[i+1])%2 == 1 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// tarOf is a control.tar with one file.
func tarOf(t *testing.T, control string) string {
	t.Helper()
	// The tar that dpkg-deb would write is taken from it, and then the length and text are exchanged.
	if len(control) > 512*8 {
		t.Fatal("too long for this test")
	}
	h := make([]byte, 512)
	copy(h, "./control")
	copy(h[100:], "0000644\x000000000\x000000000\x00")
	copy(h[124:], fmt.Sprintf("%011o\x00%011o\x00", len(control), 0))
	copy(h[148:], "        ")
	h[156] = '0'
	copy(h[257:], "ustar\x0000")
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	body := make([]byte, (len(control)+511)/512*512)
	copy(body, control)
	return string(h) + string(body) + strings.Repeat("\x00", 1024)
}

func TestControlRefused(t *testing.T) {
	good := tarOf(t, hello)
	if got, err := Control(bytes.NewReader(arFile("debian-binary", "2.0\n", "control.tar", good)), 1<<20); err != nil || got != hello {
		t.Fatalf("the good one: %q, %v", got, err)
	}
	xzBomb := make([]byte, 64)
	copy(xzBomb, "\xfd7zXZ\x00\x00\x04")
	copy(xzBomb[12:], "\x02\x00\x21\x01\x28") // a dictionary of 4 GiB
	many := make([]string, 0, 20)
	for range 10 {
		many = append(many, "_gpgorigin", "x")
	}
	cut := arFile("control.tar", good)[:700]
	for _, c := range []struct {
		name string
		deb  []byte
		want string
	}{
		{"empty", nil, "no ar archive"},
		{"not ar", []byte("!<thin>\nxxxxxxxxxxxxxxxx"), "no ar archive"},
		{"no members", []byte(arMagic), "the archive is cut off before control.tar"},
		{"no control.tar", arFile("debian-binary", "2.0\n"), "the archive is cut off before control.tar"},
		{"too many members", arFile(many...), "there is no control.tar"},
		{"cut off", cut, `the member "control.tar" is cut off`},
		{"negative size", bytes.Replace(arFile("control.tar", ""), []byte("0         `"), []byte("-1        `"), 1), "bad ar header at byte 8"},
		{"no end of header", bytes.Replace(arFile("control.tar", ""), []byte("`\n"), []byte("xx"), 1), "bad ar header at byte 8"},
		{"unknown compression", arFile("control.tar.lzma", good), "control.tar.lzma is compressed in an unknown way"},
		{"not xz", arFile("control.tar.xz", good), "xz: no stream header"},
		{"xz without blocks", arFile("control.tar.xz", "\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x00\x00"), "xz: no block"},
		{"xz with a filter for programs", arFile("control.tar.xz", "\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\x01\x04\x00\x21\x01\x16\x00\x00\x00\x00\x00"), "xz: a filter that is not known"},
		{"xz that asks for 4 GiB", arFile("control.tar.xz", string(xzBomb)), "control.tar.xz: no control file"},
		{"not gzip", arFile("control.tar.gz", good), "gzip: invalid header"},
		{"not zstd", arFile("control.tar.zst", good), "control.tar.zst: no control file"},
		{"no control file", arFile("control.tar", strings.Repeat("\x00", 1024)), "control.tar: no control file: EOF"},
		{"empty control file", arFile("control.tar", tarOf(t, "\n")), "the control file is empty"},
		{"two stanzas", arFile("control.tar", tarOf(t, hello+"\nPackage: evil\n")), "the control file has more than one stanza"},
		{"two stanzas with a blank between", arFile("control.tar", tarOf(t, hello+" \nPackage: evil\n")), "the control file has more than one stanza"},
		{"two stanzas by carriage return", arFile("control.tar", tarOf(t, hello+"\r\nPackage: evil\n")), "the control file has more than one stanza"},
		{"a line that is no field", arFile("control.tar", tarOf(t, hello+"what\n")), `the control file has the line "what", which is no field`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Control(bytes.NewReader(c.deb), int64(len(c.deb)))
			if err == nil || !strings.HasPrefix(err.Error(), "not a Debian package: "+c.want) || !fault.Is(err, fault.Input) {
				t.Errorf("got  %v (%s)\nwant %s", err, fault.KindOf(err), c.want)
			}
		})
	}
}

func TestField(t *testing.T) {
	for name, want := range map[string]string{"Package": "hello", "version": "1:2.0~rc1+b1", "Description": "says hello", "Provides": "", "And": ""} {
		if got := Field(hello, name); got != want {
			t.Errorf("Field(%q) = %q, want %q", name, got, want)
		}
	}
}

func FuzzControl(f *testing.F) {
	for _, compression := range []string{"xz", "zstd", "gzip", "none"} {
		f.Add(archivetest.Deb(f, compression, hello, nil))
	}
	lying := make([]byte, 8)
	binary.LittleEndian.PutUint64(lying, 1<<63)
	f.Add(arFile("control.tar.xz", "\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\xc0\xff\xff\x21\x01\x28"+string(lying)))
	f.Fuzz(func(t *testing.T, data []byte) {
		stanza, err := Control(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !fault.Is(err, fault.Input) {
				t.Errorf("kind %s: %v", fault.KindOf(err), err)
			}
			return
		}
		if strings.Contains(stanza, "\n\n") || !strings.HasSuffix(stanza, "\n") {
			t.Errorf("%q is not one stanza", stanza)
		}
	})
}
