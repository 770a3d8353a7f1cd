package initramfs

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/initramfs/modules"
)

const index = `semper-modules 1
module sd_mod sd_mod.ko
module sha256 sha256.ko
module virtio_blk virtio_blk.ko
module virtio_scsi virtio_scsi.ko
alias cpu:type:x86,* sha256
alias scsi:t-0x00* sd_mod
alias virtio:d00000002v* virtio_blk
alias virtio:d00000008v* virtio_scsi
`

func TestColdplug(t *testing.T) {
	sys := fakeSys(t, map[string]string{
		"devices/system/cpu/modalias":               "cpu:type:x86,ven0000\n",
		"bus/virtio/devices/virtio0/modalias":       "virtio:d00000008v00001AF4\n",
		"bus/virtio/devices/virtio1/modalias":       "virtio:d00000008v00001AF4\n",
		"bus/virtio/devices/virtio2/modalias":       "virtio:d00000001v00001AF4\n",
		"bus/platform/devices/pcspkr/driver":        "",
		"bus/platform/devices/long/modalias":        strings.Repeat("x", maxModalias+1),
		"bus/platform/devices/reg-dummy/modalias":   "\n",
		"bus/platform/devices/coretemp.0/modalias":  "platform:coretemp\n",
		"bus/pci/devices/0000:00:00.0/not-modalias": "x\n",
	}, nil)
	want := []string{"cpu:type:x86,ven0000", "platform:coretemp", "virtio:d00000001v00001AF4", "virtio:d00000008v00001AF4"}
	if got := modaliases(sys); !slices.Equal(got, want) {
		t.Fatalf("modaliases %q", got)
	}
	x, err := modules.Parse([]byte(index))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var loaded []string
	var out bytes.Buffer
	bell := newDoorbell()
	c := newColdplug(x, func(name string) error {
		mu.Lock()
		defer mu.Unlock()
		loaded = append(loaded, name)
		switch name {
		case "sha256":
			return unix.ENODEV // a processor without: nothing to report
		case "sd_mod":
			return errors.New("bad signature")
		}
		return nil
	}, bell.ring, NewConsole(func() time.Duration { return 0 }, nil, &out), sys)
	settle := func() {
		t.Helper()
		for !c.idle() {
			select {
			case <-bell:
			case <-time.After(10 * time.Second):
				t.Fatal("nothing happens")
			}
		}
	}
	if !c.round() {
		t.Error("the first round finds nothing")
	}
	settle()
	slices.Sort(loaded)
	if want := []string{"sha256", "virtio_scsi"}; !slices.Equal(loaded, want) {
		t.Errorf("loaded %q, want %q", loaded, want)
	}
	if c.round() {
		t.Error("a second round finds the same devices again")
	}
	// The controller's driver finds a disk.
	more := fakeSys(t, map[string]string{"bus/scsi/devices/0:0:0:0/modalias": "scsi:t-0x00\n"}, nil)
	c.sys = more
	if !c.round() {
		t.Error("a new device is not seen")
	}
	settle()
	if errs := c.failures(); len(errs) != 1 || errs[0].Error() != "bad signature (for scsi:t-0x00)" {
		t.Errorf("failures %v", errs)
	}
}

func TestDoorbell(t *testing.T) {
	d := newDoorbell()
	for range 3 {
		d.ring()
	}
	<-d
	select {
	case <-d:
		t.Error("rings are counted")
	default:
	}
}
