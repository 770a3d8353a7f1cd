// Package durable keeps small files through power cuts.
//
// A Folder is what the agent sees of a directory on disk: its own state, or the ESP. It is an interface so that tests can put a folder there that loses
// power after the nth operation (package powercut); on a machine it is a Dir, whose names cannot leave the directory, not even through symbolic links.
//
// Write is the only way in which the agent changes a state file: write NAME.new, fsync it, rename it over NAME, fsync the directory. At any moment the
// file has its old content or its new content. That holds on ext4. On FAT a rename takes several writes, in an order that only the mount option dirsync
// keeps (package initramfs mounts the ESP so): after a power cut between them a file can be there under both names.
package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// File is an open file of a Folder.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns when every byte written before is on stable storage. Reading afterwards asks the disk, as far as the kernel lets it.
	Sync() error
	// Size is the length in bytes.
	Size() (int64, error)
}

// Folder is one directory. Names are plain file names, without any slash.
type Folder interface {
	// Names lists the regular files, in byte order.
	Names() ([]string, error)
	// Open opens a file for reading; the error of a missing file is fs.ErrNotExist.
	Open(name string) (File, error)
	// Create makes a file, or empties the one there, for reading and writing, mode 0600.
	Create(name string) (File, error)
	// Edit opens an existing file for reading and writing and keeps its content.
	Edit(name string) (File, error)
	// Rename replaces newName by oldName.
	Rename(oldName, newName string) error
	// Remove deletes a file; the error of a missing file is fs.ErrNotExist.
	Remove(name string) error
	// Sync returns when every create, rename and remove before is on stable storage.
	Sync() error
	// Free is the number of bytes that can still be written.
	Free() (int64, error)
}

// Write replaces the content of name in f durably. After an error the old content is still there.
func Write(f Folder, name string, data []byte) error {
	if err := write(f, name, data); err != nil {
		return fault.New(fault.IO, "write %s: %w", name, err)
	}
	return nil
}

func write(f Folder, name string, data []byte) error {
	temp := name + ".new"
	w, err := f.Create(temp)
	if err != nil {
		return err
	}
	_, err = w.WriteAt(data, 0)
	if err == nil {
		err = w.Sync()
	}
	if err := errors.Join(err, w.Close()); err != nil {
		_ = f.Remove(temp)
		return err
	}
	if err := f.Rename(temp, name); err != nil {
		_ = f.Remove(temp)
		return err
	}
	return f.Sync()
}

// Read returns the content of name, at most limit bytes of it; a longer file is an error. The error of a missing file is fs.ErrNotExist.
func Read(f Folder, name string, limit int64) ([]byte, error) {
	r, err := f.Open(name)
	if err != nil {
		return nil, fault.New(fault.IO, "read %s: %w", name, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.NewSectionReader(r, 0, limit+1))
	if err != nil {
		return nil, fault.New(fault.IO, "read %s: %w", name, err)
	}
	if int64(len(data)) > limit {
		return nil, fault.New(fault.Input, "read %s: longer than %d bytes", name, limit)
	}
	return data, nil
}

// maxState bounds a state file; every one of ours is far smaller.
const maxState = 4 << 20

// WriteJSON replaces the content of name durably by v.
func WriteJSON(f Folder, name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fault.New(fault.Internal, "write %s: %w", name, err)
	}
	return Write(f, name, append(data, '\n'))
}

// ReadJSON reads name into v. It returns false when there is no such file. A file that is not JSON is an error of kind Input.
func ReadJSON(f Folder, name string, v any) (bool, error) {
	data, err := Read(f, name, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return false, fault.New(fault.Input, "read %s: %w", name, err)
	}
	return true, nil
}

// At returns a Folder of the ESP. It opens the directory at path anew for each of its methods, so that nothing keeps the file system busy in between: it is
// mounted only while somebody uses it.
func At(path string) Folder { return at(path) }

type at string

// in calls do with the directory open.
func in[T any](a at, do func(*Dir) (T, error)) (T, error) {
	d, err := OpenDir(string(a))
	if err != nil {
		var zero T
		return zero, err
	}
	defer func() { _ = d.Close() }()
	return do(d)
}

func (a at) Names() ([]string, error) { return in(a, (*Dir).Names) }
func (a at) Free() (int64, error)     { return in(a, (*Dir).Free) }
func (a at) Open(name string) (File, error) {
	return in(a, func(d *Dir) (File, error) { return d.Open(name) })
}

func (a at) Edit(name string) (File, error) {
	return in(a, func(d *Dir) (File, error) { return d.Edit(name) })
}

func (a at) Create(name string) (File, error) {
	return in(a, func(d *Dir) (File, error) { return d.Create(name) })
}

func (a at) Rename(oldName, newName string) error {
	_, err := in(a, func(d *Dir) (struct{}, error) { return struct{}{}, d.Rename(oldName, newName) })
	return err
}

func (a at) Remove(name string) error {
	_, err := in(a, func(d *Dir) (struct{}, error) { return struct{}{}, d.Remove(name) })
	return err
}

// Sync flushes the whole file system, which is small: on FAT a file's length and place are kept in its directory entry, but belong to the file, so that an
// fsync of the directory alone leaves a renamed file empty on the disk.
func (a at) Sync() error {
	_, err := in(a, func(d *Dir) (struct{}, error) { return struct{}{}, d.syncAll() })
	return err
}

// Dir is a Folder of the real file system.
type Dir struct {
	root *os.Root
}

// OpenDir opens an existing directory. The Dir stays the same directory when the path is renamed or mounted over.
func OpenDir(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fault.New(fault.IO, "open folder: %w", err)
	}
	return &Dir{root: root}, nil
}

// MakeDir makes path and its parents where they are missing, and opens it.
func MakeDir(path string, mode fs.FileMode) (*Dir, error) {
	if err := os.MkdirAll(path, mode); err != nil {
		return nil, fault.New(fault.IO, "make folder: %w", err)
	}
	return OpenDir(path)
}

// Close closes the directory.
func (d *Dir) Close() error { return d.root.Close() }

func plain(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%q is not a plain file name", name)
	}
	return nil
}

// Names implements Folder.
func (d *Dir) Names() ([]string, error) {
	entries, err := fs.ReadDir(d.root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries { // ReadDir sorts
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

type osFile struct{ *os.File }

// Sync implements File. What was written is not kept in the page cache either, so that reading it back reads the disk and not the memory that was written
// from; that is only a hint, which the kernel follows for clean pages.
func (f osFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		return err
	}
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (d *Dir) open(name string, flag int) (File, error) {
	if err := plain(name); err != nil {
		return nil, err
	}
	f, err := d.root.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Open implements Folder.
func (d *Dir) Open(name string) (File, error) { return d.open(name, os.O_RDONLY) }

// Create implements Folder.
func (d *Dir) Create(name string) (File, error) {
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

// Edit implements Folder.
func (d *Dir) Edit(name string) (File, error) { return d.open(name, os.O_RDWR) }

// Rename implements Folder.
func (d *Dir) Rename(oldName, newName string) error {
	if err := errors.Join(plain(oldName), plain(newName)); err != nil {
		return err
	}
	return d.root.Rename(oldName, newName)
}

// Remove implements Folder.
func (d *Dir) Remove(name string) error {
	if err := plain(name); err != nil {
		return err
	}
	return d.root.Remove(name)
}

// Sync implements Folder.
func (d *Dir) Sync() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d *Dir) syncAll() error {
	f, err := d.root.Open(".")
	if err != nil {
		return err
	}
	// Syncfs writes everything, and fsync then tells the disk to keep it.
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Sync(), f.Close())
}

// Free implements Folder.
func (d *Dir) Free() (int64, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	if st.Bsize <= 0 || st.Bavail > uint64(math.MaxInt64/st.Bsize) {
		return math.MaxInt64, nil
	}
	return int64(st.Bavail) * st.Bsize, nil
}
