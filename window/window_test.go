package window

import (
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ spec, want, problem string }{
		{"Mon-Fri 02:00 3h", "Mon,Tue,Wed,Thu,Fri 02:00 3h", ""},
		{"Sat,Sun 22:30 4h", "Sat,Sun 22:30 4h", ""},
		{"Thu 23:00 90m", "Thu 23:00 1h30m", ""},
		{"02:00 1h", "02:00 1h", ""},
		{"  thursday\t4:05  1m ", "Thu 04:05 1m", ""},
		{"Sat-Mon 00:00 1h", "Mon,Sat,Sun 00:00 1h", ""},
		{"Mon-Sun 00:00 24h", "00:00 24h", ""},
		{"Mon-Tue,TUE,Fri-Fri 23:59 167h59m59s", "Mon,Tue,Fri 23:59 167h59m59s", ""},
		{"02:00 1.5h", "02:00 1h30m", ""},
		{"02:00 1h0m30s", "02:00 1h0m30s", ""},

		{"", "", "want days, start and length"},
		{"02:00", "", "want days, start and length"},
		{"Mon 02:00 1h x", "", "want days, start and length"},
		{"Mo 02:00 1h", "", `"Mo" is not a day`},
		{"Mon- 02:00 1h", "", `"" is not a day`},
		{"Mon,,Tue 02:00 1h", "", `"" is not a day`},
		{"Mon-Wed-Fri 02:00 1h", "", `"Wed-Fri" is not a day`},
		{"24:00 1h", "", "not a time of day"},
		{"02:60 1h", "", "not a time of day"},
		{"2 1h", "", "not a time of day"},
		{"02:0 1h", "", "not a time of day"},
		{"+2:00 1h", "", "not a time of day"},
		{"002:00 1h", "", "not a time of day"},
		{"02:00 3", "", "not a length"},
		{"02:00 1d", "", "not a length"},
		{"02:00 59s", "", "out of range"},
		{"02:00 -1h", "", "out of range"},
		{"02:00 168h", "", "out of range"},
		{"02:00 9999999h", "", "not a length"},
		{"02:00 61.5s", "", "whole seconds"},
		{strings.Repeat(" ", 200) + "02:00 1h", "", "more than 200 bytes"},
	} {
		w, err := Parse(c.spec)
		if c.problem == "" {
			if err != nil || w.String() != c.want {
				t.Errorf("Parse(%q) = %q, %v, want %q", c.spec, w, err, c.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.problem) || !strings.Contains(err.Error(), "example") || !fault.Is(err, fault.Input) {
			t.Errorf("Parse(%q) = %q, %v, want an input error with %q and an example", c.spec, w, err, c.problem)
		}
	}
	if got := (Window{}).String(); got != "never" {
		t.Errorf("the zero window is %q", got)
	}
}

func TestParseLocksmith(t *testing.T) {
	for _, c := range []struct{ start, length, want, problem string }{
		{"Thu 04:00", "1h30m", "Thu 04:00 1h30m", ""},
		{"04:00", "1h30m", "04:00 1h30m", ""},
		{"sun 14:00", "167h", "Sun 14:00 167h", ""},
		{"14:00", "23h59m", "14:00 23h59m", ""},

		{"", "1h", "", "both be set"},
		{"14:00", "", "", "both be set"},
		{"", "", "", "both be set"},
		{"14:00", "24h", "", "out of range (1m to under 24h)"},
		{"Sun 14:00", "168h", "", "out of range (1m to under 168h)"},
		{"Mon-Fri 14:00", "1h", "", "is not a day"},
		{"Mon Tue 14:00", "1h", "", "one day and a time"},
		{"14", "1h", "", "not a time of day"},
		{strings.Repeat("x", 201), "1h", "", "more than 200 bytes"},
	} {
		w, err := ParseLocksmith(c.start, c.length)
		if c.problem == "" {
			if err != nil || w.String() != c.want {
				t.Errorf("ParseLocksmith(%q, %q) = %q, %v, want %q", c.start, c.length, w, err, c.want)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.problem) || !fault.Is(err, fault.Input) {
			t.Errorf("ParseLocksmith(%q, %q) = %q, %v, want an input error with %q", c.start, c.length, w, err, c.problem)
		}
	}
}

func TestParseSchedule(t *testing.T) {
	s, err := ParseSchedule([]string{"02:00 1h", "Sun 03:00 2h"}, "Europe/Berlin")
	if err != nil || len(s.Windows) != 2 || s.Location.String() != "Europe/Berlin" {
		t.Errorf("ParseSchedule = %v, %v", s, err)
	}
	if s, err := ParseSchedule(nil, ""); err != nil || s.Location != time.Local {
		t.Errorf("without a zone: %v, %v, want the machine's", s.Location, err)
	}
	for name, c := range map[string]struct {
		specs []string
		zone  string
		want  string
	}{
		"too many":     {make([]string, 51), "UTC", "51 reboot windows, at most 50"},
		"unknown zone": {nil, "Europe/Bärlin", "time zone"},
		"path":         {nil, "../../etc/passwd", "time zone"},
		"bad window":   {[]string{"02:00 1h", "x"}, "UTC", `reboot window "x"`},
	} {
		if _, err := ParseSchedule(c.specs, c.zone); err == nil || !strings.Contains(err.Error(), c.want) || !fault.Is(err, fault.Input) {
			t.Errorf("%s: %v, want an input error with %q", name, err, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"Mon-Fri 02:00 3h", "Sat,Sun 22:30 4h", "Thu 23:00 90m", "02:00 1h", "sunday-Monday 0:00 167h59m59s", "02:00 -1h", "Mon-,: 1", "\x00 \xff 1e9h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, spec string) {
		w, err := Parse(spec)
		if err != nil {
			if !fault.Is(err, fault.Input) || len(err.Error()) > 2000 {
				t.Errorf("Parse(%q): kind %v, message of %d bytes", spec, fault.KindOf(err), len(err.Error()))
			}
			return
		}
		if w.days == 0 || w.days > everyDay || w.start < 0 || w.start >= 24*60 || w.length < minLength || w.length >= maxLength {
			t.Errorf("Parse(%q) = %+v is out of bounds", spec, w)
		}
		if again, err := Parse(w.String()); err != nil || again != w {
			t.Errorf("Parse(%q) = %+v, but its text %q is read as %+v, %v", spec, w, w, again, err)
		}
	})
}
