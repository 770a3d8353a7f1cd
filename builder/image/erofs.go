package image

import (
	"bytes"
	"context"
	"errors"
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

// clusterSize is how many compressed bytes of a file are read and decoded together at most. Against one block it makes the image 6 % smaller and the
// compressor a third faster; a read of a random block takes half as long again. What 64 KiB would add is small, and they double that read.
const clusterSize = 16384

// hints are mkfs.erofs's --compress-hints: a cluster of no blocks, which is none, for files that a compressor made. They would not shrink, and the
// attempt took more than a third of the compressor's time.
const hints = `0 0 \.(gz|xz|zst)$` + "\n"

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
		args = append(args, "-z"+e.compression, "-C"+strconv.Itoa(clusterSize), "--compress-hints=/dev/fd/3")
	}
	return append(args, target)
}

// giveHints makes the hints what the command reads from file descriptor 3.
func giveHints(cmd *exec.Cmd) (done func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = w.WriteString(hints) // far less than a pipe holds
	if err = errors.Join(err, w.Close()); err != nil {
		r.Close()
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{r}
	return func() { r.Close() }, nil
}

// write streams the tree through mkfs.erofs into the file target and returns the size of the file system in bytes.
func (e erofs) write(ctx context.Context, tools commander, t *tree.Tree, target string, bar *progress.Bar) (int64, error) {
	cmd, err := tools.Command(ctx, "mkfs.erofs", e.args(target)...)
	if err != nil {
		return 0, fmt.Errorf("mkfs.erofs: %w", err)
	}
	if e.compression != "" {
		done, err := giveHints(cmd)
		if err != nil {
			return 0, fault.New(fault.IO, "mkfs.erofs: %w", err)
		}
		defer done()
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
