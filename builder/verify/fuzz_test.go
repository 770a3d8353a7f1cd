package verify

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func FuzzInitrdFile(f *testing.F) {
	var b bytes.Buffer
	header := "0000000100000000" // mode and the rest are for the fuzzer to find
	for _, name := range []string{"verity.crt\x00\x00", "TRAILER!!!\x00\x00"} {
		b.WriteString("070701" + header[:8] + "000081a4" + "000000000000000000000001000000000000000400000000000000000000000000000000" + "0000000b" + "00000000" + name + "abcd")
	}
	f.Add(b.Bytes())
	e, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(e.EncodeAll(b.Bytes(), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := initrdFile(b, "verity.crt"); err == nil {
			if len(got) > maxCertFile {
				t.Fatalf("%d bytes", len(got))
			}
			_, _ = certificates(got)
		}
	})
}

// partial is a large partition of which only the beginning is not zero.
type partial []byte

func (p partial) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(p)) {
		copy(b, p[off:])
	}
	return len(b), nil
}

func FuzzCheckFAT(f *testing.F) {
	const size = 40 << 20
	good := make([]byte, 4096)
	le := binary.LittleEndian
	le.PutUint16(good[510:], 0xaa55)
	le.PutUint16(good[bpbSectorSize:], 512)
	good[bpbPerCluster], good[bpbTables] = 1, 2
	le.PutUint16(good[bpbReserved:], 2)
	le.PutUint32(good[bpbSectors:], size/512)
	le.PutUint32(good[bpbTable:], 640)
	le.PutUint32(good[bpbRoot:], 2)
	le.PutUint16(good[bpbInfo:], 1)
	r := func(b []byte) *io.SectionReader { return io.NewSectionReader(partial(b), 0, size) }
	if err := checkFAT(r(good)); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) { _ = checkFAT(r(b)) })
}

func FuzzLoaderConf(f *testing.F) {
	f.Add([]byte("timeout 0\neditor no\n"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = loaderConf(b) })
}
