// Package window says when a machine may reboot: weekly windows in local time.
//
//	Mon-Fri 02:00 3h        Monday to Friday, from two o'clock, for three hours
//	Sat,Sun 22:30 4h        crosses midnight
//	Thu 23:00 90m
//	02:00 1h                every day
//
// A window is the days on which it starts, the time at which it starts and a length. It may cross midnight and the week's end. Days are names of three letters
// or whole English names, alone, in lists and in ranges; a range may wrap ("Sat-Mon"). The length is Go's notation of a duration. Windows that overlap or touch
// are one.
//
// # The two nights when clocks change
//
// A window opens at the first moment at which the local clock shows its start, or a later time. It closes when its length has passed, in elapsed time, whatever
// the clock shows then. So, with Europe/Berlin (02:00 becomes 03:00 in spring, 03:00 becomes 02:00 in autumn):
//
//	window       spring                                      autumn
//	02:30 1h     02:30 does not exist: opens when the        02:30 comes twice: opens at the first one,
//	             clock jumps, 03:00 to 04:00                 closes when the clock shows 02:30 again; not opened twice
//	01:00 3h     01:00 to 05:00, three hours                 01:00 to 03:00, three hours
//	00:00 24h    closes at 01:00 of the next day, when the   closes at 23:00, and the next one opens an hour
//	             next one is open already                    later
//
// No window is ever left out, opened twice or given another length.
//
// Limits: 50 windows; each from 1 minute to under 7 days, in whole seconds; 200 bytes of text.
package window

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

const (
	// MaxWindows is how many windows a schedule may have.
	MaxWindows = 50

	maxText   = 200
	minLength = time.Minute
	maxLength = 7 * 24 * time.Hour // not reached
	everyDay  = 1<<7 - 1
	example   = `"Mon-Fri 02:00 3h"`
)

// Window opens at one time of day on some days of the week.
type Window struct {
	days   uint8         // bit n is time.Weekday n
	start  int           // minutes after midnight on the clock
	length time.Duration // elapsed time
}

var dayNames = [7]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// Parse reads a window as in the package's documentation. Errors are of kind Input.
func Parse(spec string) (Window, error) {
	w, err := parse(spec)
	if err != nil {
		return Window{}, fault.New(fault.Input, "reboot window %.*q: %w (example: %s)", maxText, spec, err, example)
	}
	return w, nil
}

func parse(spec string) (Window, error) {
	if len(spec) > maxText {
		return Window{}, fmt.Errorf("more than %d bytes", maxText)
	}
	fields := strings.Fields(spec)
	w := Window{days: everyDay}
	var err error
	switch len(fields) {
	case 2:
	case 3:
		if w.days, err = parseDays(fields[0]); err != nil {
			return Window{}, err
		}
		fields = fields[1:]
	default:
		return Window{}, errors.New("want days, start and length, or start and length, separated by blanks")
	}
	if w.start, err = parseClock(fields[0]); err != nil {
		return Window{}, err
	}
	if w.length, err = parseLength(fields[1], maxLength); err != nil {
		return Window{}, err
	}
	return w, nil
}

// ParseLocksmith reads locksmith's pair LOCKSMITHD_REBOOT_WINDOW_START ("Thu 04:00", or "04:00" for every day) and LOCKSMITHD_REBOOT_WINDOW_LENGTH ("1h30m").
// As there, a window of every day must be shorter than a day. Errors are of kind Input.
func ParseLocksmith(start, length string) (Window, error) {
	w, err := parseLocksmith(start, length)
	if err != nil {
		return Window{}, fault.New(fault.Input, "reboot window START %.*q, LENGTH %.*q: %w (example: START \"Thu 04:00\", LENGTH \"1h30m\")",
			maxText, start, maxText, length, err)
	}
	return w, nil
}

func parseLocksmith(start, length string) (Window, error) {
	if len(start) > maxText || len(length) > maxText {
		return Window{}, fmt.Errorf("more than %d bytes", maxText)
	}
	fields := strings.Fields(start)
	if len(fields) == 0 || strings.TrimSpace(length) == "" {
		return Window{}, errors.New("start and length must both be set, or neither")
	}
	w, limit := Window{days: everyDay}, 24*time.Hour
	var err error
	switch len(fields) {
	case 1:
	case 2:
		day, err := parseDay(fields[0])
		if err != nil {
			return Window{}, err
		}
		w.days, limit = 1<<day, maxLength
		fields = fields[1:]
	default:
		return Window{}, errors.New("a start is one day and a time, or a time")
	}
	if w.start, err = parseClock(fields[0]); err != nil {
		return Window{}, err
	}
	if w.length, err = parseLength(strings.TrimSpace(length), limit); err != nil {
		return Window{}, err
	}
	return w, nil
}

func parseDays(text string) (uint8, error) {
	var days uint8
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := parseDay(from)
		if err != nil {
			return 0, err
		}
		last := first
		if isRange {
			if last, err = parseDay(to); err != nil {
				return 0, err
			}
		}
		for d := first; ; d = (d + 1) % 7 {
			days |= 1 << d
			if d == last {
				break
			}
		}
	}
	return days, nil
}

func parseDay(text string) (int, error) {
	for i, name := range dayNames {
		if strings.EqualFold(text, name) || strings.EqualFold(text, name[:3]) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%q is not a day (want Mon, Tue, Wed, Thu, Fri, Sat or Sun)", text)
}

func parseClock(text string) (int, error) {
	hour, minute, ok := strings.Cut(text, ":")
	h, okH := digits(hour, 23)
	m, okM := digits(minute, 59)
	if !ok || !okH || !okM || len(minute) != 2 {
		return 0, fmt.Errorf("%q is not a time of day (want 00:00 to 23:59)", text)
	}
	return h*60 + m, nil
}

// digits reads one or two decimal digits, without the signs that strconv allows.
func digits(text string, limit int) (int, bool) {
	if len(text) < 1 || len(text) > 2 || strings.Trim(text, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n <= limit
}

func parseLength(text string, limit time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%q is not a length (want for instance 90m, 3h or 1h30m)", text)
	}
	if d < minLength || d >= limit {
		return 0, fmt.Errorf("length %s is out of range (1m to under %dh)", text, int(limit.Hours()))
	}
	if d%time.Second != 0 {
		return 0, fmt.Errorf("length %s is not in whole seconds", text)
	}
	return d, nil
}

// String returns the window in the notation that Parse reads. The zero Window, which never opens, is "never".
func (w Window) String() string {
	if w.days == 0 || w.length == 0 {
		return "never"
	}
	clock := fmt.Sprintf("%02d:%02d %s", w.start/60, w.start%60, lengthText(w.length))
	if w.days == everyDay {
		return clock
	}
	var days []string
	for i := range 7 {
		d := (i + 1) % 7 // the week begins on Monday
		if w.days&(1<<d) != 0 {
			days = append(days, strings.ToUpper(dayNames[d][:1])+dayNames[d][1:3])
		}
	}
	return strings.Join(days, ",") + " " + clock
}

// lengthText is Duration.String without the zeros at its end: "3h", not "3h0m0s".
func lengthText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
