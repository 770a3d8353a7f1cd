package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// cache keeps the results of steps, each under a key that is the digest of everything the step depends on.
//
//	STEPS/NAME-KEY/…     a finished result: it never changes
//	STEPS/.NAME-KEY.*    a result being made; what a crash left is removed when the step is made again
//	STEPS/NAME-KEY.lock  held while the result is made, so that two builds do not make it twice
type cache struct {
	dir string
}

// key is the digest of the parts on which a step depends, with their order and borders.
func key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// step returns the directory with the result of the step name for key k, and whether it was there already. If not,
// fill makes it in an empty directory, which gets its name only when fill succeeded.
func (c cache) step(name, k string, fill func(dir string) error) (dir string, cached bool, err error) {
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return "", false, fault.New(fault.IO, "cache: %w", err)
	}
	dir = filepath.Join(c.dir, name+"-"+k)
	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return "", false, fault.New(fault.IO, "cache: lock %s: %w", name, err)
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, true, nil
	}
	prefix := "." + name + "-" + k + "."
	if entries, err := os.ReadDir(c.dir); err == nil {
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), prefix) {
				os.RemoveAll(filepath.Join(c.dir, e.Name()))
			}
		}
	}
	partial, err := os.MkdirTemp(c.dir, prefix)
	if err != nil {
		return "", false, fault.New(fault.IO, "cache: %w", err)
	}
	defer os.RemoveAll(partial)
	if err := os.Chmod(partial, 0o755); err != nil {
		return "", false, fault.New(fault.IO, "cache: %w", err)
	}
	if err := fill(partial); err != nil {
		return "", false, err
	}
	if err := os.Rename(partial, dir); err != nil {
		return "", false, fault.New(fault.IO, "cache: %w", err)
	}
	return dir, false, nil
}

func lockFile(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
