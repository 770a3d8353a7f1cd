// Package guest is a virtual machine that runs a Semper image, as a test or the demo sees it: its console, a root shell over SSH, its power switch.
//
//	Config.Dir/console.log     everything the serial port printed
//	Config.Dir/overlay.qcow2   what the machine wrote to its disk
//	Config.Dir/vars.qcow2      the firmware's variables
//
// Root's SSH key is made for each run and enters as the systemd credential "ssh.authorized_keys.root"; the image knows nothing of tests.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/qemu-tests/console"
	"github.com/semper-os/semper/vm"
)

// Config describes a machine. Dir, Key and a disk have to be set.
type Config struct {
	Name      string // for messages, and of the snapshot that Save makes
	Dir       string // made when missing
	Disk      string // the released disk, only read
	DiskSize  int64  // bytes; 0: as released
	NBDSocket string // instead of Disk, see package nbd
	WriteLog  string // takes the machine's writes, see package writelog
	CPUs      int
	Key       *Key

	DiskErrors []vm.DiskError
	CPU        string // see vm.Machine
	KernelArgs string // see vm.Machine

	Credentials []vm.Credential // beside the SSH key

	// Snapshot starts the machine where Save was called, see Branch.
	Snapshot string
}

// Guest is a running machine.
type Guest struct {
	Config  Config
	Console *console.Log

	vm   *vm.VM
	log  *os.File
	ssh  shell
	mu   sync.Mutex
	gone bool
}

// Boot switches a machine on. It runs until Kill, Save, or the end of ctx.
func Boot(ctx context.Context, c Config) (*Guest, error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(c.Dir, "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	g := &Guest{Config: c, Console: console.New(log, time.Now), log: log}
	m := vm.Machine{
		Arch: "amd64", Disk: c.Disk, DiskSize: c.DiskSize, NBDSocket: c.NBDSocket, WriteLog: c.WriteLog, DiskErrors: c.DiskErrors, CPUs: c.CPUs, CPU: c.CPU, KernelArgs: c.KernelArgs,
		Vars: filepath.Join(c.Dir, "vars.qcow2"), Console: g.Console, ForwardPorts: []int{sshPort}, Snapshot: c.Snapshot,
		Credentials: append([]vm.Credential{{Name: "ssh.authorized_keys.root", Value: c.Key.authorized}}, c.Credentials...),
	}
	if c.NBDSocket == "" {
		m.Overlay = c.overlay()
	}
	if g.vm, err = m.Start(ctx); err != nil {
		log.Close()
		return nil, fmt.Errorf("machine %s: %w", c.Name, err)
	}
	g.ssh = shell{addr: g.vm.Addr(sshPort), key: c.Key}
	go g.watchResets(ctx)
	return g, nil
}

// watchResets drops the SSH connection when the machine resets: the new kernel says nothing about connections of the old one.
func (g *Guest) watchResets(ctx context.Context) {
	for seen := 0; ; seen = len(g.vm.Monitor.Events(0)) {
		if _, err := g.vm.Monitor.WaitEvent(ctx, seen, func(e vm.Event) bool { return e.Name == "RESET" }); err != nil {
			return
		}
		g.ssh.drop()
	}
}

func (c Config) overlay() string { return filepath.Join(c.Dir, "overlay.qcow2") }

// Monitor is QEMU's control connection.
func (g *Guest) Monitor() *vm.Monitor { return g.vm.Monitor }

// Done is closed when QEMU has ended, whatever the reason.
func (g *Guest) Done() <-chan struct{} { return g.vm.Done() }

// Kill cuts the machine's power and waits until it is gone. It may be called again.
func (g *Guest) Kill() {
	g.vm.Kill()
	<-g.vm.Done()
	g.close()
}

func (g *Guest) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.gone {
		g.gone = true
		g.ssh.drop()
		g.log.Close()
	}
}

// Save ends the machine and keeps the moment, memory included, under the machine's name: Branch makes machines that go on from here.
func (g *Guest) Save(ctx context.Context) error {
	g.ssh.drop()
	if err := g.vm.SaveSnapshot(ctx, g.Config.Name); err != nil {
		return fmt.Errorf("machine %s: save: %w", g.Config.Name, err)
	}
	err := g.vm.Quit(ctx)
	g.close()
	return err
}

// Branch copies a saved machine's files to dir and returns the configuration of a machine that goes on from there.
func (c Config) Branch(name, dir string) (Config, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Config{}, err
	}
	b := c
	b.Name, b.Dir, b.Snapshot = name, dir, c.Name
	for _, file := range []string{"overlay.qcow2", "vars.qcow2"} {
		if err := CopySparse(filepath.Join(c.Dir, file), filepath.Join(dir, file)); err != nil {
			return Config{}, fmt.Errorf("branch machine %s off %s: %w", name, c.Name, err)
		}
	}
	return b, nil
}

// CopySparse copies a file, and keeps its holes.
func CopySparse(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	return errors.Join(copyData(in, out, st.Size()), out.Truncate(st.Size()), out.Close())
}

func copyData(in, out *os.File, size int64) error {
	for at := int64(0); at < size; {
		start, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // a hole up to the end
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(in.Fd()), start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := in.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(out, in, end-start); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// FlatDisk writes the whole disk of a machine that is switched off to a raw, sparse file, and returns its path.
func (c Config) FlatDisk(ctx context.Context) (string, error) {
	raw := filepath.Join(c.Dir, "disk.raw")
	return raw, vm.Flatten(ctx, c.overlay(), raw)
}

// FlatSnapshot writes the disk of a saved machine, as it was in that moment, to a raw, sparse file.
func (c Config) FlatSnapshot(ctx context.Context, raw string) error {
	return vm.FlattenSnapshot(ctx, c.overlay(), c.Name, raw)
}

// Quit ends the machine in order, so that its files and its log are complete. For the guest the power fails.
func (g *Guest) Quit(ctx context.Context) error {
	err := g.vm.Quit(ctx)
	g.close()
	return err
}
