// Package programs runs Semper's own programs, the real ones, as a person would: it builds and publishes releases with semper, and keeps a
// semper-server running on the loopback.
package programs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Folder is the folder that holds the programs.
type Folder string

// Check reports a program that is missing.
func (f Folder) Check(names ...string) error {
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(string(f), name)); err != nil {
			return fmt.Errorf("the program %s is missing in %s: run 'make programs'", name, f)
		}
	}
	return nil
}

// Run runs a program to its end and returns what it printed. What it says on standard error goes to log, too, unless log is nil, and is in the error.
// When ctx ends it is asked to stop, and killed if it does not.
func (f Folder) Run(ctx context.Context, log io.Writer, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := f.command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if log != nil {
		fmt.Fprintf(log, "$ %s %s\n", name, strings.Join(args, " "))
		cmd.Stdout, cmd.Stderr = io.MultiWriter(&stdout, log), io.MultiWriter(&stderr, log)
	}
	if err := onThread(cmd.Run); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLines(stderr.String(), 20))
	}
	return stdout.String(), nil
}

func (f Folder) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(string(f), name), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// onThread runs f on a thread that lives as long as f does: the death signal of a child comes when the thread that made it ends.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		result <- f()
	}()
	return <-result
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// daemon is a program that runs in the background.
type daemon struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	log  *os.File
}

// start runs a program in the background, with its output appended to the file log.
func (f Folder) start(ctx context.Context, log, name string, args ...string) (*daemon, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	d := &daemon{cmd: f.command(ctx, name, args...), done: make(chan struct{}), log: file}
	d.cmd.Stdout, d.cmd.Stderr = file, file
	started := make(chan error)
	go func() {
		_ = onThread(func() error {
			err := d.cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			d.err = d.cmd.Wait()
			file.Close()
			close(d.done)
			return nil
		})
	}()
	if err := <-started; err != nil {
		file.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return d, nil
}

// stop asks the program to end and waits.
func (d *daemon) stop() error {
	select {
	case <-d.done:
		return fmt.Errorf("%s had ended before: %w", filepath.Base(d.cmd.Path), d.ended())
	default:
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.done:
	case <-time.After(20 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.done
		return fmt.Errorf("%s did not stop in time", filepath.Base(d.cmd.Path))
	}
	return d.err
}

func (d *daemon) ended() error {
	text, err := os.ReadFile(d.log.Name())
	return fmt.Errorf("%w: %s", errors.Join(d.err, err, errors.New("it ended")), lastLines(string(text), 20))
}
