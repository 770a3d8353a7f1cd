package install_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

func label(t *testing.T, m *installtest.Machine, number int) string {
	t.Helper()
	table, _, err := gpt.Read(m.Disk, m.Disk.Size())
	must(t, err)
	return table.Partitions[number-1].Name
}

// rootB is the number of slot B's root.
const rootB = 6

func TestRemainsAreRemoved(t *testing.T) {
	keys := installtest.NewKeys(t)
	r := keys.Release(t, "1.1.0")
	b := wire.Begin{SHA256: r.SHA256Hex(), Size: int64(len(r.Payload)), Version: r.Version}
	// interrupted is a machine whose power failed in the middle of an installation, which left a checkpoint.
	interrupted := func(t *testing.T) *installtest.Machine {
		m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
		h := m.Core().Handler(agentUID)
		must(t, second(h.Begin(b)))
		must(t, second(h.Data(r.Payload[:len(r.Payload)/2])))
		must(t, h.Abort())
		m.Boot(t)
		return m
	}
	status := func(t *testing.T, m *installtest.Machine) { status(t, m.Core()) }
	begin := func(t *testing.T, m *installtest.Machine) {
		_, err := push(m.Core(), keys.Release(t, "0.9.0")) // refused
		if err == nil {
			t.Fatal("an old version was installed")
		}
	}
	for _, c := range []struct {
		name  string
		leave func(t *testing.T, m *installtest.Machine)
		by    func(t *testing.T, m *installtest.Machine)
		state []string
		label string
	}{
		{"what can be resumed stays", func(*testing.T, *installtest.Machine) {}, status, []string{"checkpoint", "uki.part"}, "PRT#semper_1.1.0"},
		{"kernel on the ESP", func(_ *testing.T, m *installtest.Machine) { m.ESP.Put("semper-update.part", []byte("x")) }, status, []string{"checkpoint", "uki.part"}, "PRT#semper_1.1.0"},
		{"kernel without a checkpoint", func(t *testing.T, m *installtest.Machine) { must(t, m.State.Remove("checkpoint")) }, status, nil, "_empty"},
		{"checkpoint without a kernel", func(t *testing.T, m *installtest.Machine) { must(t, m.State.Remove("uki.part")) }, status, nil, "_empty"},
		{"damaged checkpoint", func(_ *testing.T, m *installtest.Machine) { m.State.Put("checkpoint", []byte("x")) }, status, nil, "_empty"},
		{"half-written records", func(_ *testing.T, m *installtest.Machine) { m.State.Put("pending.json.new", []byte("{")) }, status, []string{"checkpoint", "uki.part"}, "PRT#semper_1.1.0"},
		{"all of it, at begin", func(t *testing.T, m *installtest.Machine) {
			m.ESP.Put("semper-update.part", []byte("x"))
			m.State.Put("blessed.json.new", nil)
			must(t, m.State.Remove("checkpoint"))
		}, begin, nil, "_empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := interrupted(t)
			c.leave(t, m)
			before := m.Outside(t)
			delete(before, "ESP semper-update.part")
			c.by(t, m)
			equal(t, "state", slices.Sorted(maps.Keys(m.State.Files())), c.state)
			equal(t, "label", label(t, m, rootB), c.label)
			equal(t, "entries", m.Entries(), []string{"semper_1.0.0.efi"})
			same(t, m.Outside(t), before)
			changes := m.World.Changes()
			status(t, m)
			equal(t, "changes of a second status", m.World.Changes(), changes)
			must(t, second(push(m.Core(), r)))
			equal(t, "boot", m.Boot(t).Version, "1.1.0")
		})
	}
}

// An ESP without room is noticed when the metadata is there, before anything is written, and says nothing against the version.
func TestFullESPIsNoticedBeforeTheFirstBlob(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	m.ESP.Put("photos.zip", make([]byte, 3<<20))
	r := keys.Make(t, installtest.Spec{Version: "1.1.0", ChunkSize: 1 << 20, UKI: func(p *uki.Parts) { p.Initrd = make([]byte, 200<<10) }})
	changes := m.World.Changes()
	h := m.Core().Handler(agentUID)
	must(t, second(h.Begin(wire.Begin{SHA256: r.SHA256Hex(), Size: int64(len(r.Payload)), Version: r.Version})))
	sent := 0
	var err error
	for err == nil && sent < len(r.Payload) {
		_, err = h.Data(r.Payload[sent : sent+1000])
		sent += 1000
	}
	var coded wire.Coded
	if !errors.As(err, &coded) || !strings.Contains(err.Error(), "the ESP is full") {
		t.Fatalf("error %v", err)
	}
	if code := omaha.ErrorCode(coded.OmahaCode()); code != omaha.CodeDeferredByPolicy || !code.Passing() {
		t.Errorf("code %v", code)
	}
	if sent > 5000 {
		t.Errorf("%d bytes were taken before", sent)
	}
	must(t, h.Abort())
	equal(t, "changes", m.World.Changes(), changes)
	must(t, m.ESP.Remove("photos.zip"))
	must(t, second(push(m.Core(), r)))
}

func TestCrowdedESP(t *testing.T) {
	keys := installtest.NewKeys(t)
	for name, c := range map[string]struct {
		file func(int) string
		n    int
		want string
	}{
		"files":   {func(i int) string { return fmt.Sprintf("photo%d.jpg", i) }, 1000, "has 1002 files"},
		"entries": {func(i int) string { return fmt.Sprintf("semper_0.%d.efi", i) }, 50, "more than 50 boot entries"},
	} {
		t.Run(name, func(t *testing.T) {
			m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
			for i := range c.n {
				m.ESP.Put(c.file(i), []byte("x"))
			}
			core := m.Core()
			if _, err := core.Status(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("status: %v", err)
			}
			if _, err := push(core, keys.Release(t, "1.1.0")); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("push: %v", err)
			}
		})
	}
}
