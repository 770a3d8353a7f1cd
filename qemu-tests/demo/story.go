package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/qemu-tests/guest"
	"github.com/semper-os/semper/qemu-tests/programs"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/vm"
)

const diskSize = 8 << 30

// story is the demo after the build.
type story struct {
	o        options
	programs programs.Folder
	line     *timeline
	releases map[string]built

	server *programs.Server
	guest  *guest.Guest
	sight  *sight
	stop   context.CancelFunc

	took []duration
}

type duration struct {
	what string
	took time.Duration
}

// step is something that must be seen on both sides. A side that has nothing to see is nil.
type step struct {
	name            string
	machine, server func() bool
}

func (s *story) tell(ctx context.Context) error {
	ctx, s.stop = context.WithCancel(ctx)
	if err := s.serve(ctx); err != nil {
		return err
	}
	begin := time.Now()
	if err := s.boot(ctx); err != nil {
		return err
	}
	v := s.sight
	s.line.heading("Boot %s", oldVersion)
	if err := s.see(ctx, step{
		"the machine starts " + oldVersion + " in slot A, is healthy, and checks in",
		func() bool { return v.booted("A", oldVersion) && v.status.Version == oldVersion && !v.status.Trial },
		func() bool { return v.server.FirstVersion == oldVersion },
	}); err != nil {
		return err
	}
	s.done("first boot, until the machine is healthy and has checked in", begin)

	s.line.heading("Roll %s out", newVersion)
	begin = time.Now()
	if err := s.gather(ctx); err != nil {
		return err
	}
	good, err := s.rollOut(ctx, newVersion)
	if err != nil {
		return err
	}
	if err := s.update(ctx, newVersion, "B"); err != nil {
		return err
	}
	if err := s.see(ctx, step{
		"the machine is healthy with " + newVersion + " in slot B, and blessed",
		func() bool {
			return v.status.Version == newVersion && v.status.Slot == "B" && !v.status.Trial && v.noted("", "version "+newVersion+" is healthy")
		},
		func() bool { return v.told(3, 2, "") && v.server.State == "complete" && v.server.Version == newVersion },
	}); err != nil {
		return err
	}
	s.done("update to "+newVersion+", from the rollout's start to the blessing", begin)
	if err := s.seeRollout(ctx, good, "done"); err != nil {
		return err
	}

	s.line.heading("Roll %s out, whose health check fails", sickVersion)
	begin = time.Now()
	sick, err := s.rollOut(ctx, sickVersion)
	if err != nil {
		return err
	}
	if err := s.update(ctx, sickVersion, "A"); err != nil {
		return err
	}
	if err := s.see(ctx, step{
		"the machine goes back to " + newVersion + " by itself, and the server has the failure",
		func() bool {
			r := v.status.RolledBack
			return v.status.Version == newVersion && v.status.Slot == "B" && !v.status.Trial && r != nil && r.Version == sickVersion && r.Check == "50-demo-fails" && v.now("B", newVersion)
		},
		func() bool {
			f := v.failed(sickVersion)
			return f != nil && strings.Contains(f.Reason, "50-demo-fails") && v.server.Version == newVersion
		},
	}); err != nil {
		return err
	}
	s.done("the failed update to "+sickVersion+" and the way back", begin)
	if err := s.seeRollout(ctx, sick, "halted"); err != nil {
		return err
	}

	s.line.heading("Ask again")
	return s.askAgain(ctx)
}

// serve starts the server and publishes the release that machines begin with.
func (s *story) serve(ctx context.Context) error {
	s.line.heading("Serve")
	var err error
	// Machines of a demo are impatient.
	keys := filepath.Join(s.o.out, "keys")
	if s.server, err = s.programs.StartServer(ctx, filepath.Join(s.o.out, "server"), "--poll-interval", "20s",
		"--trust-key", filepath.Join(keys, "payload-1.pem"), "--trust-key", filepath.Join(keys, "payload-2.pem")); err != nil {
		return err
	}
	s.line.add(serverW, "", "semper-server answers at %s, its data is in %s", s.server.URL, filepath.Join(s.o.out, "server"))
	if err := s.server.Publish(ctx, nil, s.releases[oldVersion].Release, "stable"); err != nil {
		return err
	}
	s.line.add(serverW, "", "%s is published and verified (payload %s), channel stable offers it", oldVersion, s.releases[oldVersion].size("full.crau"))
	return nil
}

// boot switches the machine on and begins to watch.
func (s *story) boot(ctx context.Context) error {
	key, err := guest.NewKey()
	if err != nil {
		return err
	}
	url, _, err := vm.GuestURL(s.server.URL)
	if err != nil {
		return err
	}
	settings := fmt.Sprintf("server = %q\nchannel = \"stable\"\ninitial_delay = \"5s\"\npoll_interval = \"20s\"\njitter = \"0s\"\n"+
		"[reboot]\nuser_grace = \"0s\" # the demo is logged in to watch\n", url)
	accel := "KVM"
	if err := vm.ProbeKVM(ctx, "amd64"); err != nil {
		accel = "without KVM, which is slow: " + err.Error()
	}
	s.guest, err = guest.Boot(ctx, guest.Config{
		Name: "demo", Dir: filepath.Join(s.o.out, "machine"), Disk: filepath.Join(s.releases[oldVersion].Release, "disk.raw"), DiskSize: diskSize, Key: key,
		Credentials: []vm.Credential{{Name: "semper.update.toml", Value: []byte(settings)}},
	})
	if err != nil {
		return err
	}
	s.line.add(machineW, "", "is switched on: UEFI, a disk of %d GiB with %s, %s", diskSize>>30, oldVersion, accel)
	s.sight = newSight(s.line)
	go s.sight.watchConsole(ctx, s.guest.Console)
	go s.sight.watchMachine(ctx, s.guest)
	go s.sight.watchServer(ctx, s.server)
	return nil
}

// update is what each update has in common, up to the start of the new version.
func (s *story) update(ctx context.Context, version, slot string) error {
	v := s.sight
	for _, next := range []step{
		{
			"the machine downloads " + version,
			func() bool { return v.noted(agent.StateDownloading, version) },
			func() bool { return v.told(13, 1, version) && v.told(14, 1, version) },
		},
		{
			"the machine has written slot " + slot + " and its boot entry",
			func() bool { return v.noted(agent.StatePending, version) },
			func() bool { return v.told(3, 1, version) },
		},
		{
			"the machine reboots itself into " + version + " in slot " + slot,
			func() bool { return v.booted(slot, version) },
			nil,
		},
	} {
		if err := s.see(ctx, next); err != nil {
			return err
		}
	}
	return nil
}

// see waits for a step on both sides.
func (s *story) see(ctx context.Context, next step) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.patience, fmt.Errorf("not seen within %s", s.o.patience))
	defer cancel()
	go func() {
		select {
		case <-s.guest.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	for _, side := range []struct {
		name string
		seen func() bool
	}{{"on the machine", next.machine}, {"at the server", next.server}} {
		if side.seen == nil {
			continue
		}
		if err := s.sight.wait(ctx, side.seen); err != nil {
			return fmt.Errorf("step %q was not seen %s: %w\nThe console's last lines:\n%s", next.name, side.name, err, s.guest.Console.Tail())
		}
	}
	where := "machine and server agree"
	if next.server == nil {
		where = "seen on the console"
	}
	s.line.add(demoW, "", "ok: %s (%s)", next.name, where)
	return nil
}

// askAgain has the machine look for an update once more: it must not get the version that failed.
func (s *story) askAgain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.patience)
	defer cancel()
	out, err := s.guest.Run(ctx, "semperctl check")
	if err != nil {
		return err
	}
	s.line.add(machineW, "", "semperctl check: %s", out)
	if !strings.Contains(out, "no update") || !strings.Contains(out, sickVersion) {
		return fmt.Errorf("step %q was not seen on the machine: semperctl check says %q", "no update, because "+sickVersion+" failed", out)
	}
	m, err := s.server.Machine(ctx, "")
	if err != nil {
		return err
	}
	s.line.add(serverW, "", "why: %s", m.Why.Sentence)
	if m.Why.Offer != "" || m.Why.Cause != "failed-before" {
		return fmt.Errorf("step %q was not seen at the server: it would answer %+v", sickVersion+" is not offered again", m.Why)
	}
	s.line.add(demoW, "", "ok: %s is not offered to this machine again (machine and server agree)", sickVersion)
	return nil
}

func (s *story) done(what string, begin time.Time) {
	s.took = append(s.took, duration{what, time.Since(begin)})
}

// summary prints sizes and times.
func (s *story) summary() {
	s.line.heading("Sizes and times")
	for _, version := range []string{oldVersion, newVersion, sickVersion} {
		r := s.releases[version]
		s.line.add(demoW, "", "%s: root %s, UKI %s, payload %s; built in %.0f s", version, r.size("root.erofs"), r.size("uki.efi"), r.size("full.crau"), r.took.Seconds())
	}
	for _, d := range s.took {
		s.line.add(demoW, "", "%s: %.0f s", d.what, d.took.Seconds())
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var b initramfs.Boot
	if out, err := s.guest.Run(ctx, "cat "+initramfs.BootPath); err == nil && json.Unmarshal([]byte(out), &b) == nil {
		s.line.add(demoW, "", "semper-init at the last start: root mounted after %.2f s, systemd started after %.2f s", seconds(b.Timings.Root), seconds(b.Timings.Total))
	}
	s.line.add(demoW, "", "all is in %s; boot the machine again with: %s/semper vm run %s", s.o.out, s.o.bin, s.releases[newVersion].Release)
}

func seconds(ms int64) float64 { return float64(ms) / 1000 }

// end stops what runs.
func (s *story) end() {
	if s.stop != nil {
		s.stop()
	}
	if s.guest != nil {
		s.guest.Kill()
	}
	if s.server != nil {
		_ = s.server.Stop() // the story is over, whatever it says
	}
}
