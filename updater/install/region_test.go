package install

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/updater/powercut"
)

func TestRegionIsAWindow(t *testing.T) {
	d := powercut.NewWorld().NewDisk(1 << 20)
	if _, err := d.WriteAt(bytes.Repeat([]byte{'-'}, 1<<20), 0); err != nil {
		t.Fatal(err)
	}
	r := &Region{disk: d, start: 8192, size: 4096}
	for _, c := range []struct {
		off int64
		n   int
		ok  bool
	}{
		{0, 4096, true},
		{4095, 1, true},
		{4096, 0, true},
		{100, 0, true},
		{0, 4097, false},
		{4095, 2, false},
		{4096, 1, false},
		{-1, 1, false},
		{1 << 62, 1, false},
		{-1 << 63, 8, false},
		{1<<63 - 1, 4096, false},
	} {
		n, err := r.WriteAt(bytes.Repeat([]byte{'x'}, c.n), c.off)
		if (err == nil) != c.ok || c.ok && n != c.n || !c.ok && n != 0 {
			t.Errorf("write of %d at %d: %d, %v", c.n, c.off, n, err)
		}
	}
	all := make([]byte, 1<<20)
	if _, err := d.ReadAt(all, 0); err != nil {
		t.Fatal(err)
	}
	if i := bytes.IndexByte(all, 'x'); i < 8192 || bytes.Count(all, []byte{'x'}) > 4096 || bytes.LastIndexByte(all, 'x') >= 8192+4096 {
		t.Errorf("bytes from %d to %d were written", i, bytes.LastIndexByte(all, 'x'))
	}
	for _, c := range []struct {
		off  int64
		want int
		err  error
	}{{0, 4096, nil}, {1, 4095, io.EOF}, {4096, 0, io.EOF}, {9000, 0, io.EOF}} {
		if n, err := r.ReadAt(make([]byte, 4096), c.off); n != c.want || !errors.Is(err, c.err) {
			t.Errorf("read at %d: %d, %v; want %d, %v", c.off, n, err, c.want, c.err)
		}
	}
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("read in front of the region worked")
	}
}

// A table that lies about its partitions must not lead to the running slot.
func TestRegionsRefuseOverlap(t *testing.T) {
	d := powercut.NewWorld().NewDisk(16 << 20)
	part := func(first, last uint64) gpt.Partition {
		return gpt.Partition{Type: gpt.TypeLinux, GUID: gpt.GUID{1}, First: first, Last: last}
	}
	good := []gpt.Partition{part(2048, 4095), part(4096, 4999), part(5000, 5999), part(6000, 6999), part(7000, 7999), part(8000, 8999)}
	running, idle := layout.Slot{Root: 1, Verity: 2, Sig: 3}, layout.Slot{Name: layout.B, Root: 4, Verity: 5, Sig: 6}
	if _, err := regions(d, &gpt.Table{Partitions: good}, running, idle); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(p []gpt.Partition, idle *layout.Slot)
		want   string
	}{
		"one sector of the running root": {func(p []gpt.Partition, _ *layout.Slot) { p[3].First = 2048 }, "overlap"},
		"inside of the running root":     {func(p []gpt.Partition, _ *layout.Slot) { p[4] = part(2050, 2060) }, "overlap"},
		"shared partition":               {func(_ []gpt.Partition, i *layout.Slot) { i.Root = 1 }, "belongs to both slots"},
		"number zero":                    {func(_ []gpt.Partition, i *layout.Slot) { i.Verity = 0 }, "no partition 0"},
		"number too high":                {func(_ []gpt.Partition, i *layout.Slot) { i.Sig = 7 }, "no partition 7"},
		"unused":                         {func(p []gpt.Partition, _ *layout.Slot) { p[5].Type = gpt.GUID{} }, "no partition 6"},
		"behind the disk's end":          {func(p []gpt.Partition, _ *layout.Slot) { p[5].Last = 1 << 40 }, "outside of the disk"},
		"sector 0":                       {func(p []gpt.Partition, _ *layout.Slot) { p[5].First, p[5].Last = 0, 10 }, "outside of the disk"},
	} {
		t.Run(name, func(t *testing.T) {
			parts, idle := append([]gpt.Partition(nil), good...), idle
			c.change(parts, &idle)
			if _, err := regions(d, &gpt.Table{Partitions: parts}, running, idle); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
