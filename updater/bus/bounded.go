package bus

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// maxMessage is the longest message that is read; the longest one that anybody has a reason to send us is a few hundred bytes. The bus lets every user
// send 32 MiB.
const maxMessage = 64 << 10

// bounded is a connection whose reader passes over messages that are longer than maxMessage. Whoever sent one waits for an answer in vain; ending the
// connection instead would let everybody take the service off the bus.
type bounded struct {
	net.Conn
	in     *bufio.Reader
	framed bool         // the peers have left the line protocol of authentication
	head   bytes.Reader // the fixed header, looked at already
	left   int64        // bytes of the message behind it
}

func newBounded(c net.Conn) *bounded { return &bounded{Conn: c, in: bufio.NewReader(c)} }

// Write sees the line that ends authentication. What reads messages is started after it has been written, by the same goroutine.
func (b *bounded) Write(p []byte) (int, error) {
	n, err := b.Conn.Write(p)
	if err == nil && !b.framed && bytes.Equal(p, []byte("BEGIN\r\n")) {
		b.framed = true
	}
	return n, err
}

func (b *bounded) Read(p []byte) (int, error) {
	if !b.framed {
		return b.in.Read(p)
	}
	if len(p) == 0 {
		return 0, nil
	}
	for b.head.Len() == 0 && b.left == 0 {
		if err := b.next(); err != nil {
			return 0, err
		}
	}
	if b.head.Len() > 0 {
		return b.head.Read(p)
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// next reads a message's fixed header, and the whole message if it is too long.
func (b *bounded) next() error {
	const fixed = 16
	head := make([]byte, fixed)
	if _, err := io.ReadFull(b.in, head); err != nil {
		return err
	}
	var order binary.ByteOrder
	switch head[0] {
	case 'l':
		order = binary.LittleEndian
	case 'B':
		order = binary.BigEndian
	default:
		return errors.New("the bus sent something that is not a message")
	}
	fields := (int64(order.Uint32(head[12:])) + 7) &^ 7 // padded to 8
	rest := fields + int64(order.Uint32(head[4:]))
	if fixed+rest > maxMessage {
		_, err := io.CopyN(io.Discard, b.in, rest)
		return err
	}
	b.head.Reset(head)
	b.left = rest
	return nil
}
