package modules

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/semper-os/semper/fault"
)

const sample = `semper-modules 1
module ahci ahci.ko scsi_common scsi_mod libata libahci
module crc32c_generic crc32c_generic.ko
module crc32c_intel crc32c-intel.ko
module erofs erofs.ko libcrc32c
module libahci libahci.ko scsi_common scsi_mod libata
module libata libata.ko scsi_common scsi_mod
module libcrc32c libcrc32c.ko
before libcrc32c crc32c_generic crc32c_intel
module scsi_common scsi_common.ko
module scsi_mod scsi_mod.ko scsi_common
module sd_mod sd_mod.ko scsi_common scsi_mod
after sd_mod libcrc32c
alias pci:v*d*sv*sd*bc01sc06i01* ahci
alias cpu:type:x86,ven*fam*mod*:feature:*0094* crc32c_intel
alias scsi:t-0x00* sd_mod
`

func parse(t testing.TB, text string) *Index {
	t.Helper()
	x, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func TestIndexRoundTrip(t *testing.T) {
	x := parse(t, sample)
	if got := string(x.Bytes()); got != sample {
		t.Errorf("written again:\n%s\nwant\n%s", got, sample)
	}
	// Any order gives the same text.
	m, a := slices.Clone(x.Modules), slices.Clone(x.Aliases)
	slices.Reverse(m)
	slices.Reverse(a)
	y, err := New(m, append(a, a[0]))
	if err != nil {
		t.Fatal(err)
	}
	if string(y.Bytes()) != sample {
		t.Errorf("another order gives\n%s", y.Bytes())
	}
	if m, ok := x.Lookup("crc32c-intel"); !ok || m.File != "crc32c-intel.ko" {
		t.Errorf("Lookup(crc32c-intel) = %+v, %v", m, ok)
	}
}

func TestParseRefuses(t *testing.T) {
	const h = "semper-modules 1\n"
	for name, tc := range map[string]struct{ text, want string }{
		"other version":     {"semper-modules 2\n", `want "semper-modules 1"`},
		"cut off":           {h + "module a a.ko", "line 2 is cut off"},
		"unknown statement": {h + "load a\n", "not a statement"},
		"empty field":       {h + "module a  a.ko\n", "empty field"},
		"unknown need":      {h + "module a a.ko b\n", "a cannot need b"},
		"needs itself":      {h + "module a a.ko a\n", "a cannot need a"},
		"circle":            {h + "module a a.ko b\nmodule b b.ko a\n", "which needs a first"},
		"wrong order":       {h + "module a a.ko c b\nmodule b b.ko\nmodule c c.ko b\n", "a needs c, which needs b first"},
		"incomplete":        {h + "module a a.ko b\nmodule b b.ko c\nmodule c c.ko\n", "a needs b, which needs c first"},
		"twice":             {h + "module a a.ko\nmodule a b.ko\n", "twice"},
		"path":              {h + "module a ../a.ko\n", "not a file's name"},
		"hidden":            {h + "module a .\n", "not a file's name"},
		"dash in name":      {h + "module a-b a.ko\n", "not a module's name"},
		"wish elsewhere":    {h + "module a a.ko\nmodule b b.ko\nbefore a b\n", "not a statement that may stand here"},
		"unknown wish":      {h + "module a a.ko\nbefore a b\n", "cannot want b"},
		"unknown alias":     {h + "alias pci:* a\n", "no module here"},
		"module after":      {h + "module a a.ko\nalias pci:* a\nmodule b b.ko\n", "not a statement that may stand here"},
		"long line":         {h + "module a " + strings.Repeat("x", maxLine) + "\n", "at most 4096"},
		"long":              {h + strings.Repeat("\n", maxIndex), "at most 1048576"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) || !fault.Is(err, fault.Input) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"virtio:d00000002v*", "virtio:d00000002v00001AF4", true},
		{"virtio:d00000002v*", "virtio:d00000008v00001AF4", false},
		{"pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02", true},
		{"pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc06i01", false},
		{"cpu:type:x86,ven*fam*mod*:feature:*0094*", "cpu:type:x86,ven0000fam0006mod000F:feature:,0000,0094,0100", true},
		{"acpi*:VMBUS:*", "acpi:VMBUS:", true},
		{"usb:v05ACp829Cd00[0-9]*", "usb:v05ACp829Cd0074dc", true},
		{"usb:v05ACp829Cd00[0-9]*", "usb:v05ACp829Cd00A4dc", false},
		{"[!a-c]", "d", true},
		{"[!a-c]", "b", false},
		{"[^a]", "a", false},
		{"[]x]", "]", true},
		{"[a-]", "-", true},
		{"[a-c", "a", false},
		{"a[", "a[", false},
		{`a\*b`, "a*b", true},
		{`a\*b`, "axb", false},
		{`a\`, "a", false},
		{"*a*b*c", "xxaxxbxxbc", true},
		{"*a*b*c", "xxaxxbxxb", false},
		{"?", "", false},
		{"", "", true},
		{"***", "", true},
		{"a?c", "abc", true},
		{"abc", "ab", false},
		{"ab", "abc", false},
	} {
		if got := Match(tc.pattern, tc.s); got != tc.want {
			t.Errorf("Match(%q, %q) = %v", tc.pattern, tc.s, got)
		}
	}
}

// TestMatchIsBounded uses a pattern that takes a backtracking matcher longer than the age of the universe.
func TestMatchIsBounded(t *testing.T) {
	if Match(strings.Repeat("a*", 2000)+"b", strings.Repeat("a", 20000)) {
		t.Error("matched")
	}
}

func TestForDevice(t *testing.T) {
	x := parse(t, sample)
	if got := x.ForDevice("scsi:t-0x00"); !slices.Equal(got, []string{"sd_mod"}) {
		t.Errorf("ForDevice = %v", got)
	}
	if got := x.ForDevice("pci:v00008086"); got != nil {
		t.Errorf("ForDevice = %v", got)
	}
}

func TestLoadOrder(t *testing.T) {
	var got []string
	l := NewLoader(parse(t, sample), func(file string, m Module) error {
		got = append(got, file)
		if m.Name == "crc32c_intel" {
			return errors.New("no such processor") // only a wish: erofs loads all the same
		}
		return nil
	})
	if names, err := l.LoadFor("pci:v1d1sv1sd1bc01sc06i01"); err != nil || !slices.Equal(names, []string{"ahci"}) {
		t.Fatalf("LoadFor = %v, %v", names, err)
	}
	for _, n := range []string{"erofs", "sd-mod", "erofs"} {
		if err := l.Load(n); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"scsi_common.ko", "scsi_mod.ko", "libata.ko", "libahci.ko", "ahci.ko", "crc32c_generic.ko", "crc32c-intel.ko", "libcrc32c.ko", "erofs.ko", "sd_mod.ko"}
	if !slices.Equal(got, want) {
		t.Errorf("order %v\nwant  %v", got, want)
	}
	if l.Loaded() != 9 {
		t.Errorf("Loaded() = %d, want 9", l.Loaded())
	}
}

func TestLoadFailure(t *testing.T) {
	calls := 0
	l := NewLoader(parse(t, sample), func(_ string, m Module) error {
		calls++
		if m.Name == "scsi_mod" {
			return errors.New("exec format error")
		}
		return nil
	})
	for range 2 {
		err := l.Load("ahci")
		if want := "module ahci: module scsi_mod: exec format error"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	if calls != 2 {
		t.Errorf("%d modules tried, want 2", calls)
	}
	if err := l.Load("zfs"); err == nil || err.Error() != "module zfs: not in the initramfs" {
		t.Errorf("error %v", err)
	}
}

func TestLoadConcurrently(t *testing.T) {
	var mu sync.Mutex
	there := map[string]bool{}
	x := parse(t, sample)
	l := NewLoader(x, func(_ string, m Module) error {
		mu.Lock()
		defer mu.Unlock()
		if there[m.Name] {
			t.Errorf("%s loaded twice", m.Name)
		}
		for _, n := range m.Needs {
			if !there[n] {
				t.Errorf("%s loaded before %s", m.Name, n)
			}
		}
		there[m.Name] = true
		return nil
	})
	var wg sync.WaitGroup
	for range 4 {
		for _, m := range x.Modules {
			wg.Go(func() {
				if err := l.Load(m.Name); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if l.Loaded() != len(x.Modules) {
		t.Errorf("Loaded() = %d", l.Loaded())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte("semper-modules 1\nmodule a a.ko b\nmodule b b.ko a\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := Parse(b)
		if err != nil {
			return
		}
		if !bytes.Equal(x.Bytes(), b) {
			t.Errorf("%q is written as %q", b, x.Bytes())
		}
		sorted, err := New(x.Modules, x.Aliases)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(sorted.Bytes())
		if err != nil || !reflect.DeepEqual(again, sorted) {
			t.Errorf("sorted, it reads as %+v, %v", again, err)
		}
		l := NewLoader(x, func(string, Module) error { return nil })
		for _, m := range x.Modules {
			if err := l.Load(m.Name); err != nil {
				t.Error(err)
			}
		}
	})
}

func FuzzMatch(f *testing.F) {
	f.Add("pci:v*d*sv*sd*bc01sc08i02*", "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02")
	f.Add(`[]-a]\[*?`, "][xy")
	f.Fuzz(func(t *testing.T, pattern, s string) {
		got := Match(pattern, s)
		if got != slowMatch(pattern, s) {
			t.Errorf("Match(%q, %q) = %v, the definition says otherwise", pattern, s, got)
		}
	})
}

// slowMatch is the definition of the pattern language, by recursion over a table.
func slowMatch(pattern, s string) bool {
	if len(pattern)*len(s) > 1<<16 {
		return Match(pattern, s)
	}
	memo := map[[2]int]bool{}
	var match func(p, i int) bool
	match = func(p, i int) (r bool) {
		k := [2]int{p, i}
		if v, ok := memo[k]; ok {
			return v
		}
		defer func() { memo[k] = r }()
		if p == len(pattern) {
			return i == len(s)
		}
		if pattern[p] == '*' {
			return match(p+1, i) || i < len(s) && match(p, i+1)
		}
		if i == len(s) {
			return false
		}
		n, ok := matchOne(pattern[p:], s[i])
		return ok && match(p+n, i+1)
	}
	return match(0, 0)
}
