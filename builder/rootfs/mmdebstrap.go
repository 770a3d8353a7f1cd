// Package rootfs makes the root file system of an image: mmdebstrap unpacks and configures the locked packages with
// Debian's own maintainer scripts, and Finish turns the result, as a model in memory, into a root that can be read-only:
//
//	Clean       takes away what differs from build to build (logs, caches, back-ups, keys) and what a running system mounts over
//	Prune       takes away packages and paths that the recipe names
//	Users       adds the recipe's users and groups to /etc
//	OSRelease   writes os-release
//	Writable    moves what must be writable to /var, and describes /var to systemd-tmpfiles, which makes it at boot
//
// Every step is a pure function over a tree.Tree. Their order is Finish's.
package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/semper-os/semper/fault"
)

// Bootstrap says what mmdebstrap is to make.
type Bootstrap struct {
	Suite        string
	Architecture string
	Repository   string   // a directory that holds the locked packages and a Packages file, and nothing else
	Packages     []string // every locked package of the image, by name
	Epoch        time.Time
	Unpacked     int64     // how large the tree may become, in bytes; 0: not known, and then it is made on disk
	Log          io.Writer // what mmdebstrap says; kept for the error message, never nil
}

// Args returns mmdebstrap's command line for writing the tree as a tar file to target.
// The variant is "essential": the image has no apt, which mmdebstrap then runs from outside.
func (b Bootstrap) Args(target string) []string {
	packages := slices.Clone(b.Packages)
	slices.Sort(packages)
	return []string{
		"--mode=root", "--variant=essential", "--format=tar", "--architectures=" + b.Architecture,
		"--include=" + strings.Join(packages, ","),
		"--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Install-Recommends \"false\"",
		"--aptopt=APT::Sandbox::User \"root\"", // the repository may lie in a folder that only its owner can enter
		"--dpkgopt=force-unsafe-io",            // nothing of this tree has to survive a power cut
		"--skip=check/signed-by,cleanup/reproducible",
		b.Suite, target,
		"deb [trusted=yes] copy:" + b.Repository + " ./",
	}
}

// Run writes the tree of the locked packages to the tar file target, which appears only when it is complete.
func (b Bootstrap) Run(ctx context.Context, target string) error {
	repository, err := filepath.Abs(b.Repository)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	b.Repository = repository
	partial := target + ".partial"
	defer os.Remove(partial)
	temp, err := os.MkdirTemp("", "semper-tree-")
	if err != nil {
		return fault.New(fault.IO, "mmdebstrap: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return fault.New(fault.IO, "mmdebstrap: %w", err)
	}
	cmd := b.command(ctx, partial, temp)
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC", "HOME=/nonexistent", "DEBIAN_FRONTEND=noninteractive",
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(b.Epoch.Unix(), 10), "TMPDIR=" + temp,
	}
	// mmdebstrap cleans its mounts up when it is asked to stop, and cannot when it is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	var tail tailWriter
	cmd.Stdout = io.MultiWriter(b.Log, &tail)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, exec.ErrNotFound) {
			return fault.New(fault.Input, "mmdebstrap is not installed: apt-get install mmdebstrap")
		}
		return fault.New(fault.IO, "mmdebstrap: %w; its last words:\n%s", err, tail.String())
	}
	return fault.Wrap(fault.IO, os.Rename(partial, target))
}

// command runs mmdebstrap with its tree in memory where there is plenty: unpacking is thousands of small files. The tmpfs
// belongs to a mount namespace of the command's own, so it is gone with it, however the build ends.
func (b Bootstrap) command(ctx context.Context, partial, temp string) *exec.Cmd {
	args := b.Args(partial)
	if b.Unpacked == 0 || availableMemory() < 2*b.Unpacked {
		return exec.CommandContext(ctx, "mmdebstrap", args...)
	}
	script := `mount -t tmpfs -o mode=0755,size="$1" tmpfs "$2" || echo "the tree is made on disk" >&2; shift 2; exec mmdebstrap "$@"`
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", script, "sh", strconv.FormatInt(b.Unpacked, 10), temp}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// availableMemory returns what /proc/meminfo calls MemAvailable, in bytes; 0 where it cannot be read.
func availableMemory() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemAvailable:" {
			kib, _ := strconv.ParseInt(f[1], 10, 64) // what is no number counts as no memory
			return kib << 10
		}
	}
	return 0
}

// tailWriter keeps the last 4 KiB of what is written to it.
type tailWriter struct{ buf bytes.Buffer }

func (t *tailWriter) Write(p []byte) (int, error) {
	t.buf.Write(p)
	if over := t.buf.Len() - 4096; over > 0 {
		t.buf.Next(over)
	}
	return len(p), nil
}

func (t *tailWriter) String() string { return strings.TrimSpace(t.buf.String()) }

// Identity names the way in which mmdebstrap is called, for the cache: a tree made by other rules is another tree.
func (b Bootstrap) Identity() string {
	b.Repository, b.Unpacked = ".", 0
	return fmt.Sprintf("%q epoch %d", b.Args("tree.tar"), b.Epoch.Unix())
}
