// Package verify reads a finished disk or release back as a stranger would: with nothing but the files, the certificate that firmware would be given,
// and the public keys that sign releases.
//
// What it believes, and why:
//
//	--cert ──> signature of systemd-boot and of each UKI ──┬─> roothash= ──> PARTUUIDs ──> dm-verity, first to last block
//	                                                       └─> /verity.crt in the initrd ──> signature partition
//	--payload-key ──> manifest.json ──> every file of the release ──> the same bytes on the disk
//
// It is as independent of the builder as can be: the ESP is read by go-diskfs, which also gives a second opinion on the partition table. Nothing is mounted,
// nothing is written, and what a disk says of itself is bounded before it is used.
//
// Limits: sectors of 512 bytes; programs on the ESP of up to 256 MiB, and 512 files there.
package verify

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
)

// Status of a check.
type Status string

// What a check can come to.
const (
	OK      Status = "ok"
	Failed  Status = "failed"
	Skipped Status = "skipped" // there was nothing to check it with
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"` // what: "dm-verity of slot A"
	Status Status `json:"status"`
	Detail string `json:"detail"` // what was seen, or what is wrong and where
}

// Report is all that was looked at.
type Report struct {
	Target   string  `json:"target"` // the path
	Kind     string  `json:"type"`   // "disk" or "release"
	Version  string  `json:"version,omitempty"`
	RootHash string  `json:"root_hash,omitempty"`
	Checks   []Check `json:"checks"`
}

// Count returns how many checks have a status.
func (r *Report) Count(s Status) int {
	n := 0
	for _, c := range r.Checks {
		if c.Status == s {
			n++
		}
	}
	return n
}

// Err returns nil when no check failed, and otherwise an error of the kind Verification that says which.
func (r *Report) Err() error {
	var names []string
	for _, c := range r.Checks {
		if c.Status == Failed {
			names = append(names, c.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return fault.New(fault.Verification, "%s: %d of %d checks failed: %s", r.Target, len(names), len(r.Checks), strings.Join(names, "; "))
}

// Options say what to believe.
type Options struct {
	Certificates []*x509.Certificate // one of them has signed systemd-boot and the UKIs
	Trust        payload.Trust       // who signs releases; no keys: the manifest's signatures are not checked
	Terminal     *os.File            // where progress bars go when it is a terminal
}

// Run looks at a release directory, a disk image or a block device. The error is nil whenever it could look, whatever it found: see Report.Err.
func Run(ctx context.Context, path string, o Options) (*Report, error) {
	if len(o.Certificates) == 0 {
		return nil, fault.New(fault.Usage, "verify %s: no certificate to check the boot loader's and the kernel image's signatures with", path)
	}
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.Input, "verify: there is no %s", path)
	}
	if err != nil {
		return nil, fault.New(fault.IO, "verify: %w", err)
	}
	i := &inspector{ctx: ctx, options: o, report: &Report{Target: path, Kind: "disk"}}
	if info.IsDir() {
		i.report.Kind = "release"
		i.release(path)
	} else {
		i.disk(path)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return i.report, nil
}

// inspector carries what one check found to the next.
type inspector struct {
	ctx     context.Context
	options Options
	report  *Report
	from    *manifest   // of the release that the disk is part of; nil for a disk alone
	first   kernelImage // what the disk boots first
}

// check runs one check, adds it to the report and says whether it went well. The details that f returns are joined with commas.
func (i *inspector) check(name string, f func() (detail string, err error)) bool {
	if i.ctx.Err() != nil {
		return false
	}
	detail, err := noPanic(f)
	c := Check{Name: name, Status: OK, Detail: detail}
	if err != nil {
		c.Status, c.Detail = Failed, err.Error()
	}
	i.report.Checks = append(i.report.Checks, c)
	return err == nil
}

func (i *inspector) skip(name, why string) {
	i.report.Checks = append(i.report.Checks, Check{Name: name, Status: Skipped, Detail: why})
}

// noPanic turns a panic of a library that trips over a hostile disk into a failed check.
func noPanic(f func() (string, error)) (detail string, err error) {
	defer func() {
		if r := recover(); r != nil {
			detail, err = "", fault.New(fault.Verification, "reading it made the reader panic: %v", r)
		}
	}()
	return f()
}

// ParseCertificates reads PEM files with one or more CERTIFICATE blocks each.
func ParseCertificates(files ...[]byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, b := range files {
		found, err := certificates(b)
		if err != nil {
			return nil, err
		}
		certs = append(certs, found...)
	}
	return certs, nil
}

// sameBytes compares size bytes at the start of both readers and names the first that differs.
func sameBytes(ctx context.Context, a, b io.ReaderAt, size int64) error {
	const chunk = 1 << 20
	x, y := make([]byte, chunk), make([]byte, chunk)
	for off := int64(0); off < size; off += chunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(chunk, size-off)
		for _, side := range []struct {
			r io.ReaderAt
			b []byte
		}{{a, x[:n]}, {b, y[:n]}} {
			if _, err := io.ReadFull(io.NewSectionReader(side.r, off, n), side.b); err != nil {
				return fault.New(fault.IO, "read at byte %d: %w", off, err)
			}
		}
		for k := range n {
			if x[k] != y[k] {
				return fault.New(fault.Verification, "they differ at byte %d", off+k)
			}
		}
	}
	return nil
}

// plural is "1 file" or "3 files".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func sorted[T any](m map[string]T) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
