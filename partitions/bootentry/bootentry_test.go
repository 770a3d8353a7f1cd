package bootentry

import (
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		file string
		want Entry
		name string // in its usual form; "" for the same as file
	}{
		{"semper_1.2.0+3-0.efi", Entry{Stem: "semper_1.2.0", Counting: true, Left: 3, SortKey: "semper", Version: "1.2.0"}, ""},
		{"semper_1.2.0+2-1.efi", Entry{Stem: "semper_1.2.0", Counting: true, Left: 2, Done: 1, SortKey: "semper", Version: "1.2.0"}, ""},
		{"semper_1.2.0+3.efi", Entry{Stem: "semper_1.2.0", Counting: true, Left: 3, SortKey: "semper", Version: "1.2.0"}, "semper_1.2.0+3-0.efi"},
		{"semper_1.2.0+03-00.EFI", Entry{Stem: "semper_1.2.0", Counting: true, Left: 3, SortKey: "semper", Version: "1.2.0"}, "semper_1.2.0+3-0.efi"},
		{"semper_1.2.0.efi", Entry{Stem: "semper_1.2.0", SortKey: "semper", Version: "1.2.0"}, ""},
		{"a_b_1~rc1.efi", Entry{Stem: "a_b_1~rc1", SortKey: "a_b", Version: "1~rc1"}, ""},
		{"debian.efi", Entry{Stem: "debian"}, ""},
		{"a+b+1.efi", Entry{Stem: "a+b", Counting: true, Left: 1}, "a+b+1-0.efi"},
		{"a+1+b.efi", Entry{Stem: "a+1+b"}, ""},                   // the last plus sign wins
		{"a+1-.efi", Entry{Stem: "a+1-"}, ""},                     // no number
		{"a+-1.efi", Entry{Stem: "a+-1"}, ""},                     // no number
		{"a+1-2-3.efi", Entry{Stem: "a+1-2-3"}, ""},               // counter in the middle
		{"a+2147483648.efi", Entry{Stem: "a+2147483648"}, ""},     // above INT_MAX
		{"a+1-2147483648.efi", Entry{Stem: "a+1-2147483648"}, ""}, // above INT_MAX
		{"a+99999999999999999999.efi", Entry{Stem: "a+99999999999999999999"}, ""},
		{"a+2147483647-5.efi", Entry{Stem: "a", Counting: true, Left: 2147483647, Done: 5}, ""},
		{"_1.efi", Entry{Stem: "_1"}, ""},
		{"a_.efi", Entry{Stem: "a_"}, ""},
	}
	for _, tt := range tests {
		got, err := Parse(tt.file)
		tt.want.File = tt.file
		if err != nil || got != tt.want {
			t.Errorf("Parse(%q) = %+v, %v\nwant %+v", tt.file, got, err, tt.want)
		}
		if tt.name == "" {
			tt.name = tt.file
		}
		if got.Name() != tt.name {
			t.Errorf("Parse(%q).Name() = %q, want %q", tt.file, got.Name(), tt.name)
		}
	}
	for _, bad := range []string{"", ".efi", "efi", "a.conf", "a/b.efi", `a\b.efi`, "auto-osx.efi", "AUTO-x.efi", ".hidden.efi", "a\x00.efi", strings.Repeat("a", 252) + ".efi"} {
		if e, err := Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %+v, want an error", bad, e)
		}
	}
}

func TestStates(t *testing.T) {
	fresh, err := New("semper", "1.2.0", 3)
	if err != nil {
		t.Fatal(err)
	}
	tried, err := Parse("semper_1.2.0+2-1.efi")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what string
		got  Entry
		want string
	}{
		{"fresh", fresh, "semper_1.2.0+3-0.efi"},
		{"blessed", tried.Blessed(), "semper_1.2.0.efi"},
		{"blessed twice", tried.Blessed().Blessed(), "semper_1.2.0.efi"},
		{"bad", tried.Bad(), "semper_1.2.0+0-1.efi"},
		{"bad after blessing", tried.Blessed().Bad(), "semper_1.2.0+0-0.efi"},
		{"fresh again", tried.Bad().Fresh(3), "semper_1.2.0+3-0.efi"},
		{"too few", tried.Fresh(0), "semper_1.2.0+1-0.efi"},
		{"too many", tried.Fresh(10), "semper_1.2.0+9-0.efi"},
	} {
		if got := tt.got.Name(); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.what, got, tt.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tt := range []struct {
		id, version string
		tries       int
	}{
		{"semper", "1.2.0", 0},
		{"semper", "1.2.0", 10},
		{"", "1", 3},
		{"Semper", "1", 3},
		{"a_b", "1", 3},
		{"a/b", "1", 3},
		{"auto-x", "1", 3},
		{"semper", "", 3},
		{"semper", "1+2", 3},
		{"semper", "1_2", 3},
		{"semper", "1 2", 3},
		{"semper", "1/2", 3},
		{"semper", ".1", 3},
		{"semper", "1-", 3},
		{"semper", "é", 3},
		{"semper", strings.Repeat("1", 65), 3},
	} {
		if e, err := New(tt.id, tt.version, tt.tries); err == nil {
			t.Errorf("New(%q, %q, %d) = %q, want an error", tt.id, tt.version, tt.tries, e.Name())
		}
	}
	for _, good := range []string{"1", "1.2.0", "1.2.0-rc.1", "1.2.0~beta1", "20260101", "4.5^fix1", "v1"} {
		if err := CheckVersion(good); err != nil {
			t.Error(err)
		}
	}
}

// The chain is the example of the Version Format Specification, with more of ours; versions of one line are equal.
func TestCompareOrder(t *testing.T) {
	chain := [][]string{
		{"~"},
		{""},
		{"a"},
		{"a_b"},
		{"ab", "_ab", "ab_"},
		{"abb"},
		{"abc"},
		{"0001", "1", "01"},
		{"002", "2"},
		{"12"},
		{"122"},
		{"122.9"},
		{"123~rc1"},
		{"123"},
		{"123-a"},
		{"123-a.1"},
		{"123-1"},
		{"123-1.1"},
		{"123^post1"},
		{"123.a-1"},
		{"123.1-1"},
		{"123a-1"},
		{"124-1"},
		{"1000000000000000000000000000000000000000"},
		{"1000000000000000000000000000000000000001"},
	}
	for i, as := range chain {
		for j, bs := range chain {
			for _, a := range as {
				for _, b := range bs {
					want := min(max(i-j, -1), 1)
					if got := min(max(Compare(a, b), -1), 1); got != want {
						t.Errorf("Compare(%q, %q) = %d, want %d", a, b, got, want)
					}
				}
			}
		}
	}
}

// TestCompareAsSystemd asks the systemd of this machine.
func TestCompareAsSystemd(t *testing.T) {
	const tool = "systemd-analyze"
	if _, err := exec.LookPath(tool); err != nil {
		t.Fatal("systemd-analyze is missing: install the Debian package systemd")
	}
	words := []string{"1", "01", "2", "10", "a", "b", "rc", ".", "-", "~", "^", "_", "+", "0"}
	r := rand.New(rand.NewPCG(1, 2)) // a fixed seed: the same pairs each time
	version := func() string {
		var s strings.Builder
		for range 1 + r.IntN(5) {
			s.WriteString(words[r.IntN(len(words))])
		}
		return s.String()
	}
	for range 300 {
		a, b := version(), version()
		out, err := exec.Command(tool, "compare-versions", "--", a, b).CombinedOutput()
		if len(out) == 0 {
			t.Fatalf("%s compare-versions %s %s: %v", tool, a, b, err)
		}
		sign := "="
		switch c := Compare(a, b); {
		case c < 0:
			sign = "<"
		case c > 0:
			sign = ">"
		}
		if got := a + " " + sign + " " + b; got != strings.TrimSpace(strings.ReplaceAll(string(out), "==", "=")) {
			t.Errorf("we say %q, systemd %q", got, strings.TrimSpace(string(out)))
		}
	}
}

func TestSort(t *testing.T) {
	tests := []struct {
		name string
		want []string // in order
	}{
		{"the newest first", []string{"semper_1.10.0.efi", "semper_1.9.0.efi", "semper_1.2.0.efi"}},
		{"a fresh update before the blessed one", []string{"semper_1.1.0+3-0.efi", "semper_1.0.0.efi"}},
		{"on its last try", []string{"semper_1.1.0+1-2.efi", "semper_1.0.0.efi"}},
		{"used up: the old one", []string{"semper_1.0.0.efi", "semper_1.1.0+0-3.efi"}},
		{"all bad: the newest of them", []string{"semper_1.1.0+0-3.efi", "semper_1.0.0+0-1.efi"}},
		{"a rollback that counts", []string{"semper_1.0.0+2-1.efi", "semper_1.1.0+0-3.efi"}},
		{"a pre-release", []string{"semper_1.1.0.efi", "semper_1.1.0~rc1+3-0.efi", "semper_1.0.0.efi"}},
		{"sort keys before none", []string{"a_1.efi", "zz_1.efi", "zebra.efi", "apple.efi"}},
		{"sort keys by bytes", []string{"a-os_1.efi", "b-os_9.efi"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var entries []Entry
			for _, f := range tt.want {
				e, err := Parse(f)
				if err != nil {
					t.Fatal(err)
				}
				entries = append(entries, e)
			}
			for range len(entries) {
				entries = append(entries[1:], entries[0])
				shuffled := slices.Clone(entries)
				if next, ok := Next(shuffled); !ok || next.File != tt.want[0] {
					t.Errorf("Next is %q", next.File)
				}
				Sort(shuffled)
				var got []string
				for _, e := range shuffled {
					got = append(got, e.File)
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			}
		})
	}
	if _, ok := Next(nil); ok {
		t.Error("there is a next entry where there is none")
	}
}

// The last rule: names that compare as equal, told apart by their counters alone.
func TestSortByTries(t *testing.T) {
	entry := func(left, done int) Entry {
		return Entry{File: "x.efi", Stem: "x", SortKey: "x", Version: "1", Counting: true, Left: left, Done: done}
	}
	want := []Entry{entry(3, 0), entry(2, 0), entry(2, 1), entry(1, 1), entry(0, 3)}
	got := slices.Clone(want)
	slices.Reverse(got)
	Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"semper_1.2.0+3-0.efi", "semper_1.2.0.efi", "a+1-2-3.efi", "+0.efi", "x+99999999999999999999-1.efi"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, file string) {
		e, err := Parse(file)
		if err != nil {
			return
		}
		again, err := Parse(e.Name())
		if len(e.Name()) > maxName {
			return // "+1" became "+1-0"
		}
		if err != nil {
			t.Fatalf("%q: its usual form %q: %v", file, e.Name(), err)
		}
		e.File = again.File
		if again != e {
			t.Fatalf("%q: %+v, and from its usual form %+v", file, e, again)
		}
		if !e.Counting && e.Stem+file[len(e.Stem):] != file {
			t.Fatalf("%q: stem %q", file, e.Stem)
		}
	})
}

func FuzzCompare(f *testing.F) {
	f.Add("1.2.0", "1.2.0~rc1", "1.10")
	f.Add("123^post1", "123-1", "_~^.-")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, ba := Compare(a, b), Compare(b, a)
		if (ab < 0) != (ba > 0) || (ab == 0) != (ba == 0) {
			t.Fatalf("Compare(%q, %q) = %d, the other way %d", a, b, ab, ba)
		}
		if ab <= 0 && Compare(b, c) <= 0 && Compare(a, c) > 0 {
			t.Fatalf("%q <= %q <= %q, but the first is newer than the last", a, b, c)
		}
	})
}
