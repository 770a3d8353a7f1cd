package tree

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

const paxXattr = "SCHILY.xattr."

// ReadTar reads the tar file of the given size in r into a new tree. File contents stay in r, which must stay open
// for as long as the tree is used.
func ReadTar(r io.ReaderAt, size int64) (*Tree, error) {
	t := New()
	if err := t.MergeTar(r, size); err != nil {
		return nil, err
	}
	return t, nil
}

// MergeTar lays the tar file in r over the tree: what it names is replaced, the rest stays.
func (t *Tree) MergeTar(r io.ReaderAt, size int64) error {
	at := &positioned{r: r, size: size}
	tr := tar.NewReader(at)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fault.New(fault.Input, "tar at offset %d: %w", at.off, err)
		}
		p := path.Clean(strings.TrimLeft(h.Name, "/"))
		if p == "." {
			t.nodes["."] = &Inode{Type: Directory, Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid}
			continue
		}
		if h.Typeflag == tar.TypeLink {
			target := path.Clean(strings.TrimLeft(h.Linkname, "/"))
			n := t.nodes[target]
			if n == nil || n.Type == Directory {
				return fault.New(fault.Input, "tar: /%s is a hard link to /%s, which came before as no file", p, target)
			}
			if err := t.Put(p, n); err != nil {
				return fmt.Errorf("tar: %w", err)
			}
			continue
		}
		n, err := inodeOf(h)
		if err != nil {
			return fmt.Errorf("tar: /%s: %w", p, err)
		}
		if n.Type == File {
			start := at.off
			n.content = content{size: h.Size, open: func() (io.ReadCloser, error) {
				return io.NopCloser(io.NewSectionReader(r, start, h.Size)), nil
			}}
		}
		if err := t.Put(p, n); err != nil {
			return fmt.Errorf("tar: %w", err)
		}
	}
}

func inodeOf(h *tar.Header) (*Inode, error) {
	n := &Inode{Mode: uint32(h.Mode) & 0o7777, UID: h.Uid, GID: h.Gid}
	switch h.Typeflag {
	case tar.TypeReg:
		n.Type = File
	case tar.TypeDir:
		n.Type = Directory
	case tar.TypeSymlink:
		n.Type, n.Target = Symlink, h.Linkname
	case tar.TypeChar:
		n.Type, n.Major, n.Minor = CharDevice, h.Devmajor, h.Devminor
	case tar.TypeBlock:
		n.Type, n.Major, n.Minor = BlockDevice, h.Devmajor, h.Devminor
	case tar.TypeFifo:
		n.Type = Fifo
	default:
		return nil, fault.New(fault.Input, "tar type %q is not supported", h.Typeflag)
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, paxXattr); ok {
			if n.Xattrs == nil {
				n.Xattrs = map[string]string{}
			}
			n.Xattrs[name] = v
		}
	}
	return n, nil
}

// WriteTar writes the tree as a pax tar stream: sorted by path, numeric owners only, every time stamp equal to mtime.
// The same tree and mtime give the same bytes.
func (t *Tree) WriteTar(w io.Writer, mtime time.Time) error {
	buf := bufio.NewWriterSize(w, 1<<20)
	tw := tar.NewWriter(buf)
	first := map[*Inode]string{}
	for _, p := range t.Paths() {
		n := t.nodes[p]
		h := &tar.Header{Name: p, Mode: int64(n.Mode), Uid: n.UID, Gid: n.GID, ModTime: mtime, Format: tar.FormatPAX}
		for k, v := range n.Xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[paxXattr+k] = v
		}
		switch n.Type {
		case File:
			if linked, ok := first[n]; ok {
				h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, linked, nil
				break
			}
			first[n] = p
			h.Typeflag, h.Size = tar.TypeReg, n.Size()
		case Directory:
			h.Typeflag, h.Name = tar.TypeDir, p+"/"
		case Symlink:
			h.Typeflag, h.Linkname = tar.TypeSymlink, n.Target
		case CharDevice:
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, n.Major, n.Minor
		case BlockDevice:
			h.Typeflag, h.Devmajor, h.Devminor = tar.TypeBlock, n.Major, n.Minor
		case Fifo:
			h.Typeflag = tar.TypeFifo
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("tar: /%s: %w", p, err)
		}
		if h.Typeflag == tar.TypeReg {
			if err := copyContent(tw, n); err != nil {
				return fmt.Errorf("tar: /%s: %w", p, err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("tar: %w", err)
	}
	return buf.Flush()
}

func copyContent(w io.Writer, n *Inode) error {
	r, err := n.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.CopyN(w, r, n.Size()); err != nil {
		return fmt.Errorf("content ended early: %w", err)
	}
	return nil
}

// positioned is a reader over an io.ReaderAt that knows where it is and can skip without reading.
type positioned struct {
	r         io.ReaderAt
	off, size int64
}

func (p *positioned) Read(b []byte) (int, error) {
	if p.off >= p.size {
		return 0, io.EOF
	}
	if rest := p.size - p.off; int64(len(b)) > rest {
		b = b[:rest]
	}
	n, err := p.r.ReadAt(b, p.off)
	p.off += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (p *positioned) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		offset += p.off
	case io.SeekEnd:
		offset += p.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	p.off = offset
	return offset, nil
}
