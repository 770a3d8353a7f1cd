package daemon_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/semper-os/semper/updater/install/installtest"
)

// startBus starts a private dbus-daemon that lets everybody do everything (package bus tests the image's policy) and returns its socket.
func startBus(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, conf := filepath.Join(dir, "s"), filepath.Join(dir, "conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, `<busconfig><type>system</type><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>`, socket), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("dbus-daemon", "--config-file="+conf, "--nofork", "--nopidfile", "--print-address")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatalf("%v (Debian package dbus-daemon)", err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal("dbus-daemon does not start: ", err)
	}
	return socket
}

// flatcarStatus is what GetStatus returns and StatusUpdate carries, as update_engine's clients declare it.
type flatcarStatus struct {
	LastCheckedTime  int64
	Progress         float64
	CurrentOperation string
	NewVersion       string
	NewSize          int64
}

// TestFlatcarProgram is a program that knows nothing but Flatcar's D-Bus calls, as locksmithd, FLUO and kured do: it asks for an update and waits for the signal
// after which it would reboot the machine.
func TestFlatcarProgram(t *testing.T) {
	t.Parallel()
	keys := installtest.NewKeys(t)
	to := keys.Release(t, "1.1.0")
	h := newHost(t, keys, keys.Release(t, "1.0.0"), 1)
	h.paths.SystemBus = startBus(t)
	h.settings(quiet(trivial(t, "127.0.0.1:0", to), "[reboot]", `strategy = "off"`, "[network]", `bandwidth_limit = "128KiB"`))
	h.on()

	conn, err := dbus.Connect("unix:path=" + h.paths.SystemBus)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const name, path, iface = "com.coreos.update1", "/com/coreos/update1", "com.coreos.update1.Manager"
	if err := conn.AddMatchSignal(dbus.WithMatchInterface(iface), dbus.WithMatchMember("StatusUpdate"), dbus.WithMatchObjectPath(path)); err != nil {
		t.Fatal(err)
	}
	signals := make(chan *dbus.Signal, 1000)
	conn.Signal(signals)
	engine := conn.Object(name, path)
	status := func() (s flatcarStatus, err error) {
		err = engine.Call(iface+".GetStatus", 0).Store(&s.LastCheckedTime, &s.Progress, &s.CurrentOperation, &s.NewVersion, &s.NewSize)
		return s, err
	}
	eventually(t, "semperd is on the bus", func() (error, bool) {
		s, err := status()
		return err, err == nil && s.CurrentOperation == "UPDATE_STATUS_IDLE"
	})
	if err := engine.Call(iface+".AttemptUpdate", 0).Err; err != nil {
		t.Fatal(err)
	}
	var operations []string
	var last flatcarStatus
	progress := -1.0
	for timeout := time.After(patience); last.CurrentOperation != "UPDATE_STATUS_UPDATED_NEED_REBOOT"; {
		select {
		case s := <-signals:
			if err := dbus.Store(s.Body, &last.LastCheckedTime, &last.Progress, &last.CurrentOperation, &last.NewVersion, &last.NewSize); err != nil {
				t.Fatalf("%s%v: %v", s.Name, s.Body, err)
			}
			if len(operations) == 0 || operations[len(operations)-1] != last.CurrentOperation {
				operations = append(operations, last.CurrentOperation)
			}
			if last.CurrentOperation == "UPDATE_STATUS_DOWNLOADING" {
				if last.Progress < progress || last.Progress > 1 || last.NewVersion != "1.1.0" || last.NewSize != int64(len(to.Payload)) {
					t.Errorf("downloading: %+v after %v", last, progress)
				}
				progress = last.Progress
			}
		case <-timeout:
			t.Fatalf("no signal to reboot; seen: %v, last: %+v", operations, last)
		}
	}
	want := []string{
		"UPDATE_STATUS_CHECKING_FOR_UPDATE", "UPDATE_STATUS_UPDATE_AVAILABLE", "UPDATE_STATUS_DOWNLOADING", "UPDATE_STATUS_FINALIZING", "UPDATE_STATUS_UPDATED_NEED_REBOOT",
	}
	seen := slices.DeleteFunc(slices.Clone(operations), func(o string) bool { return o == "UPDATE_STATUS_IDLE" }) // of joining the bus
	if strings.Join(seen, " ") != strings.Join(want, " ") {
		t.Errorf("signals %v, want %v", operations, want)
	}
	if s, err := status(); err != nil || s != last || s.NewVersion != "1.1.0" || s.LastCheckedTime == 0 {
		t.Errorf("GetStatus: %+v, %v; the last signal: %+v", s, err, last)
	}
	// What waits is not installed once more.
	if err := engine.Call(iface+".AttemptUpdate", 0).Err; err != nil {
		t.Error(err)
	}
}
