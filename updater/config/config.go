// Package config holds the host agent's settings: a few TOML drop-ins laid over each other.
//
//	/usr/share/flatcar/update.conf, /etc/flatcar/update.conf   Flatcar's, translated (updateconf.go)
//	/usr/lib/semper/update.d/*.toml     the image's own
//	/etc/semper/update.d/*.toml         the administrator's, and semperctl's 90-semperctl.toml
//	/run/semper/update.d/*.toml         for this boot only
//	$CREDENTIALS_DIRECTORY/semper.update.toml   from the hypervisor, the loader or the service manager
//
// Files of a folder are read in byte order of their names. Each key that a later file sets replaces the earlier value, arrays whole; a key it does not set
// is kept. There is no masking by file name. An unknown key, a wrong type or an impossible value is refused with the file, the line and, for keys, the
// nearest name that exists: an agent that runs for years on half-understood settings is worse than one that says no at once.
//
// Every key is one entry of the table in keys.go: how its text is read and checked, where its value is, how it is shown. Load, Show, Changed and WriteDropIn
// all go by that table.
//
// Limits: 64 KiB a file, 100 files a folder; those of each key are with its field below.
package config

import (
	"slices"
	"time"
)

// Settings are the agent's settings after all files were laid over the defaults.
type Settings struct {
	Server       string        // absolute URL of the Omaha end point ("…/v1/update"); empty: none
	Servers      []string      // more end points, at most 8; see AllServers
	Channel      string        // the channel ("track") that the servers are asked for: letters, digits, - _ . and at most 64 of them
	Alias        string        // what people call the machine, told to the server; at most 128 bytes; empty: the host name
	Pin          string        // the only version that is installed; empty: whatever the server offers
	Paused       bool          // the agent checks nothing, downloads nothing and reboots nothing
	MaxFailures  int           // how often a version may fail here before it is not tried again, 1 to 10
	PollInterval time.Duration // time between two checks, 1s to 30d
	InitialDelay time.Duration // time from the agent's start to its first check, at most 30d
	Jitter       time.Duration // each wait is moved by a random amount of up to this much, earlier or later; at most PollInterval

	Network Network
	Payload Payload
	Install Install
	Reboot  Reboot
	Health  Health
	Trust   Trust

	// Ignored names the keys of Flatcar's update.conf that mean nothing here, as "FILE:LINE: KEY". They belong to other programs.
	Ignored []string
	// Origin tells for each key ("poll_interval", "reboot.strategy") where its value was set; a key that is missing has its default.
	Origin map[string]Origin
}

// Network is how servers are reached.
type Network struct {
	Proxy             string // URL with http, https or socks5; empty: as the environment says (HTTPS_PROXY and so on); ProxyNone: none at all
	CAFile            string // absolute path of PEM certificates that are trusted beside the system's; empty: none
	ClientCertificate string // absolute path of a PEM certificate that is shown to servers; only together with ClientKey
	ClientKey         string // absolute path of its PEM key
	BandwidthLimit    int64  // bytes a second for payloads, at least 16 KiB; 0: no limit
	Metered           bool   // the link costs money: checks go on, nothing is downloaded
}

// ProxyNone as a proxy means that none is used, whatever the environment says.
const ProxyNone = "none"

// Payload bounds what is downloaded.
type Payload struct {
	MaxSize int64 // bytes, at least 1; a server that offers a larger payload is refused
}

// Install is how slots are written.
type Install struct {
	Cache Cache
}

// Cache says whether writing a slot goes through the page cache.
type Cache string

// What an installation does with the page cache.
const (
	CacheKeep Cache = "keep" // writes pass it by, so that it keeps what the machine's work needs
	CacheUse  Cache = "use"  // writes go through it
)

// Strategy says when a machine with a finished update reboots.
type Strategy string

// The reboot strategies. With any but RebootOff a reboot also waits for one of Reboot.Windows, where there are some.
const (
	RebootImmediate Strategy = "immediate" // as soon as the update is in place
	RebootOff       Strategy = "off"       // never: a person or another program reboots
	RebootWindow    Strategy = "window"    // in a window; at least one is required
	RebootFleetLock Strategy = "fleetlock" // when a FleetLock server grants it
	RebootEtcd      Strategy = "etcd"      // when a slot of a semaphore in etcd is free
)

// Reboot is when and how a machine reboots into an update.
type Reboot struct {
	Strategy       Strategy
	Windows        []string      // when a reboot may begin ("Mon-Fri 02:00 3h"), at most 50; see package window
	TimeZone       string        // of Windows: an IANA name or TimeZoneLocal; see Location
	UserGrace      time.Duration // how long logged-in users are waited for, at most 24h; 0: not at all
	InhibitorGrace time.Duration // how long blocking inhibitors are honoured, at most 30d; 0: for ever
	DrainTimeout   time.Duration // for all drain hooks together, 1s to 1h
	MaxReboots     int           // into one update, 1 to 10
	Soft           bool          // by soft-reboot where only user space changed

	FleetLock FleetLock
	Etcd      Etcd
}

// TimeZoneLocal as a time zone is the machine's own.
const TimeZoneLocal = "local"

// FleetLock is the server of the strategy of that name.
type FleetLock struct {
	URL   string // base URL of the protocol; required by the strategy
	Group string // letters, digits, - and ., at most 64
}

// Etcd is the semaphore of the strategy of that name.
type Etcd struct {
	Endpoints    []string      // URLs of members, at most 10; required by the strategy
	Group        string        // machines that share the semaphore, whose size is in etcd: letters, digits, - and ., at most 64
	Lease        time.Duration // after which the slot of a machine that did not come back is free, 1m to 24h
	CAFile       string        // absolute path of PEM certificates; empty: the system's
	Certificate  string        // absolute path of a PEM certificate; only together with Key
	Key          string        // absolute path of its PEM key
	Username     string        // only together with PasswordFile
	PasswordFile string        // absolute path; the password itself is never a setting
}

// Health is what makes a version good.
type Health struct {
	Server   Requirement   // whether the update server must be reached again before a version is blessed
	Grace    time.Duration // how long checks may take to become good, at most 15m
	Interval time.Duration // between two looks at a blessed version, 1m to 30d; 0: it is not looked at again
	Later    Later
}

// Requirement says how much a check counts.
type Requirement string

// How much a check counts.
const (
	Required Requirement = "required" // its failure is the version's
	Advisory Requirement = "advisory" // its failure is reported
	Off      Requirement = "off"      // it is not run
)

// Later says what a version that becomes sick after its blessing leads to.
type Later string

// What becomes of a version that turns sick later.
const (
	LaterReport   Later = "report"
	LaterRollback Later = "rollback"
)

// Trust is what the agent believes of a server's answers.
type Trust struct {
	Freshness Freshness
	MaxAge    time.Duration // of a signed statement, 1h to 365d
}

// Freshness says what follows from an answer that is not signed as fresh.
type Freshness string

// What follows from a stale answer.
const (
	FreshnessWarn    Freshness = "warn"    // it is told
	FreshnessRequire Freshness = "require" // the answer is refused
	FreshnessOff     Freshness = "off"     // it is not looked at
)

// Defaults are the settings of a machine without any file.
func Defaults() Settings {
	return Settings{
		Channel:      "stable",
		MaxFailures:  2,
		PollInterval: 45 * time.Minute,
		InitialDelay: 5 * time.Minute,
		Jitter:       5 * time.Minute,
		Payload:      Payload{MaxSize: 4 << 30},
		Install:      Install{Cache: CacheKeep},
		Reboot: Reboot{
			Strategy: RebootImmediate, TimeZone: "UTC",
			UserGrace: 10 * time.Minute, InhibitorGrace: 24 * time.Hour, DrainTimeout: 5 * time.Minute, MaxReboots: 3,
			FleetLock: FleetLock{Group: "default"},
			Etcd:      Etcd{Group: "default", Lease: 30 * time.Minute},
		},
		Health: Health{Server: Required, Grace: 5 * time.Minute, Interval: 15 * time.Minute, Later: LaterReport},
		Trust:  Trust{Freshness: FreshnessWarn, MaxAge: 14 * day},
		Origin: map[string]Origin{},
	}
}

// AllServers are Server and Servers in the order in which they are tried, each once. None: the machine never asks.
func (s *Settings) AllServers() []string {
	var all []string
	for _, u := range append([]string{s.Server}, s.Servers...) {
		if u != "" && !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	return all
}

// Location is the time zone of the windows.
func (r *Reboot) Location() (*time.Location, error) {
	if r.TimeZone == TimeZoneLocal {
		return time.Local, nil
	}
	return time.LoadLocation(r.TimeZone)
}
