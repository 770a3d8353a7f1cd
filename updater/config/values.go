package config

import (
	"fmt"
	"math"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/semper-os/semper/window"
)

const day = 24 * time.Hour

// maxDuration keeps sums of durations far from overflow, and a typing error from silencing a machine for decades.
const maxDuration = 30 * day

// maxText bounds every string that has no limit of its own.
const maxText = 2048

// words reads a string.
func words(check func(string) error) func(any) (string, error) {
	return func(v any) (string, error) {
		s, ok := v.(string)
		if !ok {
			return "", wrongType("a string", v)
		}
		if len(s) > maxText {
			return "", fmt.Errorf("longer than %d bytes", maxText)
		}
		return s, check(s)
	}
}

// array reads at most most strings. No string is nil, so that equal values are equal.
func array(most int, check func(string) error) func(any) ([]string, error) {
	return func(v any) ([]string, error) {
		items, ok := v.([]any)
		if !ok {
			return nil, wrongType("an array of strings", v)
		}
		if len(items) > most {
			return nil, fmt.Errorf("%d entries, at most %d are allowed", len(items), most)
		}
		var out []string
		for _, item := range items {
			s, err := words(check)(item)
			if err != nil {
				return nil, err
			}
			out = append(out, s)
		}
		return out, nil
	}
}

func boolean(v any) (bool, error) {
	b, ok := v.(bool)
	if !ok {
		return false, wrongType("true or false", v)
	}
	return b, nil
}

func integer(least, most int64) func(any) (int, error) {
	return func(v any) (int, error) {
		n, ok := v.(int64)
		if !ok {
			return 0, wrongType("a number", v)
		}
		if n < least || n > most {
			return 0, fmt.Errorf("%d is out of range (%d to %d)", n, least, most)
		}
		return int(n), nil
	}
}

func oneOf[T ~string](choices []T) func(any) (T, error) {
	return func(v any) (T, error) {
		s, ok := v.(string)
		if !ok {
			return "", wrongType("a string", v)
		}
		if slices.Contains(choices, T(s)) {
			return T(s), nil
		}
		quoted := make([]string, len(choices))
		for i, c := range choices {
			quoted[i] = strconv.Quote(string(c))
		}
		last := len(quoted) - 1
		return "", fmt.Errorf("%q is not possible (want %s or %s)", clip(s), strings.Join(quoted[:last], ", "), quoted[last])
	}
}

func wrongType(want string, v any) error {
	is := "a date or time"
	switch x := v.(type) {
	case string:
		is = strconv.Quote(clip(Redact(x)))
	case bool, int64, float64:
		is = fmt.Sprint(x)
	case []any:
		is = "an array"
	case map[string]any:
		is = "a table"
	}
	return fmt.Errorf("want %s, it is %s", want, is)
}

// clip shortens what a message repeats.
func clip(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

// span bounds a duration; none allows 0 below least.
type span struct {
	least, most time.Duration
	none        bool
}

func (b span) read(v any) (time.Duration, error) {
	s, ok := v.(string)
	if n, isNumber := v.(int64); isNumber { // 0 needs no unit; everything else is refused below
		s, ok = strconv.FormatInt(n, 10), true
	}
	if !ok {
		return 0, wrongType("a duration", v)
	}
	d, err := parseDuration(s)
	if err != nil {
		return 0, err
	}
	if b.none && d == 0 {
		return 0, nil
	}
	if d < b.least || d > b.most {
		or := ""
		if b.none {
			or = "0 or "
		}
		return 0, fmt.Errorf("%q is out of range (%s%s to %s)", s, or, durationText(b.least), durationText(b.most))
	}
	return d, nil
}

// parseDuration reads what time.ParseDuration reads, and whole days ("14d") and weeks ("2w").
func parseDuration(s string) (time.Duration, error) {
	for _, u := range []struct {
		suffix string
		unit   time.Duration
	}{{"d", day}, {"w", 7 * day}} {
		if digits, ok := strings.CutSuffix(s, u.suffix); ok {
			if n, err := strconv.ParseUint(digits, 10, 16); err == nil { // 65535 weeks are far from an overflow
				return time.Duration(n) * u.unit, nil
			}
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration (examples: \"30s\", \"45m\", \"1h30m\", \"14d\", \"2w\")", clip(s))
	}
	return d, nil
}

// durationText is the shortest text that parseDuration reads as d.
func durationText(d time.Duration) string {
	if d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// volume bounds a number of bytes; none allows 0.
type volume struct {
	least int64
	none  bool
}

var units = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func (b volume) read(v any) (int64, error) {
	s, ok := v.(string)
	if n, isNumber := v.(int64); isNumber {
		s, ok = strconv.FormatInt(n, 10), true
	}
	if !ok {
		return 0, wrongType("a size", v)
	}
	number, unit := s, int64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(number, u.suffix); ok {
			number, unit = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a size (examples: \"512MiB\", \"4GiB\", \"1048576\")", clip(s))
	}
	if n *= unit; n < b.least && (n != 0 || !b.none) {
		or := ""
		if b.none {
			or = "0 or "
		}
		return 0, fmt.Errorf("%q is too small (want %sat least %s)", s, or, sizeText(b.least))
	}
	return n, nil
}

// sizeText is the shortest exact text of n bytes.
func sizeText(n int64) string {
	for _, u := range units {
		if n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}

// optional lets the empty string through.
func optional(check func(string) error) func(string) error {
	return func(s string) error {
		if s == "" {
			return nil
		}
		return check(s)
	}
}

// webAddress parses an absolute URL of one of the schemes.
func webAddress(s string, schemes ...string) (*url.URL, bool) {
	u, err := url.Parse(s)
	if err != nil || !slices.Contains(schemes, u.Scheme) || u.Hostname() == "" || u.Opaque != "" || u.Fragment != "" {
		return nil, false
	}
	return u, true
}

func checkServer(s string) error {
	if _, ok := webAddress(s, "http", "https"); !ok {
		return fmt.Errorf("%q is not a server address (want http://HOST/v1/update or https://…)", clip(Redact(s)))
	}
	return nil
}

func checkProxy(s string) error {
	if s == ProxyNone {
		return nil
	}
	if u, ok := webAddress(s, "http", "https", "socks5"); !ok || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return fmt.Errorf("%q is not a proxy (want http://HOST:PORT, https://… or socks5://…, \"none\", or \"\" for the environment's)", clip(Redact(s)))
	}
	return nil
}

func checkBase(s string) error {
	if u, ok := webAddress(s, "http", "https"); !ok || u.RawQuery != "" {
		return fmt.Errorf("%q is not an address (want http://HOST or https://…, without a query)", clip(Redact(s)))
	}
	return nil
}

func checkEndpoint(s string) error {
	if u, ok := webAddress(s, "http", "https"); !ok || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return fmt.Errorf("%q is not an end point (want http://HOST:PORT or https://…; user and password are keys of their own)", clip(Redact(s)))
	}
	return nil
}

func checkChannel(s string) error {
	if s == "" || len(s) > 64 {
		return fmt.Errorf("a channel's name has 1 to 64 characters, not %d", len(s))
	}
	return onlyOf("channel", s, "-_.")
}

// checkGroup takes what the FleetLock protocol allows.
func checkGroup(s string) error {
	if s == "" || len(s) > 64 {
		return fmt.Errorf("a group's name has 1 to 64 characters, not %d", len(s))
	}
	return onlyOf("group", s, "-.")
}

func onlyOf(what, s, punctuation string) error {
	for _, b := range []byte(s) {
		if (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') && (b < '0' || b > '9') && strings.IndexByte(punctuation, b) < 0 {
			return fmt.Errorf("%s %q: only letters, digits and %q are allowed", what, s, punctuation)
		}
	}
	return nil
}

func checkAlias(s string) error {
	if len(s) > 128 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fmt.Errorf("%q is not a name (want at most 128 bytes of printable characters)", clip(s))
	}
	return nil
}

func checkPath(s string) error {
	if !filepath.IsAbs(s) || filepath.Clean(s) != s || strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("%q is not an absolute path (want one like /etc/ssl/site.pem, without \"..\" or \"//\")", clip(s))
	}
	return nil
}

func checkWindow(s string) error {
	if s == "" || len(s) > 200 {
		return fmt.Errorf("a window has 1 to 200 characters, not %d (example: \"Mon-Fri 02:00 3h\")", len(s))
	}
	_, err := window.Parse(s)
	return err
}

func checkTimeZone(s string) error {
	if s == TimeZoneLocal {
		return nil
	}
	if _, err := time.LoadLocation(s); err != nil || s == "" || s == "Local" {
		return fmt.Errorf("%q is not a time zone (want \"local\" or an IANA name such as \"Europe/Berlin\")", clip(s))
	}
	return nil
}

// Redact hides the user and password of a URL, and what stands before an @ in a text that was meant to be one.
func Redact(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s
	}
	u, err := url.Parse(s)
	switch {
	case err == nil && u.Host != "" && u.User == nil:
		return s
	case err == nil && u.User != nil:
		u.User = url.User("xxxxx")
		return u.String()
	}
	scheme := ""
	if i := strings.Index(s[:at], "://"); i >= 0 {
		scheme = s[:i+3]
	}
	return scheme + "xxxxx" + s[at:]
}
