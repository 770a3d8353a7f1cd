// Package hook finds and runs the small programs by which an image and a machine's owner have their say: health checks and drain hooks.
//
//	/usr/lib/semper/NAME.d/10-disk        the image's
//	/etc/semper/NAME.d/10-disk            the machine's: replaces the image's file of the same name
//	/etc/semper/NAME.d/20-web -> /dev/null   switches the image's 20-web off
//
// Files are taken in byte order of their names. Names that begin with "." or end with "~" are passed over. Nothing else is: a file that cannot be executed
// is found, and fails when it runs, which is better than a check that vanished silently.
//
// A program runs in "/", without standard input, as the leader of a process group of its own; when its time is over the whole group is killed. A process
// that leaves the group (setsid) escapes that; on a machine the unit's control group ends it. What the program prints is for the person who will ask why:
// the end of it is kept.
//
// Limits: the last 4 KiB of output; the callers bound numbers and times.
package hook

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/semper-os/semper/fault"
)

// MaxOutput is how many bytes of a program's output are kept, from its end.
const MaxOutput = 4 << 10

// killGrace is how long a killed program's output is waited for, since a grandchild may hold the pipe.
const killGrace = 2 * time.Second

// Set is one kind of hook.
type Set struct {
	What    string   // for messages: "health checks"
	Folders []string // lowest precedence first, relative to the root folder
	Max     int      // how many may be in force at once
}

// File is one file of a folder.
type File struct {
	Name string
	Path string
	Off  bool // a link to /dev/null; only in Layers' answer
}

// Layers lists the files of each folder below root ("/" on a machine), lowest precedence first, each sorted by name. A missing folder is empty.
func (s Set) Layers(root string) ([][]File, error) {
	layers := make([][]File, len(s.Folders))
	for i, dir := range s.Folders {
		dir = filepath.Join(root, dir)
		entries, err := os.ReadDir(dir) // sorted
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fault.New(fault.IO, "read %s: %w", s.What, err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") || strings.HasSuffix(e.Name(), "~") {
				continue
			}
			path := filepath.Join(dir, e.Name())
			target, err := os.Readlink(path)
			layers[i] = append(layers[i], File{Name: e.Name(), Path: path, Off: err == nil && target == "/dev/null"})
		}
	}
	return layers, nil
}

// Find lists the files in force below root, in the order in which they run.
func (s Set) Find(root string) ([]File, error) {
	layers, err := s.Layers(root)
	if err != nil {
		return nil, err
	}
	found := map[string]File{}
	for _, layer := range layers {
		for _, f := range layer {
			if f.Off {
				delete(found, f.Name)
				continue
			}
			found[f.Name] = f
		}
	}
	if err := s.Count(len(found)); err != nil {
		return nil, err
	}
	files := make([]File, 0, len(found))
	for _, f := range found {
		files = append(files, f)
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Name < files[j].Name })
	return files, nil
}

// Count is an error when n hooks are too many.
func (s Set) Count(n int) error {
	if n > s.Max {
		return fault.New(fault.Input, "%d %s, at most %d are run", n, s.What, s.Max)
	}
	return nil
}

// Outcome is how a program ended.
type Outcome struct {
	Problem string // empty: it exited with 0 in time. "exit status 1", "took longer than 1m0s"
	Output  string // the end of what it printed, valid UTF-8
}

// OK reports whether the program exited with 0 in time.
func (o Outcome) OK() bool { return o.Problem == "" }

// Interrupted is the Problem of a program that was ended because its context was.
const Interrupted = "interrupted"

// TookLonger is the Problem of a program whose time was over.
func TookLonger(limit time.Duration) string { return fmt.Sprintf("took longer than %s", limit) }

// Run runs a program with its arguments for at most limit. The environment is the caller's with env added.
func Run(ctx context.Context, argv, env []string, limit time.Duration) Outcome {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out tail
	cmd := exec.CommandContext(limited, argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	// Its own process group, so that the time limit ends its children too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killGrace

	err := cmd.Run()
	o := Outcome{Output: out.String()}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		o.Problem = Interrupted
	case limited.Err() != nil:
		o.Problem = TookLonger(limit)
	case errors.Is(err, exec.ErrWaitDelay):
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		o.Problem = "ended, but left a process behind that holds its output"
	default:
		o.Problem = err.Error()
	}
	return o
}

// LastLine is the last line of an output, for a message of one line.
func LastLine(output string) string {
	s := strings.TrimSpace(output)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return strings.TrimSpace(s)
}

// Tail returns the end of text, as Run keeps it of a program's output.
func Tail(text string) string {
	var t tail
	_, _ = t.Write([]byte(text))
	return t.String()
}

// tail keeps the last MaxOutput bytes written to it.
type tail struct {
	b   []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > MaxOutput {
		p, t.cut = p[len(p)-MaxOutput:], true
	}
	t.b = append(t.b, p...)
	if over := len(t.b) - MaxOutput; over > 0 {
		t.b, t.cut = append(t.b[:0], t.b[over:]...), true
	}
	return n, nil
}

func (t *tail) String() string {
	s := strings.ToValidUTF8(string(t.b), "\uFFFD")
	if t.cut {
		s = "…" + s
	}
	return s
}
