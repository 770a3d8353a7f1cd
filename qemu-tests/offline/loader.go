package offline

import (
	"cmp"
	"strconv"
	"strings"
)

// Entry is a boot entry as systemd-boot sees it.
type Entry struct {
	Name     string // of the file in /EFI/Linux
	Version  string
	RootHash [32]byte
	// Left and Done are the counters of the name; Left is -1 where there is none.
	Left, Done int
	// Slot is the number of the root partition that belongs to it.
	Slot int

	sortKey string
	image   image
	file    *fatFile
}

// Counting reports whether the boot loader counts the entry's tries.
func (e *Entry) Counting() bool { return e.Left >= 0 }

// parseTries reads the counters of NAME+LEFT[-DONE].efi.
func parseTries(name string) (left, done int) {
	stem := name[:len(name)-len(".efi")]
	plus := strings.LastIndexByte(stem, '+')
	if plus < 0 {
		return -1, -1
	}
	first, second, two := strings.Cut(stem[plus+1:], "-")
	left, ok := number(first)
	if !ok {
		return -1, -1
	}
	if two {
		if done, ok = number(second); !ok {
			return -1, -1
		}
	}
	return left, done
}

func number(text string) (int, bool) {
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err == nil && strings.TrimLeft(text, "0123456789") == ""
}

// compare is boot_entry_compare of systemd 257.
func compare(a, b *Entry) int {
	none := func(e *Entry) int { return btoi(e.Left == 0) }
	if r := cmp.Compare(none(a), none(b)); r != 0 {
		return r
	}
	if r := cmp.Compare(btoi(a.sortKey == ""), btoi(b.sortKey == "")); r != 0 {
		return r
	}
	if a.sortKey != "" && b.sortKey != "" {
		if r := strings.Compare(a.sortKey, b.sortKey); r != 0 {
			return r
		}
		// A UKI has no machine id.
		if r := -compareVersions(a.Version, b.Version); r != 0 {
			return r
		}
	}
	if r := -compareVersions(strings.ToLower(a.Name), strings.ToLower(b.Name)); r != 0 {
		return r
	}
	if a.Left < 0 || b.Left < 0 {
		return 0
	}
	if r := -cmp.Compare(a.Left, b.Left); r != 0 {
		return r
	}
	return cmp.Compare(a.Done, b.Done)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// compareVersions is the order of the UAPI version format specification, systemd's strverscmp_improved.
func compareVersions(a, b string) int {
	for {
		a, b = skip(a), skip(b)
		// Before everything else, the end included.
		if r := sign(a, b, '~', -1); r != 0 {
			return r
		}
		if at(a) == '~' {
			a, b = a[1:], b[1:]
			continue
		}
		if a == "" || b == "" {
			return cmp.Compare(len(a), len(b))
		}
		matched := false
		for _, c := range []byte("-^.") {
			if r := sign(a, b, c, -1); r != 0 {
				return r
			}
			if a[0] == c {
				a, b, matched = a[1:], b[1:], true
				break
			}
		}
		if matched {
			continue
		}
		digits := isDigit(a[0]) || isDigit(b[0])
		n, m := run(a, digits), run(b, digits)
		x, y := a[:n], b[:m]
		if digits {
			// A number is newer than letters.
			if r := cmp.Compare(btoi(n > 0), btoi(m > 0)); r != 0 {
				return r
			}
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if r := cmp.Compare(len(x), len(y)); r != 0 {
				return r
			}
		}
		if r := strings.Compare(x, y); r != 0 {
			return r
		}
		a, b = a[n:], b[m:]
	}
}

func at(s string) byte {
	if s == "" {
		return 0
	}
	return s[0]
}

// sign compares by whether the next character is c: the one that has it comes first (-1).
func sign(a, b string, c byte, first int) int {
	return first * cmp.Compare(btoi(at(a) == c), btoi(at(b) == c))
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func skip(s string) string {
	for s != "" && !isDigit(s[0]) && !isLetter(s[0]) && !strings.ContainsRune("~-^.", rune(s[0])) {
		s = s[1:]
	}
	return s
}

func run(s string, digits bool) int {
	n := 0
	for n < len(s) && (digits && isDigit(s[n]) || !digits && isLetter(s[n])) {
		n++
	}
	return n
}
