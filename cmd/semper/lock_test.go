package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/semper-os/semper/builder/lock/archivetest"
)

// TestLockScripts runs "semper lock" against a small Debian archive in a folder; what needs no archive is among TestScripts.
func TestLockScripts(t *testing.T) {
	a := archivetest.New(t, t.TempDir())
	main := []archivetest.Package{
		{Name: "base-files", Version: "13.8", Fields: "Essential: yes\n"},
		{Name: "libc6", Version: "2.41-12"},
		{Name: "podman", Version: "5.4.2", Fields: "Depends: libc6\n"},
		{Name: "nano", Version: "8.4", Fields: "Depends: libc6\n"},
		{Name: "erofs-utils", Version: "1.8.6", Fields: "Depends: libc6\n"},
		{Name: "linux-image-amd64", Version: "6.12.48-1", Fields: "Depends: linux-image-6.12.48-amd64\n"},
		{Name: "linux-image-6.12.48-amd64", Version: "6.12.48-1"},
	}
	a.Trixie(t, main, nil, nil)
	later := archivetest.New(t, t.TempDir())
	later.Trixie(t, main, nil, []archivetest.Package{{Name: "libc6", Version: "2.41-12+deb13u1"}})
	testscript.Run(t, testscript.Params{
		Dir: "testdata/lock",
		Setup: func(e *testscript.Env) error {
			e.Setenv("KEYRING", a.Keyring) // the later one has the same
			e.Setenv("SEMPER_MIRROR", "file:"+a.Dir+"/debian")
			e.Setenv("SEMPER_SECURITY_MIRROR", "file:"+a.Dir+"/debian-security")
			e.Setenv("LATER", "file:"+later.Dir+"/debian-security")
			return nil
		},
	})
}
