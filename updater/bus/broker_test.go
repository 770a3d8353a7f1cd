package bus

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// patience bounds what a test waits for; it is never waited for in a test that passes.
const patience = 30 * time.Second

const policies = "../../images/semper/tree/usr/share/dbus-1/system.d/"

// users are the numbers that stand for the names in the bus's policy, since the build host knows no user semperd or core. As root each is a user that
// Debian always has; the bus wants to know people's groups. Without root there is only the test's own user, who then is semperd and whoever else the test
// says.
type users struct{ semperd, root, core, other, polkitd int }

func everybody(me string) users {
	if os.Getuid() == 0 {
		return users{semperd: 1, root: 0, core: 2, other: 3, polkitd: 5} // daemon, root, bin, sys, games
	}
	u := users{semperd: os.Getuid(), root: 59001, core: 59002, other: 59003, polkitd: os.Getuid()}
	switch me {
	case "root":
		u.root = os.Getuid()
	case "core":
		u.core = os.Getuid()
	case "other":
		u.other = os.Getuid()
	}
	return u
}

func (u users) of(role string) int {
	return map[string]int{"semperd": u.semperd, "root": u.root, "core": u.core, "other": u.other, "polkitd": u.polkitd}[role]
}

// broker is a private dbus-daemon with Debian's configuration of the system bus and the image's policy files.
type broker struct {
	t      *testing.T
	users  users
	folder string
	cmd    *exec.Cmd
	ended  <-chan error
}

func need(t *testing.T, tool, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		t.Fatalf("%s is missing: install the Debian package %s", tool, pkg)
	}
	return path
}

// startBroker starts a bus in which the test's user, where it is not root, is the one of the given role.
func startBroker(t *testing.T, me string) *broker {
	t.Helper()
	folder, err := os.MkdirTemp("", "bus") // short, since a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	if err := os.Chmod(folder, 0o755); err != nil { // other users connect
		t.Fatal(err)
	}
	b := &broker{t: t, users: everybody(me), folder: folder}
	b.configure()
	b.start()
	t.Cleanup(b.stop)
	return b
}

// configure writes the daemon's configuration: Debian's, less what starts services, drops rights and reads other files.
func (b *broker) configure() {
	const debian = "/usr/share/dbus-1/system.conf"
	text, err := os.ReadFile(debian)
	if err != nil {
		b.t.Fatalf("%s is missing: install the Debian package dbus (dbus-system-bus-common): %v", debian, err)
	}
	conf := regexp.MustCompile(`(?s)<!--.*?-->`).ReplaceAllString(string(text), "")
	for _, gone := range []string{"user", "pidfile", "servicehelper", "listen", "include", "includedir"} {
		conf = regexp.MustCompile(`(?s)<`+gone+`(\s[^>]*)?>[^<]*</`+gone+`>`).ReplaceAllString(conf, "")
	}
	conf = regexp.MustCompile(`<(fork|syslog|standard_system_servicedirs)/>`).ReplaceAllString(conf, "")
	if !strings.Contains(conf, `<deny send_type="method_call"/>`) {
		b.t.Fatalf("%s is not what this test knows:\n%s", debian, conf)
	}
	extra := fmt.Sprintf(`<listen>unix:path=%s</listen><includedir>policy</includedir>
		<policy user="%d"><allow own="org.freedesktop.PolicyKit1"/></policy>
		<policy context="default"><allow send_destination="org.freedesktop.PolicyKit1"/></policy>`, b.socket(), b.users.polkitd)
	conf = strings.Replace(conf, "</busconfig>", extra+"</busconfig>", 1)
	write(b.t, filepath.Join(b.folder, "bus.conf"), conf)
	if err := os.Mkdir(filepath.Join(b.folder, "policy"), 0o755); err != nil {
		b.t.Fatal(err)
	}
	for _, name := range []string{"com.coreos.update1.conf", "org.semper.Update1.conf"} {
		text, err := os.ReadFile(policies + name)
		if err != nil {
			b.t.Fatal(err)
		}
		policy := string(text)
		for _, role := range []string{"semperd", "root", "core"} {
			policy = strings.ReplaceAll(policy, `user="`+role+`"`, fmt.Sprintf(`user="%d"`, b.users.of(role)))
		}
		write(b.t, filepath.Join(b.folder, "policy", name), policy)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (b *broker) socket() string  { return filepath.Join(b.folder, "socket") }
func (b *broker) address() string { return "unix:path=" + b.socket() }

func (b *broker) start() {
	b.t.Helper()
	cmd := exec.Command(need(b.t, "dbus-daemon", "dbus"), "--nofork", "--print-address", "--config-file="+filepath.Join(b.folder, "bus.conf"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	// The kernel would send the signal when the starting thread ends, so one that does not end starts it.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		started <- cmd.Start()
		_ = cmd.Wait()
		close(started)
	}()
	if err := <-started; err != nil {
		b.t.Fatal(err)
	}
	b.cmd, b.ended = cmd, started
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // its address, once it listens
		<-started
		b.t.Fatalf("dbus-daemon: %s", said.String())
	}
}

func (b *broker) stop() {
	_ = b.cmd.Process.Kill()
	<-b.ended
}

// dial connects as a user. The bus goes by the user of the thread that connects.
func (b *broker) dial(uid int) (net.Conn, error) {
	if uid == os.Getuid() {
		return net.Dial("unix", b.socket())
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		conn, err := func() (net.Conn, error) {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				return nil, fmt.Errorf("become uid %d: %w", uid, errno)
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(fd), "bus")
			defer f.Close()
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: b.socket()}); err != nil {
				return nil, err
			}
			return net.FileConn(f)
		}()
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// client connects as a role, in ways that have nothing to do with the service's.
func (b *broker) client(role string) *dbus.Conn {
	b.t.Helper()
	uid := b.users.of(role)
	raw, err := b.dial(uid)
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := dbus.NewConn(raw, dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { c.Close() })
	if err := c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(uid))}); err != nil {
		b.t.Fatal(err)
	}
	if err := c.Hello(); err != nil {
		b.t.Fatal(err)
	}
	return c
}

// journal hands the log's lines to the test.
type journal struct {
	lines chan string
	attrs string
}

func newJournal() *journal { return &journal{lines: make(chan string, 1000)} }

func (j *journal) Enabled(context.Context, slog.Level) bool { return true }
func (j *journal) WithGroup(string) slog.Handler            { return j }

func (j *journal) WithAttrs(as []slog.Attr) slog.Handler {
	n := *j
	for _, a := range as {
		n.attrs += " " + a.String()
	}
	return &n
}

func (j *journal) Handle(_ context.Context, r slog.Record) error {
	text := r.Message + j.attrs
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	j.lines <- text
	return nil
}

// await reads lines until n begin with prefix, and returns all.
func (j *journal) await(t *testing.T, n int, prefix string) []string {
	t.Helper()
	var all []string
	for n > 0 {
		line := receive(t, j.lines, fmt.Sprintf("a log line that begins with %q after %q", prefix, all))
		all = append(all, line)
		if strings.HasPrefix(line, prefix) {
			n--
		}
	}
	return all
}

func receive[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("not reached")
	}
}

// fakeAgent notes what it is asked for.
type fakeAgent struct {
	calls chan string

	mu     sync.Mutex
	refuse error
	update func() // runs in the background of Update
}

func (a *fakeAgent) note(format string, args ...any) error {
	a.calls <- fmt.Sprintf(format, args...)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refuse
}

func (a *fakeAgent) Check(context.Context) error { return a.note("check") }
func (a *fakeAgent) Update(context.Context) error {
	err := a.note("update")
	if a.update != nil {
		go a.update()
	}
	return err
}
func (a *fakeAgent) Cancel(context.Context) error { return a.note("cancel") }
func (a *fakeAgent) Pause(_ context.Context, on bool, reason string) error {
	return a.note("pause %v %q", on, reason)
}
func (a *fakeAgent) SetMetered(_ context.Context, on bool) error { return a.note("metered %v", on) }
func (a *fakeAgent) Retry(_ context.Context, version string) error {
	return a.note("retry %s", version)
}
func (a *fakeAgent) Rollback(context.Context) error { return a.note("rollback") }
func (a *fakeAgent) Reset(context.Context) error    { return a.note("reset") }

// serve runs a Service on the bus until the test ends, and returns once both names are owned.
func (b *broker) serve(a Agent) *Service {
	b.t.Helper()
	j := newJournal()
	s := New(Options{
		Agent: a, Log: slog.New(j), UID: b.users.semperd,
		Dial: func(context.Context) (net.Conn, error) { return b.dial(b.users.semperd) },
	})
	run(b.t, s)
	j.await(b.t, 2, "on the system bus")
	return s
}

func run(t *testing.T, s *Service) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		receive(t, done, "the end of Run")
	})
}

func newAgent() *fakeAgent { return &fakeAgent{calls: make(chan string, 100)} }

// none fails if the agent was asked for anything.
func (a *fakeAgent) none(t *testing.T) {
	t.Helper()
	select {
	case c := <-a.calls:
		t.Errorf("the agent was asked: %s", c)
	default:
	}
}

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))

// errorName is the name of a D-Bus error, or "" for nil.
func errorName(err error) string {
	if err == nil {
		return ""
	}
	var e dbus.Error
	if errors.As(err, &e) {
		return e.Name
	}
	return err.Error()
}
