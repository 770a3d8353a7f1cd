package bootentry

import (
	"cmp"
	"strings"

	"github.com/semper-os/semper/fault"
)

const maxVersion = 64

// CheckVersion reports why a version cannot be part of an entry's name: the characters are those of the Version Format
// Specification (letters, digits and . ~ ^ -), it begins and ends with a letter or digit, and it has 1 to 64 of them. A
// plus sign would read as a boot counter, an underscore as the end of the image's name.
func CheckVersion(version string) error {
	if version == "" || len(version) > maxVersion {
		return fault.New(fault.Input, "version %q: want 1 to %d characters", version, maxVersion)
	}
	for i := range len(version) {
		c := version[i]
		if !isVersionChar(c) {
			return fault.New(fault.Input, "version %q: %q is not allowed, only letters, digits and . ~ ^ -", version, c)
		}
		if (i == 0 || i == len(version)-1) && !isDigit(c) && !isAlpha(c) {
			return fault.New(fault.Input, "version %q: must begin and end with a letter or digit", version)
		}
	}
	return nil
}

// Compare compares two versions by the Version Format Specification: negative where a is older than b, 0 where they are
// equal ("1.02" and "1.2" are), positive where a is newer.
func Compare(a, b string) int {
	for {
		a, b = skipSeparators(a), skipSeparators(b)
		if r := marker('~', &a, &b); r != 0 {
			return r // the one with a tilde is a pre-release, even of a version that ends here
		}
		if a == "" || b == "" {
			return cmp.Compare(len(a), len(b))
		}
		for _, m := range []byte("-^.") {
			if r := marker(m, &a, &b); r != 0 {
				return r
			}
		}
		var x, y string
		if startsWith(a, isDigit) || startsWith(b, isDigit) {
			x, a = span(a, isDigit)
			y, b = span(b, isDigit)
			if r := compareNumbers(x, y); r != 0 {
				return r
			}
			continue
		}
		x, a = span(a, isAlpha)
		y, b = span(b, isAlpha)
		if r := strings.Compare(x, y); r != 0 {
			return r
		}
	}
}

// marker compares by a separator at the front: the version that has it is the older one. Where both have it, it is dropped.
func marker(m byte, a, b *string) int {
	ina, inb := strings.HasPrefix(*a, string(m)), strings.HasPrefix(*b, string(m))
	switch {
	case ina && inb:
		*a, *b = (*a)[1:], (*b)[1:]
		return 0
	case ina:
		return -1
	case inb:
		return 1
	default:
		return 0
	}
}

// compareNumbers compares decimal numbers of any length; none at all is less than any.
func compareNumbers(a, b string) int {
	if (a == "") != (b == "") {
		return cmp.Compare(len(a), len(b))
	}
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if r := cmp.Compare(len(a), len(b)); r != 0 {
		return r
	}
	return strings.Compare(a, b)
}

func skipSeparators(s string) string {
	for s != "" && !isVersionChar(s[0]) {
		s = s[1:]
	}
	return s
}

func span(s string, is func(byte) bool) (head, tail string) {
	i := 0
	for i < len(s) && is(s[i]) {
		i++
	}
	return s[:i], s[i:]
}

func startsWith(s string, is func(byte) bool) bool { return s != "" && is(s[0]) }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isAlpha(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func isVersionChar(c byte) bool {
	return isDigit(c) || isAlpha(c) || c == '~' || c == '-' || c == '^' || c == '.'
}
