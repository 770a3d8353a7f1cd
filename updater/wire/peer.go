package wire

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// Peer returns the user id of the process that connected, as the kernel recorded it when it did (SO_PEERCRED).
func Peer(conn *net.UnixConn) (uid uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fault.New(fault.IO, "peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, sockErr); err != nil {
		return 0, fault.New(fault.IO, "peer credentials: %w", err)
	}
	return cred.Uid, nil
}
