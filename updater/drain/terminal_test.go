package drain

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

func TestTTYNames(t *testing.T) {
	for _, name := range []string{"pts/0", "pts/17", "tty1", "tty63"} {
		if err := checkTTY(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "tty", "pts/", "ttyS0", "sda", "pts/ptmx", "pts/-1", "pts/01", "pts/1/..", "/dev/pts/0", "../pts/0", "pts/0\n", "tty1\x00", "console", "pts/1234567", "tty 1", "pts/٣"} {
		if checkTTY(name) == nil {
			t.Errorf("%q passed", name)
		}
	}
}

func TestMessage(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct{ text, want string }{
		{"reboot in 5 minutes", "reboot in 5 minutes"},
		{"über\nzwei\n", "über\r\nzwei"},
		{"\x1b[2J\a\x00\x7f\r\u009b31m\u202etxt\u200b\xff", "?[2J?????31m?txt??"},
	} {
		if got, want := message(c.text, at), "\r\n\aMessage from Semper, 03:04 UTC:\r\n"+c.want+"\r\n"; got != want {
			t.Errorf("%q became %q, want %q", c.text, got, want)
		}
	}
}

// pty opens a pseudo terminal of the kernel's and returns its master and the other side's name.
func pty(t *testing.T) (master *os.File, name string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatalf("/dev/ptmx: %v (the kernel's pseudo terminals must be mounted at /dev/pts)", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { master.Close() })
	return master, fmt.Sprintf("pts/%d", n)
}

func TestWarn(t *testing.T) {
	m := newMachine(t, nil)
	c := serve(t, m, Options{})
	master, name := pty(t)
	// The other side stays open, as a logged-in user's does.
	user, err := os.OpenFile("/dev/"+name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	if err := c.Warn(t.Context(), "reboot in 5 minutes\x1b[2J", []string{name, "pts/999999"}); err != nil { // nobody is at the second: no error
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := master.Read(buf)
	if got := string(buf[:n]); err != nil || !strings.Contains(got, "reboot in 5 minutes?[2J") || !strings.Contains(got, "Message from Semper") {
		t.Errorf("%q, %v", got, err)
	}
	if err := c.Warn(t.Context(), "x", []string{"sda"}); !fault.Is(err, fault.Input) {
		t.Errorf("a disk: %v", err)
	}
	if err := c.Warn(t.Context(), "", []string{name}); !fault.Is(err, fault.Input) {
		t.Errorf("no text: %v", err)
	}
	if err := c.Warn(t.Context(), strings.Repeat("é", maxText), []string{name}); err != nil { // cut, not refused
		t.Errorf("long text: %v", err)
	}
	if err := (Client{Path: "/nonexistent"}).Warn(t.Context(), "x", nil); err != nil {
		t.Errorf("nobody is logged in: %v", err)
	}
}

// A terminal that takes nothing, since its user stopped it, is an error and no hang.
func TestStoppedTerminal(t *testing.T) {
	_, name := pty(t)
	user, err := os.OpenFile("/dev/"+name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	for i := 0; ; i++ { // nobody reads the master: its buffer fills
		if err = writeTTY(name, strings.Repeat("x", 2048)); err != nil {
			break
		}
		if i == 1000 {
			t.Fatal("a terminal that nobody reads took 2 MB")
		}
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("error %v", err)
	}
}

func TestWarnGoesOn(t *testing.T) {
	var got []string
	err := warn("x", []string{"tty1", "tty2"}, time.Unix(0, 0), func(name, _ string) error {
		got = append(got, name)
		return errors.New(name + " is stopped")
	})
	if !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "tty1 is stopped") || !strings.Contains(err.Error(), "tty2 is stopped") || len(got) != 2 {
		t.Errorf("%v, %v", err, got)
	}
}
