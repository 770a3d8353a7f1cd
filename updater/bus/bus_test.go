package bus

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestQueue(t *testing.T) {
	q := newQueue()
	if got := q.take(); len(got) != 0 || q.latest().State != Idle {
		t.Fatalf("a new queue has %v, %v", got, q.latest())
	}
	for i, s := range []State{Checking, Downloading, Downloading, Downloading, Installing, Pending, Pending} {
		q.push(Status{State: s, Progress: float64(i)})
	}
	var got []string
	for _, s := range q.take() {
		got = append(got, fmt.Sprint(s.State, s.Progress))
	}
	if want := []string{"checking0", "downloading3", "installing4", "pending6"}; !slices.Equal(got, want) {
		t.Errorf("took %q, want %q", got, want)
	}
	// Nobody takes: what is kept is bounded, and the newest stays.
	for i := range 100_000 {
		q.push(Status{State: State(fmt.Sprint(i))})
	}
	if w := q.take(); len(w) != maxWaiting || w[maxWaiting-1].State != "99999" || w[0].State != "99984" {
		t.Errorf("kept %d: %v", len(w), w)
	}
	q.push(Status{State: Pending})
	if s := q.restart(); s.State != Pending || len(q.take()) != 0 {
		t.Errorf("after restart: %v", s)
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"größer", "größer"},
		{"a\x00b", "a\uFFFDb"},
		{"a\xffb", "a\uFFFDb"},
		{strings.Repeat("é", 600), strings.Repeat("é", 498) + "…"},
	} {
		if got := clean(c.in); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
	many := make([]string, 40)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	s := Status{Progress: math.NaN(), NewSize: -1, PendingSize: -2, FailedVersions: many}.clean()
	if s.Progress != 0 || s.NewSize != 0 || s.PendingSize != 0 || len(s.FailedVersions) != maxList || s.FailedVersions[31] != "39" {
		t.Errorf("got %+v", s)
	}
	if s := (Status{Progress: math.Inf(1)}).clean(); s.Progress != 1 {
		t.Errorf("progress %v", s.Progress)
	}
}

// hasty is a clock whose timers fire at once and say how long they were.
type hasty struct{ waits chan time.Duration }

func (hasty) Now() time.Time { return noon }

func (c hasty) After(d time.Duration) <-chan time.Time {
	c.waits <- d
	ch := make(chan time.Time, 1)
	ch <- noon
	return ch
}

// Without a bus each name tries again, ever more slowly, and says so once.
func TestNoBus(t *testing.T) {
	j := newJournal()
	clock := hasty{make(chan time.Duration)}
	s := New(Options{Agent: newAgent(), Log: slog.New(j), Clock: clock, Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("nobody listens") }})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.keep(ctx, newFlatcar(s, s.queues[0]), s.queues[0])
	}()
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
		if got := receive(t, clock.waits, "a wait"); got != want*time.Second {
			t.Errorf("wait %d is %v, want %v", i, got, want*time.Second)
		}
		s.Publish(Status{State: Checking})
	}
	cancel()
	for end := false; !end; {
		select {
		case <-clock.waits:
		case <-done:
			end = true
		}
	}
	want := "not on the system bus; trying on name=com.coreos.update1 error=connect to the system bus: nobody listens"
	if len(j.lines) != 1 || <-j.lines != want {
		t.Errorf("%d more lines", len(j.lines))
	}
}

func TestBusRestarts(t *testing.T) {
	b := startBroker(t, "root")
	j := newJournal()
	clock := hasty{make(chan time.Duration)} // both names wait until the test lets them try again
	s := New(Options{
		Agent: newAgent(), Log: slog.New(j), Clock: clock, UID: b.users.semperd,
		Dial: func(context.Context) (net.Conn, error) { return b.dial(b.users.semperd) },
	})
	run(t, s)
	j.await(t, 2, "on the system bus")
	for range 2 {
		s.Publish(Status{Version: "1.0.0", State: Idle})
		b.stop()
		j.await(t, 2, "not on the system bus; trying on")
		s.Publish(Status{Version: "1.0.0", State: Checking})
		s.Publish(Status{Version: "1.0.0", State: Pending, PendingVersion: "1.1.0"})
		b.start()
		receive(t, clock.waits, "the first name's wait")
		receive(t, clock.waits, "the second name's wait")
		if lines := j.await(t, 2, "on the system bus"); len(lines) != 2 {
			t.Errorf("more than one line a name and event: %q", lines)
		}
		e := dialUpdateEngine(t, b.client("root"), "/com/coreos/update1")
		if got := e.status(t); got.Operation != "UPDATE_STATUS_UPDATED_NEED_REBOOT" || got.Version != "1.1.0" {
			t.Errorf("after a restart: %v", got)
		}
		s.Publish(Status{Version: "1.0.0", State: Checking})
		for e.next(t).Operation != "UPDATE_STATUS_CHECKING_FOR_UPDATE" { // the status that a new connection begins with may be seen
		}
	}
}

// A name that somebody else owns is not fought for, and the other name works.
func TestNameIsTaken(t *testing.T) {
	b := startBroker(t, "root")
	if _, err := b.client("semperd").RequestName("com.coreos.update1", 0); err != nil {
		t.Fatal(err)
	}
	j := newJournal()
	s := New(Options{
		Agent: newAgent(), Log: slog.New(j), UID: b.users.semperd,
		Dial: func(context.Context) (net.Conn, error) { return b.dial(b.users.semperd) },
	})
	run(t, s)
	lines := append(j.await(t, 1, ""), j.await(t, 1, "")...)
	slices.Sort(lines)
	want := []string{
		"not on the system bus; trying on name=com.coreos.update1 error=connect to the system bus: somebody else owns the name com.coreos.update1",
		"on the system bus name=org.semper.Update1",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
}

// message is a D-Bus message as far as bounded looks at it.
func message(fields, body int) []byte {
	m := make([]byte, 16+(fields+7)&^7+body)
	for i := range m {
		m[i] = byte(i)
	}
	m[0] = 'l'
	binary.LittleEndian.PutUint32(m[4:], uint32(body))
	binary.LittleEndian.PutUint32(m[12:], uint32(fields))
	return m
}

func through(in []byte) ([]byte, error) {
	b := newBounded(struct{ net.Conn }{})
	b.in.Reset(bytes.NewReader(in))
	b.framed = true
	return io.ReadAll(b)
}

func TestBounded(t *testing.T) {
	small, edge := message(9, 100), message(16, maxMessage-32)
	long, huge := message(16, maxMessage-31), message(maxMessage, 5)
	in := slices.Concat(small, long, edge, huge, small)
	got, err := through(in)
	if want := slices.Concat(small, edge, small); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes (%v), want %d", len(got), err, len(want))
	}
	if _, err := through([]byte("REJECTED EXTERNAL\r\n")); err == nil {
		t.Error("what is not a message passed")
	}
	if _, err := through(long[:100]); !errors.Is(err, io.EOF) && err != nil {
		t.Errorf("a long message that breaks off: %v", err)
	}
}

func FuzzBounded(f *testing.F) {
	f.Add(message(9, 100))
	f.Add(slices.Concat(message(0, 0), message(7, maxMessage)))
	f.Add([]byte("l\x01\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		out, _ := through(in)
		if len(out) > len(in) {
			t.Fatalf("%d bytes out of %d", len(out), len(in))
		}
		for len(out) >= 16 { // what passes is a row of messages, none of them too long
			var order binary.ByteOrder = binary.LittleEndian
			if out[0] == 'B' {
				order = binary.BigEndian
			}
			n := 16 + (int64(order.Uint32(out[12:]))+7)&^7 + int64(order.Uint32(out[4:]))
			if n > maxMessage {
				t.Fatalf("a message of %d bytes passed", n)
			}
			out = out[min(n, int64(len(out))):]
		}
	})
}

// The image's files for dbus and polkit are XML, name the users that they must name, and describe each action that is asked for.
func TestPolicyFiles(t *testing.T) {
	const share = "../../images/semper/tree/usr/share/"
	for _, name := range []string{"dbus-1/system.d/com.coreos.update1.conf", "dbus-1/system.d/org.semper.Update1.conf", "polkit-1/actions/org.semper.update1.policy"} {
		text, err := os.ReadFile(filepath.Join(share, name))
		if err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(bytes.NewReader(text))
		d.Strict = true
		for err == nil {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	text, err := os.ReadFile(share + "polkit-1/actions/org.semper.update1.policy")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Actions []struct {
			ID          string `xml:"id,attr"`
			Description string `xml:"description"`
			Message     string `xml:"message"`
			Any         string `xml:"defaults>allow_any"`
			Inactive    string `xml:"defaults>allow_inactive"`
			Active      string `xml:"defaults>allow_active"`
			Annotations []struct {
				Key   string `xml:"key,attr"`
				Value string `xml:",chardata"`
			} `xml:"annotate"`
		} `xml:"action"`
	}
	if err := xml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range file.Actions {
		got = append(got, a.ID)
		if a.Description == "" || a.Message == "" || a.Any != "no" || a.Inactive != "no" || a.Active != "auth_admin_keep" {
			t.Errorf("%+v", a)
		}
		if len(a.Annotations) != 1 || a.Annotations[0].Key != "org.freedesktop.policykit.owner" || a.Annotations[0].Value != "unix-user:semperd" {
			t.Errorf("%s: polkit answers semperd only for actions that it owns: %v", a.ID, a.Annotations)
		}
	}
	want := []string{actionCheck, actionUpdate, actionPause, actionRollback}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("actions %q, want %q", got, want)
	}
}
