package daemon_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/etcdlock/semaphore"
	"github.com/semper-os/semper/updater/install/installtest"
)

// What makes this test binary something else.
const (
	asEtcdLock = "SEMPER_TEST_ETCDLOCK" // the program semper-etcdlock
	asMachine  = "SEMPER_TEST_MACHINE"  // one of the fleet's machines: its number
	lockedBy   = "SEMPER_TEST_LOCK"     // of a machine: its settings of [reboot]
)

// lease is the shortest that the settings allow.
const lease = time.Minute

func etcdLock() error { return semaphore.Serve(context.Background(), os.Stdin, os.Stdout) }

// TestFleetOnEtcd has three machines, each a process in a network namespace of its own, share one real etcd and one slot: there are never two down at once. Then the
// holder is killed in the middle of its reboot and stays dead: the others wait for its lease, and go on after it.
func TestFleetOnEtcd(t *testing.T) {
	t.Parallel()
	lan := newLAN(t, "e")
	f := startFleet(t, lan, `strategy = "etcd"`, "[reboot.etcd]", fmt.Sprintf("endpoints = [%q]", startEtcd(t, lan.address)), `group = "fleet"`, fmt.Sprintf("lease = %q", lease))
	f.eachInTurn()
	f.holderDies()
}

// TestFleetOnFleetLock is the same with Semper's own server, whose operator changes the number of slots meanwhile.
func TestFleetOnFleetLock(t *testing.T) {
	t.Parallel()
	lan := newLAN(t, "f")
	locks := startSemperLocks(t, lan.address)
	locks.set(0)
	f := startFleet(t, lan, `strategy = "fleetlock"`, "[reboot.fleetlock]", fmt.Sprintf("url = %q", locks.url), `group = "fleet"`)
	eventually(t, "three machines wait for a slot of none", func() ([]fleet.RebootClaim, bool) { c := locks.claims(); return c, len(c) == 3 })
	locks.set(1)
	for f.next().word != "down" {
	}
	locks.set(0) // the one that is down keeps its slot
	for f.next().word != "healthy" {
	}
	eventually(t, "the slot is given back", func() ([]fleet.RebootClaim, bool) { c := locks.claims(); return c, len(c) == 2 })
	select {
	case e := <-f.events:
		t.Fatalf("machine %d is %s, and there are no slots", e.id, e.word)
	case <-time.After(5 * time.Second):
	}
	locks.set(1)
	for healthy := 1; healthy < 3; {
		if f.next().word == "healthy" {
			healthy++
		}
	}
	f.holderDies()
}

// running is a fleet whose machines say what they do.
type running struct {
	t        *testing.T
	events   chan event
	machines map[int]*process
	down     map[int]bool
	gone     int // the machine that was killed
}

// startFleet starts three machines with a reboot lock.
func startFleet(t *testing.T, l *lan, lock ...string) *running {
	t.Helper()
	f := &running{t: t, events: make(chan event, 100), machines: map[int]*process{}, down: map[int]bool{}}
	for id := 1; id <= 3; id++ {
		f.machines[id] = startMachine(t, l.join(id), id, strings.Join(lock, "\n"), f.events)
	}
	return f
}

// next waits for one word of any machine. From "down" to "healthy" a machine is down.
func (f *running) next() event {
	f.t.Helper()
	for {
		select {
		case e := <-f.events:
			switch e.word {
			case "down":
				f.down[e.id] = true
				if len(f.down) > 1 {
					f.t.Fatalf("machines %v are down at once", f.down)
				}
			case "healthy":
				delete(f.down, e.id)
			case "ended":
				if e.id == f.gone {
					continue
				}
				f.t.Fatalf("machine %d ended: %s", e.id, f.machines[e.id].tail())
			}
			return e
		case <-time.After(lease + patience):
			f.t.Fatal("nothing happens any more")
		}
	}
}

// eachInTurn waits until all machines went down and came back.
func (f *running) eachInTurn() {
	f.t.Helper()
	for healthy := 0; healthy < 3; {
		if f.next().word == "healthy" {
			healthy++
		}
	}
}

// holderDies begins the second round: whoever goes first dies on the way.
func (f *running) holderDies() {
	f.t.Helper()
	for _, m := range f.machines {
		m.tell("again")
	}
	var dead event
	for dead = f.next(); dead.word != "down"; dead = f.next() {
	}
	f.gone = dead.id
	f.machines[f.gone].kill()
	killed := time.Now()
	delete(f.down, dead.id)
	var waited time.Duration
	for healthy := 0; healthy < 2; {
		e := f.next()
		if e.word == "down" && waited == 0 {
			waited = time.Since(killed)
		}
		if e.word == "healthy" {
			healthy++
		}
	}
	// The last proof of the lock came before the word "down", by less than the time that a busy machine takes.
	if waited < lease/2 {
		f.t.Errorf("the next machine went down %s after the holder died; its lease is %s", waited, lease)
	}
	f.t.Logf("the fleet went on %s after the holder died, with a lease of %s", waited.Round(time.Second), lease)
}

// event is a word that a machine says.
type event struct {
	id   int
	word string
}

// TestMachineProcess is not a test: it is one machine of a fleet, in a process of its own.
func TestMachineProcess(t *testing.T) {
	id, err := strconv.Atoi(os.Getenv(asMachine))
	if err != nil {
		return
	}
	say := func(word string) { fmt.Printf("machine: %s\n", word) }
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, keys.Release(t, "1.0.0"), byte(id))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h.paths.EtcdLock = filepath.Join(h.dir, "semper-etcdlock")
	script := fmt.Sprintf("#!/bin/sh\n%s=1 exec '%s'\n", asEtcdLock, self)
	if err := os.WriteFile(h.paths.EtcdLock, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	h.paths.Clock = fast{time.Now(), 20}
	orders := bufio.NewReader(os.Stdin)
	for i, version := range []string{"1.1.0", "1.2.0"} {
		h.settings(quiet(trivial(t, "127.0.0.1:0", keys.Release(t, version)),
			"[reboot]", os.Getenv(lockedBy), "[health]", `server = "off"`))
		if i == 0 {
			h.on()
		} else {
			h.must(agent.Request{Verb: agent.VerbReload})
		}
		_, _ = h.ask(agent.Request{Verb: agent.VerbUpdate}) // refused where the other server made it look already
		select {
		case <-h.asked:
		case <-time.After(3 * (lease + patience)):
			t.Fatalf("no reboot: %+v", h.status())
		}
		say("down")
		h.off()
		time.Sleep(time.Duration(500+rand.IntN(1000)) * time.Millisecond) // the firmware's time
		h.machine.Boot(t)
		h.on()
		h.onTrial(version)
		say("healthy") // before it is, since then the lock is free
		h.healthy()
		eventually(t, "the lock is given back", func() (*agent.Report, bool) { r := h.status(); return r, !r.Locked })
		if _, err := orders.ReadString('\n'); err != nil {
			return
		}
	}
}

// process is a machine of the fleet.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	log   string
}

func startMachine(t *testing.T, namespace string, id int, lock string, events chan<- event) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, log: filepath.Join(t.TempDir(), "log")}
	p.cmd = exec.Command("ip", "netns", "exec", namespace, self, "-test.run=^TestMachineProcess$", "-test.v")
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", asMachine, id), lockedBy+"="+lock)
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer log.Close()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if word, ok := strings.CutPrefix(lines.Text(), "machine: "); ok {
				events <- event{id, word}
			} else {
				fmt.Fprintln(log, lines.Text())
			}
		}
		_ = p.cmd.Wait()
		select {
		case events <- event{id, "ended"}:
		default:
		}
	}()
	t.Cleanup(p.kill)
	return p
}

func (p *process) tell(order string) {
	if _, err := io.WriteString(p.stdin, order+"\n"); err != nil {
		p.t.Error(err)
	}
}

// kill is a power cut: "ip netns exec" becomes the machine, so there is one process.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-2000):])
}

// lan is a bridge on this host, on which machines in network namespaces hang.
type lan struct {
	t       *testing.T
	name    string // of the bridge
	address string // this host's
}

// newLAN makes one with a letter of its own.
func newLAN(t *testing.T, letter string) *lan {
	t.Helper()
	n := os.Getpid() % 20000
	l := &lan{t: t, name: fmt.Sprintf("smp%s%d", letter, n), address: fmt.Sprintf("10.%d.%d.1", 100+n/256%80+80*int(letter[0]-'e'), n%256)}
	l.ip("link", "add", l.name, "type", "bridge")
	t.Cleanup(func() { l.ip("link", "del", l.name) })
	l.ip("address", "add", l.address+"/24", "dev", l.name)
	l.ip("link", "set", l.name, "up")
	return l
}

// join makes a namespace with an address of the bridge's network.
func (l *lan) join(id int) (namespace string) {
	l.t.Helper()
	ns, outside := fmt.Sprintf("%s-%d", l.name, id), fmt.Sprintf("%sv%d", l.name, id)
	l.ip("netns", "add", ns)
	l.t.Cleanup(func() { l.ip("netns", "del", ns) })
	l.ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", ns)
	l.ip("link", "set", outside, "master", l.name, "up")
	l.ip("-n", ns, "address", "add", strings.TrimSuffix(l.address, "1")+strconv.Itoa(10+id)+"/24", "dev", "eth0")
	l.ip("-n", ns, "link", "set", "eth0", "up")
	l.ip("-n", ns, "link", "set", "lo", "up")
	return ns
}

func (l *lan) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v %s (Debian package iproute2; as root)", strings.Join(args, " "), err, out)
	}
}

// startEtcd starts a real one of one member, and returns its end point.
func startEtcd(t *testing.T, address string) string {
	t.Helper()
	free := func() string {
		l, err := net.Listen("tcp", address+":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return "http://" + l.Addr().String()
	}
	client, peer := free(), free()
	c := exec.Command("etcd", "--data-dir", t.TempDir(), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	if err := c.Start(); err != nil {
		t.Fatalf("%v (Debian package etcd-server)", err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	direct, err := clientv3.New(clientv3.Config{Endpoints: []string{client}, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	eventually(t, "etcd answers", func() (error, bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := direct.Get(ctx, "ready")
		return err, err == nil
	})
	return client
}
