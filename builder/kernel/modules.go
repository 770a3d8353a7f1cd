package kernel

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/ulikunitz/xz"
	"golang.org/x/sync/errgroup"

	"github.com/semper-os/semper/fault"
)

// readDep reads modules.dep: "file: needed-file needed-file …", nearest first.
func readDep(path string) (map[string][]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	defer f.Close()
	deps := map[string][]string{}
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		file, needs, ok := strings.Cut(s.Text(), ":")
		if !ok {
			return nil, fault.New(fault.Input, "%s: a line without a colon: %q", path, s.Text())
		}
		deps[file] = strings.Fields(needs)
	}
	if err := s.Err(); err != nil {
		return nil, fault.New(fault.IO, "%s: %w", path, err)
	}
	return deps, nil
}

// leaveOut removes the modules that need, directly or not, one of those that were not unpacked.
func (r *Result) leaveOut(ctx context.Context, tools Tools) error {
	needs, err := r.depends(ctx, tools)
	if err != nil {
		return err
	}
	out := map[string]bool{}
	for _, m := range r.Excluded {
		out[moduleName(m)] = true
	}
	for found := true; found; {
		found = false
		for i, m := range r.Modules {
			if n := moduleName(m); !out[n] && slices.ContainsFunc(needs[i], func(n string) bool { return out[n] }) {
				out[n], found = true, true
			}
		}
	}
	kept := r.Modules[:0:0]
	for _, m := range r.Modules {
		if !out[moduleName(m)] {
			kept = append(kept, m)
			continue
		}
		r.Dependents = append(r.Dependents, m)
		if err := os.Remove(filepath.Join(r.ModulesDir(), filepath.FromSlash(m))); err != nil {
			return fault.Wrap(fault.IO, err)
		}
	}
	r.Modules = kept
	return nil
}

// moduleName is the name by which modules know each other: "kernel/sound/core/snd-pcm.ko.xz" is snd_pcm.
func moduleName(file string) string {
	name := strings.TrimSuffix(strings.TrimSuffix(path.Base(file), compressed), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// atOnce is how many modules one modinfo looks at: few enough for a command line, enough that its start does not count.
const atOnce = 256

// depends returns, for each of r.Modules, the names of the modules that it needs directly. The kernel's build noted them in the module; modinfo, which
// unpacks modules several times faster than what Go has, reads them on all cores.
func (r *Result) depends(ctx context.Context, tools Tools) ([][]string, error) {
	all := make([][]string, len(r.Modules))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for first := 0; first < len(r.Modules); first += atOnce {
		group.Go(func() error {
			files := r.Modules[first:min(first+atOnce, len(r.Modules))]
			lists, err := r.modinfo(ctx, tools, files)
			copy(all[first:], lists)
			return err
		})
	}
	return all, group.Wait()
}

func (r *Result) modinfo(ctx context.Context, tools Tools, files []string) ([][]string, error) {
	cmd, err := tools.Command(ctx, "modinfo", append([]string{"-0", "-F", "depends"}, files...)...)
	if err != nil {
		return nil, fmt.Errorf("modinfo: %w", err)
	}
	cmd.Dir = r.ModulesDir()
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil || said.Len() > 0:
		return nil, fault.New(fault.Input, "modinfo: kernel %s: %w: %s", r.Release, cmp.Or(err, errors.New("a complaint")), bytes.TrimSpace(said.Bytes()))
	}
	// A field for each module, empty where it needs none, and a NUL behind each.
	fields := strings.Split(string(out), "\x00")
	if fields = fields[:len(fields)-1]; len(fields) != len(files) {
		return nil, fault.New(fault.Input, "modinfo: kernel %s: %d of %d modules say what they need", r.Release, len(fields), len(files))
	}
	lists := make([][]string, len(files))
	for i, f := range fields {
		for _, name := range strings.FieldsFunc(f, func(c rune) bool { return c == ',' }) {
			lists[i] = append(lists[i], moduleName(name)) // as the file's name has it, with dashes
		}
	}
	return lists, nil
}

// decompress replaces every compressed module by what it holds, on all cores.
func (r *Result) decompress(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, m := range r.Modules {
		plain, ok := strings.CutSuffix(m, compressed)
		if !ok {
			continue
		}
		r.Modules[i] = plain
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			from := filepath.Join(r.ModulesDir(), filepath.FromSlash(m))
			b, err := ReadModule(from)
			if err != nil {
				return err
			}
			if err := os.WriteFile(strings.TrimSuffix(from, compressed), b, 0o644); err != nil {
				return fault.Wrap(fault.IO, err)
			}
			return fault.Wrap(fault.IO, os.Remove(from))
		})
	}
	if err := g.Wait(); err != nil {
		if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && cause != nil {
			return cause
		}
		return err
	}
	slices.Sort(r.Modules)
	return nil
}

// ReadModule returns the bytes of a module's file, decompressed if it is compressed: ELF, with Debian's signature behind it.
func ReadModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	defer f.Close()
	var from io.Reader = bufio.NewReaderSize(f, 1<<16)
	if strings.HasSuffix(path, compressed) {
		if from, err = xz.NewReader(from); err != nil {
			return nil, fault.New(fault.Input, "module %s: %w", filepath.Base(path), err)
		}
	}
	b, err := io.ReadAll(io.LimitReader(from, maxModule+1))
	switch {
	case err != nil:
		return nil, fault.New(fault.Input, "module %s: %w", filepath.Base(path), err)
	case len(b) > maxModule:
		return nil, fault.New(fault.Input, "module %s: more than %d bytes", filepath.Base(path), maxModule)
	case len(b) < 4 || string(b[:4]) != "\x7fELF":
		return nil, fault.New(fault.Input, "module %s: not an ELF file", filepath.Base(path))
	}
	return b, nil
}

// checkImage reads the kernel's own word of which release it is (Linux, Documentation/arch/x86/boot.rst: the setup header begins at 0x1f1, the offset of
// the version text is at 0x20e, relative to 0x200). An image without that header, as on other architectures, is taken as it is.
func checkImage(path, release string) error {
	f, err := os.Open(path)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer f.Close()
	b := make([]byte, 64<<10)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fault.New(fault.Input, "kernel image %s: %w", release, err)
	}
	says, err := imageRelease(b[:n])
	if err != nil {
		return fault.New(fault.Input, "kernel image %s: %w", release, err)
	}
	if says != "" && says != release {
		return fault.New(fault.Input, "kernel image %s: it says that it is %q", release, says)
	}
	return nil
}

func imageRelease(b []byte) (string, error) {
	if len(b) < 2 || string(b[:2]) != "MZ" {
		return "", errors.New("not an EFI program")
	}
	if len(b) < 0x210 || string(b[0x202:0x206]) != "HdrS" {
		return "", nil
	}
	at := 0x200 + (int(b[0x20e]) | int(b[0x20f])<<8)
	if at >= len(b) {
		return "", fmt.Errorf("its version would be at byte %d", at)
	}
	text, _, ok := strings.Cut(string(b[at:min(len(b), at+256)]), " ")
	if !ok {
		return "", errors.New("its version has no end")
	}
	return text, nil
}
