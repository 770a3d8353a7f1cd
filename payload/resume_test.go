package payload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// reparse sends a checkpoint through its bytes, as a restart does.
func reparse(t testing.TB, c *Checkpoint) *Checkpoint {
	t.Helper()
	b, err := c.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseCheckpoint(b)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestResumeEverywhere takes a checkpoint after each operation, and goes on from each with what the disks durably held then.
func TestResumeEverywhere(t *testing.T) {
	contents := testContents()
	b := write(t, testOptions(contents, keyA))
	sum := sha256.Sum256(b)
	type state struct {
		cp      *Checkpoint
		durable map[string][]byte
	}
	var states []state
	disks := testDisks(contents)
	o := applyOptions(disks, trust(1, keyA))
	o.SHA256 = sum[:]
	o.CheckpointEvery = 1
	o.Checkpoint = func(c *Checkpoint) error {
		s := state{reparse(t, c), map[string][]byte{}}
		for name, d := range disks {
			d.mu.Lock()
			s.durable[name] = bytes.Clone(d.durable) // whatever of the operations before is missing here will be missed in the end
			d.mu.Unlock()
		}
		states = append(states, s)
		return nil
	}
	res, err := apply(b, o)
	if err != nil {
		t.Fatal(err)
	}
	if want := len(res.Manifest.operations); len(states) != want {
		t.Fatalf("%d checkpoints, want one for each of the %d operations", len(states), want)
	}
	for i, s := range states {
		disks := map[string]*disk{}
		for name, d := range s.durable {
			disks[name] = &disk{durable: bytes.Clone(d), now: bytes.Clone(d)}
		}
		if s.cp.PayloadID() != sha256.Sum256(b[:res.Manifest.MetadataSize]) {
			t.Error("the checkpoint has another payload's id")
		}
		a, err := Resume(applyOptions(disks, trust(1, keyA)), s.cp)
		if err != nil {
			t.Fatalf("checkpoint %d: %v", i, err)
		}
		if a.Offset() != s.cp.Offset() || a.Manifest() == nil {
			t.Fatalf("checkpoint %d: goes on at %d, want %d", i, a.Offset(), s.cp.Offset())
		}
		got, err := a.Apply(context.Background(), bytes.NewReader(b[a.Offset():]))
		if err != nil {
			t.Fatalf("checkpoint %d: %v", i, err)
		}
		if got.SHA256 != sum {
			t.Errorf("checkpoint %d: SHA-256 of the payload is %x, want %x", i, got.SHA256, sum)
		}
		checkDisks(t, disks, contents)
	}
}

// machine has a budget of bytes read and written and of flushes, after which its power fails.
type machine struct {
	mu   sync.Mutex
	left int
	on   bool
}

var errPower = errors.New("the power failed")

func (m *machine) spend(n int) bool {
	m.mu.Lock() // one operation is written while the next is read
	defer m.mu.Unlock()
	m.left -= n
	m.on = m.on && m.left >= 0
	return m.on
}

type poweredDisk struct {
	*disk
	m *machine
}

func (d poweredDisk) WriteAt(p []byte, off int64) (int, error) {
	n, err := d.disk.WriteAt(p, off) // what is under way may reach the disk or not: cut decides
	if !d.m.spend(len(p)) {
		return 0, errPower
	}
	return n, err
}

func (d poweredDisk) Sync() error {
	if !d.m.spend(1000) {
		return errPower
	}
	return d.disk.Sync()
}

type poweredReader struct {
	r io.Reader
	m *machine
}

func (r poweredReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if !r.m.spend(n) {
		return 0, errPower
	}
	return n, err
}

// TestPowerCuts cuts the power at random moments, again and again, until the payload is applied. The checkpoint is stored as a file would be: the old
// one or the new one.
func TestPowerCuts(t *testing.T) {
	contents := testContents()
	b := write(t, testOptions(contents, keyA))
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 1))
		disks := testDisks(contents)
		var stored []byte
		cuts, resumed := 0, 0
		for {
			m := &machine{left: rng.IntN(2 * len(b)), on: true}
			if cuts == 30 {
				m.left = 1 << 40
			}
			o := applyOptions(disks, trust(1, keyA))
			for name, target := range o.Targets {
				target.Storage = poweredDisk{disks[name], m}
				o.Targets[name] = target
			}
			o.CheckpointEvery = 100 << 10
			o.Checkpoint = func(c *Checkpoint) error {
				enc, err := c.MarshalBinary()
				if err != nil {
					return err
				}
				if m.spend(1000) || rng.IntN(2) == 0 {
					stored = enc
				}
				if !m.spend(0) {
					return errPower
				}
				return nil
			}
			a, err := NewApplier(o)
			if stored != nil {
				var cp *Checkpoint
				if cp, err = ParseCheckpoint(stored); err == nil {
					a, err = Resume(o, cp)
					resumed++
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = a.Apply(context.Background(), poweredReader{bytes.NewReader(b[a.Offset():]), m})
			if m.on {
				if err != nil {
					t.Fatalf("seed %d, after %d cuts: %v", seed, cuts, err)
				}
				break
			}
			if err == nil {
				t.Fatalf("seed %d: applied without power", seed)
			}
			cuts++
			for _, name := range []string{"root", "uki", "rootsig"} {
				disks[name].cut(rng)
			}
		}
		checkDisks(t, disks, contents)
		if cuts > 3 && resumed == 0 {
			t.Errorf("seed %d: %d cuts, but no work was saved", seed, cuts)
		}
	}
}

// TestReconnect lets the stream break off often, and goes on with the same Applier.
func TestReconnect(t *testing.T) {
	contents := testContents()
	b := write(t, testOptions(contents, keyA))
	disks := testDisks(contents)
	a, err := NewApplier(applyOptions(disks, trust(1, keyA)))
	if err != nil {
		t.Fatal(err)
	}
	for length := int64(10); ; length += 20 << 10 { // ever longer, so that it ends
		end := min(int64(len(b)), a.Offset()+length)
		res, err := a.Apply(context.Background(), iotest.HalfReader(bytes.NewReader(b[a.Offset():end])))
		if err == nil {
			if res.SHA256 != sha256.Sum256(b) {
				t.Error("another SHA-256 of the payload")
			}
			break
		}
		if !ReasonOf(err).Resumable() {
			t.Fatal(err)
		}
	}
	checkDisks(t, disks, contents)
}

func TestCancel(t *testing.T) {
	contents := testContents()
	b := write(t, testOptions(contents, keyA))
	for _, phase := range []Phase{Installing, Verifying} {
		disks := testDisks(contents)
		ctx, cancel := context.WithCancel(context.Background())
		o := applyOptions(disks, trust(1, keyA))
		var last *Checkpoint
		o.Checkpoint = func(c *Checkpoint) error { last = c; return nil }
		o.Progress = func(p Progress) {
			if p.Phase == phase && p.Done > p.Total/2 {
				cancel()
			}
		}
		a, err := NewApplier(o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = a.Apply(ctx, bytes.NewReader(b))
		if ReasonOf(err) != Cancelled || !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: %v", phase, err)
		}
		if last == nil || last.Offset() != a.Offset() {
			t.Errorf("%s: no checkpoint of what was done", phase)
		}
		if _, err := a.Apply(context.Background(), bytes.NewReader(b[a.Offset():])); err != nil {
			t.Fatalf("%s: %v", phase, err)
		}
		checkDisks(t, disks, contents)
	}
}

// TestFailedForGood makes sure that an Applier does not go on after an error that is no accident of the way.
func TestFailedForGood(t *testing.T) {
	b := write(t, testOptions(testContents(), keyA))
	disks := testDisks(testContents())
	o := applyOptions(disks, trust(1, keyA))
	o.Checkpoint = func(*Checkpoint) error { return errors.New("no space left") }
	o.CheckpointEvery = 1
	a, err := NewApplier(o)
	if err != nil {
		t.Fatal(err)
	}
	_, first := a.Apply(context.Background(), bytes.NewReader(b))
	if ReasonOf(first) != WriteFailed {
		t.Fatalf("reason %q: %v", ReasonOf(first), first)
	}
	if _, again := a.Apply(context.Background(), bytes.NewReader(b[a.Offset():])); !errors.Is(again, first) {
		t.Errorf("second call: %v", again)
	}
}

func TestResumeRefuses(t *testing.T) {
	contents := testContents()
	b := write(t, testOptions(contents, keyA))
	var cp *Checkpoint
	o := applyOptions(testDisks(contents), trust(1, keyA))
	o.Size = int64(len(b))
	o.CheckpointEvery = 1
	o.Checkpoint = func(c *Checkpoint) error {
		if cp == nil && c.next == 5 {
			cp = c
		}
		return nil
	}
	if _, err := apply(b, o); err != nil || cp == nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*Checkpoint, *Options)
		reason Reason
	}{
		{"nothing wrong", func(*Checkpoint, *Options) {}, ""},
		{"keys have changed", func(_ *Checkpoint, o *Options) { o.Trust = trust(1, keyB) }, BadSignature},
		{"no key any more", func(_ *Checkpoint, o *Options) { o.Trust = Trust{Threshold: 1} }, NoTrust},
		{"the version runs by now", func(_ *Checkpoint, o *Options) { o.Accept = Policy{Running: testImage}.Check }, OldVersion},
		{"the slot has shrunk", func(_ *Checkpoint, o *Options) {
			x := o.Targets["root"]
			x.Limit = 1
			o.Targets["root"] = x
		}, TooLarge},
		{"another size is announced", func(_ *Checkpoint, o *Options) { o.Size++ }, BadCheckpoint},
		{"another file is announced", func(c *Checkpoint, o *Options) { c.sum, o.SHA256 = make([]byte, 32), bytes.Repeat([]byte{1}, 32) }, BadCheckpoint},
		{"operations that are not there", func(c *Checkpoint, _ *Options) { c.next = 1 << 20 }, BadCheckpoint},
		{"another operation", func(c *Checkpoint, _ *Options) { c.next++ }, BadCheckpoint},
		{"another offset", func(c *Checkpoint, _ *Options) { c.offset++ }, BadCheckpoint},
		{"states mixed up", func(c *Checkpoint, _ *Options) { c.file, c.signed = c.signed, c.file }, BadCheckpoint},
		{"state of nothing", func(c *Checkpoint, _ *Options) { c.file = nil }, BadCheckpoint},
		{"state of another hash", func(c *Checkpoint, _ *Options) { c.signed = bytes.Clone(c.signed); c.signed[3] ^= 1 }, BadCheckpoint},
		{"metadata changed", func(c *Checkpoint, _ *Options) { c.metadata = bytes.Clone(c.metadata); c.metadata[100] ^= 1 }, BadSignature},
		{"metadata cut", func(c *Checkpoint, _ *Options) { c.metadata = c.metadata[:len(c.metadata)-1] }, MetadataSize},
		{"no metadata", func(c *Checkpoint, _ *Options) { c.metadata = nil }, BadMagic},
	} {
		t.Run(c.name, func(t *testing.T) {
			changed := *cp
			disks := testDisks(contents)
			o := applyOptions(disks, trust(1, keyA))
			o.Size = int64(len(b))
			c.change(&changed, &o)
			_, err := Resume(o, reparse(t, &changed))
			if ReasonOf(err) != c.reason || (err == nil) != (c.reason == "") {
				t.Errorf("reason %q, want %q: %v", ReasonOf(err), c.reason, err)
			}
			checkUntouched(t, disks)
		})
	}
	enc, err := cp.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for i := range enc {
		torn := bytes.Clone(enc)
		torn[i] ^= 0x10
		if _, err := ParseCheckpoint(torn); ReasonOf(err) != BadCheckpoint {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		if _, err := ParseCheckpoint(enc[:i]); ReasonOf(err) != BadCheckpoint {
			t.Fatalf("cut after %d bytes: %v", i, err)
		}
	}
}

// On a slow line a checkpoint comes after a time too, at the next operation's end: what was fetched since is all that can be asked for twice.
func TestCheckpointsByTime(t *testing.T) {
	contents := testContents()
	b := write(t, testOptions(contents, keyA))
	for _, c := range []struct {
		name string
		tick time.Duration // from one look at the clock to the next
		all  bool
	}{{"fast", 0, false}, {"each operation takes long", time.Minute, true}} {
		t.Run(c.name, func(t *testing.T) {
			disks := testDisks(contents)
			o := applyOptions(disks, trust(1, keyA))
			now, saved := time.Unix(0, 0), 0
			o.Now = func() time.Time { now = now.Add(c.tick); return now }
			o.Checkpoint = func(*Checkpoint) error { saved++; return nil }
			a, err := NewApplier(o)
			if err != nil {
				t.Fatal(err)
			}
			res, err := a.Apply(context.Background(), bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			operations := 0
			for _, p := range res.Manifest.Partitions {
				operations += p.Operations
			}
			if c.all && saved != operations || !c.all && saved != 1 {
				t.Errorf("%d checkpoints for %d operations", saved, operations)
			}
			checkDisks(t, disks, contents)
		})
	}
}
