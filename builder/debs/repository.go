package debs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/fault"
)

// Repository makes dir a flat apt repository ("deb [trusted=yes] copy:DIR ./") of exactly the packages given, which must be in the store, and nothing else. Folder and
// files are readable by all. The packages, in their plain form where there is one, are hard links to the store where that is possible, else symbolic links; dir must not exist, or be empty.
//
// The Release file carries suite as Suite and Codename, by which mmdebstrap selects what is essential, and date.
// A package whose control file says another name, version or architecture than the lock is an error of kind Verification.
func (s *Store) Repository(dir, suite string, date time.Time, packages []lock.Package) error {
	if err := s.repository(dir, suite, date, packages); err != nil {
		return fmt.Errorf("local repository %s: %w", dir, err)
	}
	return nil
}

func (s *Store) repository(dir, suite string, date time.Time, packages []lock.Package) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask says
		return fault.Wrap(fault.IO, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return fault.New(fault.IO, "the folder must be empty: %w", errors.Join(err, fs.ErrExist))
	}
	stanzas := make([]string, len(packages))
	var group errgroup.Group
	group.SetLimit(hashers)
	for i, p := range packages {
		group.Go(func() error {
			stanza, err := s.stanza(p)
			if err != nil {
				return fmt.Errorf("package %s: %w", p.Name, err)
			}
			stanzas[i] = stanza
			return link(s.Deb(p), filepath.Join(dir, path.Base(p.Path)))
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	index := strings.Join(stanzas, "\n")
	release := fmt.Sprintf("Origin: Semper\nSuite: %s\nCodename: %s\nDate: %s\nSHA256:\n %x %d Packages\n",
		suite, suite, date.UTC().Format(time.RFC1123), sha256.Sum256([]byte(index)), len(index))
	for name, text := range map[string]string{"Packages": index, "Release": release} {
		if err := writeFile(filepath.Join(dir, name), text); err != nil {
			return storeError(err)
		}
	}
	return nil
}

// stanza is a package's entry in the Packages file.
func (s *Store) stanza(p lock.Package) (string, error) {
	control, err := controlOf(s.Path(p))
	if err != nil {
		return "", err
	}
	for _, f := range []struct{ name, want string }{{"Package", p.Name}, {"Version", p.Version}, {"Architecture", p.Architecture}} {
		if got := Field(control, f.name); got != f.want {
			return "", fault.New(fault.Verification, "its control file says %s %q, the lock %q", f.name, got, f.want)
		}
	}
	for _, name := range []string{"Filename", "Size", "SHA256"} {
		if Field(control, name) != "" {
			return "", fault.New(fault.Verification, "its control file has the field %s, which belongs to an index", name)
		}
	}
	f := s.form(p)
	return fmt.Sprintf("%sFilename: ./%s\nSize: %d\nSHA256: %s\n", control, path.Base(p.Path), f.size, f.sha256), nil
}

func link(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	return storeError(os.Symlink(from, to)) // another file system
}

func writeFile(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Chmod(path, 0o644)
}
