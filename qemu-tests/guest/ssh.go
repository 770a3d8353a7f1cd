package guest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	sshPort = 22

	// A handshake takes seconds in a machine without KVM whose host is busy.
	handshakeTime = 40 * time.Second
	dialTime      = 5 * time.Second
	retryEvery    = 500 * time.Millisecond

	maxOutput = 4 << 20
)

// Key is a key pair that may log in as root.
type Key struct {
	signer     ssh.Signer
	authorized []byte // a line of authorized_keys
}

// NewKey makes one.
func NewKey() (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	return &Key{signer: signer, authorized: ssh.MarshalAuthorizedKey(signer.PublicKey())}, nil
}

// ExitError is a command that ran and failed.
type ExitError struct {
	Command string
	Status  int
	Output  string // standard output and error
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit status %d: %s", e.Command, e.Status, strings.TrimSpace(e.Output))
}

// shell keeps one connection to a guest's sshd and makes a new one when it is gone.
type shell struct {
	addr string
	key  *Key

	mu     sync.Mutex
	client *ssh.Client
}

// Run runs a command line as root and returns its output, standard error included. It waits for the machine to answer until ctx ends. A command
// that was started is not repeated: when the machine goes down meanwhile, that is an error. An exit status other than 0 is an *ExitError.
func (g *Guest) Run(ctx context.Context, command string) (string, error) {
	return g.RunInput(ctx, command, nil)
}

// RunInput is Run with something on the command's standard input.
func (g *Guest) RunInput(ctx context.Context, command string, stdin io.Reader) (string, error) {
	out, err := g.ssh.run(ctx, g.vm.Done(), command, stdin)
	if err != nil {
		var exit *ExitError
		if errors.As(err, &exit) {
			return out, fmt.Errorf("machine %s: %w", g.Config.Name, err)
		}
		return out, fmt.Errorf("machine %s: %s: %w; its console's last lines:\n%s", g.Config.Name, command, err, g.Console.Tail())
	}
	return out, nil
}

// Put writes a file, and the folders that it needs.
func (g *Guest) Put(ctx context.Context, path string, content []byte, mode uint32) error {
	command := fmt.Sprintf("mkdir -p \"$(dirname '%[1]s')\" && cat > '%[1]s' && chmod %[2]o '%[1]s'", path, mode)
	_, err := g.RunInput(ctx, command, bytes.NewReader(content))
	return err
}

// Version asks the running system for its version.
func (g *Guest) Version(ctx context.Context) (string, error) {
	out, err := g.Run(ctx, `. /usr/lib/os-release && echo "$IMAGE_VERSION"`)
	return strings.TrimSpace(out), err
}

// WaitVersion waits until the system answers with that version and has reached boot-complete.target, which for a new version means that its health
// checks passed. Reboots meanwhile are expected.
func (g *Guest) WaitVersion(ctx context.Context, version string) error {
	var last string
	for {
		out, err := g.Run(ctx, `. /usr/lib/os-release && echo "$IMAGE_VERSION $(systemctl is-active boot-complete.target)"`)
		if err == nil {
			last = strings.TrimSpace(out)
			if last == version+" active" {
				return nil
			}
		}
		if err := g.pause(ctx); err != nil {
			return fmt.Errorf("machine %s does not come up with version %s (last seen: %q): %w; its console's last lines:\n%s",
				g.Config.Name, version, last, err, g.Console.Tail())
		}
	}
}

// WaitFor runs a command until its output satisfies ok; a failing command counts as no.
func (g *Guest) WaitFor(ctx context.Context, command string, ok func(output string) bool) (string, error) {
	var last string
	for {
		out, err := g.Run(ctx, command)
		if err == nil && ok(out) {
			return out, nil
		}
		if ctx.Err() == nil { // else nothing was printed, for lack of time
			if last = out; err != nil {
				last += "\n" + err.Error()
			}
		}
		if err := g.pause(ctx); err != nil {
			return last, fmt.Errorf("machine %s: %s did not show what was waited for: %w; it last printed:\n%s\nthe console's last lines:\n%s",
				g.Config.Name, command, err, last, g.Console.Tail())
		}
	}
}

var errGone = errors.New("QEMU has ended")

func (g *Guest) pause(ctx context.Context) error { return pause(ctx, g.vm.Done()) }

func pause(ctx context.Context, gone <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-gone:
		return errGone
	case <-time.After(retryEvery):
		return nil
	}
}

func (s *shell) run(ctx context.Context, gone <-chan struct{}, command string, stdin io.Reader) (string, error) {
	session, err := s.session(ctx, gone)
	if err != nil {
		return "", err
	}
	defer func() { _ = session.Close() }() // it says EOF when the command has ended
	out := &limited{max: maxOutput}
	session.Stdout, session.Stderr, session.Stdin = out, out, stdin
	result := make(chan error, 1)
	go func() { result <- session.Run(command) }()
	select {
	case err = <-result:
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-gone:
		err = errGone
	}
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		return out.String(), &ExitError{Command: command, Status: exit.ExitStatus(), Output: out.String()}
	}
	if err != nil {
		s.drop()
	}
	return out.String(), err
}

// session opens one, connecting first where that is needed. It tries until ctx ends.
func (s *shell) session(ctx context.Context, gone <-chan struct{}) (*ssh.Session, error) {
	for {
		s.mu.Lock()
		client := s.client
		s.mu.Unlock()
		var err error
		if client == nil {
			client, err = s.connect(ctx)
		}
		if err == nil {
			var session *ssh.Session
			if session, err = newSession(ctx, client); err == nil {
				return session, nil
			}
			s.drop()
		}
		if stop := pause(ctx, gone); stop != nil {
			return nil, fmt.Errorf("no SSH session: %w (last: %w)", stop, err)
		}
	}
}

// newSession gives up on a connection that does not answer: after a reset the guest knows nothing of it, and says nothing.
func newSession(ctx context.Context, client *ssh.Client) (*ssh.Session, error) {
	type result struct {
		session *ssh.Session
		err     error
	}
	opened := make(chan result, 1)
	go func() {
		session, err := client.NewSession()
		opened <- result{session, err}
	}()
	select {
	case r := <-opened:
		return r.session, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(handshakeTime):
		return nil, errors.New("the connection does not answer")
	}
}

func (s *shell) connect(ctx context.Context) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	// The context closes the connection of a handshake that hangs: QEMU accepts before the guest does.
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	defer unhook()
	c, channels, requests, err := ssh.NewClientConn(conn, s.addr, &ssh.ClientConfig{
		User: "root",
		Auth: []ssh.AuthMethod{ssh.PublicKeys(s.key.signer)},
		// The host key is made at first boot, and the connection never leaves this machine.
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // see above
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	client := ssh.NewClient(c, channels, requests)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = client
	return client, nil
}

// drop forgets the connection.
func (s *shell) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		_ = s.client.Close() // of a connection that is given up
		s.client = nil
	}
}

// limited keeps the first max bytes.
type limited struct {
	mu  sync.Mutex
	buf bytes.Buffer
	max int
}

func (l *limited) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p[:min(len(p), l.max-l.buf.Len())])
	return len(p), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
