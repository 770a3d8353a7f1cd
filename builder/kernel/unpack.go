package kernel

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

const (
	compressed = ".xz"

	maxPackage = 2 << 30
	maxModule  = 256 << 20
	maxModules = 20000
)

// unpack reads the package's files through dpkg-deb, whose liblzma is several times faster than what Go has.
func unpack(ctx context.Context, deb string, exclude func(string) bool, r *Result) error {
	if _, err := os.Stat(deb); err != nil {
		return fault.Wrap(fault.Input, err)
	}
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("%w (Debian package dpkg)", err)
		}
		return fault.Wrap(fault.IO, err)
	}
	rerr := readPackage(io.LimitReader(out, maxPackage), exclude, r)
	if rerr == nil {
		_, rerr = io.Copy(io.Discard, out) // the archive's padding
	} else {
		_ = cmd.Process.Kill() // it would wait for its reader
	}
	werr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case rerr != nil:
		return rerr
	case werr != nil:
		return fault.New(fault.Input, "dpkg-deb: %w: %s", werr, bytes.TrimSpace(said.Bytes()))
	default:
		return nil
	}
}

// readPackage writes what we want of a package's files: one kernel image, one module tree less the modules that exclude names, the copyright file.
func readPackage(tarfile io.Reader, exclude func(string) bool, r *Result) error {
	var image, rights string
	in := tar.NewReader(tarfile)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fault.New(fault.Input, "not a package: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue // folders are made as needed; the links to headers lead nowhere in an image
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "./"))
		if release, ok := strings.CutPrefix(name, "boot/vmlinuz-"); ok {
			image = release
			if err := writeFile(r.Image(), in, h.Size); err != nil {
				return err
			}
			continue
		}
		if ok, _ := path.Match("usr/share/doc/linux-image-*/copyright", name); ok {
			rights = name
			if err := writeFile(filepath.Join(r.Dir, rightsName), in, h.Size); err != nil {
				return err
			}
			continue
		}
		release, file, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(name, "usr/"), "lib/modules/"), "/")
		if !ok || !strings.HasPrefix(strings.TrimPrefix(name, "usr/"), "lib/modules/") {
			continue
		}
		switch {
		case !validRelease.MatchString(release) || !validFile(file):
			return fault.New(fault.Input, "%q is no name of a module's file", name)
		case r.Release == "":
			r.Release = release
		case r.Release != release:
			return fault.New(fault.Input, "modules of two kernels, %s and %s", r.Release, release)
		case len(r.Modules)+len(r.Excluded) == maxModules:
			return fault.New(fault.Input, "more than %d modules", maxModules)
		}
		if isModule(file) {
			if exclude != nil && exclude(strings.TrimSuffix(file, compressed)) {
				r.Excluded = append(r.Excluded, file)
				continue
			}
			r.Modules = append(r.Modules, file)
		}
		if err := writeFile(filepath.Join(r.ModulesDir(), filepath.FromSlash(file)), in, h.Size); err != nil {
			return err
		}
	}
	switch {
	case image == "" || r.Release == "" || len(r.Modules)+len(r.Excluded) == 0 || rights == "":
		return fault.New(fault.Input, "a kernel image, modules and a copyright file are needed; is this a linux-image package?")
	case image != r.Release:
		return fault.New(fault.Input, "the image is of kernel %s, the modules are of %s", image, r.Release)
	}
	slices.Sort(r.Modules)
	slices.Sort(r.Excluded)
	return nil
}

func isModule(file string) bool {
	return strings.HasSuffix(strings.TrimSuffix(file, compressed), ".ko")
}

// validFile takes names as kernels have them, so that no name needs quoting in modules.dep or leads out of the folder.
func validFile(name string) bool {
	if !fs.ValidPath(name) {
		return false
	}
	return strings.IndexFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-+,", r)
	}) < 0
}

func writeFile(name string, from io.Reader, size int64) error {
	if size > maxModule {
		return fault.New(fault.Input, "%s: %d bytes, at most %d are allowed", filepath.Base(name), size, maxModule)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fault.Wrap(fault.IO, err)
		}
		f, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	}
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if _, err := io.Copy(f, from); err != nil {
		f.Close()
		return fault.Wrap(fault.IO, err)
	}
	if err := f.Close(); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	return nil
}

// walk calls f for every file below dir, in order, with its slash-separated name relative to dir.
func walk(dir string, f func(name, path string) error) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		return f(filepath.ToSlash(name), path)
	})
}
