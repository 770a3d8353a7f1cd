package fat

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const maxNameUnits = 255 // UTF-16 units, which are characters here: see checkName

// checkName reports why a file cannot have a name. Characters beyond U+FFFF are refused although FAT could store them:
// firmware and most tools cannot name them.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("an empty name")
	case name == "." || name == "..":
		return fmt.Errorf("the name %q has a meaning of its own", name)
	case !utf8.ValidString(name):
		return fmt.Errorf("the name %q is not UTF-8", name)
	case utf8.RuneCountInString(name) > maxNameUnits:
		return fmt.Errorf("the name %.40q… is longer than %d characters", name, maxNameUnits)
	case strings.HasSuffix(name, " ") || strings.HasSuffix(name, ".") || strings.HasPrefix(name, " "):
		return fmt.Errorf("the name %q begins with a space, or ends with a space or dot", name)
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r > 0xffff || strings.ContainsRune(`"*/:<>?\|`, r) {
			return fmt.Errorf("the name %q holds %q, which FAT does not allow", name, r)
		}
	}
	return nil
}

// foldName returns the form by which two names are the same.
func foldName(name string) string {
	return strings.Map(func(r rune) rune { return unicode.ToLower(unicode.ToUpper(r)) }, name)
}

// giveShortNames names the entries of one folder, sorted by name. A name of at most 8 and 3 upper-case characters stands for
// itself. All others get a long name, and a short one for old readers: the same in upper case where that fits, else cut off
// and numbered.
func giveShortNames(nodes []*node) error {
	taken := make(map[[11]byte]bool)
	var numbered []*node
	for _, n := range nodes {
		short, fits := shortName(n.name)
		if !fits || taken[short] {
			numbered = append(numbered, n)
			continue
		}
		taken[short] = true
		n.short = short
		if n.name != displayed(short) {
			n.long = utf16.Encode([]rune(n.name))
		}
	}
	for _, n := range numbered {
		base, _ := shortName(n.name)
		for i := 1; ; i++ {
			if i > 999999 {
				return fmt.Errorf("too many names like %q", n.name)
			}
			short, tail := base, fmt.Sprintf("~%d", i)
			length := min(len(strings.TrimRight(string(base[:8]), " ")), 8-len(tail))
			copy(short[:8], pad(string(base[:length])+tail, 8))
			if !taken[short] {
				taken[short] = true
				n.short = short
				break
			}
		}
		n.long = utf16.Encode([]rune(n.name))
	}
	return nil
}

// shortName returns a name's short form, and whether it is the whole name, upper and lower case apart.
func shortName(name string) (short [11]byte, fits bool) {
	fits = true
	clean := func(s string, room int) string {
		var b strings.Builder
		for _, r := range s {
			switch {
			case r == ' ' || r == '.':
				fits = false
				continue
			case r >= 'a' && r <= 'z':
				r -= 'a' - 'A'
			case r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("!#$%&'()-@^_`{}~", r):
			default:
				fits, r = false, '_'
			}
			if b.Len() == room {
				fits = false
				break
			}
			b.WriteRune(r)
		}
		return b.String()
	}
	stem, extension := name, ""
	if dot := strings.LastIndexByte(name, '.'); dot > 0 && strings.Trim(name[:dot], ".") != "" {
		stem, extension = name[:dot], name[dot+1:]
	}
	a, b := clean(stem, 8), clean(extension, 3)
	if a == "" {
		a, fits = "_", false
	}
	copy(short[:8], pad(a, 8))
	copy(short[8:], pad(b, 3))
	return short, fits
}

// displayed returns how a reader without long names shows a short one.
func displayed(short [11]byte) string {
	name := strings.TrimRight(string(short[:8]), " ")
	if extension := strings.TrimRight(string(short[8:]), " "); extension != "" {
		name += "." + extension
	}
	return name
}

func pad(s string, n int) string { return s + strings.Repeat(" ", n-len(s)) }
