// Package wire is the protocol between semperd, which has the network, and semper-installd, which has the disk.
//
// It runs over a Unix stream socket, /run/semper/install.sock. Either side sends frames:
//
//	0      4        5
//	| size | kind   | size bytes                  size: big-endian, of the bytes after the kind, at most 256 KiB
//
//	kind 'C'   a control message, JSON: Request from the client, Reply from the server
//	kind 'D'   raw payload bytes, only from the client, only between begin and finish
//
// Every frame of the client is answered by exactly one Reply, so that both sides always know whose turn it is and a slow disk slows the download down:
//
//	status                                  → Reply.Status
//	begin {sha256, size, version}           → Reply.Offset: the payload's offset from which data must follow (0, or more after an interruption)
//	'D' frame                               → Reply.Offset: where the next one must begin
//	finish                                  → the update is complete and will be tried at the next boot
//	abort                                   → the session is over, what was written stays for a later begin of the same payload
//	discard                                 → the same, and what was written is forgotten
//	reboot {soft}                           → the machine is going down; needs a pending update, and a drain of the last ten minutes where there is
//	                                          something to drain. Reply.Reboot: whether by soft-reboot, where that was wished for
//	drain {reason}                          → the machine's work is moved away; needs a pending update
//	undrain                                 → work may come back
//	warn {text, ttys}                       → the text is on those terminals; needs a pending update
//	allow {version}                         → that older version may be installed once, within an hour; root only
//	rollback {reason}                       → the other slot's version is the pending one; root only
//
// There is one session at a time; a second begin, from whatever connection, waits a few seconds for the first to end, and is refused as busy then.
// A connection that ends aborts its session.
// A failed Reply to data or finish ends the session too. The server trusts nothing but the kernel's word on who the peer is (SO_PEERCRED, see Peer).
//
// Unknown JSON keys are refused: both programs are of the same image, so an unknown key is an intruder or a bug, never a newer peer.
package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/semper-os/semper/fault"
)

// MaxFrame is the largest number of bytes a frame carries after its kind.
const MaxFrame = 256 << 10

const headerSize = 5

// Kind tells a control message from payload bytes.
type Kind byte

// The kinds of frame.
const (
	Control Kind = 'C'
	Data    Kind = 'D'
)

// Conn reads and writes frames on one stream. It is for one goroutine at a time.
type Conn struct {
	rw     io.ReadWriter
	header [headerSize]byte
	in     []byte // reused by Receive
}

// NewConn speaks over rw.
func NewConn(rw io.ReadWriter) *Conn { return &Conn{rw: rw} }

// Receive reads one frame. The bytes are valid until the next Receive. It returns io.EOF where the peer hung up between two frames.
func (c *Conn) Receive() (Kind, []byte, error) { return c.receive(func() error { return nil }) }

// receive calls begun when a frame's first byte is there.
func (c *Conn) receive(begun func() error) (Kind, []byte, error) {
	_, err := io.ReadFull(c.rw, c.header[:1])
	if errors.Is(err, io.EOF) {
		return 0, nil, io.EOF
	}
	if err == nil {
		err = begun()
	}
	if err == nil {
		if _, err = io.ReadFull(c.rw, c.header[1:]); errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil {
		return 0, nil, fault.New(fault.IO, "read frame: %w", err)
	}
	size, kind := binary.BigEndian.Uint32(c.header[:4]), Kind(c.header[4])
	if kind != Control && kind != Data {
		return 0, nil, fault.New(fault.Input, "read frame: unknown kind 0x%02x", byte(kind))
	}
	if size > MaxFrame {
		return 0, nil, fault.New(fault.Input, "read frame: %d bytes, at most %d are allowed", size, MaxFrame)
	}
	if int(size) > cap(c.in) {
		c.in = make([]byte, size)
	}
	c.in = c.in[:size]
	if _, err := io.ReadFull(c.rw, c.in); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, fault.New(fault.IO, "read frame: %w", err)
	}
	return kind, c.in, nil
}

// SendData writes p as one data frame. It must not be longer than MaxFrame.
func (c *Conn) SendData(p []byte) error { return c.send(Data, p) }

// SendControl writes v as one control frame.
func (c *Conn) SendControl(v any) error {
	p, err := json.Marshal(v)
	if err != nil {
		return fault.New(fault.Internal, "encode control message: %w", err)
	}
	return c.send(Control, p)
}

func (c *Conn) send(kind Kind, p []byte) error {
	if len(p) > MaxFrame {
		return fault.New(fault.Internal, "write frame: %d bytes, at most %d are allowed", len(p), MaxFrame)
	}
	// One write for small frames: the peer wakes up once.
	var header [headerSize]byte
	binary.BigEndian.PutUint32(header[:4], uint32(len(p)))
	header[4] = byte(kind)
	if len(p) <= 4096 {
		_, err := c.rw.Write(append(header[:], p...))
		return sendError(err)
	}
	if _, err := c.rw.Write(header[:]); err != nil {
		return sendError(err)
	}
	_, err := c.rw.Write(p)
	return sendError(err)
}

func sendError(err error) error {
	if err == nil {
		return nil
	}
	return fault.New(fault.IO, "write frame: %w", err)
}

// decode reads exactly one JSON object with known keys only.
func decode(p []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(p))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("control message: data after the JSON value")
	}
	return nil
}
