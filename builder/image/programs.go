package image

import (
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/semper-os/semper/builder/arch"
	"github.com/semper-os/semper/fault"
)

// initProgram is Semper's program for the initramfs.
const initProgram = "semper-init"

// imagePrograms are Semper's own programs in the root, by where they go.
var imagePrograms = []struct{ name, path string }{
	{"semperd", "usr/lib/semper/semperd"},
	{"semper-etcdlock", "usr/lib/semper/semper-etcdlock"},
	{"semper-installd", "usr/lib/semper/semper-installd"},
	{"semperctl", "usr/bin/semperctl"},
}

// program is one of Semper's own programs on the build machine.
type program struct {
	name, file string
	sha256     string
}

// findPrograms finds Semper's programs in a directory and checks that they can run in an image: static ELF programs for
// the image's architecture.
func findPrograms(dir string, a arch.Arch) (map[string]program, error) {
	found := map[string]program{}
	names := []string{initProgram}
	for _, p := range imagePrograms {
		names = append(names, p.name)
	}
	for _, name := range names {
		file := filepath.Join(dir, name)
		p, err := readProgram(name, file, a)
		if err != nil {
			return nil, err
		}
		found[name] = p
	}
	return found, nil
}

func readProgram(name, file string, a arch.Arch) (program, error) {
	f, err := os.Open(file)
	if err != nil {
		return program{}, fault.New(fault.Input, "%s: %w; build it with 'make programs', or say where it is with --programs", name, err)
	}
	defer f.Close()
	e, err := elf.NewFile(f)
	if err != nil {
		return program{}, fault.New(fault.Input, "%s: not a program: %w", file, err)
	}
	if want := elfMachine[a.Debian]; e.Machine != want {
		return program{}, fault.New(fault.Input, "%s: made for %v, the image is for %s (%v)", file, e.Machine, a.Debian, want)
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return program{}, fault.New(fault.Input, "%s: linked dynamically, a static program is needed (CGO_ENABLED=0)", file)
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<40)); err != nil {
		return program{}, fault.Wrap(fault.IO, fmt.Errorf("%s: %w", file, err))
	}
	return program{name: name, file: file, sha256: hex.EncodeToString(h.Sum(nil))}, nil
}

var elfMachine = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
