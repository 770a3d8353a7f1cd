package omaha

import (
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

func TestVersionOrder(t *testing.T) {
	// Each is older than the next; the ones beside each other are equal.
	order := [][]string{
		{"0", "0.0.0.0"}, {"0.9"}, {"1.0.0-alpha"}, {"1.0.0-alpha.1"}, {"1.0.0-alpha.beta"}, {"1.0.0-beta"}, {"1.0.0-beta.2"}, {"1.0.0-beta.11"},
		{"1.0.0-rc.1", "1.0.0-rc.1+b7"}, {"1", "1.0", "1.0.0", "1.0.0+build.5", "1.0.0+nightly-20240101"}, {"1.0.0.1"}, {"1.0.1-1"}, {"1.0.1"}, {"1.9.0"}, {"1.10.0"}, {"4081.2.0"},
		{"9223372036854775807"},
	}
	parse := func(s string) Version {
		v, err := ParseVersion(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for i, left := range order {
		for j, right := range order {
			want := 0
			if i != j {
				want = map[bool]int{true: -1, false: 1}[i < j]
			}
			for _, a := range left {
				for _, b := range right {
					if got := parse(a).Compare(parse(b)); got != want {
						t.Errorf("%s with %s: %d, want %d", a, b, got, want)
					}
				}
			}
		}
	}
}

func TestRefusedVersions(t *testing.T) {
	for _, s := range []string{
		"", "v1.0.0", "1..0", "1.0.", ".1", "1.0.0.0.0", "01.0", "1.0.0-", "1.0.0-a..b", "1.0.0+", "1.0.0+a b", "1.0.0-ü", "1 ", "-1", "1.0.0\n",
		"9223372036854775808", strings.Repeat("1", 65), "１.0",
	} {
		if _, err := ParseVersion(s); err == nil || fault.KindOf(err) != fault.Input {
			t.Errorf("%q: error %v, want one of kind input", s, err)
		}
	}
}

func FuzzVersion(f *testing.F) {
	f.Add("1.2.0", "1.2.0-rc.1")
	f.Add("4081.2.0", "1.0.0+nightly-20240101")
	f.Fuzz(func(t *testing.T, a, b string) {
		v, err := ParseVersion(a)
		w, err2 := ParseVersion(b)
		if err != nil || err2 != nil {
			return
		}
		if v.Compare(w) != -w.Compare(v) || v.Compare(v) != 0 {
			t.Fatalf("%q and %q have no order: %d, %d", a, b, v.Compare(w), w.Compare(v))
		}
	})
}
