package vm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestWriteLog writes through the drivers in front of the disk, from a machine that goes on from a snapshot of one without a log, and reads the log's entries.
func TestWriteLog(t *testing.T) {
	dir := t.TempDir()
	m := Machine{Disk: counterDisk(t), Overlay: filepath.Join(dir, "overlay"), DiskSize: 8 << 20, Firmware: BIOS}
	v := start(t, m)
	// As the guest would: through its device.
	qemuIO := func(v *VM, command string) {
		t.Helper()
		info, err := v.Monitor.Human(t.Context(), "info block")
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`Attached to:\s+(\S+/virtio-backend)`).FindStringSubmatch(info)
		if found == nil {
			t.Fatalf("no virtio disk: %s", info)
		}
		out, err := v.Monitor.Human(t.Context(), fmt.Sprintf("qemu-io -d %s \"%s\"", found[1], command))
		if err != nil || out != "" {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	qemuIO(v, "write -P 0x41 4M 64k")
	if err := v.SaveSnapshot(t.Context(), "here"); err != nil {
		t.Fatal(err)
	}
	qemuIO(v, "write -P 0x42 4M 64k")
	if err := v.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(dir, "raw")
	if err := FlattenSnapshot(t.Context(), m.Overlay, "here", raw); err != nil {
		t.Fatal(err)
	}
	if flat, err := os.ReadFile(raw); err != nil || len(flat) != 8<<20 || !bytes.Equal(flat[4<<20:4<<20+64<<10], bytes.Repeat([]byte{0x41}, 64<<10)) {
		t.Errorf("the snapshot's disk has not its content (%d bytes, %v)", len(flat), err)
	}
	m.Snapshot, m.WriteLog = "here", filepath.Join(dir, "log")
	v = start(t, m)
	qemuIO(v, "write -P 0x43 1M 1k")
	qemuIO(v, "flush")
	qemuIO(v, "write -z 2M 512")
	qemuIO(v, "discard 3M 4k")
	if err := v.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(m.WriteLog)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct {
		sector, sectors, flags uint64
		data                   []byte
	}{
		{2048, 2, 0, bytes.Repeat([]byte{0x43}, 1024)}, {0, 0, 1, nil}, {4096, 1, 0, make([]byte, 512)}, {6144, 8, 4, nil},
	}
	if n := binary.LittleEndian.Uint64(log[16:]); n < uint64(len(want)) { // QEMU may flush once more as it ends
		t.Fatalf("%d entries", n)
	}
	at := 512
	for i, w := range want {
		e := log[at:]
		sector, sectors, flags := binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint64(e[8:]), binary.LittleEndian.Uint64(e[16:])
		if sector != w.sector || sectors != w.sectors || flags != w.flags || !bytes.Equal(e[512:512+len(w.data)], w.data) {
			t.Fatalf("entry %d: sector %d, %d sectors, flags %d; want %d, %d, %d", i, sector, sectors, flags, w.sector, w.sectors, w.flags)
		}
		at += 512 + len(w.data)
	}
}
