package powercut

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/semper-os/semper/updater/durable"
)

func read(t *testing.T, d *Disk, offset int64, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := d.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDiskFates(t *testing.T) {
	a, b := bytes.Repeat([]byte{'a'}, 10000), bytes.Repeat([]byte{'b'}, 10000)
	setup := func() (*World, *Disk) {
		w := NewWorld()
		d := w.NewDisk(1 << 20)
		w.CutAfter(3)
		if _, err := d.WriteAt(a, 4000); err != nil {
			t.Fatal(err)
		}
		if err := d.Sync(); err != nil {
			t.Fatal(err)
		}
		if _, err := d.WriteAt(b[:5000], 4000); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(t, d, 4000, 10000), append(append([]byte{}, b[:5000]...), a[5000:]...)) {
			t.Fatal("a write is not seen")
		}
		if _, err := d.WriteAt(b[:5000], 9000); !errors.Is(err, ErrOff) || !w.Off() {
			t.Fatalf("the fourth change gave %v", err)
		}
		if _, err := d.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrOff) {
			t.Fatalf("read without power: %v", err)
		}
		if err := d.Sync(); !errors.Is(err, ErrOff) {
			t.Fatalf("sync without power: %v", err)
		}
		return w, d
	}
	w, d := setup()
	w.Restore(Lost)
	if !bytes.Equal(read(t, d, 4000, 10000), a) {
		t.Error("lost: synced data changed")
	}
	w, d = setup()
	w.Restore(Kept)
	if !bytes.Equal(read(t, d, 4000, 10000), b) {
		t.Error("kept: not all there")
	}
	w, d = setup()
	w.Restore(Mixed(1))
	got := read(t, d, 4000, 10000)
	if bytes.Equal(got, a) || bytes.Equal(got, b) || len(bytes.Trim(got, "ab")) != 0 {
		t.Error("mixed: neither old nor new everywhere was expected")
	}
	w2, d2 := setup()
	w2.Restore(Mixed(1))
	if !bytes.Equal(read(t, d2, 4000, 10000), got) {
		t.Error("the same seed gave another outcome")
	}
}

func TestCloneIsApart(t *testing.T) {
	w := NewWorld()
	d, f := w.NewDisk(1<<20), w.NewFolder(1<<20)
	if _, err := d.WriteAt([]byte("one"), 0); err != nil {
		t.Fatal(err)
	}
	f.Put("x", []byte("one"))
	_, disks, folders := w.Clone()
	if _, err := d.WriteAt([]byte("two"), 0); err != nil {
		t.Fatal(err)
	}
	f.Put("x", []byte("two"))
	if got := read(t, disks[0], 0, 3); string(got) != "one" {
		t.Errorf("disk's clone has %q", got)
	}
	if got := folders[0].Files()["x"]; string(got) != "one" {
		t.Errorf("folder's clone has %q", got)
	}
}

// durable.Write must leave the old or the new content after a power cut at any change and with any fate. If it dropped its syncs this would fail.
func TestDurableWriteSurvives(t *testing.T) {
	for cut := 0; ; cut++ {
		fates := []Fate{Kept, Lost}
		for seed := range uint64(20) {
			fates = append(fates, Mixed(seed))
		}
		whole := false
		for _, fate := range fates {
			w := NewWorld()
			f := w.NewFolder(1 << 20)
			f.Put("state", []byte("old"))
			w.CutAfter(cut)
			err := durable.Write(f, "state", bytes.Repeat([]byte("new"), 1000))
			whole = err == nil
			w.Restore(fate)
			got, rerr := durable.Read(f, "state", 1<<20)
			if rerr != nil || string(got) != "old" && !bytes.Equal(got, bytes.Repeat([]byte("new"), 1000)) {
				t.Fatalf("cut after %d: %q, %v", cut, got, rerr)
			}
			if err == nil && string(got) == "old" {
				t.Fatalf("cut after %d: reported as written, and lost", cut)
			}
		}
		if whole {
			break
		}
	}
}

// A write without syncs must not survive every fate, or the model proves nothing.
func TestSloppyWriteIsCaught(t *testing.T) {
	w := NewWorld()
	f := w.NewFolder(1 << 20)
	n, err := f.Create("state")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.WriteAt([]byte("new"), 0); err != nil {
		t.Fatal(err)
	}
	w.Restore(Lost)
	if _, err := f.Open("state"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file whose name was never synced is there: %v", err)
	}
	n, _ = f.Create("state")
	_, _ = n.WriteAt([]byte("new"), 0)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	w.Restore(Lost)
	if got := f.Files()["state"]; len(got) != 0 {
		t.Errorf("content that was never synced is there: %q", got)
	}
}

func TestFolderIsFull(t *testing.T) {
	f := NewWorld().NewFolder(100)
	f.Put("x", make([]byte, 60))
	if free, err := f.Free(); err != nil || free != 40 {
		t.Errorf("free %d, %v", free, err)
	}
	if err := durable.Write(f, "y", make([]byte, 41)); err == nil {
		t.Error("more was written than fits")
	}
	if err := durable.Write(f, "y", make([]byte, 40)); err != nil {
		t.Error(err)
	}
}
