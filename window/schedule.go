package window

import (
	"time"

	"github.com/semper-os/semper/fault"
)

const (
	day = 24 * 60 * 60 // seconds

	// horizon is how far ahead a schedule is followed that does not close.
	horizon = 15 * 24 * time.Hour

	// farOffset is more than any zone's distance from UTC, in seconds.
	farOffset = 26 * 60 * 60
)

// Schedule is a set of windows in one time zone.
type Schedule struct {
	Windows  []Window       // none: it never opens
	Location *time.Location // nil: UTC
}

// ParseSchedule reads windows, and the name of their time zone as in the zone database ("Europe/Berlin"); "" is the zone of the machine.
// Errors are of kind Input.
func ParseSchedule(specs []string, zone string) (Schedule, error) {
	if len(specs) > MaxWindows {
		return Schedule{}, fault.New(fault.Input, "%d reboot windows, at most %d are allowed", len(specs), MaxWindows)
	}
	s := Schedule{Location: time.Local}
	if zone != "" {
		var err error
		if s.Location, err = time.LoadLocation(zone); err != nil {
			return Schedule{}, fault.New(fault.Input, "time zone of the reboot windows: %w (example: \"Europe/Berlin\")", err)
		}
	}
	for _, spec := range specs {
		w, err := Parse(spec)
		if err != nil {
			return Schedule{}, err
		}
		s.Windows = append(s.Windows, w)
	}
	return s, nil
}

// Open reports whether a window is open at now, and when it closes. A window is open at the moment of its start and closed at the moment of its end.
// Windows that overlap or touch count as one. One that would be open for longer than 15 days is said to close then; asked at that time it is still open.
func (s Schedule) Open(now time.Time) (open bool, closes time.Time) {
	open, closes, _ = s.follow(now)
	return open, closes
}

// follow is Open; endless means that closes is only where it stopped looking.
func (s Schedule) follow(now time.Time) (open bool, closes time.Time, endless bool) {
	limit := now.Add(horizon)
	for at := now; ; at = closes {
		end, covered := s.cover(at)
		switch {
		case !covered:
			return open, closes, false
		case end.After(limit):
			return true, limit, true
		}
		open, closes = true, end
	}
}

// Next returns the first moment after now at which the schedule opens; where it is open now, the first after it has closed. It is not ok where there is no window,
// and where the schedule does not close for 15 days.
func (s Schedule) Next(now time.Time) (opens time.Time, ok bool) {
	at := now
	switch open, closes, endless := s.follow(now); {
	case endless:
		return time.Time{}, false
	case open:
		at = closes
	}
	// Every window starts once a week. Nothing covers at, so the first start after it is an opening.
	today := s.date(at)
	for _, w := range s.Windows {
		// One day back: where a zone jumps over midnight, yesterday's start may still come.
		for d := today - 1; d <= today+8; d++ {
			if !w.on(d) {
				continue
			}
			if start := s.start(w, d); start.After(at) {
				if !ok || start.Before(opens) {
					opens, ok = start, true
				}
				break
			}
		}
	}
	return opens, ok
}

// cover returns the latest end of the windows that are open at t.
func (s Schedule) cover(t time.Time) (end time.Time, covered bool) {
	today := s.date(t)
	for _, w := range s.Windows {
		// Two days more than the length: one for the time of day, one for a zone that jumps over midnight.
		for d := today - int64(w.length/(day*time.Second)) - 2; d <= today+1; d++ {
			if !w.on(d) {
				continue
			}
			start := s.start(w, d)
			if e := start.Add(w.length); !start.After(t) && e.After(t) && e.After(end) {
				end, covered = e, true
			}
		}
	}
	return end, covered
}

// on reports whether the window starts on a date, in days since 1 January 1970, a Thursday.
func (w Window) on(date int64) bool { return w.days&(1<<((date%7+11)%7)) != 0 }

// date is the day that the local clock shows at t, in days since 1970.
func (s Schedule) date(t time.Time) int64 {
	y, m, d := t.In(s.location()).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix() / day
}

func (s Schedule) location() *time.Location {
	if s.Location == nil {
		return time.UTC
	}
	return s.Location
}

// start returns the first moment at which the local clock shows the window's start on that date, or later. time.Date would do, but does not say what it
// returns for a time that does not exist.
func (s Schedule) start(w Window, date int64) time.Time {
	clock := date*day + int64(w.start)*60 // what the clock shows, as if it were UTC
	at := time.Unix(clock-farOffset, 0).In(s.location())
	for {
		_, offset := at.Zone()
		_, zoneEnd := at.ZoneBounds()
		if t := clock - int64(offset); zoneEnd.IsZero() || t < zoneEnd.Unix() {
			// Before at the clock was set forward over the start, or at is where the search began.
			return time.Unix(max(t, at.Unix()), 0).In(s.location())
		}
		at = zoneEnd
	}
}
