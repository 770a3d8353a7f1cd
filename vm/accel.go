package vm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Accel says what runs the guest's instructions.
type Accel string

// The accelerators. The zero value probes for KVM and falls back to TCG.
const (
	AccelAuto Accel = ""
	KVM       Accel = "kvm"
	TCG       Accel = "tcg"
)

// A probe that works answers in 0.1 s. One that hangs is a "no" all the same.
const kvmProbeTime = 5 * time.Second

// kvmProbeExit is what QEMU exits with when the guest writes 0x10 to the isa-debug-exit device: value<<1 | 1.
const kvmProbeExit = 0x10<<1 | 1

var kvmProbes = struct {
	sync.Mutex
	results map[string]error
}{results: map[string]error{}}

// ProbeKVM tells whether KVM really runs a guest here: nil, or the reason why not. The result is kept for the life of the process.
//
// That /dev/kvm opens and creates a VM proves little: on some clouds the virtual CPU dies at the first floating-point or SSE instruction of the
// firmware ("KVM internal error"), or QEMU aborts because the host refuses a register. So a 64 KiB ROM is run from flash, as firmware
// would be: it enters protected mode, uses the FPU and SSE as the first instructions of OVMF do, and leaves through QEMU's debug exit.
func ProbeKVM(ctx context.Context, archName string) error {
	a, err := archOf(archName)
	if err != nil {
		return err
	}
	kvmProbes.Lock()
	defer kvmProbes.Unlock()
	if err, done := kvmProbes.results[a.name]; done {
		return err
	}
	err = probeKVM(ctx, a)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	kvmProbes.results[a.name] = err
	return err
}

func probeKVM(ctx context.Context, a *arch) error {
	if a.goarch != runtime.GOARCH {
		return fmt.Errorf("KVM cannot run %s on a %s host", a.name, runtime.GOARCH)
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("KVM is not usable: %w", err)
	}
	f.Close()
	return runProbe(ctx, a, KVM)
}

// runProbe runs the architecture's probe ROM with the accelerator.
func runProbe(ctx context.Context, a *arch, accel Accel) error {
	if a.kvmROM == nil {
		return nil
	}
	emulator, err := a.emulator()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "semper-vm-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rom := filepath.Join(dir, "probe.fd")
	if err := os.WriteFile(rom, a.kvmROM, 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, kvmProbeTime)
	defer cancel()
	args := append(accel.args(a, ""), "-machine", a.machine, "-m", "64", "-nodefaults", "-no-user-config", "-display", "none",
		"-device", "isa-debug-exit,iobase=0x501,iosize=2",
		"-drive", "if=pflash,readonly=on,format=raw,file="+escape(rom))
	cmd := exec.CommandContext(ctx, emulator, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = runLocked(cmd)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == kvmProbeExit {
		return nil
	}
	line, _, _ := bytes.Cut(bytes.TrimSpace(stderr.Bytes()), []byte("\n"))
	if ctx.Err() != nil {
		return fmt.Errorf("a trial guest did not finish in %s (%s)", kvmProbeTime, line)
	}
	return fmt.Errorf("a trial guest failed: %w (%s)", err, line)
}

// runLocked runs cmd from a thread of its own. The kernel sends the parent-death signal when the *thread* that forked ends, so that
// thread has to stay until the child is gone.
func runLocked(cmd *exec.Cmd) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		result <- cmd.Run()
	}()
	return <-result
}

// choose resolves AccelAuto and logs why KVM was not taken.
func (acc Accel) choose(ctx context.Context, a *arch) (Accel, error) {
	switch acc {
	case KVM, TCG:
		return acc, nil
	}
	err := ProbeKVM(ctx, a.name)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		slog.Debug("virtual machine runs without KVM, which is slow", "reason", err)
		return TCG, nil
	}
	return KVM, nil
}

// translated is how many MiB of translated code QEMU keeps without KVM. With its own default of 1 GiB restarts are slow: what was translated before stays in its
// tables, and lookups there miss the processor's caches. From a reset to the login it took 209 s with 1 GiB, 83 s with 64 MiB and 77 s with 128 MiB (QEMU 7.2).
const translated = 128

func (acc Accel) args(a *arch, model string) []string {
	if acc == KVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", fmt.Sprintf("tcg,thread=multi,tb-size=%d", translated), "-cpu", cmp.Or(model, "max")}
}

// kvmProbeAMD64 is the ROM that ProbeKVM runs. The processor starts at its last 16 bytes in real mode.
func kvmProbeAMD64() []byte {
	program := []byte{
		0xfa,                                     // cli
		0x2e, 0x66, 0x0f, 0x01, 0x16, 0x38, 0x00, // lgdtl %cs:gdtr
		0x0f, 0x20, 0xc0, // mov %cr0, %eax
		0x66, 0x83, 0xc8, 0x01, // or $1, %eax
		0x0f, 0x22, 0xc0, // mov %eax, %cr0          protected mode
		0x66, 0xea, 0x40, 0x00, 0xff, 0xff, 0x08, 0x00, // ljmpl $8, $0xffff0040
		0xf4, 0xf4, 0xf4, 0xf4, 0xf4, 0xf4, // (to offset 0x20)
		// 0x20: the descriptor table: null, flat code, flat data
		0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
		0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00,
		0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00,
		// 0x38: gdtr: limit 23, base 0xffff0020
		0x17, 0x00, 0x20, 0x00, 0xff, 0xff, 0xf4, 0xf4,
		// 0x40: 32-bit code
		0xb8, 0x10, 0x00, 0x00, 0x00, // mov $16, %eax
		0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // mov %eax to %ds, %es, %ss
		0x9b, 0xdb, 0xe3, // finit                     here some hosts die
		0x0f, 0x20, 0xe0, // mov %cr4, %eax
		0x0d, 0x00, 0x06, 0x00, 0x00, // or $0x600, %eax     OSFXSR, OSXMMEXCPT
		0x0f, 0x22, 0xe0, // mov %eax, %cr4
		0x0f, 0x57, 0xc0, // xorps %xmm0, %xmm0        and others here
		0x66, 0xba, 0x01, 0x05, // mov $0x501, %dx
		0xb0, 0x10, // mov $0x10, %al
		0xee,             // out %al, %dx           QEMU exits with 33
		0xf4, 0xeb, 0xfd, // hlt; jmp back
	}
	rom := bytes.Repeat([]byte{0xf4}, 64<<10)
	copy(rom, program)
	copy(rom[0xfff0:], []byte{0xe9, 0x0d, 0x00}) // jmp to offset 0 of the segment
	return rom
}
