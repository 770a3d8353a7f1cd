package omaha

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/semper-os/semper/fault"
)

// Version is a version number that has an order: one to four numbers, then an optional pre-release and an optional build,
// "4081.2.0", "1.2.0-rc.1", "1.0.0+nightly-20240101". The order is Semantic Versioning 2.0.0's, with missing numbers read as zero;
// the build after the plus sign does not count.
type Version struct {
	numbers [4]uint64
	pre     []string
}

// ParseVersion reads a version of at most 64 characters. Its error has the kind fault.Input.
func ParseVersion(s string) (Version, error) {
	var v Version
	fail := func(why string) (Version, error) {
		return Version{}, fault.New(fault.Input, "version %q: %s", clip(s, 64), why)
	}
	if s == "" || len(s) > 64 {
		return fail("want 1 to 64 characters")
	}
	rest, build, hasBuild := strings.Cut(s, "+")
	if hasBuild && !identifiers(build) {
		return fail("what follows the plus sign may hold only letters, digits, dots and hyphens")
	}
	core, pre, hasPre := strings.Cut(rest, "-")
	if hasPre {
		if !identifiers(pre) {
			return fail("what follows the hyphen may hold only letters, digits, dots and hyphens")
		}
		v.pre = strings.Split(pre, ".")
	}
	numbers := strings.Split(core, ".")
	if len(numbers) > len(v.numbers) {
		return fail("more than four numbers")
	}
	for i, n := range numbers {
		if !digits(n) || len(n) > 1 && n[0] == '0' {
			return fail("want numbers with dots between them, such as 1.2.0")
		}
		x, err := strconv.ParseUint(n, 10, 63)
		if err != nil {
			return fail("a number is too large")
		}
		v.numbers[i] = x
	}
	return v, nil
}

// Compare returns -1 when v is older than w, 1 when it is newer, and 0 when the order does not tell them apart.
func (v Version) Compare(w Version) int {
	if c := slices.Compare(v.numbers[:], w.numbers[:]); c != 0 {
		return c
	}
	switch {
	case len(v.pre) == 0 && len(w.pre) == 0:
		return 0
	case len(v.pre) == 0:
		return 1 // a release is newer than its own pre-releases
	case len(w.pre) == 0:
		return -1
	}
	return slices.CompareFunc(v.pre, w.pre, comparePre)
}

func comparePre(a, b string) int {
	switch an, bn := digits(a), digits(b); {
	case an && bn: // numbers of any length, without leading zeros once trimmed
		a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	case an:
		return -1
	case bn:
		return 1
	}
	return strings.Compare(a, b)
}

func digits(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' }) < 0
}

// identifiers reports whether s is one or more identifiers of [0-9A-Za-z-], with dots between them.
func identifiers(s string) bool {
	for id := range strings.SplitSeq(s, ".") {
		if id == "" || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			return false
		}
	}
	return true
}

// clip shortens foreign text for an error message, at a character's border.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
