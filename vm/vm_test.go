package vm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
)

// counterDisk is a BIOS boot sector: it prints '@' on the first serial port, then the next letter for each byte it gets, and powers off at 'q'.
func counterDisk(t *testing.T) string {
	t.Helper()
	sector := make([]byte, 1<<20)
	copy(sector, []byte{
		0x31, 0xdb, 0xb3, 0x40, // xor %bx, %bx; mov $'@', %bl
		0xe8, 0x17, 0x00, // call put
		0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf8, // loop: wait for a byte
		0xba, 0xf8, 0x03, 0xec, 0x3c, 0x71, 0x74, 0x16, // read it; 'q': off
		0xfe, 0xc3, 0xe8, 0x02, 0x00, 0xeb, 0xe9, // inc %bl; call put; jmp loop
		0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xfb, 0xba, 0xf8, 0x03, 0x88, 0xd8, 0xee, 0xc3, // put: %bl to the port
		0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, // off: ACPI sleep state 5
	})
	sector[510], sector[511] = 0x55, 0xaa
	path := filepath.Join(t.TempDir(), "counter.raw")
	if err := os.WriteFile(path, sector, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// screen collects what the guest prints and lets a test wait for it.
type screen struct {
	mu  sync.Mutex
	buf bytes.Buffer
	new chan struct{}
}

func newScreen() *screen { return &screen{new: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Write(p)
	select {
	case s.new <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (s *screen) waitFor(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(120 * time.Second)
	for {
		s.mu.Lock()
		have := s.buf.String()
		s.mu.Unlock()
		if strings.Contains(have, want) {
			return
		}
		select {
		case <-s.new:
		case <-deadline:
			t.Fatalf("the console does not show %q but %q", want, have)
		}
	}
}

func start(t *testing.T, m Machine) *VM {
	t.Helper()
	m.Arch, m.MemoryMiB, m.CPUs = "amd64", 128, 1
	v, err := m.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Kill(); <-v.Done() })
	return v
}

func gone(t *testing.T, v *VM) {
	t.Helper()
	if err := syscall.Kill(v.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("QEMU still runs: %v", err)
	}
	if _, err := os.Stat(v.dir); !os.IsNotExist(err) {
		t.Errorf("the VM's folder is still there: %v", err)
	}
}

func TestBootConsoleResetPowerOff(t *testing.T) {
	disk := counterDisk(t)
	before, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	con := newScreen()
	in, keys := io.Pipe()
	v := start(t, Machine{Disk: disk, Firmware: BIOS, Console: con, ConsoleInput: in, ForwardPorts: []int{22, 80}})
	con.waitFor(t, "@")
	if _, err := keys.Write([]byte("..")); err != nil {
		t.Fatal(err)
	}
	con.waitFor(t, "@AB")
	seen := v.Monitor.Count("RESET") // SeaBIOS resets once by itself
	if err := v.Monitor.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	con.waitFor(t, "@AB@")
	if n := v.Monitor.Count("RESET"); n <= seen {
		t.Errorf("%d RESET events before and %d after the reset", seen, n)
	}
	if s, err := v.Monitor.Status(t.Context()); err != nil || s != "running" {
		t.Errorf("status %q, %v", s, err)
	}
	if a, b := v.Addr(22), v.Addr(80); !strings.HasPrefix(a, "127.0.0.1:") || !strings.HasPrefix(b, "127.0.0.1:") || a == b || v.Addr(81) != "" {
		t.Errorf("forwarded ports: %q, %q, %q", a, b, v.Addr(81))
	}
	if _, err := keys.Write([]byte("q")); err != nil {
		t.Fatal(err)
	}
	if err := v.Wait(); err != nil {
		t.Errorf("after the guest powered off: %v", err)
	}
	if n := v.Monitor.Count("SHUTDOWN"); n != 1 {
		t.Errorf("%d SHUTDOWN events, want 1", n)
	}
	gone(t, v)
	if after, err := os.ReadFile(disk); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the disk was changed (%v)", err)
	}
}

func TestContextEndsMachine(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	v, err := Machine{Arch: "amd64", Disk: counterDisk(t), Firmware: BIOS, MemoryMiB: 128}.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := v.Wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	gone(t, v)
}

func TestKillAndQuit(t *testing.T) {
	v := start(t, Machine{Disk: counterDisk(t), Firmware: BIOS})
	v.Kill()
	if err := v.Wait(); err != nil {
		t.Errorf("after Kill: %v", err)
	}
	gone(t, v)
	v.Kill() // harmless
	v = start(t, Machine{Disk: counterDisk(t), Firmware: BIOS})
	if err := v.Quit(t.Context()); err != nil {
		t.Errorf("after Quit: %v", err)
	}
	gone(t, v)
}

// TestSnapshotBranches boots once and goes on twice from the same moment, memory included.
func TestSnapshotBranches(t *testing.T) {
	dir := t.TempDir()
	con := newScreen()
	in, keys := io.Pipe()
	m := Machine{Disk: counterDisk(t), Overlay: filepath.Join(dir, "overlay"), DiskSize: 8 << 20, Firmware: BIOS, Console: con, ConsoleInput: in}
	v := start(t, m)
	con.waitFor(t, "@")
	keys.Write([]byte("..."))
	con.waitFor(t, "@ABC")
	if err := v.SaveSnapshot(t.Context(), "here"); err != nil {
		t.Fatal(err)
	}
	keys.Write([]byte("."))
	con.waitFor(t, "@ABCD")
	if err := v.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, branch := range []string{"one", "two"} {
		content, err := os.ReadFile(m.Overlay)
		if err != nil {
			t.Fatal(err)
		}
		b := m
		b.Overlay, b.Snapshot = filepath.Join(dir, branch), "here"
		if err := os.WriteFile(b.Overlay, content, 0o600); err != nil {
			t.Fatal(err)
		}
		con, in, keys := newScreen(), io.Reader(nil), (*io.PipeWriter)(nil)
		in, keys = io.Pipe()
		b.Console, b.ConsoleInput = con, in
		start(t, b)
		keys.Write([]byte("."))
		con.waitFor(t, "D")
		con.mu.Lock()
		if s := con.buf.String(); s != "D" {
			t.Errorf("branch %s printed %q, want D", branch, s)
		}
		con.mu.Unlock()
	}
}

// TestUEFI boots firmware that finds nothing to start, and checks that its variable store can be in a snapshot, too.
func TestUEFI(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.raw")
	if err := os.WriteFile(empty, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	m := Machine{Disk: empty, Overlay: filepath.Join(dir, "overlay"), Vars: filepath.Join(dir, "vars"), Console: newScreen()}
	v := start(t, m)
	m.Console.(*screen).waitFor(t, "BdsDxe: ")
	if err := v.SaveSnapshot(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	if err := v.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Snapshot, m.Console = "s", newScreen()
	start(t, m)
	m.Console.(*screen).waitFor(t, "Shell")
}

func TestRefusals(t *testing.T) {
	disk := counterDisk(t)
	dir := t.TempDir()
	other := filepath.Join(dir, "other.qcow2")
	if err := createOverlay(t.Context(), counterDisk(t), other, 0); err != nil {
		t.Fatal(err)
	}
	odd := filepath.Join(dir, "odd")
	if err := os.WriteFile(odd, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		m    Machine
		want string
	}{
		{"no disk", Machine{}, "needs a disk"},
		{"missing disk", Machine{Disk: filepath.Join(dir, "none")}, "no such file"},
		{"odd size", Machine{Disk: odd}, "512-byte sectors"},
		{"shrink", Machine{Disk: disk, DiskSize: 512}, "at least 1048576"},
		{"architecture", Machine{Disk: disk, Arch: "vax"}, "there are: amd64, arm64"},
		{"secure boot without keys", Machine{Disk: disk, SecureBoot: true}, "certificates are enrolled"},
		{"secure boot on a BIOS", Machine{Disk: disk, SecureBoot: true, Firmware: BIOS}, "a BIOS has none"},
		{"BIOS on arm64", Machine{Disk: disk, Arch: "arm64", Firmware: BIOS}, "have no BIOS"},
		{"memory", Machine{Disk: disk, MemoryMiB: 5}, "at least 128"},
		{"serial", Machine{Disk: disk, DiskSerial: "123456789012345678901"}, "longer than 20"},
		{"another disk's overlay", Machine{Disk: disk, Overlay: other}, "is an overlay of"},
		{"overlay that is none", Machine{Disk: disk, Overlay: disk}, "not a qcow2 overlay"},
		{"credential name", Machine{Disk: disk, Credentials: []Credential{{Name: "a/b"}}}, `holds the character '/'`},
		{"credential size", Machine{Disk: disk, Credentials: []Credential{{Name: "a", Value: make([]byte, 40<<10)}}}, "larger than 32768"},
		{"port", Machine{Disk: disk, ForwardPorts: []int{70000}}, "must be 1 to 65535"},
		{"snapshot of nothing", Machine{Disk: disk, Snapshot: "x"}, "needs the overlay"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.m.Arch == "" {
				c.m.Arch = "amd64"
			}
			c.m.Accel = TCG
			v, err := c.m.Start(t.Context())
			if err == nil {
				v.Kill()
				t.Fatal("it started")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
			if fault.KindOf(err) == fault.Internal {
				t.Errorf("error %q has no kind", err)
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*.part")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestMissingHostPackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Machine{Arch: "amd64", Disk: counterDisk(t), Accel: TCG}.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "install the package qemu-system-x86") {
		t.Errorf("got %v", err)
	}
	if _, err := img(t.Context(), "info"); err == nil || !strings.Contains(err.Error(), "install the package qemu-utils") {
		t.Errorf("got %v", err)
	}
	a := arch{name: "x", uefi: []firmware{{"/nowhere/CODE.fd", "/nowhere/VARS.fd"}}, uefiPkg: "ovmf"}
	if _, err := a.firmwareFiles(false); err == nil || !strings.Contains(err.Error(), "install the package ovmf") {
		t.Errorf("got %v", err)
	}
}

// TestProbeROM runs the ROM of the KVM probe where it must work, and checks that a ROM that hangs or stops is told apart from it.
func TestProbeROM(t *testing.T) {
	a, err := archOf("amd64")
	if err != nil {
		t.Fatal(err)
	}
	if err := runProbe(t.Context(), a, TCG); err != nil {
		t.Errorf("the probe fails under TCG: %v", err)
	}
	broken := *a
	broken.kvmROM = bytes.Clone(a.kvmROM)
	copy(broken.kvmROM[0x57:], []byte{0x0f, 0x0b}) // ud2 where xorps was: a triple fault
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := runProbe(ctx, &broken, TCG); err == nil {
		t.Error("the probe accepts a guest that crashed")
	}
}

func TestFlatten(t *testing.T) {
	disk := counterDisk(t)
	dir := t.TempDir()
	overlay, raw := filepath.Join(dir, "o"), filepath.Join(dir, "raw")
	if err := createOverlay(t.Context(), disk, overlay, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := Flatten(t.Context(), overlay, raw); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2<<20 || !bytes.Equal(got[:1<<20], want) || !bytes.Equal(got[1<<20:], make([]byte, 1<<20)) {
		t.Error("the raw disk differs from what was put in")
	}
}

func TestFindDisk(t *testing.T) {
	dir := t.TempDir()
	if _, err := FindDisk(dir); err == nil || !strings.Contains(err.Error(), "has no disk.raw") {
		t.Errorf("got %v", err)
	}
	want := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(want, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, want} {
		if got, err := FindDisk(path); err != nil || got != want {
			t.Errorf("FindDisk(%s) = %s, %v", path, got, err)
		}
	}
	if _, err := FindDisk(filepath.Join(dir, "none")); !fault.Is(err, fault.Input) {
		t.Errorf("got %v", err)
	}
}
