package uki

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

// Differences names the sections in which two UKIs differ, each once, in the order of a's table and then of b's. Sections of the stub count too: they are
// part of what starts. What only tells two releases with the same start apart is no difference: .osrel, which names the release, the value of roothash= in
// .cmdline, and the signature, which is no section. So two UKIs without a difference do the same from the firmware to the mounted root, but for which root
// that is. Files that cannot be compared are an error, never "no difference".
func Differences(a, b *File) ([]string, error) {
	var out []string
	for _, name := range append(a.Names(), b.Names()...) {
		if name == OSRelease || slices.Contains(out, name) {
			continue
		}
		same, err := sameSection(a, b, name)
		if err != nil {
			return nil, fmt.Errorf("compare section %s: %w", name, err)
		}
		if !same {
			out = append(out, name)
		}
	}
	return out, nil
}

// sameSection compares all sections of a name; which of several counts is the stub's business.
func sameSection(a, b *File, name string) (bool, error) {
	if name == Cmdline {
		return sameCmdline(a, b)
	}
	of := func(f *File) (list []section) {
		for _, s := range f.pe.sections {
			if s.name == name {
				list = append(list, s)
			}
		}
		return list
	}
	x, y := of(a), of(b)
	if len(x) != len(y) {
		return false, nil
	}
	for i := range x {
		if x[i].virtualSize != y[i].virtualSize {
			return false, nil
		}
		// What the file does not store is zero in memory, in both.
		same, err := sameBytes(stored(a, x[i]), stored(b, y[i]))
		if err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func stored(f *File, s section) *io.SectionReader {
	return io.NewSectionReader(f.r, int64(s.rawOffset), int64(min(s.virtualSize, s.rawSize)))
}

// sameCmdline compares the command lines but for the value of their only roothash=.
func sameCmdline(a, b *File) (bool, error) {
	x, err := a.withoutHash()
	if err != nil {
		return false, err
	}
	y, err := b.withoutHash()
	return x == y, err
}

func (f *File) withoutHash() (string, error) {
	hash, err := f.RootHash()
	if err != nil {
		return "", err
	}
	line, err := f.Cmdline()
	return strings.Replace(line, fmt.Sprintf("roothash=%x", hash), "roothash=", 1), err
}

func sameBytes(a, b *io.SectionReader) (bool, error) {
	if a.Size() != b.Size() {
		return false, nil
	}
	x, y := make([]byte, 128<<10), make([]byte, 128<<10)
	for left := a.Size(); left > 0; left -= int64(len(x)) {
		n := min(int64(len(x)), left)
		for _, r := range []struct {
			from io.Reader
			to   []byte
		}{{a, x[:n]}, {b, y[:n]}} {
			if _, err := io.ReadFull(r.from, r.to); err != nil {
				return false, fault.Wrap(fault.IO, err)
			}
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return false, nil
		}
	}
	return true, nil
}
