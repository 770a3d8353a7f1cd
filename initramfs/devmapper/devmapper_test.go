package devmapper

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// TestRequestLayout reads a request back through the structures of x/sys, which are generated from the kernel's headers.
func TestRequestLayout(t *testing.T) {
	if headerSize != int(unsafe.Sizeof(unix.DmIoctl{})) || targetSize != int(unsafe.Sizeof(unix.DmTargetSpec{})) {
		t.Fatal("sizes differ from the kernel's")
	}
	targets := []Target{
		{Start: 0, Sectors: 8, Type: "verity", Params: "1 /dev/vda3"},
		{Start: 8, Sectors: 1 << 40, Type: "zero", Params: ""},
	}
	b, err := request(Device{Name: "root", UUID: "CRYPT-VERITY-x-root"}, unix.DM_READONLY_FLAG, targets)
	if err != nil {
		t.Fatal(err)
	}
	h := (*unix.DmIoctl)(unsafe.Pointer(&b[0]))
	if h.Version != [3]uint32{4, 0, 0} || int(h.Data_size) != len(b) || h.Data_start != headerSize || h.Target_count != 2 || h.Flags != 1 {
		t.Errorf("header %+v", h)
	}
	if name, uuid := unix.ByteSliceToString(h.Name[:]), unix.ByteSliceToString(h.Uuid[:]); name != "root" || uuid != "CRYPT-VERITY-x-root" {
		t.Errorf("name %q, uuid %q", name, uuid)
	}
	at := int(h.Data_start)
	for i, want := range targets {
		s := (*unix.DmTargetSpec)(unsafe.Pointer(&b[at]))
		got := Target{
			Start: s.Sector_start, Sectors: s.Length, Type: unix.ByteSliceToString(s.Target_type[:]),
			Params: unix.ByteSliceToString(b[at+targetSize : at+int(s.Next)]),
		}
		if got != want || s.Next%8 != 0 {
			t.Errorf("target %d: %+v, next %d, want %+v", i, got, s.Next, want)
		}
		at += int(s.Next)
	}
	if at != len(b) {
		t.Errorf("targets end at %d of %d", at, len(b))
	}
}

// TestSteps pins the bytes of a whole activation.
func TestSteps(t *testing.T) {
	target, err := Verity{Data: "/dev/vda3", Hash: "/dev/vda4", DataBlocks: 3, Salt: []byte{0xab, 0xcd}, RootHash: [32]byte{0x12, 31: 0x34}}.Target()
	if err != nil {
		t.Fatal(err)
	}
	params := "1 /dev/vda3 /dev/vda4 4096 4096 3 1 sha256 12" + strings.Repeat("00", 30) + "34 abcd 1 restart_on_corruption"
	if want := (Target{Sectors: 24, Type: "verity", Params: params}); target != want {
		t.Fatalf("target %+v\nwant   %+v", target, want)
	}
	steps, err := Device{Name: "root", UUID: "u", ReadOnly: true, Table: []Target{target}}.steps()
	if err != nil {
		t.Fatal(err)
	}
	le := binary.NativeEndian
	header := func(size, targets, flags uint32, uuid string) []byte {
		var b []byte
		for _, v := range []uint32{4, 0, 0, size, 312, targets, 0, flags, 0, 0, 0, 0} {
			b = le.AppendUint32(b, v)
		}
		b = append(b, "root"...)
		b = append(b, make([]byte, 124)...)
		b = append(b, uuid...)
		return append(b, make([]byte, 312-len(b))...)
	}
	spec := (40 + len(params) + 1 + 7) / 8 * 8
	load := header(uint32(312+spec), 1, 1, "")
	load = le.AppendUint64(load, 0)
	load = le.AppendUint64(load, 24)
	load = le.AppendUint32(load, 0)
	load = le.AppendUint32(load, uint32(spec))
	load = append(load, "verity\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	load = append(load, params...)
	load = append(load, make([]byte, 312+spec-len(load))...)
	want := []struct {
		op     uintptr
		buffer []byte
	}{
		{0xc138fd03, header(312, 0, 0, "u")},
		{0xc138fd09, load},
		{0xc138fd06, header(312, 0, 1, "")},
	}
	for i, w := range want {
		if steps[i].op != w.op || !bytes.Equal(steps[i].buffer, w.buffer) {
			t.Errorf("step %d: ioctl %#x\n%q\nwant %#x\n%q", i, steps[i].op, steps[i].buffer, w.op, w.buffer)
		}
	}
}

func TestRefused(t *testing.T) {
	ok := Target{Sectors: 8, Type: "zero"}
	for name, tc := range map[string]struct {
		d    Device
		want string
	}{
		"no name":      {Device{}, `"" cannot be a name`},
		"long name":    {Device{Name: strings.Repeat("n", 128)}, "cannot be a name"},
		"slash":        {Device{Name: "a/b"}, "cannot be a name"},
		"NUL":          {Device{Name: "a\x00b"}, "cannot be a name"},
		"long uuid":    {Device{Name: "a", UUID: strings.Repeat("u", 129)}, "cannot be a UUID"},
		"no type":      {Device{Name: "a", Table: []Target{{}}}, "does not fit"},
		"long type":    {Device{Name: "a", Table: []Target{{Type: strings.Repeat("t", 16)}}}, "does not fit"},
		"long params":  {Device{Name: "a", Table: []Target{{Type: "t", Params: strings.Repeat("p", 4097)}}}, "does not fit"},
		"NUL params":   {Device{Name: "a", Table: []Target{{Type: "t", Params: "\x00"}}}, "does not fit"},
		"many targets": {Device{Name: "a", Table: []Target{ok, ok, ok, ok, ok, ok, ok, ok, ok, ok, ok, ok, ok, ok, ok, ok, ok}}, "17 targets"},
	} {
		if _, err := tc.d.Activate(nil); err == nil || !strings.Contains(err.Error(), tc.want) || !fault.Is(err, fault.Input) {
			t.Errorf("%s: error %v, want one with %q", name, err, tc.want)
		}
	}
	for _, v := range []Verity{{}, {DataBlocks: 1<<48 + 1}, {DataBlocks: 1, Salt: make([]byte, 257)}} {
		if _, err := v.Target(); !fault.Is(err, fault.Input) {
			t.Errorf("%+v: error %v", v, err)
		}
	}
	if target, err := (Verity{DataBlocks: 1}).Target(); err != nil || !strings.Contains(target.Params, " - 1 restart_on_corruption") {
		t.Errorf("no salt: %+v, %v", target, err)
	}
}

func TestActivateNeedsDeviceMapper(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = Device{Name: "root"}.Activate(f)
	if want := "device-mapper root: create: inappropriate ioctl for device"; err == nil || err.Error() != want || !fault.Is(err, fault.IO) {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestRemoveUnusedNeedsDeviceMapper(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := RemoveUnused(f, "root"); err == nil || err.Error() != "device-mapper root: remove: inappropriate ioctl for device" || !fault.Is(err, fault.IO) {
		t.Errorf("error %v", err)
	}
	if err := RemoveUnused(f, "a/b"); !fault.Is(err, fault.Input) {
		t.Errorf("error %v", err)
	}
}
