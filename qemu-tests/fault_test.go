//go:build soak

package qemutests

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/vm"
)

// TestNetworkFaults puts between a machine and its server what is found there in hotels and behind broken caches, one after the other, then breaks the clock and fills
// the machine's file systems. Nothing may be installed, each time the machine must say what is wrong, and when all of it is over it updates.
func TestNetworkFaults(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	proxy := startProxy(t, s)
	m := branch(t, ready)
	m.use(proxy.URL)
	page := func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<html><body>Please log in to use this network.</body></html>")
		return true
	}
	login := func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/login" {
			return page(w, r)
		}
		http.Redirect(w, r, "/login", http.StatusFound)
		return true
	}
	payloads := func(answer func(http.ResponseWriter, *http.Request) bool) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			return (strings.HasPrefix(r.URL.Path, "/payloads/") || r.URL.Path == "/login") && answer(w, r)
		}
	}
	file := func(name string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool { http.ServeFile(w, r, name); return true }
	}
	// said waits until the machine rests and its last problem is the expected one.
	said := func(want ...string) {
		t.Helper()
		last := m.waitStatus(func(r agent.Report) bool {
			if r.State != agent.StateIdle || r.LastError == nil {
				return false
			}
			for _, w := range want {
				if !strings.Contains(r.LastError.Text, w) {
					return false
				}
			}
			return true
		})
		if last.Pending != nil || last.Version != first {
			t.Errorf("%v: %+v", want, last)
		}
		if label, _ := m.idleSlot(); strings.HasPrefix(label, "semper_") {
			t.Errorf("%v: slot B is called %s", want, label)
		}
		if got := m.entries(); got != "semper_1.0.0.efi" {
			t.Errorf("%v: boot entries %s", want, got)
		}
	}
	check := func() { // it fails where the server does not answer
		_, _ = m.Run(t.Context(), "semperctl check")
	}

	// The question itself.
	proxy.Instead(page)
	check()
	said("check for an update", "text/html")
	proxy.Instead(login)
	check()
	said("check for an update")
	proxy.Instead(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", "text/xml")
		_, _ = io.WriteString(w, `<?xml version="1.0"?><response protocol="3.0" server="x"><app appid="{5e3e2f0a-9d1b-4c58-8f53-7d1f0c6b7a11}" status="ok"><updatecheck stat`)
		return true
	})
	check()
	said("check for an update")
	proxy.Instead(nil)
	m.check()
	if r := m.status(); !strings.Contains(r.CheckResult, "no update") || len(r.Bad) != 0 {
		t.Errorf("the line is sound again: %+v", r)
	}

	// A clock that is wrong by years in both directions changes nothing but the times that are shown, and plans nothing for years to come.
	for _, years := range []int{12, -6} {
		m.run("date --set=@" + fmt.Sprint(time.Now().AddDate(years, 0, 0).Unix()))
		m.check()
		if r := m.status(); !strings.Contains(r.CheckResult, "no update") || r.Pending != nil {
			t.Errorf("%d years off: %+v", years, r)
		}
	}
	m.run("date --set=@" + fmt.Sprint(time.Now().Unix()))
	m.check()
	if r := m.status(); time.Until(r.NextCheck) > 7*time.Hour {
		t.Errorf("the next check is on %s", r.NextCheck)
	}

	// The payload. A line that lies says nothing against the version.
	s.publish(second)
	proxy.Instead(payloads(login))
	m.check()
	said("a web page came instead of the payload")
	proxy.Instead(payloads(file(filepath.Join(releasePath(first), release.Payload)))) // 200, with the body of the last release
	m.check()
	said("announced") // by its size, or else by its version
	if r := m.status(); len(r.Failed) != 0 {
		t.Errorf("the line's faults count against the version: %+v", r.Failed)
	}
	proxy.Instead(nil)

	// Full file systems. The download does not even begin.
	served := len(proxy.Fetches())
	m.run("dd if=/dev/zero of=/efi/full bs=1M 2>/dev/null; sync; df /efi | tail -1")
	m.check()
	said("ESP")
	m.run("rm /efi/full; sync")
	for _, f := range proxy.Fetches()[served:] {
		if f.Served > 16<<20 { // what is on its way in buffers, of more than 100 MB
			t.Errorf("%d bytes were fetched for an ESP that is full", f.Served)
		}
	}
	m.run("fallocate --length $(($(stat --file-system --format='%a * %S' /var) - 65536)) /var/full || dd if=/dev/zero of=/var/full bs=1M; dd if=/dev/zero of=/var/rest bs=4k 2>/dev/null; sync")
	m.check()
	said("/var is full")
	m.run("rm /var/full /var/rest; sync")

	m.check()
	m.waitVersion(second)
	m.waitStatus(blessed(second))
	s.waitComplete(second)
}

// TestDiskFaults gives a machine a disk that fails a write, then a read, then answers very slowly: the first two end the attempt and are told, and the update comes
// through by itself afterwards.
func TestDiskFaults(t *testing.T) {
	t.Parallel()
	takeSlot(t)
	origin, err := ready()
	if err != nil {
		t.Fatal(err)
	}
	c, err := origin.Branch(t.Name(), filepath.Join(world.dir, t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	root := rootB(t)
	c.DiskErrors = []vm.DiskError{{Write: true, Sector: root + 40000}, {Sector: root + 80000}}
	m := start(t, c)
	s := startServer(t)
	s.publish(second)
	m.use(s.URL)
	for _, want := range []string{"write", "read"} {
		m.check()
		r := m.waitStatus(func(r agent.Report) bool {
			return r.State == agent.StateIdle && r.LastError != nil && strings.Contains(r.LastError.Text, want)
		})
		if !strings.Contains(r.LastError.Text, "input/output error") || r.Pending != nil || len(r.Failed) > 0 {
			t.Errorf("after a failed %s: %+v, failed versions %+v", want, r.LastError, r.Failed)
		}
		if got := m.entries(); got != "semper_1.0.0.efi" {
			t.Errorf("after a failed %s: boot entries %s", want, got)
		}
	}
	// A disk that stalls: four requests a second for a while.
	throttle := func(iops int) {
		t.Helper()
		limit := map[string]any{"id": "/machine/peripheral-anon/device[1]/virtio-backend", "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": iops, "iops_rd": 0, "iops_wr": 0}
		if _, err := m.Monitor().Execute(t.Context(), "block_set_io_throttle", limit); err != nil {
			t.Fatal(err)
		}
	}
	throttle(4)
	m.check()
	time.Sleep(30 * time.Second)
	throttle(0)
	m.waitVersion(second)
	m.waitStatus(blessed(second))
	s.waitComplete(second)
}

// rootB is where the root of slot B begins on a released disk, in sectors.
func rootB(t *testing.T) int64 {
	t.Helper()
	f, err := os.Open(filepath.Join(releasePath(first), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	slot, table := findSlot(t, f, layout.B)
	return table.Partitions[slot.Root-1].Offset() / 512
}
