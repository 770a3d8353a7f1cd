package config

import (
	"reflect"
	"strings"
	"time"

	"github.com/semper-os/semper/partitions/bootentry"
)

// key is one setting.
type key struct {
	name string
	set  func(s *Settings, v any) error // v as the TOML library decodes it
	get  func(s *Settings) any          // a string, bool, int or []string, in the form that set takes, without secrets
	same func(a, b *Settings) bool      // whether both have the same value
}

// field makes a key out of where its value is, how it is read and how it is shown.
func field[T any](name string, at func(*Settings) *T, read func(any) (T, error), show func(T) any) key {
	return key{
		name: name,
		set: func(s *Settings, v any) error {
			x, err := read(v)
			if err == nil {
				*at(s) = x
			}
			return err
		},
		get:  func(s *Settings) any { return show(*at(s)) },
		same: func(a, b *Settings) bool { return reflect.DeepEqual(*at(a), *at(b)) },
	}
}

func text(name string, at func(*Settings) *string, check func(string) error) key {
	return field(name, at, words(check), func(s string) any { return s })
}

func address(name string, at func(*Settings) *string, check func(string) error) key {
	return field(name, at, words(check), func(s string) any { return Redact(s) })
}

func list(name string, at func(*Settings) *[]string, most int, check func(string) error) key {
	return field(name, at, array(most, check), func(l []string) any {
		shown := make([]string, len(l))
		for i := range l {
			shown[i] = Redact(l[i])
		}
		return shown
	})
}

func choice[T ~string](name string, at func(*Settings) *T, choices ...T) key {
	return field(name, at, oneOf(choices), func(v T) any { return string(v) })
}

func number(name string, at func(*Settings) *int, least, most int64) key {
	return field(name, at, integer(least, most), func(n int) any { return n })
}

func truth(name string, at func(*Settings) *bool) key {
	return field(name, at, boolean, func(b bool) any { return b })
}

func wait(name string, at func(*Settings) *time.Duration, bounds span) key {
	return field(name, at, bounds.read, func(d time.Duration) any { return durationText(d) })
}

func size(name string, at func(*Settings) *int64, bounds volume) key {
	return field(name, at, bounds.read, func(n int64) any { return sizeText(n) })
}

// keys are all settings, in the order in which they are shown.
var keys = []key{
	address("server", func(s *Settings) *string { return &s.Server }, optional(checkServer)),
	list("servers", func(s *Settings) *[]string { return &s.Servers }, 8, checkServer),
	text("channel", func(s *Settings) *string { return &s.Channel }, checkChannel),
	text("alias", func(s *Settings) *string { return &s.Alias }, checkAlias),
	text("pin", func(s *Settings) *string { return &s.Pin }, optional(bootentry.CheckVersion)),
	truth("paused", func(s *Settings) *bool { return &s.Paused }),
	number("max_failures", func(s *Settings) *int { return &s.MaxFailures }, 1, 10),
	wait("poll_interval", func(s *Settings) *time.Duration { return &s.PollInterval }, span{least: time.Second, most: maxDuration}),
	wait("initial_delay", func(s *Settings) *time.Duration { return &s.InitialDelay }, span{most: maxDuration}),
	wait("jitter", func(s *Settings) *time.Duration { return &s.Jitter }, span{most: maxDuration}),

	address("network.proxy", func(s *Settings) *string { return &s.Network.Proxy }, optional(checkProxy)),
	text("network.ca_file", func(s *Settings) *string { return &s.Network.CAFile }, optional(checkPath)),
	text("network.client_certificate", func(s *Settings) *string { return &s.Network.ClientCertificate }, optional(checkPath)),
	text("network.client_key", func(s *Settings) *string { return &s.Network.ClientKey }, optional(checkPath)),
	size("network.bandwidth_limit", func(s *Settings) *int64 { return &s.Network.BandwidthLimit }, volume{least: 16 << 10, none: true}),
	truth("network.metered", func(s *Settings) *bool { return &s.Network.Metered }),

	size("payload.max_size", func(s *Settings) *int64 { return &s.Payload.MaxSize }, volume{least: 1}),

	choice("install.cache", func(s *Settings) *Cache { return &s.Install.Cache }, CacheKeep, CacheUse),

	choice("reboot.strategy", func(s *Settings) *Strategy { return &s.Reboot.Strategy },
		RebootImmediate, RebootOff, RebootWindow, RebootFleetLock, RebootEtcd),
	list("reboot.windows", func(s *Settings) *[]string { return &s.Reboot.Windows }, 50, checkWindow),
	text("reboot.time_zone", func(s *Settings) *string { return &s.Reboot.TimeZone }, checkTimeZone),
	wait("reboot.user_grace", func(s *Settings) *time.Duration { return &s.Reboot.UserGrace }, span{most: 24 * time.Hour}),
	wait("reboot.inhibitor_grace", func(s *Settings) *time.Duration { return &s.Reboot.InhibitorGrace }, span{most: maxDuration}),
	wait("reboot.drain_timeout", func(s *Settings) *time.Duration { return &s.Reboot.DrainTimeout }, span{least: time.Second, most: time.Hour}),
	truth("reboot.soft", func(s *Settings) *bool { return &s.Reboot.Soft }),
	number("reboot.max_reboots", func(s *Settings) *int { return &s.Reboot.MaxReboots }, 1, 10),

	address("reboot.fleetlock.url", func(s *Settings) *string { return &s.Reboot.FleetLock.URL }, optional(checkBase)),
	text("reboot.fleetlock.group", func(s *Settings) *string { return &s.Reboot.FleetLock.Group }, checkGroup),

	list("reboot.etcd.endpoints", func(s *Settings) *[]string { return &s.Reboot.Etcd.Endpoints }, 10, checkEndpoint),
	text("reboot.etcd.group", func(s *Settings) *string { return &s.Reboot.Etcd.Group }, checkGroup),
	wait("reboot.etcd.lease", func(s *Settings) *time.Duration { return &s.Reboot.Etcd.Lease }, span{least: time.Minute, most: 24 * time.Hour}),
	text("reboot.etcd.ca_file", func(s *Settings) *string { return &s.Reboot.Etcd.CAFile }, optional(checkPath)),
	text("reboot.etcd.certificate", func(s *Settings) *string { return &s.Reboot.Etcd.Certificate }, optional(checkPath)),
	text("reboot.etcd.key", func(s *Settings) *string { return &s.Reboot.Etcd.Key }, optional(checkPath)),
	text("reboot.etcd.username", func(s *Settings) *string { return &s.Reboot.Etcd.Username }, optional(checkAlias)),
	text("reboot.etcd.password_file", func(s *Settings) *string { return &s.Reboot.Etcd.PasswordFile }, optional(checkPath)),

	choice("health.server", func(s *Settings) *Requirement { return &s.Health.Server }, Required, Advisory, Off),
	wait("health.grace", func(s *Settings) *time.Duration { return &s.Health.Grace }, span{most: 15 * time.Minute}),
	wait("health.interval", func(s *Settings) *time.Duration { return &s.Health.Interval }, span{least: time.Minute, most: maxDuration, none: true}),
	choice("health.later", func(s *Settings) *Later { return &s.Health.Later }, LaterReport, LaterRollback),

	choice("trust.freshness", func(s *Settings) *Freshness { return &s.Trust.Freshness }, FreshnessWarn, FreshnessRequire, FreshnessOff),
	wait("trust.max_age", func(s *Settings) *time.Duration { return &s.Trust.MaxAge }, span{least: time.Hour, most: 365 * day}),
}

// lookup finds a key by its whole name.
func lookup(name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}

// split cuts a key's name into its table, empty at the top, and what is left.
func split(name string) (table, last string) {
	i := strings.LastIndexByte(name, '.')
	return name[:max(i, 0)], name[i+1:]
}

// isTable reports whether some key is in the table of that name or below it.
func isTable(name string) bool {
	for _, k := range keys {
		if strings.HasPrefix(k.name, name+".") {
			return true
		}
	}
	return false
}

// tables are the names of all tables.
func tables() []string {
	var names []string
	for _, k := range keys {
		if t, _ := split(k.name); t != "" && (len(names) == 0 || names[len(names)-1] != t) {
			names = append(names, t)
		}
	}
	return names
}
