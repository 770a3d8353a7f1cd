package window

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
	_ "time/tzdata" // the same zones on every machine
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func schedule(t testing.TB, loc *time.Location, specs ...string) Schedule {
	t.Helper()
	s := Schedule{Location: loc}
	for _, spec := range specs {
		w, err := Parse(spec)
		if err != nil {
			t.Fatal(err)
		}
		s.Windows = append(s.Windows, w)
	}
	return s
}

func at(t testing.TB, text string) time.Time {
	t.Helper()
	v, err := time.Parse("2006-01-02 15:04 -0700", text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// spans lists what a schedule does from one moment to another, by asking Open and Next alone.
func spans(t testing.TB, s Schedule, from, to time.Time) []string {
	t.Helper()
	var got []string
	for now := from; now.Before(to); {
		open, closes := s.Open(now)
		if !open {
			opens, ok := s.Next(now)
			if !ok {
				break
			}
			now = opens
			continue
		}
		if !closes.After(now) {
			t.Fatalf("open at %s, but closes at %s", now, closes)
		}
		if now.Before(to) {
			in := now.In(s.location())
			got = append(got, in.Format("02 15:04 -0700")+" to "+closes.In(s.location()).Format("02 15:04 -0700"))
		}
		now = closes
	}
	return got
}

// TestClockChanges is the table of both nights of 2026. Each row says all openings of the schedule between noon of the day before and noon of the day after the night.
func TestClockChanges(t *testing.T) {
	for _, c := range []struct {
		zone, night string // the date on which the clock changes
		from        string // noon before
		window      string
		want        []string
	}{
		// 02:00 becomes 03:00.
		{"Europe/Berlin", "spring", "2026-03-28 12:00 +0100", "01:00 30m", []string{"29 01:00 +0100 to 29 01:30 +0100"}},
		{"Europe/Berlin", "spring", "2026-03-28 12:00 +0100", "01:00 1h", []string{"29 01:00 +0100 to 29 03:00 +0200"}},
		{"Europe/Berlin", "spring", "2026-03-28 12:00 +0100", "01:00 3h", []string{"29 01:00 +0100 to 29 05:00 +0200"}},
		{"Europe/Berlin", "spring", "2026-03-28 12:00 +0100", "02:00 1h", []string{"29 03:00 +0200 to 29 04:00 +0200"}},
		{"Europe/Berlin", "spring", "2026-03-28 12:00 +0100", "02:30 1h", []string{"29 03:00 +0200 to 29 04:00 +0200"}},
		{"Europe/Berlin", "spring", "2026-03-28 12:00 +0100", "Sun 02:30 90m", []string{"29 03:00 +0200 to 29 04:30 +0200"}},
		{"Europe/Berlin", "spring", "2026-03-28 12:00 +0100", "03:00 1h", []string{"29 03:00 +0200 to 29 04:00 +0200"}},
		{"Europe/Berlin", "spring", "2026-03-28 12:00 +0100", "Sat 23:00 6h", []string{"28 23:00 +0100 to 29 06:00 +0200"}},
		{"Europe/Berlin", "spring", "2026-03-28 12:00 +0100", "Sun 00:00 24h", []string{"29 00:00 +0100 to 30 01:00 +0200"}},
		// 03:00 becomes 02:00.
		{"Europe/Berlin", "autumn", "2026-10-24 12:00 +0200", "01:00 1h", []string{"25 01:00 +0200 to 25 02:00 +0200"}},
		{"Europe/Berlin", "autumn", "2026-10-24 12:00 +0200", "01:00 3h", []string{"25 01:00 +0200 to 25 03:00 +0100"}},
		{"Europe/Berlin", "autumn", "2026-10-24 12:00 +0200", "02:00 30m", []string{"25 02:00 +0200 to 25 02:30 +0200"}},
		{"Europe/Berlin", "autumn", "2026-10-24 12:00 +0200", "02:30 1h", []string{"25 02:30 +0200 to 25 02:30 +0100"}},
		{"Europe/Berlin", "autumn", "2026-10-24 12:00 +0200", "02:30 30m", []string{"25 02:30 +0200 to 25 02:00 +0100"}},
		{"Europe/Berlin", "autumn", "2026-10-24 12:00 +0200", "03:00 1h", []string{"25 03:00 +0100 to 25 04:00 +0100"}},
		{"Europe/Berlin", "autumn", "2026-10-24 12:00 +0200", "Sat 23:00 6h", []string{"24 23:00 +0200 to 25 04:00 +0100"}},
		{"Europe/Berlin", "autumn", "2026-10-24 12:00 +0200", "Sun,Mon 00:00 24h", []string{"25 00:00 +0200 to 25 23:00 +0100"}},
		// 02:00 becomes 03:00.
		{"America/New_York", "spring", "2026-03-07 12:00 -0500", "01:00 3h", []string{"08 01:00 -0500 to 08 05:00 -0400"}},
		{"America/New_York", "spring", "2026-03-07 12:00 -0500", "02:30 1h", []string{"08 03:00 -0400 to 08 04:00 -0400"}},
		{"America/New_York", "spring", "2026-03-07 12:00 -0500", "Sat 22:30 4h", []string{"07 22:30 -0500 to 08 03:30 -0400"}},
		// 02:00 becomes 01:00.
		{"America/New_York", "autumn", "2026-10-31 12:00 -0400", "01:00 3h", []string{"01 01:00 -0400 to 01 03:00 -0500"}},
		{"America/New_York", "autumn", "2026-10-31 12:00 -0400", "01:30 1h", []string{"01 01:30 -0400 to 01 01:30 -0500"}},
		{"America/New_York", "autumn", "2026-10-31 12:00 -0400", "02:30 1h", []string{"01 02:30 -0500 to 01 03:30 -0500"}},
		{"America/New_York", "autumn", "2026-10-31 12:00 -0400", "Sat 22:30 4h", []string{"31 22:30 -0400 to 01 01:30 -0500"}},
		// 02:00 becomes 02:30: half an hour.
		{"Australia/Lord_Howe", "spring", "2026-10-03 12:00 +1030", "01:00 3h", []string{"04 01:00 +1030 to 04 04:30 +1100"}},
		{"Australia/Lord_Howe", "spring", "2026-10-03 12:00 +1030", "02:00 1h", []string{"04 02:30 +1100 to 04 03:30 +1100"}},
		{"Australia/Lord_Howe", "spring", "2026-10-03 12:00 +1030", "02:15 1h", []string{"04 02:30 +1100 to 04 03:30 +1100"}},
		{"Australia/Lord_Howe", "spring", "2026-10-03 12:00 +1030", "02:45 1h", []string{"04 02:45 +1100 to 04 03:45 +1100"}},
		// 02:00 becomes 01:30.
		{"Australia/Lord_Howe", "autumn", "2026-04-04 12:00 +1100", "01:00 3h", []string{"05 01:00 +1100 to 05 03:30 +1030"}},
		{"Australia/Lord_Howe", "autumn", "2026-04-04 12:00 +1100", "01:45 1h", []string{"05 01:45 +1100 to 05 02:15 +1030"}},
		{"Australia/Lord_Howe", "autumn", "2026-04-04 12:00 +1100", "02:15 1h", []string{"05 02:15 +1030 to 05 03:15 +1030"}},
		// No change.
		{"UTC", "spring", "2026-03-28 12:00 +0000", "01:00 3h", []string{"29 01:00 +0000 to 29 04:00 +0000"}},
		{"UTC", "spring", "2026-03-28 12:00 +0000", "02:30 1h", []string{"29 02:30 +0000 to 29 03:30 +0000"}},
		{"UTC", "autumn", "2026-10-24 12:00 +0000", "01:00 3h", []string{"25 01:00 +0000 to 25 04:00 +0000"}},
		{"UTC", "autumn", "2026-10-24 12:00 +0000", "02:30 1h", []string{"25 02:30 +0000 to 25 03:30 +0000"}},
	} {
		t.Run(c.zone+" "+c.night+" "+c.window, func(t *testing.T) {
			from := at(t, c.from)
			s := schedule(t, zone(t, c.zone), c.window)
			if got := spans(t, s, from, from.Add(24*time.Hour)); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// A window of whole days follows elapsed time: after the autumn night an hour is left over, in spring one is counted twice.
func TestWholeDays(t *testing.T) {
	s := schedule(t, zone(t, "Europe/Berlin"), "00:00 24h")
	now := at(t, "2026-10-24 12:00 +0200")
	if open, closes := s.Open(now); !open || !closes.Equal(at(t, "2026-10-25 23:00 +0100")) {
		t.Errorf("Open = %v, %s", open, closes)
	}
	if opens, ok := s.Next(now); !ok || !opens.Equal(at(t, "2026-10-26 00:00 +0100")) {
		t.Errorf("Next = %s, %v", opens, ok)
	}
	now = at(t, "2026-03-20 12:00 +0100")
	if open, closes := s.Open(now); !open || !closes.Equal(now.Add(horizon)) {
		t.Errorf("Open = %v, %s, want the horizon", open, closes)
	}
	if opens, ok := s.Next(now); ok {
		t.Errorf("Next = %s of a schedule that does not close", opens)
	}
}

func TestMerge(t *testing.T) {
	from := at(t, "2026-06-01 00:00 +0000") // a Monday
	for _, c := range []struct {
		name  string
		specs []string
		want  []string
	}{
		{"none", nil, nil},
		{"touching", []string{"Mon 02:00 1h", "Mon 03:00 1h"}, []string{"01 02:00 +0000 to 01 04:00 +0000"}},
		{"overlapping", []string{"Mon 02:00 3h", "Mon 01:00 90m"}, []string{"01 01:00 +0000 to 01 05:00 +0000"}},
		{"inside", []string{"Mon 02:00 3h", "Mon 03:00 10m"}, []string{"01 02:00 +0000 to 01 05:00 +0000"}},
		{"the same twice", []string{"Mon 02:00 3h", "Mon 02:00 3h"}, []string{"01 02:00 +0000 to 01 05:00 +0000"}},
		{"a minute apart", []string{"Mon 02:00 1h", "Mon 03:01 1h"}, []string{"01 02:00 +0000 to 01 03:00 +0000", "01 03:01 +0000 to 01 04:01 +0000"}},
		{"over midnight", []string{"Mon 23:00 2h"}, []string{"01 23:00 +0000 to 02 01:00 +0000"}},
		{"chain over midnight", []string{"Mon 23:00 1h", "Tue 00:00 1h"}, []string{"01 23:00 +0000 to 02 01:00 +0000"}},
		{"over the week's end", []string{"Sun 23:00 25h"}, []string{"01 00:00 +0000 to 02 00:00 +0000", "07 23:00 +0000 to 09 00:00 +0000"}},
		{"almost a week", []string{"Tue 00:00 167h59m"}, []string{"01 00:00 +0000 to 01 23:59 +0000", "02 00:00 +0000 to 08 23:59 +0000"}},
		{"seconds", []string{"Mon 02:00 1h0m30s"}, []string{"01 02:00 +0000 to 01 03:00 +0000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := spans(t, schedule(t, nil, c.specs...), from, from.AddDate(0, 0, 7)); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
	s := schedule(t, nil, "Mon 02:00 1h")
	for clock, want := range map[string]bool{"01:59": false, "02:00": true, "02:59": true, "03:00": false} {
		if open, _ := s.Open(at(t, "2026-06-01 "+clock+" +0000")); open != want {
			t.Errorf("open at %s: %v, want %v", clock, open, want)
		}
	}
	if open, closes := (Schedule{}).Open(from); open || !closes.IsZero() {
		t.Errorf("a schedule without windows: %v, %s", open, closes)
	}
	if _, ok := (Schedule{Windows: []Window{{}}}).Next(from); ok {
		t.Error("the zero window opens")
	}
}

// A zone may jump over a whole day (Samoa had no 30 December 2011), over midnight, or back over it.
func TestOddZones(t *testing.T) {
	for _, c := range []struct{ zone, from, window, want string }{
		{"Pacific/Apia", "2011-12-29 12:00 -1000", "Fri 02:00 1h", "[31 00:00 +1400 to 31 01:00 +1400]"},
		{"America/Sao_Paulo", "2018-11-03 12:00 -0300", "00:30 1h", "[04 01:00 -0200 to 04 02:00 -0200]"},
		{"America/Sao_Paulo", "2018-02-17 12:00 -0200", "23:30 1h", "[17 23:30 -0200 to 17 23:30 -0300]"},
		{"America/Scoresbysund", "2024-03-30 12:00 -0100", "23:30 1h", "[30 23:30 -0100 to 31 00:30 -0100]"},
	} {
		from := at(t, c.from)
		got := spans(t, schedule(t, zone(t, c.zone), c.window), from, from.Add(24*time.Hour))
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s %s: got %q, want %s", c.zone, c.window, got, c.want)
		}
	}
}

// TestYear compares Open and Next, at every minute of a year for one random schedule and at every 97th for eight more, with a model that knows neither dates nor transitions: it walks the minutes and starts a window
// when the clock first shows a time that it has not shown before.
func TestYear(t *testing.T) {
	for i, name := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "America/Sao_Paulo"} {
		t.Run(name, func(t *testing.T) {
			year := 2026
			if name == "America/Sao_Paulo" {
				year = 2018 // when it still changed, at midnight
			}
			first := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC).Add(-margin * time.Minute)
			loc, clock := zone(t, name), make([]int64, yearMinutes+2*margin) // what the clock shows, in minutes
			for m := range clock {
				at := first.Add(time.Duration(m) * time.Minute)
				_, offset := at.In(loc).Zone()
				clock[m] = (at.Unix() + int64(offset)) / 60
			}
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			for round := range 9 {
				s := Schedule{Location: loc}
				for range 1 + rng.IntN(3) {
					length := time.Duration(1+rng.IntN(300)) * time.Minute
					if rng.IntN(4) == 0 {
						length = time.Duration(1+rng.IntN(3*24*60)) * time.Minute
					}
					w := Window{days: uint8(1 + rng.IntN(everyDay)), start: rng.IntN(24 * 60), length: length}
					if rng.IntN(2) == 0 {
						w.start = rng.IntN(4 * 60) // where the changes are
					}
					s.Windows = append(s.Windows, w)
				}
				step := 97
				if round == 0 {
					step = 1
				}
				checkYear(t, s, first, clock, step)
			}
		})
	}
}

const yearMinutes, margin = 366 * 24 * 60, 16 * 24 * 60

func checkYear(t *testing.T, s Schedule, first time.Time, clock []int64, step int) {
	t.Helper()
	closes := make([]int, yearMinutes+2*margin) // the minute at which what is open closes; 0: closed
	shown, end := clock[0]-1, 0
	for m := range closes {
		for ; shown < clock[m]; shown++ { // several at once where the clock is set forward, none where it is set back
			minute := shown + 1
			for _, w := range s.Windows {
				if minute%1440 == int64(w.start) && w.days&(1<<((minute/1440+4)%7)) != 0 { // 1 January 1970 was a Thursday
					end = max(end, m+int(w.length/time.Minute))
				}
			}
		}
		if m < end {
			closes[m] = end
		}
	}
	// Backwards: the end of a chain is the end of its last window, and the next opening is known.
	opens, next := make([]int, len(closes)), 0
	for m := len(closes) - 2; m >= 0; m-- {
		if closes[m] != 0 && closes[m+1] != 0 {
			closes[m] = closes[m+1]
		}
		opens[m] = next
		if closes[m] != 0 && (m == 0 || closes[m-1] == 0) {
			next = m
		}
	}
	wrong := 0
	for m := margin; m < margin+yearMinutes && wrong < 5; m += step {
		now := first.Add(time.Duration(m) * time.Minute)
		open, until := s.Open(now)
		if open != (closes[m] != 0) || (open && !until.Equal(first.Add(time.Duration(closes[m])*time.Minute)) && closes[m]-m <= 15*24*60) {
			t.Errorf("%v at %s: open %v until %s, the model says minute %d of %d", s.Windows, now.In(s.Location), open, until, closes[m], m)
			wrong++
		}
		if open && closes[m]-m > 15*24*60 {
			continue
		}
		if at, ok := s.Next(now); !ok || !at.Equal(first.Add(time.Duration(opens[m])*time.Minute)) {
			t.Errorf("%v at %s: next %s %v, the model says minute %d of %d", s.Windows, now.In(s.Location), at, ok, opens[m], m)
			wrong++
		}
	}
}
