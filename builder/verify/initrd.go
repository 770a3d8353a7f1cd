package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"io"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"github.com/semper-os/semper/fault"
)

// Limits of an initrd, in bytes and files.
const (
	maxInitrd    = 256 << 20 // unpacked
	maxInitrdLog = 27        // the largest zstd window: 128 MiB
	maxEntries   = 100_000
	maxCertFile  = 64 << 10
)

// initrdFile returns one regular file of an initrd: a cpio archive of the "newc" format, plain or packed by zstd.
func initrdFile(initrd []byte, name string) ([]byte, error) {
	var r io.Reader = bytes.NewReader(initrd)
	if bytes.HasPrefix(initrd, []byte{0x28, 0xb5, 0x2f, 0xfd}) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(1<<maxInitrdLog))
		if err != nil {
			return nil, fault.New(fault.Input, "initrd: %w", err)
		}
		defer d.Close()
		r = d
	}
	a := archive{r: io.LimitReader(r, maxInitrd)}
	for range maxEntries {
		entry, err := a.next()
		if err != nil {
			return nil, fault.New(fault.Input, "initrd: entry %d: %w", a.entries, err)
		}
		if entry.name == "TRAILER!!!" {
			return nil, fault.New(fault.Verification, "initrd: it has no file /%s", name)
		}
		if entry.name != name && entry.name != "/"+name && entry.name != "./"+name {
			if err := a.skip(entry.size); err != nil {
				return nil, fault.New(fault.Input, "initrd: %s: %w", entry.name, err)
			}
			continue
		}
		if entry.mode&0o170000 != 0o100000 || entry.size > maxCertFile {
			return nil, fault.New(fault.Input, "initrd: /%s is not a regular file of at most %d bytes", name, maxCertFile)
		}
		b := make([]byte, entry.size)
		if _, err := io.ReadFull(a.r, b); err != nil {
			return nil, fault.New(fault.Input, "initrd: /%s: %w", name, err)
		}
		return b, nil
	}
	return nil, fault.New(fault.Input, "initrd: more than %d entries", maxEntries)
}

// archive reads entries of cpio "newc": a header of "070701" and 13 numbers of 8 hexadecimal digits, the name with a NUL, padding to 4, the bytes, padding to 4.
type archive struct {
	r       io.Reader
	entries int
}

type cpioEntry struct {
	name       string
	mode, size int64
}

func (a *archive) next() (cpioEntry, error) {
	a.entries++
	var h [110]byte
	if _, err := io.ReadFull(a.r, h[:]); err != nil {
		return cpioEntry{}, err
	}
	if string(h[:6]) != "070701" {
		return cpioEntry{}, fault.New(fault.Input, "no cpio header but %q", h[:6])
	}
	field := func(i int) (int64, error) {
		n, err := strconv.ParseUint(string(h[6+8*i:14+8*i]), 16, 32)
		return int64(n), err
	}
	mode, err := field(1)
	if err != nil {
		return cpioEntry{}, err
	}
	size, err := field(6)
	if err != nil {
		return cpioEntry{}, err
	}
	length, err := field(11)
	if err != nil {
		return cpioEntry{}, err
	}
	if length < 2 || length > 4096 {
		return cpioEntry{}, fault.New(fault.Input, "a name of %d bytes", length)
	}
	name := make([]byte, pad4(int64(len(h))+length)-int64(len(h)))
	if _, err := io.ReadFull(a.r, name); err != nil {
		return cpioEntry{}, err
	}
	return cpioEntry{name: string(name[:length-1]), mode: mode, size: size}, nil
}

func (a *archive) skip(n int64) error {
	_, err := io.CopyN(io.Discard, a.r, pad4(n))
	return err
}

func pad4(n int64) int64 { return (n + 3) &^ 3 }

// certificates reads a PEM file that holds certificates and nothing else.
func certificates(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type != "CERTIFICATE" {
			return nil, fault.New(fault.Input, "a PEM block is %.40q, not a CERTIFICATE", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Input, "certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fault.New(fault.Input, "no PEM block of the type CERTIFICATE")
	}
	return certs, nil
}
