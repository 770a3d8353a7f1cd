package drain

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// ttyName is all that is ever opened below /dev: a pseudo terminal or a virtual console.
var ttyName = regexp.MustCompile(`^(pts/|tty)(0|[1-9][0-9]{0,5})$`)

func checkTTY(name string) error {
	if !ttyName.MatchString(name) {
		return fmt.Errorf("%.40q is not a terminal's name (examples: \"pts/0\", \"tty1\")", name)
	}
	return nil
}

// message is what appears on a terminal. Whatever could steer it is replaced, since part of the text may come from far away.
func message(text string, at time.Time) string {
	clean := strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, strings.TrimRight(text, "\n"))
	return "\r\n\aMessage from Semper, " + at.UTC().Format("15:04 UTC") + ":\r\n" + strings.ReplaceAll(clean, "\n", "\r\n") + "\r\n"
}

// writeTTY writes to a terminal without waiting for it: one that was stopped by its user must not hold a reboot up.
func writeTTY(name, text string) error {
	path := "/dev/" + name
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil // its user has gone
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return fmt.Errorf("%s is not a terminal", path)
	}
	for len(text) > 0 {
		n, err := unix.Write(fd, []byte(text))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		text = text[n:]
	}
	return nil
}

// warn writes to every terminal, and says which did not take it.
func warn(text string, ttys []string, at time.Time, write func(name, text string) error) error {
	var all []string
	for _, name := range ttys {
		if err := checkTTY(name); err != nil {
			return inputf("%w", err)
		}
		if err := write(name, message(text, at)); err != nil {
			all = append(all, err.Error())
		}
	}
	if len(all) > 0 {
		return fault.New(fault.IO, "warn who is logged in: %s", strings.Join(all, "; "))
	}
	return nil
}
