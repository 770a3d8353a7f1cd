// Package initrd makes the initramfs: a cpio archive (newc) that zstd compresses, with semper-init and the modules of every disk a system may be on.
//
//	init                 semper-init, a static program
//	modules/index        which module is in which file, what it needs, which devices want it (package initramfs/modules)
//	modules/NAME.ko      decompressed, because the whole archive is compressed better, and byte for byte what Debian signed
//	verity.crt           PEM: who may sign a root hash
//	dev/console          for what the kernel or Go says before /dev is mounted
//	dev proc sys run sysroot
//
// The same inputs give the same bytes: entries are sorted and have no time; zstd works with one level, one thread and one window, and its version is locked in
// go.mod like any other code that shapes the image.
package initrd

import (
	"bytes"
	"crypto/x509"
	"debug/elf"
	"encoding/pem"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/initramfs"
)

// window is what the kernel's decompressor holds in memory; 8 MiB is the most that every implementation of zstd must accept.
const window = 8 << 20

// Options say what goes into the archive.
type Options struct {
	Arch       string // Debian's name
	Init       []byte // the program semper-init, built with CGO_ENABLED=0
	ModulesDir string // a module tree with modules.dep, modules.alias, modules.softdep, modules.builtin: kernel.Result.ModulesDir
	Certs      []byte // PEM, one certificate or more
}

// Result is an initramfs.
type Result struct {
	Bytes   []byte   // compressed
	Size    int64    // uncompressed, in bytes
	Modules []string // names, sorted
}

// Build makes the archive.
func Build(o Options) (*Result, error) {
	if err := checkInit(o.Init); err != nil {
		return nil, fmt.Errorf("initrd: semper-init: %w", err)
	}
	if err := checkCerts(o.Certs); err != nil {
		return nil, fmt.Errorf("initrd: certificate of the root hash: %w", err)
	}
	db, err := readDatabase(o.ModulesDir)
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	set, err := db.closure(wanted(o.Arch))
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	index, err := db.index(set)
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	entries := []entry{
		{name: initramfs.InitName, mode: modeFile | 0o755, data: o.Init},
		{name: initramfs.ModulesName, mode: modeDir | 0o755},
		{name: initramfs.IndexName, mode: modeFile | 0o644, data: index.Bytes()},
		{name: initramfs.CertName, mode: modeFile | 0o644, data: o.Certs},
		{name: "dev/console", mode: modeChar | 0o600, major: 5, minor: 1},
	}
	for _, dir := range []string{"dev", "proc", "run", "sys", initramfs.SysrootName} {
		entries = append(entries, entry{name: dir, mode: modeDir | 0o755})
	}
	for _, m := range index.Modules {
		b, err := db.read(m.Name)
		if err != nil {
			return nil, fmt.Errorf("initrd: %w", err)
		}
		entries = append(entries, entry{name: initramfs.ModulesName + "/" + m.File, mode: modeFile | 0o644, data: b})
	}
	var archive bytes.Buffer
	if err := writeArchive(&archive, entries); err != nil {
		return nil, err
	}
	packed, err := compress(archive.Bytes())
	if err != nil {
		return nil, fmt.Errorf("initrd: %w", err)
	}
	return &Result{Bytes: packed, Size: int64(archive.Len()), Modules: set}, nil
}

// compress uses the default level: the best one makes the archive a tenth smaller and takes fourteen times as long.
func compress(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window))
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// checkInit refuses a program that the kernel could not start: there is no loader and no library in the archive.
func checkInit(b []byte) error {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return fault.New(fault.Input, "not an ELF program: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fault.New(fault.Input, "not static: build it with CGO_ENABLED=0")
		}
	}
	return nil
}

func checkCerts(b []byte) error {
	n := 0
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type != "CERTIFICATE" {
			return fault.New(fault.Input, "a PEM block %q has no business here", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fault.Wrap(fault.Input, err)
		}
		n++
	}
	if n == 0 {
		return fault.New(fault.Input, "no PEM certificate")
	}
	return nil
}
