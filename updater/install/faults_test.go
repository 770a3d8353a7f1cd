package install_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
)

// sickFolder fails one operation.
type sickFolder struct {
	durable.Folder
	op string
}

func (f sickFolder) fail(op string) error {
	if op == f.op {
		return syscall.EIO
	}
	return nil
}

func (f sickFolder) Create(name string) (durable.File, error) {
	if err := f.fail("create"); err != nil {
		return nil, err
	}
	return f.Folder.Create(name)
}

func (f sickFolder) Rename(from, to string) error {
	if err := f.fail("rename"); err != nil {
		return err
	}
	return f.Folder.Rename(from, to)
}

func (f sickFolder) Free() (int64, error) {
	if err := f.fail("free"); err != nil {
		return 0, err
	}
	return f.Folder.Free()
}

// sickDisk cannot be written above a limit.
type sickDisk struct {
	install.Disk
	limit int64
}

func (d sickDisk) WriteAt(p []byte, off int64) (int, error) {
	if off >= d.limit && off < d.Size()-1<<20 {
		return 0, syscall.EIO
	}
	return d.Disk.WriteAt(p, off)
}

// What is wrong with the machine's own disk is told as such: no server and no agent may hold it against the version.
func TestFaultsOfTheMachine(t *testing.T) {
	keys := installtest.NewKeys(t)
	for _, c := range []struct {
		name string
		sick func(s *install.Storage)
		code omaha.ErrorCode
	}{
		{"ESP cannot be asked for its room", func(s *install.Storage) { s.ESP = sickFolder{s.ESP, "free"} }, omaha.CodeWrite},
		{"ESP cannot be written", func(s *install.Storage) { s.ESP = sickFolder{s.ESP, "create"} }, omaha.CodeSetBootable},
		{"ESP cannot rename", func(s *install.Storage) { s.ESP = sickFolder{s.ESP, "rename"} }, omaha.CodeSetBootable},
		{"/var cannot be written", func(s *install.Storage) { s.State = sickFolder{s.State, "create"} }, omaha.CodeOpenTarget},
		{"slot cannot be written", func(s *install.Storage) { s.Disk = sickDisk{s.Disk, 2 << 20} }, omaha.CodeWrite},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
			core := install.New(install.Options{
				Machine: install.Machine{RootHash: m.Hash, Image: m.Running, BootID: "x"},
				Storage: func() (install.Storage, error) {
					s := install.Storage{Disk: m.Disk, ESP: m.ESP, State: m.State}
					c.sick(&s)
					return s, nil
				},
				Trust: func() (install.Trust, error) { return install.Trust{Payload: keys.Trust()}, nil },
				Now:   func() time.Time { return m.Now },
				Log:   discard,
			})
			_, err := push(core, keys.Release(t, "1.1.0"))
			var coded interface{ OmahaCode() int }
			if !errors.As(err, &coded) || !fault.Is(err, fault.IO) {
				t.Fatalf("error %v", err)
			}
			if code := omaha.ErrorCode(coded.OmahaCode()); code != c.code || !code.Passing() {
				t.Errorf("error %v: code %v, want %v, a passing one", err, code, c.code)
			}
			equal(t, "boot", m.Boot(t).Version, "1.0.0")
		})
	}
}
