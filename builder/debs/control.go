package debs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/semper-os/semper/fault"
)

// A .deb is an ar archive (deb(5)) with the members debian-binary, control.tar.* and data.tar.*, in this order.
const (
	arMagic     = "!<arch>\n"
	arHeader    = 60       // name 16, date 12, uid 6, gid 6, mode 8, size 10, and "`\n"
	maxControl  = 16 << 20 // of control.tar.*, compressed
	maxUnpacked = 4 << 20  // of control.tar, up to the control file; it comes before all that is long
	maxStanza   = 1 << 20
)

// Control returns the control file of a .deb: one stanza that ends with a newline. Errors are of kind Input.
func Control(deb io.ReaderAt, size int64) (string, error) {
	stanza, err := control(deb, size)
	if err != nil {
		return "", fault.New(fault.Input, "not a Debian package: %w", err)
	}
	return stanza, nil
}

func control(deb io.ReaderAt, size int64) (string, error) {
	magic := make([]byte, len(arMagic))
	if _, err := deb.ReadAt(magic, 0); err != nil || string(magic) != arMagic {
		return "", errors.New("no ar archive")
	}
	offset := int64(len(arMagic))
	for range 8 { // some packages carry signatures before control.tar
		name, length, err := member(deb, offset)
		if err != nil {
			return "", err
		}
		offset += arHeader
		if length > size-offset {
			return "", fmt.Errorf("the member %q is cut off", name)
		}
		if suffix, ok := strings.CutPrefix(name, "control.tar"); ok {
			if length > maxControl {
				return "", fmt.Errorf("%s has %d bytes, more than %d", name, length, maxControl)
			}
			return stanza(io.NewSectionReader(deb, offset, length), suffix)
		}
		offset += length + length&1
	}
	return "", errors.New("there is no control.tar")
}

func member(deb io.ReaderAt, offset int64) (name string, length int64, err error) {
	h := make([]byte, arHeader)
	if _, err := deb.ReadAt(h, offset); err != nil {
		return "", 0, errors.New("the archive is cut off before control.tar")
	}
	name = strings.TrimRight(strings.TrimRight(string(h[:16]), " "), "/")
	length, err = strconv.ParseInt(strings.TrimRight(string(h[48:58]), " "), 10, 64)
	if err != nil || length < 0 || string(h[58:]) != "`\n" {
		return "", 0, fmt.Errorf("bad ar header at byte %d", offset)
	}
	return name, length, nil
}

// stanza reads ./control out of a control.tar.
func stanza(r io.Reader, suffix string) (string, error) {
	switch suffix {
	case "":
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return "", err
		}
		r = z
	case ".xz":
		z, err := newXZReader(r)
		if err != nil {
			return "", err
		}
		r = z
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderMaxWindow(64<<20))
		if err != nil {
			return "", err
		}
		defer z.Close()
		r = z
	default:
		return "", fmt.Errorf("control.tar%s is compressed in an unknown way", suffix)
	}
	archive := tar.NewReader(io.LimitReader(r, maxUnpacked))
	for {
		h, err := archive.Next()
		if err != nil {
			return "", fmt.Errorf("control.tar%s: no control file: %w", suffix, err)
		}
		if path.Clean(h.Name) != "control" || h.Typeflag != tar.TypeReg {
			continue
		}
		if h.Size > maxStanza {
			return "", fmt.Errorf("the control file has %d bytes, more than %d", h.Size, maxStanza)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			return "", fmt.Errorf("the control file: %w", err)
		}
		return checkStanza(text)
	}
}

// checkStanza makes sure that the text is one stanza, so that it cannot smuggle another package into a Packages file.
func checkStanza(text []byte) (string, error) {
	text = bytes.TrimSpace(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
	if len(text) == 0 {
		return "", errors.New("the control file is empty")
	}
	for l := range bytes.SplitSeq(text, []byte("\n")) {
		if len(bytes.TrimSpace(l)) == 0 {
			return "", errors.New("the control file has more than one stanza")
		}
		if field, _, ok := bytes.Cut(l, []byte(":")); l[0] != ' ' && l[0] != '\t' && (!ok || bytes.ContainsAny(field, " \t")) {
			return "", fmt.Errorf("the control file has the line %.60q, which is no field", l)
		}
	}
	return string(text) + "\n", nil
}

// Field returns a field of a stanza, without continuation lines; empty where it is missing.
func Field(stanza, name string) string {
	for l := range strings.Lines(stanza) {
		if field, value, ok := strings.Cut(l, ":"); ok && strings.EqualFold(field, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func controlOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.New(fault.IO, "read package: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fault.New(fault.IO, "read package: %w", err)
	}
	return Control(f, info.Size())
}
