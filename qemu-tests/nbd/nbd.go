// Package nbd is a disk for a virtual machine whose power can fail at an exact moment, served over the network block device protocol.
//
//	guest ─virtio─ QEMU ─NBD on a Unix socket─ Disk ─┬─ cache: written, not yet flushed ─ lost when the power fails
//	                                                 └─ file: flushed, survives
//
// A real disk keeps what it was given in its own memory until it is told to flush. Killing QEMU alone does not show a missing flush, since the
// host's page cache keeps everything; here what was not flushed is gone. Hooks see each write and flush, and can cut the power right there.
// From then on no request is answered any more, and the disk's owner kills the machine.
//
// The protocol is the fixed newstyle handshake with NBD_OPT_GO and simple replies, after the specification "proto.md" of the NBD project.
// Limits: one client at a time, one export called "disk", requests of up to 32 MiB.
package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
)

const pageSize = 4096

// A disk writes back by itself when its memory is full.
const maxCachedPages = 64 << 20 / pageSize

// Disk serves a raw file. Its methods may be called from several goroutines.
type Disk struct {
	// BeforeWrite is called for each write before it has any effect, AfterFlush after everything written so far is in the file.
	// Either cuts the power by returning true. They are set before Serve and called one at a time; they may read with ReadFlushed.
	BeforeWrite func(offset int64, data []byte) (cut bool)
	AfterFlush  func() (cut bool)

	file     *os.File
	size     int64
	listener net.Listener
	served   sync.WaitGroup

	mu    sync.Mutex
	conn  net.Conn
	cache map[int64]*[pageSize]byte
	off   chan struct{} // closed when the power is cut
	isOff bool
	err   error
}

// Open takes the raw file at path as the disk's content, and listens on a Unix socket.
func Open(path, socket string) (*Disk, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err == nil && (st.Size() == 0 || st.Size()%pageSize != 0) {
		err = fmt.Errorf("%s has %d bytes, not a multiple of %d", path, st.Size(), pageSize)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		file.Close()
		return nil, err
	}
	return &Disk{file: file, size: st.Size(), listener: listener, cache: map[int64]*[pageSize]byte{}, off: make(chan struct{})}, nil
}

// Serve starts to answer clients, in the background, one after the other.
func (d *Disk) Serve() {
	d.served.Go(func() {
		for {
			conn, err := d.listener.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.conn = conn
			d.mu.Unlock()
			err = d.client(conn)
			conn.Close()
			if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				d.mu.Lock()
				d.err = errors.Join(d.err, err)
				d.mu.Unlock()
			}
		}
	})
}

// Size returns the disk's size in bytes.
func (d *Disk) Size() int64 { return d.size }

// Off is closed when the power was cut.
func (d *Disk) Off() <-chan struct{} { return d.off }

// Cut cuts the power now: what was not flushed is lost.
func (d *Disk) Cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut()
}

func (d *Disk) cut() {
	if !d.isOff {
		d.isOff = true
		clear(d.cache)
		close(d.off)
	}
}

// ReadFlushed reads what a machine would find after a power cut now.
func (d *Disk) ReadFlushed(p []byte, offset int64) (int, error) { return d.file.ReadAt(p, offset) }

// Close ends the serving. Without a cut before, everything written reaches the file, as when a machine was shut down.
// It returns the errors of clients, too.
func (d *Disk) Close() error {
	err := d.listener.Close()
	d.mu.Lock()
	if d.conn != nil {
		d.conn.Close()
	}
	d.mu.Unlock()
	d.served.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.err, err, d.writeBack(), d.file.Close())
}

func (d *Disk) writeBack() error {
	pages := make([]int64, 0, len(d.cache))
	for n := range d.cache {
		pages = append(pages, n)
	}
	slices.Sort(pages)
	for _, n := range pages {
		if _, err := d.file.WriteAt(d.cache[n][:], n*pageSize); err != nil {
			return err
		}
		delete(d.cache, n)
	}
	return nil
}

func (d *Disk) read(p []byte, offset int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.file.ReadAt(p, offset); err != nil {
		return err
	}
	for n := offset / pageSize; n*pageSize < offset+int64(len(p)); n++ {
		if page := d.cache[n]; page != nil {
			start := n*pageSize - offset // of the page in p, may be negative
			copy(p[max(0, start):], page[max(0, -start):])
		}
	}
	return nil
}

var errOff = errors.New("the power is off")

// write puts p into the cache, and into the file at once when through is set.
func (d *Disk) write(p []byte, offset int64, through bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isOff {
		return errOff
	}
	if d.BeforeWrite != nil && d.BeforeWrite(offset, p) {
		d.cut()
		return errOff
	}
	for at := int64(0); at < int64(len(p)); {
		n, in := (offset+at)/pageSize, (offset+at)%pageSize
		page := d.cache[n]
		if page == nil {
			page = new([pageSize]byte)
			if _, err := d.file.ReadAt(page[:], n*pageSize); err != nil {
				return err
			}
			d.cache[n] = page
		}
		copied := int64(copy(page[in:], p[at:]))
		if through {
			if _, err := d.file.WriteAt(p[at:at+copied], offset+at); err != nil {
				return err
			}
		}
		at += copied
	}
	if len(d.cache) > maxCachedPages {
		return d.writeBack()
	}
	return nil
}

func (d *Disk) flush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.isOff {
		return errOff
	}
	if err := d.writeBack(); err != nil {
		return err
	}
	if d.AfterFlush != nil && d.AfterFlush() {
		d.cut()
		return errOff
	}
	return nil
}

// The protocol's numbers.
const (
	magicServer  = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454f5054 // "IHAVEOPT"
	magicReply   = 0x0003e889045565a9
	magicRequest = 0x25609513
	magicAnswer  = 0x67446698

	flagsHandshake = 1 | 2                   // fixed newstyle, no zeroes
	flagsExport    = 1 | 4 | 8 | 0x20 | 0x40 // has flags, flush, FUA, trim, write zeroes

	optAbort, optGo             = 2, 7
	repAck, repInfo, repUnknown = 1, 3, 1<<31 | 1
	infoExport, infoBlockSize   = 0, 3

	cmdRead, cmdWrite, cmdDisconnect, cmdFlush, cmdTrim, cmdZeroes = 0, 1, 2, 3, 4, 6
	cmdFUA                                                         = 1

	errnoIO, errnoInvalid = 5, 22

	maxRequest = 32 << 20
	maxOption  = 64 << 10
)

func (d *Disk) client(conn net.Conn) error {
	r, w := bufio.NewReaderSize(conn, 1<<20), bufio.NewWriterSize(conn, 1<<20)
	ready, err := d.handshake(r, w)
	if err != nil || !ready {
		return err
	}
	for {
		if err := d.request(r, w); err != nil {
			if errors.Is(err, errDisconnect) {
				return nil
			}
			if errors.Is(err, errOff) { // silence, until the machine is killed
				_, err = io.Copy(io.Discard, r)
			}
			return err
		}
	}
}

func (d *Disk) handshake(r io.Reader, w *bufio.Writer) (ready bool, err error) {
	hello := binary.BigEndian.AppendUint64(nil, magicServer)
	hello = binary.BigEndian.AppendUint64(hello, magicOption)
	hello = binary.BigEndian.AppendUint16(hello, flagsHandshake)
	if err := send(w, hello); err != nil {
		return false, err
	}
	var clientFlags [4]byte
	if _, err := io.ReadFull(r, clientFlags[:]); err != nil {
		return false, err
	}
	for {
		var head [16]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return false, err
		}
		option, length := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
		if binary.BigEndian.Uint64(head[:]) != magicOption || length > maxOption {
			return false, errors.New("NBD: not an option of the handshake")
		}
		if _, err := io.CopyN(io.Discard, r, int64(length)); err != nil {
			return false, err
		}
		switch option {
		case optGo:
			export := binary.BigEndian.AppendUint16(nil, infoExport)
			export = binary.BigEndian.AppendUint64(export, uint64(d.size))
			export = binary.BigEndian.AppendUint16(export, flagsExport)
			sizes := binary.BigEndian.AppendUint16(nil, infoBlockSize)
			for _, n := range []uint32{1, pageSize, maxRequest} {
				sizes = binary.BigEndian.AppendUint32(sizes, n)
			}
			return true, send(w, optionReply(option, repInfo, export), optionReply(option, repInfo, sizes), optionReply(option, repAck, nil))
		case optAbort:
			return false, send(w, optionReply(option, repAck, nil))
		default:
			if err := send(w, optionReply(option, repUnknown, nil)); err != nil {
				return false, err
			}
		}
	}
}

func optionReply(option, kind uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicReply)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

var errDisconnect = errors.New("NBD: the client said goodbye")

// request answers one request of the transmission phase.
func (d *Disk) request(r io.Reader, w *bufio.Writer) error {
	var head [28]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint32(head[:]) != magicRequest {
		return errors.New("NBD: a request does not begin with its magic number")
	}
	flags, command := binary.BigEndian.Uint16(head[4:]), binary.BigEndian.Uint16(head[6:])
	cookie := head[8:16]
	offset, length := binary.BigEndian.Uint64(head[16:]), binary.BigEndian.Uint32(head[24:])
	var data []byte
	if command == cmdWrite {
		if length > maxRequest {
			return fmt.Errorf("NBD: a write of %d bytes", length)
		}
		data = make([]byte, length)
		if _, err := io.ReadFull(r, data); err != nil {
			return err
		}
	}
	inside := offset <= uint64(d.size) && uint64(length) <= uint64(d.size)-offset
	errno := uint32(0)
	var err error
	switch command {
	case cmdDisconnect:
		return errDisconnect
	case cmdFlush:
		err = d.flush()
	case cmdRead:
		if !inside || length > maxRequest {
			errno = errnoInvalid
			break
		}
		data = make([]byte, length)
		err = d.read(data, int64(offset))
	case cmdWrite:
		if !inside {
			errno = errnoInvalid
			break
		}
		err = d.write(data, int64(offset), flags&cmdFUA != 0)
		data = nil
	case cmdTrim:
		if !inside {
			errno = errnoInvalid
		} // what was trimmed may read as anything: leave it
	case cmdZeroes:
		if !inside {
			errno = errnoInvalid
			break
		}
		err = d.zero(int64(offset), int64(length), flags&cmdFUA != 0)
	default:
		errno = errnoInvalid
	}
	if errors.Is(err, errOff) {
		return err
	}
	if err != nil {
		errno, data = errnoIO, nil
		d.mu.Lock()
		d.err = errors.Join(d.err, err)
		d.mu.Unlock()
	}
	reply := binary.BigEndian.AppendUint32(nil, magicAnswer)
	reply = binary.BigEndian.AppendUint32(reply, errno)
	reply = append(reply, cookie...)
	if errno != 0 || command != cmdRead {
		data = nil
	}
	return send(w, reply, data)
}

func (d *Disk) zero(offset, length int64, through bool) error {
	blank := make([]byte, min(length, 1<<20))
	for length > 0 {
		n := min(length, int64(len(blank)))
		if err := d.write(blank[:n], offset, through); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}

func send(w *bufio.Writer, parts ...[]byte) error {
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return w.Flush()
}
