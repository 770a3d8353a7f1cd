// Package marker keeps the files that tell other programs of Debian that the machine should be rebooted:
//
//	reboot-required       one line for people; kured, unattended-upgrades, the MOTD and others look whether it is there
//	reboot-required.pkgs  what wants the reboot, one name a line
//
// They are in /run, so a reboot removes them. Both appear whole: under another name first, then renamed; the list before the file that is looked at. That
// both survive a power cut is neither needed nor tried, since /run does not.
//
// Names are 1 to 200 bytes without control characters, at most 64 of them.
package marker

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/semper-os/semper/fault"
)

// The two files, in the folder that Set and Clear are given: /run, or one that links in /run lead to.
const (
	File     = "reboot-required"
	Packages = "reboot-required.pkgs"
)

const text = "*** System restart required ***\n"

const (
	maxNames = 64
	maxName  = 200
)

// Set makes both files in the folder, in place of those there.
func Set(folder string, names ...string) error {
	if len(names) == 0 || len(names) > maxNames {
		return fault.New(fault.Input, "%s: %d names, 1 to %d are allowed", File, len(names), maxNames)
	}
	for _, n := range names {
		if n == "" || len(n) > maxName || strings.ContainsFunc(n, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fault.New(fault.Input, "%s: name %.80q: want 1 to %d bytes without control characters", File, n, maxName)
		}
	}
	return in(folder, func(r *os.Root) error {
		return errors.Join(write(r, Packages, strings.Join(names, "\n")+"\n"), write(r, File, text))
	})
}

// Clear removes both files; that they are not there is no error.
func Clear(folder string) error {
	err := in(folder, func(r *os.Root) error { return errors.Join(remove(r, File), remove(r, Packages)) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// in calls do with the folder open, which symbolic links in it do not lead out of.
func in(folder string, do func(*os.Root) error) error {
	r, err := os.OpenRoot(folder)
	if err != nil {
		return fault.New(fault.IO, "%s: %w", File, err)
	}
	defer r.Close()
	return fault.Wrap(fault.IO, do(r))
}

// write replaces a file that everybody may read, whatever this process's umask.
func write(r *os.Root, name, content string) error {
	temp := name + ".new"
	if err := remove(r, temp); err != nil {
		return err
	}
	f, err := r.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = r.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, remove(r, temp))
	}
	return nil
}

func remove(r *os.Root, name string) error {
	if err := r.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
