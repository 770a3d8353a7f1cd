package install_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/powercut"
	"github.com/semper-os/semper/updater/wire"
)

// push does what semperd and the wire do: begin, the bytes from the offset that is asked for, finish. It returns the offset of begin.
func push(c *install.Core, r installtest.Release) (int64, error) {
	return pushBytes(c, wire.Begin{SHA256: r.SHA256Hex(), Size: int64(len(r.Payload)), Version: r.Version}, r.Payload)
}

func pushBytes(c *install.Core, b wire.Begin, data []byte) (int64, error) {
	h := c.Handler(agentUID)
	offset, err := h.Begin(b)
	if err != nil {
		return 0, err
	}
	for at := offset; at < int64(len(data)); {
		end := min(at+10_000, int64(len(data)))
		got, err := h.Data(data[at:end])
		if err != nil {
			return offset, errors.Join(err, h.Abort())
		}
		if got != end {
			return offset, fmt.Errorf("after byte %d the installer wants byte %d", end, got)
		}
		at = end
	}
	if err := h.Finish(); err != nil {
		return offset, errors.Join(err, h.Abort())
	}
	return offset, nil
}

func status(t *testing.T, c *install.Core) wire.Status {
	t.Helper()
	st, err := c.Status()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

func reboot(h wire.Handler) error {
	_, err := h.Reboot(false)
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The whole life of two updates: A to B to A.
func TestTwoUpdates(t *testing.T) {
	keys := installtest.NewKeys(t)
	r0, r1, r2 := keys.Release(t, "1.0.0"), keys.Release(t, "1.1.0"), keys.Release(t, "1.2.0")
	m := installtest.NewMachine(t, keys, r0)
	hash0 := hex.EncodeToString(r0.RootHash[:])

	core := m.Core()
	equal(t, "fresh machine", status(t, core), wire.Status{Version: "1.0.0", Slot: "A", RootHash: hash0})
	if err := reboot(core.Handler(agentUID)); !fault.Is(err, fault.Verification) || m.Reboots != 0 {
		t.Errorf("reboot without an update: %v, %d reboots", err, m.Reboots)
	}
	protected := m.Protected(t)
	offset, err := push(core, r1)
	must(t, err)
	equal(t, "first offset", offset, 0)
	equal(t, "protected", m.Protected(t), protected)
	equal(t, "entries", m.Entries(), []string{"semper_1.0.0.efi", "semper_1.1.0+3-0.efi"})
	written := &wire.Written{Version: "1.1.0", Bytes: 128 << 10, Skipped: 32 << 10, At: installtest.Start} // the root's zeros were there
	pending := &wire.Pending{Version: "1.1.0", From: "1.0.0", At: installtest.Start}
	equal(t, "installed", status(t, core), wire.Status{Version: "1.0.0", Slot: "A", RootHash: hash0, WayBack: true, Pending: pending, Other: &wire.Other{Version: "1.1.0", Bootable: true}, Written: written})
	equal(t, "state", slices.Sorted(maps.Keys(m.State.Files())), []string{"pending.json", "written.json"})
	must(t, reboot(core.Handler(agentUID)))
	equal(t, "reboots", m.Reboots, 1)

	equal(t, "boot", m.Boot(t), installtest.Booted{Version: "1.1.0", Slot: "B", Entry: "semper_1.1.0+2-1.efi"})
	core = m.Core()
	hash1 := hex.EncodeToString(r1.RootHash[:])
	other := &wire.Other{Version: "1.0.0", Bootable: true}
	equal(t, "on trial", status(t, core), wire.Status{Version: "1.1.0", Slot: "B", RootHash: hash1, Trial: true, WayBack: true, Other: other, Written: written})
	if _, err := push(core, r2); err == nil || !strings.Contains(err.Error(), "is itself on trial") {
		t.Errorf("update during the trial: %v", err)
	}
	for range 2 { // twice is fine
		must(t, core.Bless())
	}
	blessed := &wire.Blessed{Version: "1.1.0", From: "1.0.0", At: installtest.Start}
	equal(t, "blessed", status(t, core), wire.Status{Version: "1.1.0", Slot: "B", RootHash: hash1, WayBack: true, Blessed: blessed, Other: other, Written: written})
	equal(t, "entries", m.Entries(), []string{"semper_1.0.0.efi", "semper_1.1.0.efi"})

	protected = m.Protected(t)
	_, err = push(core, r2)
	must(t, err)
	equal(t, "protected", m.Protected(t), protected)
	equal(t, "entries: 1.0.0 is in no slot any more", m.Entries(), []string{"semper_1.1.0.efi", "semper_1.2.0+3-0.efi"})
	equal(t, "boot", m.Boot(t), installtest.Booted{Version: "1.2.0", Slot: "A", Entry: "semper_1.2.0+2-1.efi"})
}

func TestOneSessionAtATime(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	r := keys.Release(t, "1.1.0")
	core := m.Core()
	first := core.Handler(agentUID)
	b := wire.Begin{SHA256: r.SHA256Hex(), Size: int64(len(r.Payload)), Version: r.Version}
	_, err := first.Begin(b)
	must(t, err)
	if _, err := core.Handler(agentUID).Begin(b); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("second begin: %v", err)
	}
	_, err = first.Data(r.Payload[:20_000])
	must(t, err)
	equal(t, "partial", status(t, core).Partial, &wire.Partial{SHA256: b.SHA256, Offset: 20_000, Size: b.Size})
	// What comes while a session ends has its turn after it.
	second := make(chan error, 1)
	go func() {
		_, err := push(core, r)
		second <- err
	}()
	time.Sleep(50 * time.Millisecond)
	must(t, first.Abort())
	must(t, <-second)
}

// An interrupted installation goes on where it stopped, in another process and another boot.
func TestResume(t *testing.T) {
	keys := installtest.NewKeys(t)
	r := keys.Release(t, "1.1.0")
	b := wire.Begin{SHA256: r.SHA256Hex(), Size: int64(len(r.Payload)), Version: r.Version}
	half := len(r.Payload) / 2
	interrupted := func(t *testing.T) *installtest.Machine {
		m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
		h := m.Core().Handler(agentUID)
		_, err := h.Begin(b)
		must(t, err)
		_, err = h.Data(r.Payload[:half])
		must(t, err)
		must(t, h.Abort())
		return m
	}
	t.Run("same payload", func(t *testing.T) {
		m := interrupted(t)
		m.Boot(t)
		core := m.Core()
		p := status(t, core).Partial
		if p == nil || p.SHA256 != b.SHA256 || p.Size != b.Size || p.Offset <= int64(half)-40_000 || p.Offset > int64(half) {
			t.Fatalf("partial %+v, %d bytes were sent", p, half)
		}
		offset, err := push(core, r)
		must(t, err)
		equal(t, "offset", offset, p.Offset)
		equal(t, "boot", m.Boot(t).Version, "1.1.0")
	})
	t.Run("discarded", func(t *testing.T) {
		m := interrupted(t)
		h := m.Core().Handler(agentUID)
		_, err := h.Begin(b)
		must(t, err)
		must(t, h.Discard())
		equal(t, "state", len(m.State.Files()), 0)
		offset, err := push(m.Core(), r)
		must(t, err)
		equal(t, "offset", offset, 0)
	})
	t.Run("another payload", func(t *testing.T) {
		m := interrupted(t)
		offset, err := push(m.Core(), keys.Release(t, "1.3.0"))
		must(t, err)
		equal(t, "offset", offset, 0)
		equal(t, "boot", m.Boot(t).Version, "1.3.0")
	})
	// The power fails while another payload overwrites the slot: the old checkpoint must be gone, or it would vouch for foreign bytes.
	t.Run("another payload meanwhile", func(t *testing.T) {
		m := interrupted(t)
		other := keys.Release(t, "1.3.0")
		h := m.Core().Handler(agentUID)
		_, err := h.Begin(wire.Begin{SHA256: other.SHA256Hex(), Size: int64(len(other.Payload)), Version: "1.3.0"})
		must(t, err)
		_, err = h.Data(other.Payload[:half])
		must(t, err)
		m.World.CutAfter(0)
		if err := h.Abort(); err == nil && !m.World.Off() {
			t.Fatal("nothing was written at the end of the session")
		}
		m.World.Restore(powercut.Kept)
		offset, err := push(m.Core(), r)
		must(t, err)
		equal(t, "offset", offset, 0)
	})
	for name, damage := range map[string]func(*installtest.Machine){
		"damaged checkpoint": func(m *installtest.Machine) { m.State.Put("checkpoint", []byte("rubbish")) },
		"kernel gone":        func(m *installtest.Machine) { must(t, m.State.Remove("uki.part")) },
		"other keys": func(m *installtest.Machine) {
			m.State.Put("checkpoint", []byte(strings.Replace(string(m.State.Files()["checkpoint"]), "CrAU", "CrAV", 1)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := interrupted(t)
			damage(m)
			offset, err := push(m.Core(), r)
			must(t, err)
			equal(t, "offset", offset, 0)
			equal(t, "boot", m.Boot(t).Version, "1.1.0")
		})
	}
	// What was written before the interruption and changed since then is noticed when it is read back.
	t.Run("slot changed meanwhile", func(t *testing.T) {
		m := interrupted(t)
		damage := make([]byte, 4096)
		for i := range damage {
			damage[i] = 0xaa
		}
		_, err := m.Disk.WriteAt(damage, slotB)
		must(t, err)
		if _, err := push(m.Core(), r); payload.ReasonOf(err) != payload.PartitionHash {
			t.Fatalf("error %v", err)
		}
		equal(t, "entries", m.Entries(), []string{"semper_1.0.0.efi"})
		_, err = push(m.Core(), r) // the whole payload once more heals it
		must(t, err)
	})
}

// A good payload of another version is no failure of the version that was announced: something between server and machine keeps an old file.
func TestAnotherVersionThanAnnounced(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	before := m.Protected(t)
	r := keys.Release(t, "1.0.0")
	_, err := pushBytes(m.Core(), wire.Begin{SHA256: keys.Release(t, "1.1.0").SHA256Hex(), Size: int64(len(r.Payload)), Version: "1.1.0"}, r.Payload)
	var coded wire.Coded
	if !errors.As(err, &coded) || !omaha.ErrorCode(coded.OmahaCode()).Passing() || !strings.Contains(err.Error(), "is of version 1.0.0, but 1.1.0 was announced") {
		t.Errorf("error %v", err)
	}
	equal(t, "what must not change", m.Protected(t), before)
	equal(t, "entries", m.Entries(), []string{"semper_1.0.0.efi"})
}

// slotB is where root-b begins on the test machine: bios to 1 MiB, ESP of 1 MiB, slot A of 2 + 1 + 1 MiB.
const slotB = 6 << 20

// Whatever a payload says, nothing is activated, the running slot and kernel are untouched, and the reason has a code.
func TestHostilePayloads(t *testing.T) {
	keys := installtest.NewKeys(t)
	stranger := installtest.NewKeys(t)
	running := keys.Release(t, "1.1.0")
	good := keys.Release(t, "1.2.0")
	third, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	flip := func(at int) func(installtest.Release) []byte {
		return func(r installtest.Release) []byte {
			b := slices.Clone(r.Payload)
			b[at] ^= 1
			return b
		}
	}
	spec := func(change func(*installtest.Spec)) installtest.Release {
		s := installtest.Spec{Version: "1.2.0"}
		change(&s)
		return keys.Make(t, s)
	}
	for _, c := range []struct {
		name    string
		release installtest.Release
		bytes   func(installtest.Release) []byte
		code    int
		want    string
		// kept: the payload may still be good, what was written of it stays for another try.
		kept bool
	}{
		{"another key", stranger.Release(t, "1.2.0"), nil, 18, "of which 0 are by trusted keys", false},
		{"yet another key", spec(func(s *installtest.Spec) { s.Signers = []crypto.Signer{third} }), nil, 18, "of which 0 are by trusted keys", false},
		{"same version", keys.Make(t, installtest.Spec{Version: "1.1.0", RootSize: 80 << 10}), nil, 35, "version 1.1.0 is not newer than 1.1.0", false},
		{"older version", keys.Release(t, "1.0.9"), nil, 35, "version 1.0.9 is not newer than 1.1.0", false},
		{"other product", spec(func(s *installtest.Spec) { s.Image = func(i *payload.Image) { i.ID = "other" } }), nil, 35, `for image "other"`, false},
		{"other architecture", spec(func(s *installtest.Spec) { s.Image = func(i *payload.Image) { i.Architecture = "arm64" } }), nil, 35, `for architecture "arm64"`, false},
		{"needs a newer one", spec(func(s *installtest.Spec) { s.Image = func(i *payload.Image) { i.MinVersion = "1.1.5" } }), nil, 35, "can only be installed from 1.1.5", false},
		{"flipped byte in the header", good, flip(5), 23, "major version", false},
		{"flipped byte in the manifest", good, flip(60), 18, "of which 0 are by trusted keys", false},
		{"flipped byte in a blob", good, flip(len(good.Payload) / 2), 29, "SHA-256", false},
		{"flipped byte in the payload signature", good, flip(len(good.Payload) - 20), 18, "contents", false},
		{"not a payload", good, func(r installtest.Release) []byte { return []byte(strings.Repeat("<html>captive portal</html>", 1000)) }, 21, "not an update payload", false},
		{"truncated", good, func(r installtest.Release) []byte { return r.Payload[:len(r.Payload)-5000] }, 9, "too early", true},
		{"empty", good, func(r installtest.Release) []byte { return nil }, 9, "too early", true},
		{"longer than it says", good, func(r installtest.Release) []byte { return append(slices.Clone(r.Payload), make([]byte, 30_000)...) }, 11, "more data than the payload's", true},
		{"kernel of another root", spec(func(s *installtest.Spec) {
			s.UKI = func(p *uki.Parts) { p.Cmdline = "roothash=" + hex.EncodeToString(running.RootHash[:]) + " ro" }
		}), nil, 16, "the new kernel is for the root hash", false},
		{"kernel without root hash", spec(func(s *installtest.Spec) { s.UKI = func(p *uki.Parts) { p.Cmdline = "ro" } }), nil, 16, "the new kernel", false},
		{"kernel of another version", spec(func(s *installtest.Spec) {
			s.UKI = func(p *uki.Parts) {
				p.OSRelease = []byte("ID=semper\nIMAGE_ID=semper\nIMAGE_VERSION=9.9.9\nPRETTY_NAME=x\nVERSION_ID=9.9.9\n")
			}
		}), nil, 16, `IMAGE_VERSION is "9.9.9"`, false},
		{"kernel that is none", spec(func(s *installtest.Spec) {
			s.Parts = replace("uki", []byte("MZ but no more"))
		}), nil, 16, "the new kernel", false},
		{"wrong root hash", spec(func(s *installtest.Spec) { s.Verity = func(v *payload.Verity) { v.RootHash[3] ^= 1 } }), nil, 15, "root hash", false},
		{"the running root hash", spec(func(s *installtest.Spec) {
			s.Verity = func(v *payload.Verity) { v.RootHash = verity.RootHash(running.RootHash) }
		}), nil, 35, "is the one that runs", false},
		{"no root hash", spec(func(s *installtest.Spec) {
			s.Parts = func(p []payload.Partition) []payload.Partition { p[0].Verity = nil; return p }
		}), nil, 13, "does not say the root's dm-verity hash", false},
		{"signature of another root", spec(func(s *installtest.Spec) { s.Sig = func([]byte) []byte { return running.Sig } }), nil, 15, "signature", false},
		{"signature of a stranger", spec(func(s *installtest.Spec) { s.Sig = func([]byte) []byte { return stranger.Release(t, "1.2.0").Sig } }), nil, 15, "signature", false},
		{"signature that is none", spec(func(s *installtest.Spec) { s.Sig = func(b []byte) []byte { return make([]byte, 4096) } }), nil, 15, "signature", false},
		{"root larger than the slot", spec(func(s *installtest.Spec) { s.RootSize = 2<<20 + 4096; s.ChunkSize = 1 << 20 }), nil, 13, "fit into slot B", false},
		{"signature larger than its window", spec(func(s *installtest.Spec) { s.Sig = func([]byte) []byte { return make([]byte, 68<<10) } }), nil, 13, "fit into slot B", false},
		{"kernel larger than the ESP", spec(func(s *installtest.Spec) {
			s.UKI = func(p *uki.Parts) { p.Initrd = make([]byte, 6<<20) }
			s.ChunkSize = 1 << 20
		}), nil, 36, "the ESP is full", false},
		{"partition nobody has", spec(func(s *installtest.Spec) {
			s.Parts = func(p []payload.Partition) []payload.Partition {
				return append(p, payload.Partition{Name: "esp", Data: strings.NewReader("x"), Size: 1})
			}
		}), nil, 13, "exactly the partitions", false},
		{"partition missing", spec(func(s *installtest.Spec) {
			s.Parts = func(p []payload.Partition) []payload.Partition { return p[:2] }
		}), nil, 13, "exactly the partitions", false},
		{"version too long for a label", keys.Make(t, installtest.Spec{Version: "2.0.0", Image: func(i *payload.Image) { i.Version = "2.0.0." + strings.Repeat("1", 30) }}), nil, 13, "cannot be installed", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := installtest.NewMachine(t, keys, running)
			before := m.Protected(t)
			data := c.release.Payload
			if c.bytes != nil {
				data = c.bytes(c.release)
			}
			b := wire.Begin{SHA256: c.release.SHA256Hex(), Size: int64(len(c.release.Payload)), Version: c.release.Version}
			_, err := pushBytes(m.Core(), b, data)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			var coded wire.Coded
			if !errors.As(err, &coded) || coded.OmahaCode() != c.code {
				t.Errorf("error %v: code %v, want %d", err, coded, c.code)
			}
			equal(t, "protected", m.Protected(t), before)
			equal(t, "entries", m.Entries(), []string{"semper_1.1.0.efi"})
			if left := m.State.Files(); !c.kept && len(left) != 0 {
				t.Errorf("left in the state folder: %q", slices.Sorted(maps.Keys(left)))
			}
			st := status(t, m.Core())
			if st.Pending != nil || st.RolledBack != nil {
				t.Errorf("status %+v", st)
			}
			// The machine is none the worse for it.
			_, err = push(m.Core(), good)
			must(t, err)
			equal(t, "boot", m.Boot(t).Version, "1.2.0")
		})
	}
	t.Run("announced otherwise", func(t *testing.T) {
		m := installtest.NewMachine(t, keys, running)
		_, err := pushBytes(m.Core(), wire.Begin{SHA256: good.SHA256Hex(), Size: int64(len(good.Payload)) + 1, Version: "1.2.0"}, good.Payload)
		if payload.ReasonOf(err) != payload.SizeMismatch {
			t.Errorf("size: %v", err)
		}
		_, err = pushBytes(m.Core(), wire.Begin{SHA256: running.SHA256Hex(), Size: int64(len(good.Payload)), Version: "1.2.0"}, good.Payload)
		if payload.ReasonOf(err) != payload.HashMismatch {
			t.Errorf("hash: %v", err)
		}
		equal(t, "entries", m.Entries(), []string{"semper_1.1.0.efi"})
	})
}

// replace swaps the bytes of one partition.
func replace(name string, data []byte) func([]payload.Partition) []payload.Partition {
	return func(list []payload.Partition) []payload.Partition {
		for i := range list {
			if list[i].Name == name {
				list[i].Data, list[i].Size = strings.NewReader(string(data)), int64(len(data))
			}
		}
		return list
	}
}

func TestNothingIsWrittenWithoutTrust(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	changes := m.World.Changes()
	if _, err := push(m.Core(), installtest.NewKeys(t).Release(t, "1.1.0")); err == nil {
		t.Fatal("a stranger's payload was installed")
	}
	equal(t, "changes", m.World.Changes(), changes)

	c := install.New(install.Options{
		Storage: func() (install.Storage, error) { return install.Storage{Disk: m.Disk, ESP: m.ESP, State: m.State}, nil },
		Trust:   func() (install.Trust, error) { return install.LoadTrust(t.TempDir()) },
	})
	_, err := push(c, keys.Release(t, "1.1.0"))
	var coded wire.Coded
	if err == nil || !errors.As(err, &coded) || coded.OmahaCode() != 18 || !strings.Contains(err.Error(), "trusts no payload key") {
		t.Errorf("no keys: %v", err)
	}
}

// The ESP belongs to another machine, or the running entry was deleted: no step is right then.
func TestRunningEntryMissing(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	must(t, m.ESP.Remove("semper_1.0.0.efi"))
	m.ESP.Put("semper_0.9.0.efi", keys.Release(t, "0.9.0").UKI)
	core := m.Core()
	_, err := push(core, keys.Release(t, "1.1.0"))
	if err == nil || !strings.Contains(err.Error(), "no boot entry of the running version") {
		t.Errorf("begin: %v", err)
	}
	if err := core.Bless(); err == nil {
		t.Error("blessed without an entry")
	}
	if went, err := core.Rollback(nil); went || err == nil || m.Reboots != 0 {
		t.Errorf("rollback: %v, %v, %d reboots", went, err, m.Reboots)
	}
	equal(t, "entries", m.Entries(), []string{"semper_0.9.0.efi"})
}

// The trap of systemd's bless-boot: with both names there it takes the work for done.
func TestBlessLeavesOneName(t *testing.T) {
	keys := installtest.NewKeys(t)
	r := keys.Release(t, "1.0.0")
	m := installtest.NewMachine(t, keys, r)
	m.ESP.Put("semper_1.0.0+2-1.efi", r.UKI)
	m.ESP.Put("semper_1.0.0+0-3.efi", r.UKI)
	must(t, m.Core().Bless())
	equal(t, "entries", m.Entries(), []string{"semper_1.0.0.efi"})
	must(t, m.ESP.Remove("semper_1.0.0.efi"))
	m.ESP.Put("semper_1.0.0+2-1.efi", r.UKI)
	m.ESP.Put("semper_1.0.0+0-3.efi", r.UKI)
	must(t, m.Core().Bless())
	equal(t, "entries", m.Entries(), []string{"semper_1.0.0.efi"})
}

func trial(t *testing.T, keys installtest.Keys) *installtest.Machine {
	t.Helper()
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.1.0"))
	_, err := push(m.Core(), keys.Release(t, "1.2.0"))
	must(t, err)
	equal(t, "boot", m.Boot(t).Version, "1.2.0")
	return m
}

var sick = &health.Result{Checks: []health.CheckResult{
	{Name: "10-ok", OK: true},
	{Name: "50-db", Problem: "exit status 1", Output: "connecting\nno database\n"},
}}

func TestFailedHealthCheckGoesBack(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := trial(t, keys)
	m.Now = m.Now.Add(time.Hour)
	went, err := m.Core().Rollback(sick)
	must(t, err)
	if !went || m.Reboots != 1 {
		t.Fatalf("went %v, %d reboots", went, m.Reboots)
	}
	equal(t, "entries", m.Entries(), []string{"semper_1.1.0.efi", "semper_1.2.0+0-1.efi"})
	equal(t, "boot", m.Boot(t).Version, "1.1.0")
	core := m.Core()
	want := &wire.RolledBack{
		Version: "1.2.0", Reason: "health check 50-db failed: exit status 1: no database", Check: "50-db", Output: "connecting\nno database\n", At: m.Now,
	}
	for range 2 {
		st := status(t, core)
		equal(t, "rolled back", st.RolledBack, want)
		if st.Pending != nil || st.Trial {
			t.Errorf("status %+v", st)
		}
	}
	// A healthy newer version ends the matter.
	_, err = push(core, keys.Release(t, "1.3.0"))
	must(t, err)
	equal(t, "still known", status(t, core).RolledBack, want)
	equal(t, "boot", m.Boot(t).Version, "1.3.0")
	must(t, m.Core().Bless())
	if r := status(t, m.Core()).RolledBack; r != nil {
		t.Errorf("still rolled back: %+v", r)
	}
	equal(t, "entries", m.Entries(), []string{"semper_1.1.0.efi", "semper_1.3.0.efi"})
}

// The power fails on the way back, at every step: the machine ends in the old version, or tries the new one again, and the reason is not lost.
func TestRollbackSurvivesPowerCuts(t *testing.T) {
	keys := installtest.NewKeys(t)
	base := trial(t, keys)
	for cut := 0; ; cut++ {
		var done bool
		for _, fate := range []powercut.Fate{powercut.Lost, powercut.Kept, powercut.Mixed(1), powercut.Mixed(2), powercut.Mixed(3)} {
			m := base.Clone()
			m.World.CutAfter(cut)
			_, err := m.Core().Rollback(sick)
			done = err == nil && !m.World.Off()
			m.World.Restore(fate)
			if m.Boot(t).Version == "1.2.0" {
				must(t, func() error { _, err := m.Core().Rollback(sick); return err }())
				equal(t, "boot", m.Boot(t).Version, "1.1.0")
			}
			st := status(t, m.Core())
			if st.RolledBack == nil || st.RolledBack.Check != "50-db" || st.Pending != nil {
				t.Fatalf("cut after %d: status %+v", cut, st)
			}
		}
		if done {
			return
		}
	}
}

func TestKernelThatPanicsIsNoticed(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.1.0"))
	_, err := push(m.Core(), keys.Release(t, "1.2.0"))
	must(t, err)
	for i, entry := range []string{"semper_1.2.0+2-1.efi", "semper_1.2.0+1-2.efi", "semper_1.2.0+0-3.efi"} {
		equal(t, fmt.Sprintf("boot %d", i+1), m.Boot(t), installtest.Booted{Version: "1.2.0", Slot: "B", Entry: entry})
	}
	equal(t, "boot 4", m.Boot(t).Version, "1.1.0")
	core := m.Core()
	st := status(t, core)
	if st.RolledBack == nil || st.RolledBack.Version != "1.2.0" || !strings.Contains(st.RolledBack.Reason, "tried 3 times and never got as far as its health checks") || st.Pending != nil {
		t.Fatalf("status %+v", st)
	}
	if err := reboot(core.Handler(agentUID)); err == nil {
		t.Error("rebooted without a pending update")
	}
	if _, ok := m.State.Files()["pending.json"]; ok {
		t.Error("the record of the pending update is still there")
	}
}

// Between two tries of the new version somebody may start the old one: the update still waits.
func TestStillPendingWithTriesLeft(t *testing.T) {
	keys := installtest.NewKeys(t)
	r1 := keys.Release(t, "1.1.0")
	m := installtest.NewMachine(t, keys, r1)
	_, err := push(m.Core(), keys.Release(t, "1.2.0"))
	must(t, err)
	m.Boot(t)
	m.Hash, m.Running = r1.RootHash, r1.Image // chosen in the loader's menu
	st := status(t, m.Core())
	if st.Pending == nil || st.Pending.Version != "1.2.0" || st.RolledBack != nil {
		t.Errorf("status %+v", st)
	}
}

// Somebody removed the entry of an installed update: it does not exist any more, and is no rollback.
func TestEntryOfPendingUpdateRemoved(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.1.0"))
	r := keys.Release(t, "1.2.0")
	_, err := push(m.Core(), r)
	must(t, err)
	must(t, m.ESP.Remove("semper_1.2.0+3-0.efi"))
	st := status(t, m.Core())
	if st.Pending != nil || st.RolledBack != nil {
		t.Errorf("status %+v", st)
	}
	_, err = push(m.Core(), r)
	must(t, err)
	equal(t, "nothing is written twice", status(t, m.Core()).Written, &wire.Written{Version: "1.2.0", Skipped: 160 << 10, At: installtest.Start})
	equal(t, "boot", m.Boot(t).Version, "1.2.0")
}

func TestRollbackRefusesToLoop(t *testing.T) {
	keys := installtest.NewKeys(t)
	t.Run("blessed before", func(t *testing.T) {
		m := trial(t, keys)
		must(t, m.Core().Bless())
		before := m.Entries()
		went, err := m.Core().Rollback(sick)
		if went || !fault.Is(err, fault.Verification) || !strings.Contains(err.Error(), "no database: not going back, version 1.2.0 has been healthy before") || m.Reboots != 0 {
			t.Errorf("went %v, %v, %d reboots", went, err, m.Reboots)
		}
		equal(t, "entries", m.Entries(), before)
	})
	t.Run("nothing to go back to", func(t *testing.T) {
		r := keys.Release(t, "1.0.0")
		m := installtest.NewMachine(t, keys, r)
		must(t, m.ESP.Rename("semper_1.0.0.efi", "semper_1.0.0+3-0.efi")) // a fresh disk on trial
		m.Boot(t)
		went, err := m.Core().Rollback(nil)
		if went || err == nil || !strings.Contains(err.Error(), "slot B holds nothing that can be booted") || m.Reboots != 0 {
			t.Errorf("went %v, %v, %d reboots", went, err, m.Reboots)
		}
		equal(t, "entries", m.Entries(), []string{"semper_1.0.0+2-1.efi"})
	})
	t.Run("the other one is bad too", func(t *testing.T) {
		m := trial(t, keys)
		must(t, m.ESP.Rename("semper_1.1.0.efi", "semper_1.1.0+0-3.efi"))
		if went, err := m.Core().Rollback(nil); went || err == nil || m.Reboots != 0 {
			t.Errorf("went %v, %v, %d reboots", went, err, m.Reboots)
		}
	})
	t.Run("the other slot is being written", func(t *testing.T) {
		m := trial(t, keys)
		must(t, m.ESP.Remove("semper_1.1.0.efi"))
		if went, err := m.Core().Rollback(nil); went || err == nil || m.Reboots != 0 {
			t.Errorf("went %v, %v, %d reboots", went, err, m.Reboots)
		}
	})
}

// A new attempt at a version that failed before starts with a clean record.
func TestRetryOfAFailedVersion(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := trial(t, keys)
	went, err := m.Core().Rollback(sick)
	must(t, err)
	equal(t, "went", went, true)
	equal(t, "boot", m.Boot(t).Version, "1.1.0")
	_, err = push(m.Core(), keys.Release(t, "1.2.0"))
	must(t, err)
	equal(t, "entries", m.Entries(), []string{"semper_1.1.0.efi", "semper_1.2.0+3-0.efi"})
	if st := status(t, m.Core()); st.RolledBack != nil || st.Pending == nil {
		t.Errorf("status %+v", st)
	}
}

// The second of two updates before a reboot replaces the first.
func TestNewerUpdateReplacesPendingOne(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	core := m.Core()
	for _, v := range []string{"1.1.0", "1.2.0"} {
		_, err := push(core, keys.Release(t, v))
		must(t, err)
	}
	equal(t, "entries", m.Entries(), []string{"semper_1.0.0.efi", "semper_1.2.0+3-0.efi"})
	equal(t, "pending", status(t, core).Pending.Version, "1.2.0")
	equal(t, "boot", m.Boot(t).Version, "1.2.0")
}

// An older, longer signature's end must not be read as part of the new one.
func TestRestOfAnOlderSignatureIsCleared(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	rubbish := []byte(strings.Repeat("x", 64<<10))
	const sigB = slotB + 3<<20
	_, err := m.Disk.WriteAt(rubbish, sigB)
	must(t, err)
	_, err = push(m.Core(), keys.Release(t, "1.1.0"))
	must(t, err)
	equal(t, "boot", m.Boot(t).Version, "1.1.0")
}

// fullState is a state folder without room.
type fullState struct{ durable.Folder }

func (fullState) Free() (int64, error) { return 1000, nil }

// A fresh disk whose first version never gets healthy has no way back that an update could destroy: the update may be what heals it.
func TestUpdateOnTrialWithoutAWayBack(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	must(t, m.ESP.Rename("semper_1.0.0.efi", "semper_1.0.0+3-0.efi"))
	m.Boot(t)
	if st := status(t, m.Core()); !st.Trial || st.WayBack {
		t.Fatalf("status %+v", st)
	}
	_, err := push(m.Core(), keys.Release(t, "1.1.0"))
	must(t, err)
	equal(t, "boot", m.Boot(t).Version, "1.1.0")
}

func TestFullVar(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	core := install.New(install.Options{
		Machine: install.Machine{RootHash: m.Hash, Image: m.Running, BootID: "x"},
		Storage: func() (install.Storage, error) {
			return install.Storage{Disk: m.Disk, ESP: m.ESP, State: fullState{m.State}}, nil
		},
		Trust: func() (install.Trust, error) { return install.Trust{Payload: keys.Trust()}, nil },
		Now:   func() time.Time { return m.Now },
		Log:   discard,
	})
	changes := m.World.Changes()
	if _, err := push(core, keys.Release(t, "1.1.0")); err == nil || !strings.Contains(err.Error(), "/var is full") || !fault.Is(err, fault.IO) {
		t.Errorf("error %v", err)
	}
	equal(t, "changes", m.World.Changes(), changes)
}

// Without a certificate in the image the signature's root hash is compared at least.
func TestNoVerityCertificate(t *testing.T) {
	keys := installtest.NewKeys(t)
	try := func(r installtest.Release) error {
		m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
		_, err := push(install.New(install.Options{
			Machine: install.Machine{RootHash: m.Hash, Image: m.Running, BootID: "x"},
			Storage: func() (install.Storage, error) { return install.Storage{Disk: m.Disk, ESP: m.ESP, State: m.State}, nil },
			Trust:   func() (install.Trust, error) { return install.Trust{Payload: keys.Trust()}, nil },
			Now:     func() time.Time { return m.Now },
			Log:     discard,
		}), r)
		return err
	}
	must(t, try(keys.Release(t, "1.1.0")))
	other := keys.Release(t, "1.3.0").Sig
	err := try(keys.Make(t, installtest.Spec{Version: "1.1.0", Sig: func([]byte) []byte { return other }}))
	if err == nil || !strings.Contains(err.Error(), "signature is for the root hash") {
		t.Errorf("error %v", err)
	}
}
