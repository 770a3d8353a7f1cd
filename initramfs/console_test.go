package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestConsole(t *testing.T) {
	var serial, screen, log bytes.Buffer
	now := time.Duration(0)
	c := NewConsole(func() time.Duration { return now }, &log, &serial, &screen)
	c.Printf("looking for %s", "it")
	now = 1234567 * time.Microsecond
	c.Debugf("hidden")
	c.Debug = true
	c.Debugf("label \x1b[2J\u009b of %s", "a\ndisk")
	now = 12345 * time.Second
	c.Printf("late")
	want := "semper-init[  0.000]: looking for it\r\n" +
		"semper-init[  1.234]: label  [2J  of a disk\r\n" +
		"semper-init[12345.000]: late\r\n"
	if serial.String() != want || screen.String() != want {
		t.Errorf("printed %q\nwant    %q", serial.String(), want)
	}
	wantLog := "<7>semper-init: looking for it\n<7>semper-init: hidden\n<7>semper-init: label  [2J  of a disk\n<7>semper-init: late\n"
	if log.String() != wantLog {
		t.Errorf("logged %q\nwant   %q", log.String(), wantLog)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestConsoleGone(t *testing.T) {
	var out bytes.Buffer
	c := NewConsole(func() time.Duration { return 0 }, nil, brokenWriter{}, &out)
	c.Printf("hello")
	if !strings.Contains(out.String(), "hello") {
		t.Error("a console that is gone silences the others")
	}
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	c := NewConsole(func() time.Duration { return 0 }, nil, &out)
	w := c.Lines("e2fsck")
	fmt.Fprint(w, "var: recover")
	fmt.Fprint(w, "ing journal\n\n  \nvar: |==  | 20%\rvar: |====| 40%\b\b\x1b")
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := "semper-init[  0.000]: e2fsck: var: recovering journal\r\n" +
		"semper-init[  0.000]: e2fsck: var: |==  | 20%\r\n" +
		"semper-init[  0.000]: e2fsck: var: |====| 40%\r\n"
	if out.String() != want {
		t.Errorf("printed %q\nwant    %q", out.String(), want)
	}
	out.Reset()
	w = c.Lines("x")
	for range 1000 {
		fmt.Fprintln(w, strings.Repeat("y", 3000))
	}
	if n := strings.Count(out.String(), "\n"); n != maxLines {
		t.Errorf("%d lines, want %d", n, maxLines)
	}
}

func TestOpenConsoles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"ttyS0", "tty0", "console"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	active := filepath.Join(dir, "active")
	for text, want := range map[string]string{"tty0 ttyS0\n": "tty0 ttyS0", "ttyS9\n": "console", "": "console", "../x": "console"} {
		if err := os.WriteFile(active, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range openConsoles(active, dir) {
			got = append(got, filepath.Base(w.(*os.File).Name()))
			w.(*os.File).Close()
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q opens %q, want %q", text, got, want)
		}
	}
}

func TestMessage(t *testing.T) {
	err := fmt.Errorf("outer: %w", &Failure{
		What: "The system is damaged: it does not match its root hash", Where: "slot A (version 1.2.0), partition vda4 of disk /dev/vda",
		Err: errors.New("hash block 1 does not match\x1b"), Do: "replace the disk",
	})
	want := `SEMPER CANNOT START THIS SYSTEM

What:  The system is damaged: it does not match its root hash.
Where: slot A (version 1.2.0), partition vda4 of disk /dev/vda
Cause: hash block 1 does not match
Help:  replace the disk
Next:  This machine restarts in a few seconds. The boot loader counts a
       failed try; when a new version has used up its tries, the one
       before it is started.`
	if got := strings.Join(message(err), "\n"); got != want {
		t.Errorf("message\n%s\nwant\n%s", got, want)
	}
	if got := strings.Join(message(errors.New("proc: no such device")), "\n"); !strings.Contains(got, "What:  The system could not be started.\nCause: proc: no such device\nNext:") {
		t.Errorf("message of any other error\n%s", got)
	}
	var out bytes.Buffer
	NewConsole(func() time.Duration { return 0 }, nil, &out).Frame([]string{"one", "two"})
	rule := strings.Repeat("=", 78)
	if want := "\r\n" + rule + "\r\n  one\r\n  two\r\n" + rule + "\r\n"; out.String() != want {
		t.Errorf("frame %q", out.String())
	}
}

func TestWrap(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []string
	}{
		{"", []string{"N: "}},
		{"a b", []string{"N: a b"}},
		{"1234567", []string{"N: 1234567"}},
		{"12345678", []string{"N: 1234567", "   8"}},
		{"123 4567 x", []string{"N: 123", "   4567 x"}},
		{"a 12345678901234567", []string{"N: a", "   1234567", "   8901234", "   567"}},
	} {
		if got := wrap("N: ", tc.text, 10); strings.Join(got, "|") != strings.Join(tc.want, "|") {
			t.Errorf("wrap(%q) = %q, want %q", tc.text, got, tc.want)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add("what", "where", "cause \x1b[2J that is long", "do")
	f.Fuzz(func(t *testing.T, what, where, cause, do string) {
		for _, l := range message(&Failure{What: what, Where: where, Err: errors.New(cause), Do: do}) {
			if len(l) > frameWidth-4 || strings.ContainsAny(l, "\x1b\r\n") {
				t.Errorf("line %q", l)
			}
		}
	})
}
