package qemutests

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/qemu-tests/guest"
	"github.com/semper-os/semper/qemu-tests/nbd"
	"github.com/semper-os/semper/updater/agent"
)

// readyDisk is the disk of the machine ready as a raw file.
var readyDisk = sync.OnceValues(func() (string, error) {
	c, err := ready()
	if err != nil {
		return "", err
	}
	return c.FlatDisk(world.ctx)
})

// cutMachine is a machine whose disk has a memory of its own, which is lost when the power fails.
type cutMachine struct {
	t    *testing.T
	raw  string
	boot int
}

func newCutMachine(t *testing.T) *cutMachine {
	t.Helper()
	takeSlot(t)
	origin, err := readyDisk()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(world.dir, t.Name())
	raw := filepath.Join(dir, "disk.raw")
	if err := errors.Join(os.MkdirAll(dir, 0o755), guest.CopySparse(origin, raw)); err != nil {
		t.Fatal(err)
	}
	return &cutMachine{t: t, raw: raw}
}

// start boots the machine as its disk is now. Hook, unless nil, is given the disk before the machine can use it.
func (c *cutMachine) start(hook func(*nbd.Disk)) (*machine, *nbd.Disk) {
	c.t.Helper()
	c.boot++
	// In the temporary folder, since the path of a socket must be short.
	dir, err := os.MkdirTemp("", "semper-nbd-")
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	disk, err := nbd.Open(c.raw, socket)
	if err != nil {
		c.t.Fatal(err)
	}
	if hook != nil {
		hook(disk)
	}
	disk.Serve()
	g, err := guest.Boot(c.t.Context(), guest.Config{
		Name: c.t.Name(), Dir: filepath.Dir(c.raw), NBDSocket: socket, Key: world.key, CPUs: 1, CPU: cpu, KernelArgs: kernelArgs,
	})
	if err != nil {
		c.t.Fatal(errors.Join(err, disk.Close()))
	}
	c.t.Cleanup(func() {
		g.Kill()
		_ = disk.Close() // closed already where the test went well
	})
	return &machine{g, c.t}, disk
}

// waitCut waits for the power to fail, and takes the machine away.
func (c *cutMachine) waitCut(m *machine, disk *nbd.Disk) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), updateTime)
	defer cancel()
	select {
	case <-disk.Off():
	case <-m.Done():
		c.t.Fatal("QEMU ended before the power was cut")
	case <-ctx.Done():
		c.t.Fatalf("the moment for the power cut did not come; the console's last lines:\n%s", m.Console.Tail())
	}
	m.Kill()
	if err := disk.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// slotB reads slot B as a machine would find it after a power cut now.
func slotB(disk *nbd.Disk) (layout.Slot, *gpt.Table, error) {
	table, _, err := gpt.Read(reader{disk}, disk.Size())
	if err != nil {
		return layout.Slot{}, nil, err
	}
	slots, err := layout.Slots(table)
	return slots[1], table, err
}

type reader struct{ *nbd.Disk }

func (r reader) ReadAt(p []byte, offset int64) (int, error) { return r.ReadFlushed(p, offset) }

// TestPowerCuts cuts the power when most of the new root is in the slot, behind the first checkpoint, and then, in the update that goes on, at the very flush that completes the slot: the boot
// entry is not there yet. Each time the old version runs afterwards, and the update goes through in the end.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.publish(second)
	proxy := startProxy(t, s)
	c := newCutMachine(t)
	root := inspect(t, filepath.Join(releasePath(second), release.Payload)).Partition("root")

	m, disk := c.start(func(d *nbd.Disk) {
		_, table, err := slotB(d)
		if err != nil {
			t.Fatal(err)
		}
		slots, err := layout.Slots(table)
		if err != nil {
			t.Fatal(err)
		}
		start := table.Partitions[slots[1].Root-1].Offset()
		most, end := start+root.Size*3/4, start+root.Size
		d.BeforeWrite = func(offset int64, data []byte) bool {
			return offset+int64(len(data)) > most && offset < end
		}
	})
	m.waitVersion(first)
	m.use(proxy.URL)
	m.check()
	c.waitCut(m, disk)

	fetched := len(proxy.Fetches())
	m, disk = c.afterCut(layout.Writing, func(d *nbd.Disk) {
		d.AfterFlush = func() bool {
			b, _, err := slotB(d)
			return err == nil && b.State == layout.Complete && b.Version == second
		}
	})
	m.check()
	c.waitCut(m, disk)
	for _, f := range proxy.Fetches()[fetched:] {
		if f.From == 0 {
			t.Errorf("the download began anew after the cut: %+v", proxy.Fetches())
		}
	}

	m, disk = c.afterCut(layout.Complete, nil)
	m.check()
	m.waitVersion(second)
	r := m.waitStatus(func(r agent.Report) bool { return !r.Trial && r.State == agent.StateIdle })
	if r.Slot != "B" {
		t.Errorf("after the update: %+v", r)
	}
	s.waitComplete(second)
	m.run("sync")
	m.Kill()
	if err := disk.Close(); err != nil {
		t.Error(err)
	}
}

// afterCut boots a machine that lost its power during an update: the old version runs, as if nothing had been. The slot is looked at before anything else can
// change it, and hook is then given the disk.
func (c *cutMachine) afterCut(state layout.State, hook func(*nbd.Disk)) (*machine, *nbd.Disk) {
	c.t.Helper()
	m, disk := c.start(func(d *nbd.Disk) {
		b, _, err := slotB(d)
		if err != nil {
			c.t.Fatal(err)
		}
		if b.State != state || b.Version != second {
			c.t.Errorf("after the cut slot B is %s with version %q, want %s", b.State, b.Version, state)
		}
		if hook != nil {
			hook(d)
		}
	})
	m.waitVersion(first)
	if r := m.status(); r.Slot != "A" || r.Pending != nil || r.RolledBack != nil {
		c.t.Errorf("after the cut: %+v", r)
	}
	if got := m.entries(); strings.Contains(got, second) {
		c.t.Errorf("boot entries %q: the new version was there before its slot was complete", got)
	}
	if n := len(m.Console.Matches(0, regexp.MustCompile("SEMPER CANNOT START"))); n != 0 {
		c.t.Errorf("%d failed starts", n)
	}
	return m, disk
}
