package modules

import "strings"

// Match reports whether a modalias fits a pattern of modules.alias, as fnmatch(3) without flags would: * is any text, ? any byte, [a-c] a class that
// ! negates, and a backslash takes a special byte's meaning away. A pattern that ends within a class or in a backslash matches nothing.
//
// The time is bounded by len(pattern)·len(s): only the last star is ever tried again.
func Match(pattern, s string) bool {
	p, i := 0, 0
	star, retry := -1, 0 // where to go on when the text behind the last star does not fit
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, retry = p, i
			p++
			continue
		}
		if next, ok := matchOne(pattern[p:], s[i]); ok {
			p += next
			i++
			continue
		}
		if star < 0 {
			return false
		}
		retry++
		p, i = star+1, retry
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne matches one byte with the first element of a pattern, and returns that element's length.
func matchOne(p string, c byte) (length int, ok bool) {
	if p == "" {
		return 0, false
	}
	switch p[0] {
	case '?':
		return 1, true
	case '[':
		return matchClass(p, c)
	case '\\':
		return 2, len(p) > 1 && p[1] == c
	default:
		return 1, p[0] == c
	}
}

// matchClass matches a byte with a class such as [0-9a-f] or [!x]. A ] that comes first is an ordinary member.
func matchClass(p string, c byte) (length int, ok bool) {
	i := 1
	not := i < len(p) && (p[i] == '!' || p[i] == '^')
	if not {
		i++
	}
	for first := true; i < len(p); first = false {
		if p[i] == ']' && !first {
			return i + 1, ok != not
		}
		low := p[i]
		high := low
		if i+2 < len(p) && p[i+1] == '-' && p[i+2] != ']' {
			high = p[i+2]
			i += 2
		}
		ok = ok || low <= c && c <= high
		i++
	}
	return 0, false
}

// ForDevice returns the names of the modules that a device with this modalias asks for, in the order of the index.
func (x *Index) ForDevice(modalias string) []string {
	var names []string
	for _, a := range x.Aliases {
		if n := len(names); n > 0 && names[n-1] == a.Module {
			continue
		}
		if Match(a.Pattern, modalias) {
			names = append(names, a.Module)
		}
	}
	return names
}
