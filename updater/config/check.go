package config

import "github.com/semper-os/semper/fault"

// check compares keys with each other. Both sides' origins are told, since they may be in different files.
func (s *Settings) check() error {
	if s.Jitter > s.PollInterval {
		return fault.New(fault.Input, "settings: jitter (%s, from %s) must not exceed poll_interval (%s, from %s)",
			durationText(s.Jitter), s.from("jitter"), durationText(s.PollInterval), s.from("poll_interval"))
	}
	r := &s.Reboot
	for _, need := range []struct {
		strategy Strategy
		key      string
		missing  bool
	}{
		{RebootWindow, "reboot.windows", len(r.Windows) == 0},
		{RebootFleetLock, "reboot.fleetlock.url", r.FleetLock.URL == ""},
		{RebootEtcd, "reboot.etcd.endpoints", len(r.Etcd.Endpoints) == 0},
	} {
		if r.Strategy == need.strategy && need.missing {
			return fault.New(fault.Input, "settings: reboot.strategy %q (from %s) needs %s, which is empty (from %s)",
				r.Strategy, s.from("reboot.strategy"), need.key, s.from(need.key))
		}
	}
	for _, pair := range []struct{ one, other string }{
		{"network.client_certificate", "network.client_key"},
		{"reboot.etcd.certificate", "reboot.etcd.key"},
		{"reboot.etcd.username", "reboot.etcd.password_file"},
	} {
		one, other := pair.one, pair.other
		if lookup(one).get(s) == "" {
			one, other = other, one
		}
		if lookup(one).get(s) != "" && lookup(other).get(s) == "" {
			return fault.New(fault.Input, "settings: %s (%q, from %s) needs %s, which is empty (from %s)",
				one, lookup(one).get(s), s.from(one), other, s.from(other))
		}
	}
	return nil
}

// from is where a key's value was set, for messages.
func (s *Settings) from(key string) string {
	if o, ok := s.Origin[key]; ok {
		return o.String()
	}
	return "the defaults"
}
