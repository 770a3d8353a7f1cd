package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/semper-os/semper/fault"
)

// VM is a running machine. It ends when the guest powers off, when Kill or Quit is called, or when the context given to Start does.
type VM struct {
	Monitor *Monitor

	machine  Machine
	cmd      *exec.Cmd
	dir      string
	forwards map[int]string
	stderr   *tail
	done     chan struct{}
	err      error // set before done closes

	mu     sync.Mutex
	killed bool
}

const startTime = 30 * time.Second

// Start boots the machine. It returns once QEMU runs and answers; what the guest does then is seen on its console.
func (m Machine) Start(ctx context.Context) (*VM, error) {
	a, err := archOf(m.Arch)
	if err != nil {
		return nil, err
	}
	if err := m.check(a); err != nil {
		return nil, err
	}
	m.setDefaults()
	emulator, err := a.emulator()
	if err != nil {
		return nil, err
	}
	accel, err := m.Accel.choose(ctx, a)
	if err != nil {
		return nil, err
	}
	// A short path: a Unix socket's may have at most 107 characters.
	dir, err := os.MkdirTemp("", "semper-vm-")
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	v, err := m.start(ctx, a, emulator, accel, dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start the virtual machine: %w", err)
	}
	return v, nil
}

func (m Machine) start(ctx context.Context, a *arch, emulator string, accel Accel, dir string) (*VM, error) {
	code, err := m.files(ctx, a, dir)
	if err != nil {
		return nil, err
	}
	if m.WriteLog != "" {
		if err := os.WriteFile(m.WriteLog, nil, 0o600); err != nil {
			return nil, fault.Wrap(fault.IO, err)
		}
	}
	args, err := m.args(a, accel, code, dir)
	if err != nil {
		return nil, err
	}
	v := &VM{machine: m, dir: dir, stderr: &tail{}, done: make(chan struct{})}
	v.cmd = exec.Command(emulator, args...)
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	v.cmd.Stderr = v.stderr
	v.cmd.Stdout = m.Console
	if m.Console == nil {
		v.cmd.Stdout = io.Discard
	}
	// A pipe of our own instead of cmd.Stdin: Wait would otherwise wait for a reader that may never return.
	stdin, err := v.cmd.StdinPipe()
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	slog.Debug("start QEMU", "command", commandLine(emulator, args))
	if err := v.launch(ctx); err != nil {
		return nil, err
	}
	if m.ConsoleInput != nil {
		go func() { _, _ = io.Copy(stdin, m.ConsoleInput) }()
	}
	if err := v.connect(ctx); err != nil {
		v.Kill()
		<-v.done
		return nil, err
	}
	return v, nil
}

// launch starts the process in a thread that stays until it ends, see runLocked, and ties it to the context.
func (v *VM) launch(ctx context.Context) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := v.cmd.Start(); err != nil {
			started <- fault.Wrap(fault.IO, err)
			return
		}
		unhook := context.AfterFunc(ctx, v.Kill)
		started <- nil
		err := v.cmd.Wait()
		unhook()
		v.finish(ctx, err)
	}()
	return <-started
}

func (v *VM) finish(ctx context.Context, err error) {
	v.mu.Lock()
	killed := v.killed
	v.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		v.err = ctx.Err()
	case killed || err == nil:
	default:
		v.err = fault.New(fault.IO, "QEMU ended: %w: %s", err, v.stderr.last())
	}
	os.RemoveAll(v.dir)
	close(v.done)
}

// connect waits for the monitor, loads the snapshot if one was asked for, and asks for the forwarded ports.
func (v *VM) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", monitorSocket(v.dir))
		if err == nil {
			if v.Monitor, err = newMonitor(ctx, conn); err != nil {
				return err
			}
			break
		}
		select {
		case <-v.done:
			if v.err != nil {
				return v.err
			}
			return fault.New(fault.IO, "QEMU ended at once: %s", v.stderr.last())
		case <-ctx.Done():
			return fmt.Errorf("QEMU's monitor did not answer: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if v.machine.Snapshot != "" {
		if err := v.LoadSnapshot(ctx, v.machine.Snapshot); err != nil {
			return err
		}
	}
	return v.findForwards(ctx)
}

var forwardLine = regexp.MustCompile(`TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)\s+\S+\s+(\d+)`)

func (v *VM) findForwards(ctx context.Context) error {
	out, err := v.Monitor.Human(ctx, "info usernet")
	if err != nil {
		return err
	}
	v.forwards = map[int]string{}
	for _, found := range forwardLine.FindAllStringSubmatch(out, -1) {
		port, err := strconv.Atoi(found[2])
		if err != nil {
			return fmt.Errorf("read QEMU's forwarded ports: %w", err)
		}
		v.forwards[port] = "127.0.0.1:" + found[1]
	}
	for _, port := range v.machine.ForwardPorts {
		if v.forwards[port] == "" {
			return fault.New(fault.Internal, "QEMU does not forward port %d: %s", port, out)
		}
	}
	return nil
}

// Addr returns the host's address of a guest's port named in Machine.ForwardPorts, "" for any other.
func (v *VM) Addr(port int) string { return v.forwards[port] }

// Overlay returns the file that takes the guest's writes, Vars the one with the firmware's variables.
func (v *VM) Overlay() string { return v.machine.Overlay }

// Vars returns the file with the firmware's variables, "" for a BIOS machine.
func (v *VM) Vars() string { return v.machine.Vars }

// Done is closed when the machine is gone and its temporary files are removed.
func (v *VM) Done() <-chan struct{} { return v.done }

// Wait waits for the end of the machine. Being killed on purpose is not an error, the end of the context is.
func (v *VM) Wait() error {
	<-v.done
	return v.err
}

// Kill ends QEMU at once, as when the power fails: nothing in flight is finished. It does not wait.
func (v *VM) Kill() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.killed = true
	_ = v.cmd.Process.Kill()
}

// Quit ends QEMU in order, so that its files are complete, and waits. The guest notices nothing: for it the power fails.
func (v *VM) Quit(ctx context.Context) error {
	_, err := v.Monitor.Execute(ctx, "quit", nil)
	select {
	case <-v.done: // QEMU may be gone before it answers
		return v.err
	case <-ctx.Done():
		v.Kill()
		return errors.Join(err, ctx.Err())
	}
}

// SaveSnapshot keeps the running machine, memory included, under a name inside its overlay and variable store. A copy of both files starts
// there with Machine.Snapshot. The guest stands still meanwhile: a second or two a gigabyte of memory in use.
func (v *VM) SaveSnapshot(ctx context.Context, name string) error {
	return v.Monitor.snapshotJob(ctx, "snapshot-save", name, v.machine.drives())
}

// LoadSnapshot takes the running machine back to a snapshot made by SaveSnapshot.
func (v *VM) LoadSnapshot(ctx context.Context, name string) error {
	if err := v.Monitor.Stop(ctx); err != nil {
		return err
	}
	if err := v.Monitor.snapshotJob(ctx, "snapshot-load", name, v.machine.drives()); err != nil {
		return err
	}
	return v.Monitor.Continue(ctx)
}

// tail keeps the last few kilobytes of what QEMU complains of.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - 4096; over > 0 {
		t.buf = t.buf[over:]
	}
	return len(p), nil
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := strings.TrimSpace(string(t.buf)); s != "" {
		return s
	}
	return "it said nothing"
}
