package config

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

const (
	maxFileBytes = 64 << 10
	maxFiles     = 100

	// CredentialName is the systemd credential that is read after all drop-ins.
	CredentialName = "semper.update.toml"
)

// Folders are where drop-ins are read from, lowest precedence first, relative to the root folder.
var Folders = []string{"usr/lib/semper/update.d", "etc/semper/update.d", "run/semper/update.d"}

// Load reads Flatcar's update.conf and every drop-in below root ("/" on a machine), and then the credential in credentials, which may be empty.
// Errors are of kind Input where a file's content is wrong, and IO where it could not be read.
func Load(root, credentials string) (Settings, error) {
	return load(root, credentials, edit{})
}

// edit is a change to one drop-in that is tried before it is made.
type edit struct {
	path string
	data []byte
	gone bool // the file is removed
}

func load(root, credentials string, try edit) (Settings, error) {
	s := Defaults()
	if err := s.loadUpdateConf(root); err != nil {
		return Settings{}, err
	}
	foreign := maps.Clone(s.Origin)
	for _, dir := range Folders {
		dir = filepath.Join(root, dir)
		names, err := dropIns(dir, try)
		if err != nil {
			return Settings{}, err
		}
		for _, name := range names {
			path := filepath.Join(dir, name)
			if path == try.path {
				err = s.apply(path, try.data)
			} else {
				err = s.load(path)
			}
			if err != nil {
				return Settings{}, err
			}
		}
	}
	if credentials != "" {
		if err := s.load(filepath.Join(credentials, CredentialName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Settings{}, err
		}
	}
	s.completeForeign(foreign)
	if err := s.check(); err != nil {
		return Settings{}, err
	}
	return s, nil
}

// dropIns lists a folder's files as they would be after try, in the order in which they are read.
func dropIns(dir string, try edit) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.IO, "read settings folder: %w", err)
	}
	var names []string
	for _, e := range entries {
		if isDropIn(e.Name()) && filepath.Join(dir, e.Name()) != try.path {
			names = append(names, e.Name())
		}
	}
	if filepath.Dir(try.path) == dir && !try.gone {
		names = append(names, filepath.Base(try.path))
	}
	if len(names) > maxFiles {
		return nil, fault.New(fault.Input, "%s: %d settings files, at most %d are read", dir, len(names), maxFiles)
	}
	slices.Sort(names)
	return names, nil
}

func isDropIn(name string) bool {
	return strings.HasSuffix(name, ".toml") && !strings.HasPrefix(name, ".")
}

func (s *Settings) load(path string) error {
	data, err := read(path)
	if err != nil {
		return err
	}
	return s.apply(path, data)
}

// read returns a settings file's bytes. The error of a missing file is fs.ErrNotExist.
func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.IO, "read settings: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileBytes {
		return nil, fault.New(fault.Input, "%s: a settings file must be a regular file of at most %d bytes", path, maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.IO, "read settings: %w", err)
	}
	return data, nil
}
