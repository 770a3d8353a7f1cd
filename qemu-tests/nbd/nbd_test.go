package nbd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func open(t *testing.T, path string) (*Disk, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	d, err := Open(path, socket)
	if err != nil {
		t.Fatal(err)
	}
	return d, socket
}

func blank(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// qemuIO is QEMU's own client, the one that matters.
func qemuIO(t *testing.T, socket string, commands ...string) string {
	t.Helper()
	program, err := exec.LookPath("qemu-io")
	if err != nil {
		t.Fatal("the host program qemu-io is missing: install the package qemu-utils")
	}
	args := []string{"--image-opts", "driver=nbd,server.type=unix,server.path=" + socket + ",export=disk"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-io: %v: %s", err, out)
	}
	return string(out)
}

func TestReadWriteFlush(t *testing.T) {
	path := blank(t, 8<<20)
	d, socket := open(t, path)
	writes := 0
	d.BeforeWrite = func(int64, []byte) bool { writes++; return false }
	d.Serve()
	out := qemuIO(t, socket,
		"write -P 0xaa 1000 5000", "read -P 0xaa 1000 5000", "read -P 0 0 1000", "read -P 0 6000 4096",
		"write -f -P 0xbb 1048576 512", "write -z 2000 1000", "read -P 0 2000 1000", "flush", "length")
	if strings.Contains(out, "failed") || !strings.Contains(out, "8 MiB") {
		t.Errorf("qemu-io says: %s", out)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 8<<20)
	copy(want[1000:], bytes.Repeat([]byte{0xaa}, 5000))
	clear(want[2000:3000])
	copy(want[1<<20:], bytes.Repeat([]byte{0xbb}, 512))
	if !bytes.Equal(got, want) {
		t.Error("the file is not what was written")
	}
	if writes == 0 {
		t.Error("the hook saw no write")
	}
}

// TestPowerCut checks what a cut leaves: flushed and forced writes stay, others are gone, later requests have no effect.
func TestPowerCut(t *testing.T) {
	path := blank(t, 1<<20)
	d, socket := open(t, path)
	flushes := 0
	d.AfterFlush = func() bool { flushes++; return flushes == 2 }
	d.Serve()
	client := exec.Command("qemu-io", "-t", "writeback", "--image-opts", "driver=nbd,server.type=unix,server.path="+socket+",export=disk",
		"-c", "write -P 1 0 4096", "-c", "flush", "-c", "write -P 2 4096 4096", "-c", "write -f -P 3 8192 4096", "-c", "flush", "-c", "write -P 4 0 4096")
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	<-d.Off()
	_ = client.Process.Kill()
	_ = client.Wait()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got[0] != 1 || got[4096] != 2 || got[8192] != 3 {
		t.Errorf("after the second flush the disk holds % x", []byte{got[0], got[4096], got[8192]})
	}
}

func TestCutLosesWhatWasNotFlushed(t *testing.T) {
	path := blank(t, 1<<20)
	d, _ := open(t, path)
	if err := d.write([]byte{1, 1, 1}, 0, false); err != nil {
		t.Fatal(err)
	}
	if err := d.flush(); err != nil {
		t.Fatal(err)
	}
	if err := d.write([]byte{2, 2, 2}, 1, false); err != nil {
		t.Fatal(err)
	}
	if err := d.write([]byte{3}, 5000, true); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4)
	if err := d.read(p, 0); err != nil || !bytes.Equal(p, []byte{1, 2, 2, 2}) {
		t.Errorf("before the cut: % x, %v", p, err)
	}
	d.Cut()
	d.Cut()
	if err := d.write([]byte{4}, 0, true); err == nil {
		t.Error("a write after the cut worked")
	}
	d.Serve()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:4], []byte{1, 1, 1, 0}) || got[5000] != 3 {
		t.Errorf("after the cut: % x, %x", got[:4], got[5000])
	}
}

func TestCutBeforeWrite(t *testing.T) {
	d, _ := open(t, blank(t, 1<<20))
	d.BeforeWrite = func(offset int64, data []byte) bool { return offset+int64(len(data)) > 8192 }
	if err := d.write(make([]byte, 8192), 0, true); err != nil {
		t.Error(err)
	}
	if err := d.write([]byte{1}, 8192, true); err == nil {
		t.Error("the write that cuts the power worked")
	}
	p := []byte{9}
	if _, err := d.ReadFlushed(p, 8192); err != nil || p[0] != 0 {
		t.Errorf("got %v, %v", p, err)
	}
	d.Serve()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	if _, err := Open(blank(t, 1000), filepath.Join(t.TempDir(), "s")); err == nil || !strings.Contains(err.Error(), "1000 bytes") {
		t.Errorf("got %v", err)
	}
}
