package agent

import "github.com/semper-os/semper/updater/wire"

// boot tells the times apart between which the machine went down: the kernel's boot id, and after a soft-reboot, over which that stays, their number.
func (a *Agent) boot() string { return a.slots.Soft.BootID(a.o.BootID) }

// byWhat says how the machine is to reboot into p, and why.
func (a *Agent) byWhat(p *wire.Pending) (soft bool, why string) {
	switch {
	case !a.setup.Settings.Reboot.Soft:
		return false, ""
	case p.Full != "":
		return false, "a full reboot: " + p.Full
	case a.state.Reboots.Update.Equal(p.At) && a.state.Reboots.Count > 0:
		return false, "a full reboot: the one before did not lead there"
	default:
		return true, "a soft-reboot: only user space changed"
	}
}

// order has the installer reboot the machine, and remembers where that is not as it was meant.
func (a *Agent) order(i Installer, soft bool) error {
	going, err := i.Reboot(soft)
	if err == nil && soft && !going.Soft {
		a.o.Log.Warn("no soft-reboot", "why", going.Why)
		a.change(func(s *State) { s.note(a.now(), "a full reboot instead of a soft-reboot: "+clip(going.Why, 300)) })
	}
	return err
}
