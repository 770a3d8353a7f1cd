package config

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// file is the shape of one drop-in. Pointers tell a key that is missing from one that is set to its zero value.
type file struct {
	Server       *serverURL `toml:"server"`
	Channel      *channel   `toml:"channel"`
	PollInterval *duration  `toml:"poll_interval"`
	InitialDelay *duration  `toml:"initial_delay"`
	Jitter       *duration  `toml:"jitter"`
	Reboot       struct {
		Strategy *strategy `toml:"strategy"`
	} `toml:"reboot"`
	Payload struct {
		MaxSize *size `toml:"max_size"`
	} `toml:"payload"`
}

// keys are all keys of file, for messages.
var keys = []string{"server", "channel", "poll_interval", "initial_delay", "jitter", "reboot.strategy", "payload.max_size"}

// maxDuration keeps sums of durations far from overflow, and a typing error from silencing a machine for decades.
const maxDuration = 30 * 24 * time.Hour

// The values are structs because the TOML library fills bare strings and integers itself, without asking UnmarshalText.
type (
	serverURL struct{ value string }
	channel   struct{ value string }
	duration  struct{ value time.Duration }
	strategy  struct{ value Strategy }
	size      struct{ value int64 }
)

func (u *serverURL) UnmarshalText(text []byte) error {
	if len(text) == 0 { // an empty server switches polling off
		u.value = ""
		return nil
	}
	p, err := url.Parse(string(text))
	if err != nil || (p.Scheme != "http" && p.Scheme != "https") || p.Host == "" || p.Fragment != "" {
		return fmt.Errorf("%q is not a server address (want http://HOST/v1/update or https://…)", text)
	}
	u.value = string(text)
	return nil
}

func (c *channel) UnmarshalText(text []byte) error {
	if len(text) == 0 || len(text) > 64 {
		return fmt.Errorf("a channel's name has 1 to 64 characters, not %d", len(text))
	}
	for _, b := range text {
		if (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') && (b < '0' || b > '9') && !strings.ContainsRune("-_.", rune(b)) {
			return fmt.Errorf("channel %q: only letters, digits, '-', '_' and '.' are allowed", text)
		}
	}
	c.value = string(text)
	return nil
}

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration (examples: \"30s\", \"45m\", \"1h30m\")", text)
	}
	if v < 0 || v > maxDuration {
		return fmt.Errorf("%q is out of range (0 to %s)", text, maxDuration)
	}
	d.value = v
	return nil
}

func (s *strategy) UnmarshalText(text []byte) error {
	switch v := Strategy(text); v {
	case RebootImmediate, RebootOff:
		s.value = v
		return nil
	default:
		return fmt.Errorf("unknown reboot strategy %q (want %q or %q)", text, RebootImmediate, RebootOff)
	}
}

func (s *size) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(1)
	for _, u := range []struct {
		suffix string
		bytes  int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}} {
		if n, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = n, u.bytes
			break
		}
	}
	v, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || v <= 0 || v > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a size (examples: \"512MiB\", \"4GiB\", \"1048576\")", text)
	}
	s.value = v * unit
	return nil
}

// nearest returns the candidate that takes the fewest edits to reach from key, if it is near enough to be meant.
// A key without its table ("strategy") is compared with the last part of each candidate too.
func nearest(key string, candidates []string) string {
	best, bestDistance := "", 3
	if len(key) > 64 {
		return ""
	}
	for _, c := range candidates {
		d := distance(key, c)
		if i := strings.LastIndexByte(c, '.'); i >= 0 {
			j := strings.LastIndexByte(key, '.')
			d = min(d, distance(key[j+1:], c[i+1:]))
		}
		if d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of single-byte insertions, deletions and replacements between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
