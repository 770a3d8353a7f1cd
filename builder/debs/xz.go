package debs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// newXZReader unpacks the first block of an xz file (tukaani.org's "The .xz File Format" 1.2.1, sections 2.1.1 and 3.1), up to maxUnpacked bytes of it.
//
// The library's own reader takes as much memory as the file's header asks for, up to 4 GiB, and so does not fit bytes that are foreign; the memory here follows
// from what is read at most. The file's checksums are not looked at: the SHA-256 of the whole package has been.
func newXZReader(r io.Reader) (io.Reader, error) {
	b := bufio.NewReader(r)
	stream := make([]byte, 12)
	if _, err := io.ReadFull(b, stream); err != nil || !bytes.HasPrefix(stream, []byte("\xfd7zXZ\x00")) {
		return nil, errors.New("xz: no stream header")
	}
	size, err := b.Peek(1)
	if err != nil || size[0] == 0 { // 0 begins the index of a file without blocks
		return nil, errors.New("xz: no block")
	}
	block := make([]byte, (int(size[0])+1)*4)
	if _, err := io.ReadFull(b, block); err != nil {
		return nil, errors.New("xz: the block header is cut off")
	}
	flags, fields := block[1], block[2:]
	if flags&0x3f != 0 { // bits 0 and 1 count further filters, the next four are reserved
		return nil, errors.New("xz: a filter that is not known")
	}
	for _, present := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&present != 0 {
			for len(fields) > 0 && fields[0]&0x80 != 0 {
				fields = fields[1:]
			}
			fields = fields[min(1, len(fields)):]
		}
	}
	if len(fields) < 3 || fields[0] != 0x21 || fields[1] != 1 {
		return nil, errors.New("xz: the filter is not LZMA2")
	}
	dictionary, err := lzma.DecodeDictCap(fields[2])
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	z, err := lzma.Reader2Config{DictCap: int(min(dictionary, maxUnpacked))}.NewReader2(b)
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	return io.LimitReader(z, maxUnpacked), nil
}
