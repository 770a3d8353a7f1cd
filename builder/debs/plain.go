package debs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/fault"
)

const (
	plainSuffix = ".plain"
	maxPlain    = 8 << 30
)

// plain is a package's plain form: the same .deb with its members unpacked. dpkg takes it as it takes the package, and waits for no decompressor,
// which is a quarter of an installation's time.
type plain struct {
	path   string
	size   int64
	sha256 string
}

// Deb is the path of what to unpack a package from: its plain form where Fill made sure of one, else the package itself.
func (s *Store) Deb(p lock.Package) string { return s.form(p).path }

// form is what a package is installed from.
func (s *Store) form(p lock.Package) plain {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.plain[p.SHA256]; ok {
		return f
	}
	return plain{s.Path(p), p.Size, p.SHA256}
}

// unpacks reports whether builds unpack a package often: what is only among the tools is unpacked once.
func unpacks(p lock.Package) bool { return p.In(lock.Image) || p.In(lock.Kernel) }

// fillPlain makes sure of the plain forms of packages that are in the store. It is done where packages arrive, while the network is waited for.
func (s *Store) fillPlain(ctx context.Context, packages []lock.Package) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, p := range packages {
		group.Go(func() error { return s.makePlain(ctx, p) })
	}
	return group.Wait()
}

// makePlain makes sure of one plain form. Where it cannot be made, for want of room for instance, builds are slower and otherwise the same.
func (s *Store) makePlain(ctx context.Context, p lock.Package) error {
	if !unpacks(p) {
		return nil
	}
	f, ok := s.findPlain(p)
	if !ok {
		var err error
		if f, err = s.writePlain(ctx, p); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			slog.Warn("package is not kept unpacked; the build will be slower", "package", p.Name, "error", err)
			return nil
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.plain[p.SHA256] = f
	return nil
}

// findPlain looks for a plain form whose bytes are those that its name promises, and removes others.
func (s *Store) findPlain(p lock.Package) (plain, bool) {
	found, err := filepath.Glob(s.base(p) + ".*" + plainSuffix)
	if err != nil {
		return plain{}, false
	}
	for _, path := range found {
		want := strings.TrimSuffix(strings.TrimPrefix(path, s.base(p)+"."), plainSuffix)
		if got, size, err := hashFile(path); err == nil && got == want {
			return plain{path, size, got}, true
		}
		_ = os.Remove(path) // or it stays, and is not believed
	}
	return plain{}, false
}

func hashFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// writePlain unpacks a package's members into its plain form.
func (s *Store) writePlain(ctx context.Context, p lock.Package) (plain, error) {
	f, err := os.CreateTemp(filepath.Dir(s.base(p)), p.SHA256+".unpacking-*")
	if err != nil {
		return plain{}, storeError(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := unpackMembers(ctx, s.Path(p), f); err != nil {
		return plain{}, err
	}
	if err := f.Chmod(0o644); err != nil {
		return plain{}, storeError(err)
	}
	sum, size, err := hashFile(f.Name())
	if err != nil {
		return plain{}, storeError(err)
	}
	out := plain{s.base(p) + "." + sum + plainSuffix, size, sum}
	return out, storeError(os.Rename(f.Name(), out.path))
}

// unpackMembers writes a .deb of which control.tar and data.tar are as dpkg-deb unpacks them.
func unpackMembers(ctx context.Context, deb string, f *os.File) error {
	if _, err := io.WriteString(f, arMagic+arMember("debian-binary", 4)+"2.0\n"); err != nil {
		return storeError(err)
	}
	end := int64(len(arMagic) + arHeader + 4)
	for _, m := range []struct{ name, flag string }{{"control.tar", "--ctrl-tarfile"}, {"data.tar", "--fsys-tarfile"}} {
		if _, err := f.Seek(end+arHeader, io.SeekStart); err != nil {
			return storeError(err)
		}
		size, err := unpackMember(ctx, deb, m.flag, f)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if _, err := f.WriteAt([]byte(arMember(m.name, size)), end); err != nil {
			return storeError(err)
		}
		end += arHeader + size // a tar file is whole blocks of 512 bytes: no padding
	}
	return nil
}

func arMember(name string, size int64) string {
	return fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", size)
}

func unpackMember(ctx context.Context, deb, flag string, to io.Writer) (int64, error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", flag, deb)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, fault.Wrap(fault.IO, err)
	}
	if err := cmd.Start(); err != nil {
		return 0, fault.Wrap(fault.IO, err)
	}
	n, cerr := io.Copy(to, io.LimitReader(out, maxPlain+1))
	if cerr != nil || n > maxPlain {
		_ = cmd.Process.Kill() // it would wait for its reader
	}
	werr := cmd.Wait()
	switch {
	case cerr != nil:
		return 0, storeError(cerr)
	case n > maxPlain:
		return 0, fault.New(fault.Input, "more than %d bytes", int64(maxPlain))
	case werr != nil:
		return 0, fault.New(fault.Input, "dpkg-deb: %w: %s", werr, bytes.TrimSpace(said.Bytes()))
	case n%512 != 0:
		return 0, errors.New("not whole blocks of a tar file")
	}
	return n, nil
}
