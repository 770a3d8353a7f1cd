// Package config holds the host agent's settings: a few TOML drop-ins laid over each other.
//
//	/usr/lib/semper/update.d/*.toml     the image's own
//	/etc/semper/update.d/*.toml         the administrator's
//	/run/semper/update.d/*.toml         for this boot only
//	$CREDENTIALS_DIRECTORY/semper.update.toml   from the hypervisor, the loader or the service manager
//
// Files of a folder are read in byte order of their names. Each key that a later file sets replaces the earlier value; a key it does not set is kept.
// There is no masking by file name. An unknown key, a wrong type or an impossible value is refused with the file, the line and, for keys, the nearest name
// that exists: an agent that runs for years on half-understood settings is worse than one that says no at once.
//
// Limits: 64 KiB a file, 100 files a folder.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/semper-os/semper/fault"
)

const (
	maxFileBytes = 64 << 10
	maxFiles     = 100

	// CredentialName is the systemd credential that is read after all drop-ins.
	CredentialName = "semper.update.toml"
)

// Folders are where drop-ins are read from, lowest precedence first, relative to the root folder.
var Folders = []string{"usr/lib/semper/update.d", "etc/semper/update.d", "run/semper/update.d"}

// Strategy says when a machine with a finished update reboots.
type Strategy string

// The reboot strategies.
const (
	RebootImmediate Strategy = "immediate" // as soon as the update is in place
	RebootOff       Strategy = "off"       // never: a person or another program reboots
)

// Settings are the agent's settings after all files were laid over the defaults.
type Settings struct {
	Server         string        // absolute URL of the Omaha end point ("…/v1/update"); empty: no server is set and the machine never polls
	Channel        string        // the channel ("track") that the server is asked for
	PollInterval   time.Duration // time between two checks
	InitialDelay   time.Duration // time from the agent's start to its first check
	Jitter         time.Duration // each wait is moved by a random amount of up to this much, earlier or later
	RebootStrategy Strategy
	MaxPayload     int64 // bytes; a server that offers a larger payload is refused

	// Origin names for each key ("poll_interval", "reboot.strategy") the file that set it; a key that is missing has its default.
	Origin map[string]string
}

// Defaults are the settings of a machine without any file.
func Defaults() Settings {
	return Settings{
		Channel:        "stable",
		PollInterval:   45 * time.Minute,
		InitialDelay:   5 * time.Minute,
		Jitter:         5 * time.Minute,
		RebootStrategy: RebootImmediate,
		MaxPayload:     4 << 30,
		Origin:         map[string]string{},
	}
}

// Load reads every drop-in below root ("/" on a machine) and then the credential in credentials, which may be empty.
// Errors are of kind Input where a file's content is wrong, and IO where it could not be read.
func Load(root, credentials string) (Settings, error) {
	s := Defaults()
	for _, dir := range Folders {
		dir = filepath.Join(root, dir)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Settings{}, fault.New(fault.IO, "read settings folder: %w", err)
		}
		var names []string
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".toml") && !strings.HasPrefix(e.Name(), ".") {
				names = append(names, e.Name())
			}
		}
		if len(names) > maxFiles {
			return Settings{}, fault.New(fault.Input, "%s: %d settings files, at most %d are read", dir, len(names), maxFiles)
		}
		sort.Strings(names)
		for _, name := range names {
			if err := s.load(filepath.Join(dir, name)); err != nil {
				return Settings{}, err
			}
		}
	}
	if credentials != "" {
		if err := s.load(filepath.Join(credentials, CredentialName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Settings{}, err
		}
	}
	if s.Jitter > s.PollInterval {
		return Settings{}, fault.New(fault.Input, "settings: jitter (%s, from %s) must not exceed poll_interval (%s, from %s)",
			s.Jitter, s.from("jitter"), s.PollInterval, s.from("poll_interval"))
	}
	return s, nil
}

func (s *Settings) from(key string) string {
	if f := s.Origin[key]; f != "" {
		return f
	}
	return "the defaults"
}

func (s *Settings) load(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fault.New(fault.IO, "read settings: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileBytes {
		return fault.New(fault.Input, "%s: a settings file must be a regular file of at most %d bytes", path, maxFileBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fault.New(fault.IO, "read settings: %w", err)
	}
	return s.apply(path, data)
}

// apply lays one file's keys over s; path is for messages and Origin.
func (s *Settings) apply(path string, data []byte) error {
	var f file
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return explain(path, err)
	}
	set := func(key string) { s.Origin[key] = path }
	if f.Server != nil {
		s.Server = f.Server.value
		set("server")
	}
	if f.Channel != nil {
		s.Channel = f.Channel.value
		set("channel")
	}
	for _, d := range []struct {
		key string
		v   *duration
		to  *time.Duration
		min time.Duration
	}{
		{"poll_interval", f.PollInterval, &s.PollInterval, time.Second},
		{"initial_delay", f.InitialDelay, &s.InitialDelay, 0},
		{"jitter", f.Jitter, &s.Jitter, 0},
	} {
		if d.v == nil {
			continue
		}
		if d.v.value < d.min {
			return fault.New(fault.Input, "%s: %s must be at least %s, it is %s", path, d.key, d.min, d.v.value)
		}
		*d.to = d.v.value
		set(d.key)
	}
	if f.Reboot.Strategy != nil {
		s.RebootStrategy = f.Reboot.Strategy.value
		set("reboot.strategy")
	}
	if f.Payload.MaxSize != nil {
		s.MaxPayload = f.Payload.MaxSize.value
		set("payload.max_size")
	}
	return nil
}

// explain turns the TOML library's error into one line with the file, the line and the nearest key.
func explain(path string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		e := &strict.Errors[0]
		line, _ := e.Position()
		key := strings.Join(e.Key(), ".")
		if near := nearest(key, keys); near != "" {
			return fault.New(fault.Input, "%s:%d: unknown key %q, did you mean %q?", path, line, key, near)
		}
		return fault.New(fault.Input, "%s:%d: unknown key %q (keys are %s)", path, line, key, strings.Join(keys, ", "))
	}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		line, _ := de.Position()
		if key := strings.Join(de.Key(), "."); key != "" {
			return fault.New(fault.Input, "%s:%d: %s: %s", path, line, key, strings.TrimPrefix(de.Error(), "toml: "))
		}
		return fault.New(fault.Input, "%s:%d: %s", path, line, strings.TrimPrefix(de.Error(), "toml: "))
	}
	return fault.Wrap(fault.Input, fmt.Errorf("%s: %w", path, err))
}
