// Package kernel takes the kernel and its modules out of Debian's linux-image package, without installing it: no maintainer script runs.
//
// The result is a folder:
//
//	vmlinuz                  the kernel image, as the package has it (signed by Debian for Secure Boot where the package is)
//	modules/RELEASE/…        the module tree: kernel/…, modules.builtin and so on from the package, modules.dep, .alias, .symbols, … by depmod
//	copyright                the package's
//	kernel.json              what Open reads: release, how modules are stored, what was left out
//
// The same package, options and tools give the same files.
//
// # Leaving modules out
//
// A module that another one needs can only be left out together with it: what would remain could not be loaded. So whatever needs a module that is left out
// is left out too, and so on; Result.Dependents names them. Each module says which ones it needs; modinfo reads that. depmod
// then runs over what is left.
//
// Modules are kept byte for byte, or decompressed and then kept byte for byte: Debian's signature lies behind a module's last section.
//
// Limits: packages of 2 GiB unpacked, 20000 modules, modules of 256 MiB.
package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/semper-os/semper/builder/tree"
	"github.com/semper-os/semper/fault"
)

// Tools runs programs of the locked tools tree, which see the files of the host. A *tools.Tree does.
type Tools interface {
	Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error)
}

// Options say what Unpack makes.
type Options struct {
	Deb     string                 // path of the linux-image package
	Out     string                 // an empty folder
	Tools   Tools                  // must have depmod and modinfo (Debian package kmod)
	Exclude func(name string) bool // modules to leave out, by "kernel/drivers/net/tun.ko"; nil: none
	Plain   bool                   // store modules decompressed
}

// Result is a kernel with its modules.
type Result struct {
	Dir        string   `json:"-"`
	Release    string   `json:"release"` // uname -r
	Plain      bool     `json:"plain"`
	Modules    []string `json:"modules"`    // what is there, by "kernel/fs/ext4/ext4.ko" (as stored: perhaps with .xz), sorted
	Excluded   []string `json:"excluded"`   // left out because Exclude said so
	Dependents []string `json:"dependents"` // left out because they need one of those
}

const (
	imageName   = "vmlinuz"
	modulesName = "modules"
	rightsName  = "copyright"
	jsonName    = "kernel.json"
)

// Image is the path of the kernel image.
func (r *Result) Image() string { return filepath.Join(r.Dir, imageName) }

// ModulesDir is the path of the module tree, which has modules.dep and kernel/.
func (r *Result) ModulesDir() string { return filepath.Join(r.Dir, modulesName, r.Release) }

// Unpack makes the folder o.Out. What it leaves behind after an error is of no use.
func Unpack(ctx context.Context, o Options) (*Result, error) {
	r := &Result{Dir: o.Out, Plain: o.Plain}
	if err := unpack(ctx, o.Deb, o.Exclude, r); err != nil {
		return nil, fmt.Errorf("kernel package %s: %w", filepath.Base(o.Deb), err)
	}
	if err := checkImage(r.Image(), r.Release); err != nil {
		return nil, err
	}
	if len(r.Excluded) > 0 {
		if err := r.leaveOut(ctx, o.Tools); err != nil {
			return nil, err
		}
	}
	if o.Plain {
		if err := r.decompress(ctx); err != nil {
			return nil, err
		}
	}
	if err := r.depmod(ctx, o.Tools); err != nil {
		return nil, err
	}
	if err := r.complete(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", jsonName, err)
	}
	if err := os.WriteFile(filepath.Join(o.Out, jsonName), append(b, '\n'), 0o644); err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	return r, nil
}

// Open reads a folder that Unpack made.
func Open(dir string) (*Result, error) {
	b, err := os.ReadFile(filepath.Join(dir, jsonName))
	if err != nil {
		return nil, fault.New(fault.IO, "unpacked kernel: %w", err)
	}
	r := &Result{}
	if err := json.Unmarshal(b, r); err != nil || !validRelease.MatchString(r.Release) {
		return nil, fault.New(fault.Input, "unpacked kernel: %s is damaged", filepath.Join(dir, jsonName))
	}
	r.Dir = dir
	return r, nil
}

// AddTo puts the module tree into an image's tree, below /usr/lib/modules, and the package's copyright file where Debian has it.
func (r *Result) AddTo(t *tree.Tree) error {
	base := "usr/lib/modules/" + r.Release
	err := walk(r.ModulesDir(), func(name, path string) error {
		return t.PutHostFile(base+"/"+name, 0o644, path)
	})
	if err != nil {
		return fmt.Errorf("modules of kernel %s: %w", r.Release, err)
	}
	return t.PutHostFile("usr/share/doc/linux-image-"+r.Release+"/copyright", 0o644, filepath.Join(r.Dir, rightsName))
}

// depmod makes modules.dep and its kin. Files of an earlier run are written anew.
func (r *Result) depmod(ctx context.Context, tools Tools) error {
	dir, err := filepath.Abs(r.Dir)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	cmd, err := tools.Command(ctx, "depmod", "-b", dir, "-m", "/"+modulesName, "-C", os.DevNull, r.Release)
	if err != nil {
		return fmt.Errorf("depmod: %w", err)
	}
	said, err := cmd.CombinedOutput()
	said = bytes.TrimSpace(said)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fault.New(fault.IO, "depmod: %w: %s", err, said)
	case len(said) > 0:
		// Everything that it warns of (a module that it cannot read, a circle) is a module that will not load.
		return fault.New(fault.Input, "depmod: kernel %s: %s", r.Release, said)
	default:
		return nil
	}
}

// complete compares what depmod saw with what is there.
func (r *Result) complete() error {
	deps, err := readDep(filepath.Join(r.ModulesDir(), "modules.dep"))
	if err != nil {
		return err
	}
	for _, m := range r.Modules {
		needs, ok := deps[m]
		if !ok {
			return fault.New(fault.Input, "depmod: kernel %s: modules.dep does not know %s", r.Release, m)
		}
		for _, n := range needs {
			if _, ok := slices.BinarySearch(r.Modules, n); !ok {
				return fault.New(fault.Internal, "kernel %s: %s needs %s, which was left out", r.Release, m, n)
			}
		}
	}
	if len(deps) != len(r.Modules) {
		return fault.New(fault.Input, "depmod: kernel %s: modules.dep has %d modules, the package %d", r.Release, len(deps), len(r.Modules))
	}
	return nil
}

var validRelease = regexp.MustCompile(`^[0-9][0-9A-Za-z.+~_-]{0,63}$`)
