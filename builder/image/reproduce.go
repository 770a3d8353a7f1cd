package image

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

// CheckReproducible builds a release a second time, with no cached step and in other folders, and compares it with the
// first. It is an error of kind Verification, naming the files, when a byte differs. The keys are the same, and Semper
// signs without time or chance, so signatures are compared too.
func CheckReproducible(ctx context.Context, o Options, first string) error {
	temp, err := os.MkdirTemp(o.Out, ".again-*")
	if err != nil {
		return fault.New(fault.IO, "second build: %w", err)
	}
	defer os.RemoveAll(temp)
	o.Out, o.Steps = filepath.Join(temp, "release"), filepath.Join(temp, "steps")
	second, err := Build(ctx, o)
	if err != nil {
		return fmt.Errorf("second build: %w", err)
	}
	differ, err := differences(first, second.Release)
	if err != nil {
		return fmt.Errorf("compare the builds: %w", err)
	}
	if len(differ) > 0 {
		return fault.New(fault.Verification, "not reproducible: two builds of %s differ in %s", first, strings.Join(differ, ", "))
	}
	return nil
}

// differences returns the names of the files that are not the same in two folders.
func differences(a, b string) ([]string, error) {
	left, err := digests(a)
	if err != nil {
		return nil, err
	}
	right, err := digests(b)
	if err != nil {
		return nil, err
	}
	var names []string
	for name, sum := range left {
		if right[name] != sum {
			names = append(names, name)
		}
		delete(right, name)
	}
	for name := range right {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func digests(dir string) (map[string][sha256.Size]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	sums := map[string][sha256.Size]byte{}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fault.Wrap(fault.IO, err)
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return nil, fault.Wrap(fault.IO, err)
		}
		sums[e.Name()] = [sha256.Size]byte(h.Sum(nil))
	}
	return sums, nil
}
