package install_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

// intruder is a semperd that was taken over: it can send whatever bytes it likes to the installer's socket.
type intruder struct {
	t    *testing.T
	core *install.Core
	net.Conn
	done chan error
}

func intrude(t *testing.T, core *install.Core) *intruder {
	t.Helper()
	ours, theirs := net.Pipe()
	i := &intruder{t: t, core: core, Conn: ours, done: make(chan error, 1)}
	go func() {
		i.done <- wire.Serve(context.Background(), theirs, core.Handler(agentUID))
		theirs.Close()
	}()
	t.Cleanup(func() { ours.Close() })
	return i
}

func control(text string) []byte { return rawFrame('C', []byte(text)) }

func rawFrame(kind byte, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	return append(append(b, kind), data...)
}

// send writes raw bytes; the answer, if there is one, is not waited for.
func (i *intruder) raw(b []byte) { _, _ = i.Write(b) }

// ask writes one frame and returns the answer's failure, "" where there is none, "gone" where the installer hung up.
func (i *intruder) ask(frame []byte) string {
	sent := make(chan struct{})
	go func() { i.raw(frame); close(sent) }()
	defer func() { <-sent }()
	var header [5]byte
	if _, err := io.ReadFull(i, header[:]); err != nil {
		i.Close()
		return "gone"
	}
	data := make([]byte, binary.BigEndian.Uint32(header[:]))
	if _, err := io.ReadFull(i, data); err != nil {
		i.Close()
		return "gone"
	}
	var r wire.Reply
	if err := json.Unmarshal(data, &r); err != nil {
		i.t.Fatalf("answer %q: %v", data, err)
	}
	if r.Failure != nil {
		return r.Failure.Text
	}
	return ""
}

func (i *intruder) begin(sum string, size int64, version string) string {
	return i.ask(control(fmt.Sprintf(`{"verb":"begin","begin":{"sha256":%q,"size":%d,"version":%q}}`, sum, size, version)))
}

func (i *intruder) beginOf(r installtest.Release) string {
	return i.begin(r.SHA256Hex(), int64(len(r.Payload)), r.Version)
}

// data sends payload bytes in frames of 20,000, until the end or a refusal.
func (i *intruder) data(b []byte) string {
	for len(b) > 0 {
		n := min(len(b), 20_000)
		if f := i.ask(rawFrame('D', b[:n])); f != "" {
			return f
		}
		b = b[n:]
	}
	return ""
}

func (i *intruder) verb(v string) string { return i.ask(control(`{"verb":"` + v + `"}`)) }

// hangUp ends the connection and waits until the installer has noticed.
func (i *intruder) hangUp() {
	i.Close()
	<-i.done
}

// Whatever a semperd that was taken over sends: the running slot, the ESP's other files and the partition table outside of the idle slot are untouched, the
// machine boots what it ran, it does not reboot, and an honest semperd can update it afterwards. Rows with an update end with an update that was signed.
func TestMaliciousSemperd(t *testing.T) {
	keys := installtest.NewKeys(t)
	running, good, next := keys.Release(t, "1.1.0"), keys.Release(t, "1.2.0"), keys.Release(t, "1.3.0")
	old := keys.Release(t, "1.0.0")
	stranger := installtest.NewKeys(t).Release(t, "1.2.0")
	half := good.Payload[:len(good.Payload)/2]
	want := func(t *testing.T, what, got, want string) {
		t.Helper()
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	for _, c := range []struct {
		name    string
		do      func(t *testing.T, i *intruder)
		updated bool
	}{
		{"data without begin", func(t *testing.T, i *intruder) {
			want(t, "data", i.ask(rawFrame('D', good.Payload[:1000])), "no installation was begun")
		}, false},
		{"the ends of a session that is none", func(t *testing.T, i *intruder) {
			for _, v := range []string{"finish", "abort", "discard"} {
				want(t, v, i.verb(v), "no installation was begun")
			}
		}, false},
		{"begin twice", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "again", i.beginOf(next), "was begun already")
			refused := i.data(next.Payload)
			if refused == "" { // both have the same size by chance
				refused = i.verb("finish")
			}
			want(t, "the second's data", refused, "announced")
		}, false},
		{"begin on two connections", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			other := intrude(t, i.core)
			want(t, "again", other.beginOf(good), "another installation is running")
			want(t, "discard of the other's", other.verb("discard"), "no installation was begun")
			want(t, "finish of the other's", other.verb("finish"), "no installation was begun")
			other.hangUp()
			want(t, "data", i.data(half), "")
		}, false},
		{"frame that is too long", func(t *testing.T, i *intruder) {
			want(t, "frame", i.ask([]byte{0, 4, 0, 1, 'D'}), "at most 262144")
		}, false},
		{"frame of 4 GiB", func(t *testing.T, i *intruder) {
			want(t, "frame", i.ask([]byte{255, 255, 255, 255, 'C'}), "at most 262144")
		}, false},
		{"frame of another kind", func(t *testing.T, i *intruder) { want(t, "frame", i.ask(rawFrame('X', nil)), "unknown kind") }, false},
		{"empty control message", func(t *testing.T, i *intruder) { want(t, "frame", i.ask(control("")), "control message") }, false},
		{"deep JSON", func(t *testing.T, i *intruder) {
			want(t, "frame", i.ask(control(`{"verb":`+strings.Repeat("[", 200_000))), "control message")
		}, false},
		{"JSON of other types", func(t *testing.T, i *intruder) { want(t, "frame", i.ask(control(`{"verb":{}}`)), "control message") }, false},
		{"verb of nobody", func(t *testing.T, i *intruder) { want(t, "frame", i.verb("format"), "unknown verb") }, false},
		{"reboot, drain, warn without an update", func(t *testing.T, i *intruder) {
			want(t, "reboot", i.verb("reboot"), "no update waits")
			want(t, "drain", i.ask(control(`{"verb":"drain","reason":"x"}`)), "no update waits")
			want(t, "warn", i.ask(control(`{"verb":"warn","warn":{"text":"x","ttys":["tty1"]}}`)), "no update waits")
		}, false},
		{"reboot in the middle of an update", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(good.Payload), "")
			want(t, "reboot", i.verb("reboot"), "no update waits")
		}, false},
		{"what is root's", func(t *testing.T, i *intruder) {
			want(t, "allow", i.ask(control(`{"verb":"allow","version":"1.0.0"}`)), "only root")
			want(t, "rollback", i.ask(control(`{"verb":"rollback","reason":"x"}`)), "only root")
			want(t, "begin", i.beginOf(old), "")
			want(t, "old version", i.data(old.Payload), "is not newer")
		}, false},
		{"a size that is too small", func(t *testing.T, i *intruder) {
			want(t, "begin", i.begin(good.SHA256Hex(), int64(len(good.Payload))-1, "1.2.0"), "")
			want(t, "data", i.data(good.Payload), "were announced")
		}, false},
		{"a size that is too large", func(t *testing.T, i *intruder) {
			want(t, "begin", i.begin(good.SHA256Hex(), 1<<62, "1.2.0"), "")
			want(t, "data", i.data(good.Payload), "were announced")
		}, false},
		{"a size of nothing", func(t *testing.T, i *intruder) {
			want(t, "begin", i.begin(good.SHA256Hex(), 0, "1.2.0"), "is not positive")
		}, false},
		{"another hash", func(t *testing.T, i *intruder) {
			want(t, "begin", i.begin(next.SHA256Hex(), int64(len(good.Payload)), "1.2.0"), "")
			want(t, "data", i.data(good.Payload), "")
			want(t, "finish", i.verb("finish"), "SHA-256")
		}, false},
		{"another version", func(t *testing.T, i *intruder) {
			want(t, "begin", i.begin(good.SHA256Hex(), int64(len(good.Payload)), "../../9.9.9"), "")
			want(t, "data", i.data(good.Payload), "is of version 1.2.0, but ../../9.9.9 was announced")
		}, false},
		{"a stranger's payload", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(stranger), "")
			want(t, "data", i.data(stranger.Payload), "0 are by trusted keys")
			want(t, "more", i.data(stranger.Payload), "no installation was begun")
			want(t, "finish", i.verb("finish"), "no installation was begun")
		}, false},
		{"the metadata of one payload and the blobs of another", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			mixed := append(bytes.Clone(good.Payload[:4000]), next.Payload[4000:]...)
			want(t, "data", i.data(mixed), "SHA-256")
		}, false},
		{"a part twice", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(half), "")
			want(t, "data again", i.data(good.Payload[100:]), "SHA-256")
		}, false},
		{"finish without data", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "finish", i.verb("finish"), "too early")
		}, false},
		{"finish too early", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(good.Payload[:len(good.Payload)-1]), "")
			want(t, "finish", i.verb("finish"), "too early")
			want(t, "reboot", i.verb("reboot"), "no update waits")
		}, false},
		{"finish twice", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(good.Payload), "")
			want(t, "finish", i.verb("finish"), "")
			want(t, "again", i.verb("finish"), "no installation was begun")
			want(t, "data", i.ask(rawFrame('D', []byte{1})), "no installation was begun")
		}, true},
		{"more than the payload has", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(append(bytes.Clone(good.Payload), make([]byte, 1<<20)...)), "more data than")
		}, false},
		{"discard of a whole payload", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(good.Payload), "")
			want(t, "discard", i.verb("discard"), "")
		}, false},
		{"hangs up in a header", func(t *testing.T, i *intruder) { i.raw([]byte{0, 0}) }, false},
		{"hangs up in a frame", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			i.raw(rawFrame('D', good.Payload)[:1000])
		}, false},
		{"hangs up in the metadata", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(good.Payload[:100]), "")
		}, false},
		{"hangs up in a blob", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(half), "")
		}, false},
		{"hangs up before finish", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(good.Payload), "")
		}, false},
		{"hangs up without listening", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			i.raw(rawFrame('D', good.Payload[:50_000])) // the answer is not read
		}, false},
		{"empty data frames", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			for range 2000 {
				want(t, "data", i.ask(rawFrame('D', nil)), "")
			}
		}, false},
		{"status all the time", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			for at := 0; at < len(half); at += 1000 {
				want(t, "data", i.ask(rawFrame('D', half[at:min(at+1000, len(half))])), "")
				want(t, "status", i.verb("status"), "")
			}
		}, false},
		{"1000 sessions", func(t *testing.T, i *intruder) {
			for n := range 1000 {
				want(t, "begin", i.beginOf(good), "")
				want(t, "data", i.ask(rawFrame('D', good.Payload[:n])), "")
				want(t, "end", i.verb([]string{"abort", "discard"}[n%2]), "")
			}
		}, false},
		{"a checkpoint that another payload left", func(t *testing.T, i *intruder) {
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(half), "")
			want(t, "abort", i.verb("abort"), "")
			// Under the first one's name come the second one's bytes, from where the first was left.
			want(t, "begin", i.beginOf(good), "")
			want(t, "data", i.data(next.Payload[len(half)-20_000:]), "SHA-256")
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := installtest.NewMachine(t, keys, running)
			var hk hooks
			m.Tune = hk.tune
			before := m.Outside(t)
			core := m.Core()
			i := intrude(t, core)
			c.do(t, i)
			i.hangUp()
			same(t, m.Outside(t), before)
			if m.Reboots != 0 || len(hk.calls) != 0 {
				t.Errorf("%d reboots, hooks %q", m.Reboots, hk.calls)
			}
			st := status(t, core)
			if (st.Pending != nil) != c.updated || st.Trial {
				t.Errorf("status %+v", st)
			}
			if c.updated {
				equal(t, "boot", m.Boot(t).Version, "1.2.0")
				return
			}
			hash, image := m.Hash, m.Running
			equal(t, "boot", m.Boot(t).Version, "1.1.0")
			m.Hash, m.Running = hash, image
			must(t, second(push(core, good))) // the same process serves an honest one
			equal(t, "boot", m.Boot(t).Version, "1.2.0")
		})
	}
}

// A thousand connections, each with half a message: those that are too many are closed, the others do not keep anybody from working, and when they are
// gone everything is as before.
func TestThousandConnections(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	path, stop, _ := serve(t, m, []uint32{uint32(os.Getuid())}, time.Hour)
	var open []net.Conn
	for range 1000 {
		c, err := net.Dial("unix", path)
		must(t, err)
		_, _ = c.Write([]byte{0})
		open = append(open, c)
	}
	for _, c := range open {
		c.Close()
	}
	r := keys.Release(t, "1.1.0")
	// The installer notices that they are gone one after the other.
	var c *wire.Client
	deadline := time.Now().Add(time.Minute)
	for {
		var err error
		c, err = wire.Dial(t.Context(), path)
		must(t, err)
		if _, err = c.Begin(wire.Begin{SHA256: r.SHA256Hex(), Size: int64(len(r.Payload)), Version: r.Version}); err == nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	defer c.Close()
	for at := 0; at < len(r.Payload); at += wire.MaxFrame {
		must(t, c.Data(r.Payload[at:min(at+wire.MaxFrame, len(r.Payload))]))
	}
	must(t, c.Finish())
	must(t, stop())
	equal(t, "boot", m.Boot(t).Version, "1.1.0")
}

// FuzzMaliciousSemperd feeds whole conversations to the installer of a whole machine.
func FuzzMaliciousSemperd(f *testing.F) {
	keys := installtest.NewKeys(f)
	good := keys.Release(f, "1.2.0")
	base := installtest.NewMachine(f, keys, keys.Release(f, "1.1.0"))
	before := base.Outside(f)
	begin := control(fmt.Sprintf(`{"verb":"begin","begin":{"sha256":%q,"size":%d,"version":"1.2.0"}}`, good.SHA256Hex(), len(good.Payload)))
	data := rawFrame('D', good.Payload)
	for _, s := range [][][]byte{
		{control(`{"verb":"status"}`)},
		{begin, data[:5000]},
		{begin, rawFrame('D', good.Payload[:9000]), control(`{"verb":"abort"}`), begin, control(`{"verb":"discard"}`)},
		{begin, begin, control(`{"verb":"reboot"}`)},
		{control(`{"verb":"drain","reason":"x"}`), control(`{"verb":"undrain"}`), control(`{"verb":"warn","warn":{"text":"x","ttys":["pts/1"]}}`)},
		{control(`{"verb":"allow","version":"1.0.0"}`), control(`{"verb":"rollback","reason":"x"}`)},
		{begin, control(`{"verb":"finish"}`), rawFrame('D', []byte("CrAU"))},
	} {
		f.Add(bytes.Join(s, nil))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m := base.Clone()
		_ = wire.Serve(context.Background(), struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(in), io.Discard}, m.Core().Handler(agentUID))
		if m.Reboots != 0 {
			t.Fatal("the machine was rebooted")
		}
		if m.World.Changes() != base.World.Changes() { // metadata that was signed came through
			same(t, m.Outside(t), before)
			if got := m.Boot(t).Version; got != "1.1.0" && !bytes.Contains(in, good.Payload) {
				t.Fatalf("%s boots", got)
			}
		}
	})
}
