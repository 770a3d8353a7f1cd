package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/semper-os/semper/fault"
)

// updateConfs are Flatcar's files, of which the later wins key by key, relative to the root folder.
var updateConfs = []string{"usr/share/flatcar/update.conf", "etc/flatcar/update.conf"}

// variable is one line of such a file.
type variable struct {
	name, value string
	origin      Origin
}

// translation says which key a variable sets, and what its text becomes.
type translation struct {
	key string
	to  func(string) any
}

func same(s string) any { return s }

var translations = map[string]translation{
	"GROUP":         {"channel", same},
	"MACHINE_ALIAS": {"alias", same},
	"SERVER": {"server", func(s string) any {
		if !strings.Contains(s, "://") { // "disabled" and the like
			return ""
		}
		return s
	}},
	"LOCKSMITHD_GROUP":         {"reboot.etcd.group", same},
	"LOCKSMITHD_ETCD_CAFILE":   {"reboot.etcd.ca_file", same},
	"LOCKSMITHD_ETCD_CERTFILE": {"reboot.etcd.certificate", same},
	"LOCKSMITHD_ETCD_KEYFILE":  {"reboot.etcd.key", same},
	"LOCKSMITHD_ENDPOINT": {"reboot.etcd.endpoints", func(s string) any {
		var urls []any
		for u := range strings.SplitSeq(s, ",") {
			urls = append(urls, strings.TrimSpace(u))
		}
		return urls
	}},
}

// The variables that are not translated one by one. Locksmith prefers those with its prefix.
const (
	strategyVariable = "REBOOT_STRATEGY"
	locksmithPrefix  = "LOCKSMITHD_"
	windowStart      = "REBOOT_WINDOW_START"
	windowLength     = "REBOOT_WINDOW_LENGTH"
)

var untranslated = []string{strategyVariable, windowStart, windowLength, locksmithPrefix + windowStart, locksmithPrefix + windowLength}

// locksmithEndpoint is where locksmith looks for etcd if nobody says where it is.
const locksmithEndpoint = "http://127.0.0.1:2379"

// loadUpdateConf lays what Flatcar's files say over s. A variable that is set to nothing counts as not set.
func (s *Settings) loadUpdateConf(root string) error {
	vars := map[string]variable{}
	var order []string
	for _, name := range updateConfs {
		path := filepath.Join(root, name)
		data, err := read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		lines, err := parseUpdateConf(path, data)
		if err != nil {
			return err
		}
		for _, v := range lines {
			if _, ok := translations[v.name]; !ok && !slices.Contains(untranslated, v.name) {
				s.Ignored = append(s.Ignored, fmt.Sprintf("%s: %s", v.origin, v.name))
				continue
			}
			if _, again := vars[v.name]; !again {
				order = append(order, v.name)
			}
			vars[v.name] = v
		}
	}
	for _, name := range order {
		if t, ok := translations[name]; ok && vars[name].value != "" {
			if err := s.translate(t.key, vars[name], t.to(vars[name].value)); err != nil {
				return err
			}
		}
	}
	if err := s.translateStrategy(vars); err != nil {
		return err
	}
	return s.translateWindow(vars)
}

// translate sets a key because of a variable.
func (s *Settings) translate(key string, v variable, value any) error {
	if err := lookup(key).set(s, value); err != nil {
		return fault.New(fault.Input, "%s: %s: %w", v.origin, v.name, err)
	}
	s.Origin[key] = v.origin
	return nil
}

func (s *Settings) translateStrategy(vars map[string]variable) error {
	v := vars[strategyVariable]
	var strategy Strategy
	switch v.value {
	case "":
		return nil
	case "reboot":
		strategy = RebootImmediate
	case "off":
		strategy = RebootOff
	case "etcd-lock":
		strategy = RebootEtcd
	case "best-effort": // with a lock where there is an etcd to ask
		strategy = RebootImmediate
		if len(s.Reboot.Etcd.Endpoints) > 0 {
			strategy = RebootEtcd
		}
	default:
		return fault.New(fault.Input, "%s: %s: %q is not possible (want \"reboot\", \"off\", \"etcd-lock\" or \"best-effort\")", v.origin, v.name, clip(v.value))
	}
	return s.translate("reboot.strategy", v, string(strategy))
}

func (s *Settings) translateWindow(vars map[string]variable) error {
	pick := func(name string) variable {
		if v := vars[locksmithPrefix+name]; v.value != "" {
			return v
		}
		return vars[name]
	}
	start, length := pick(windowStart), pick(windowLength)
	switch {
	case start.value == "" && length.value == "":
		return nil
	case length.value == "":
		return fault.New(fault.Input, "%s: %s needs %s%s beside it", start.origin, start.name, locksmithPrefix, windowLength)
	case start.value == "":
		return fault.New(fault.Input, "%s: %s needs %s%s beside it", length.origin, length.name, locksmithPrefix, windowStart)
	}
	days, clock, err := parseWindowStart(start.value)
	if err != nil {
		return fault.New(fault.Input, "%s: %s: %w", start.origin, start.name, err)
	}
	most := 7 * day
	if days == everyDay {
		most = day
	}
	d, err := time.ParseDuration(length.value)
	if err != nil || d < time.Minute || d >= most {
		return fault.New(fault.Input, "%s: %s: %q is not the length of this window (want a duration like \"1h30m\", at least 1m and less than %s)",
			length.origin, length.name, clip(length.value), durationText(most))
	}
	text := d.Truncate(time.Second).String() // "3h0m0s"
	text = strings.Replace(strings.Replace(text, "m0s", "m", 1), "h0m", "h", 1)
	return s.translate("reboot.windows", start, []any{days + " " + clock + " " + text})
}

const everyDay = "Mon-Sun"

var weekdays = []string{
	"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun",
	"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
}

// parseWindowStart reads "HH:MM" and "Thu HH:MM".
func parseWindowStart(s string) (days, clock string, err error) {
	days = everyDay
	if name, rest, two := strings.Cut(s, " "); two {
		days = ""
		for _, d := range weekdays {
			if strings.EqualFold(name, d) {
				days = d[:3]
			}
		}
		s = strings.TrimLeft(rest, " ")
	}
	h, m, two := strings.Cut(s, ":")
	hour, err1 := strconv.ParseUint(h, 10, 8)
	minute, err2 := strconv.ParseUint(m, 10, 8)
	if days == "" || !two || err1 != nil || err2 != nil || len(h) > 2 || len(m) != 2 || hour > 23 || minute > 59 {
		return "", "", errors.New("want \"HH:MM\", or \"Thu HH:MM\"")
	}
	return days, fmt.Sprintf("%02d:%02d", hour, minute), nil
}

// completeForeign adds what Flatcar's way of saying things implies, where no drop-in says otherwise. foreign holds the keys that its files set.
func (s *Settings) completeForeign(foreign map[string]Origin) {
	stands := func(key string) bool { // it still has the value of a foreign file
		o, ok := foreign[key]
		return ok && o == s.Origin[key]
	}
	imply := func(key string) bool {
		_, set := s.Origin[key]
		return !set || stands(key)
	}
	if stands("reboot.windows") {
		if imply("reboot.time_zone") { // locksmith's windows are in the machine's time
			s.Reboot.TimeZone = TimeZoneLocal
			s.Origin["reboot.time_zone"] = foreign["reboot.windows"]
		}
		if imply("reboot.strategy") && s.Reboot.Strategy == RebootImmediate {
			s.Reboot.Strategy = RebootWindow
			s.Origin["reboot.strategy"] = foreign["reboot.windows"]
		}
	}
	if stands("reboot.strategy") && s.Reboot.Strategy == RebootEtcd && imply("reboot.etcd.endpoints") && len(s.Reboot.Etcd.Endpoints) == 0 {
		s.Reboot.Etcd.Endpoints = []string{locksmithEndpoint}
		s.Origin["reboot.etcd.endpoints"] = foreign["reboot.strategy"]
	}
}

// parseUpdateConf reads lines of KEY=VALUE as shells and systemd do: blank lines and those that begin with # or ; are passed over, a value can stand in single
// quotes or in double quotes with \" \\ \$ and \`, and a # after a space begins a comment.
// Nothing is expanded, and outside quotes no other character means anything.
func parseUpdateConf(path string, data []byte) ([]variable, error) {
	if !utf8.Valid(data) {
		return nil, fault.New(fault.Input, "%s: not UTF-8 text", path)
	}
	var vars []variable
	n := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		origin := Origin{File: path, Line: n}
		name, text, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if !ok || !isVariable(name) {
			return nil, fault.New(fault.Input, "%s: not KEY=VALUE", origin) // without the line: it may hold another program's password
		}
		value, err := unquote(strings.TrimSpace(text))
		if err == nil && strings.ContainsFunc(value, func(r rune) bool { return unicode.IsControl(r) && r != '\t' }) {
			err = errors.New("a control character in the value")
		}
		if err != nil {
			return nil, fault.New(fault.Input, "%s: %s: %w", origin, name, err)
		}
		vars = append(vars, variable{name: name, value: value, origin: origin})
	}
	return vars, nil
}

func isVariable(s string) bool {
	return s != "" && len(s) <= 64 && (s[0] < '0' || s[0] > '9') && onlyOf("", s, "_") == nil
}

// unquote takes a value out of its quotes, and a comment off its end.
func unquote(s string) (string, error) {
	if s == "" || s[0] == '#' {
		return "", nil
	}
	if s[0] != '"' && s[0] != '\'' {
		for i := 1; i < len(s); i++ {
			if s[i] == '#' && (s[i-1] == ' ' || s[i-1] == '\t') {
				s = strings.TrimSpace(s[:i])
				break
			}
		}
		return s, nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == s[0]:
			if rest := strings.TrimSpace(s[i+1:]); rest != "" && (rest[0] != '#' || rest == s[i+1:]) {
				return "", errors.New("text after the closing quote")
			}
			return b.String(), nil
		case c == '\\' && s[0] == '"' && i+1 < len(s) && strings.IndexByte("\"\\$`", s[i+1]) >= 0:
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", errors.New("the quote is not closed")
}
