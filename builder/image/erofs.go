package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/semper-os/semper/builder/tree"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/progress"
)

const blockSize = 4096 // of erofs and of dm-verity

// commander runs a program of the locked tools tree.
type commander interface {
	Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error)
}

// erofs says how a tree becomes a file system. The same tree and values give the same bytes.
type erofs struct {
	uuid        string
	epoch       time.Time
	compression string // for -z; empty: none
}

func (e erofs) args(target string) []string {
	args := []string{"--quiet", "--tar=f", "--all-time", "-T", strconv.FormatInt(e.epoch.Unix(), 10), "-U", e.uuid}
	if e.compression != "" {
		args = append(args, "-z"+e.compression)
	}
	return append(args, target)
}

// write streams the tree through mkfs.erofs into the file target and returns the size of the file system in bytes.
func (e erofs) write(ctx context.Context, tools commander, t *tree.Tree, target string, bar *progress.Bar) (int64, error) {
	cmd, err := tools.Command(ctx, "mkfs.erofs", e.args(target)...)
	if err != nil {
		return 0, fmt.Errorf("mkfs.erofs: %w", err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, fault.New(fault.IO, "mkfs.erofs: %w", err)
	}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return 0, fault.New(fault.IO, "mkfs.erofs: %w", err)
	}
	werr := t.WriteTar(io.MultiWriter(in, bar.Writer(io.Discard)), e.epoch)
	cerr := in.Close()
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, fault.New(fault.IO, "mkfs.erofs: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	if werr != nil {
		return 0, fmt.Errorf("mkfs.erofs: %w", werr)
	}
	if cerr != nil {
		return 0, fault.New(fault.IO, "mkfs.erofs: %w", cerr)
	}
	info, err := os.Stat(target)
	if err != nil {
		return 0, fault.Wrap(fault.IO, err)
	}
	if info.Size() == 0 || info.Size()%blockSize != 0 {
		return 0, fault.New(fault.Internal, "mkfs.erofs wrote %d bytes, which are no whole blocks of %d", info.Size(), blockSize)
	}
	return info.Size(), nil
}
