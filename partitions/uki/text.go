package uki

import (
	"strings"

	"github.com/semper-os/semper/fault"
)

// checkCmdline refuses what the kernel or systemd-stub would not take as it stands.
func checkCmdline(line string) error {
	if line == "" {
		return fault.New(fault.Input, "the kernel command line is empty")
	}
	if len(line) > MaxCmdline {
		return fault.New(fault.Input, "the kernel command line has %d bytes, the kernel takes %d", len(line), MaxCmdline)
	}
	for i := range len(line) {
		if c := line[i]; c < ' ' || c > '~' {
			return fault.New(fault.Input, "the kernel command line holds the byte %#02x at position %d", c, i)
		}
	}
	return nil
}

// cmdlineValues returns the value of each key= on a command line. As in the kernel, double quotes keep white space together
// and are not part of the value.
func cmdlineValues(line, key string) []string {
	var values []string
	var word strings.Builder
	quoted := false
	end := func() {
		if v, ok := strings.CutPrefix(word.String(), key+"="); ok {
			values = append(values, v)
		}
		word.Reset()
	}
	for i := range len(line) {
		switch c := line[i]; {
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			end()
		default:
			word.WriteByte(c)
		}
	}
	end()
	return values
}

// parseOSRelease reads os-release(5): lines of NAME=value, where a value may be quoted as in a shell. Trailing NULs are ignored.
func parseOSRelease(b []byte) (map[string]string, error) {
	fields := map[string]string{}
	for n, line := range strings.Split(strings.TrimRight(string(b), "\x00"), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || !isFieldName(key) {
			return nil, fault.New(fault.Input, "line %d of os-release is not NAME=value: %.80q", n+1, line)
		}
		value, ok = unquote(value)
		if !ok {
			return nil, fault.New(fault.Input, "line %d of os-release has a wrongly quoted value: %.80q", n+1, line)
		}
		if _, twice := fields[key]; twice {
			return nil, fault.New(fault.Input, "line %d of os-release sets %s again", n+1, key)
		}
		fields[key] = value
	}
	return fields, nil
}

func isFieldName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if letter, digit := c >= 'A' && c <= 'Z' || c == '_', c >= '0' && c <= '9'; !letter && (!digit || i == 0) {
			return false
		}
	}
	return s != ""
}

// unquote takes the shell quoting off one value. What a shell would expand or run ($, backquotes) is refused outside of single quotes.
func unquote(s string) (string, bool) {
	var out strings.Builder
	for i := 0; i < len(s); {
		switch c := s[i]; c {
		case '\'':
			end := strings.IndexByte(s[i+1:], '\'')
			if end < 0 {
				return "", false
			}
			out.WriteString(s[i+1 : i+1+end])
			i += end + 2
		case '"':
			for i++; ; i++ {
				if i >= len(s) || s[i] == '$' || s[i] == '`' {
					return "", false
				}
				if s[i] == '"' {
					break
				}
				if s[i] == '\\' && i+1 < len(s) && strings.IndexByte("\"\\$`", s[i+1]) >= 0 {
					i++
				}
				out.WriteByte(s[i])
			}
			i++
		case '\\':
			if i+1 >= len(s) {
				return "", false
			}
			out.WriteByte(s[i+1])
			i += 2
		case ' ', '\t', '$', '`', ';', '&', '|', '<', '>', '(', ')':
			return "", false
		default:
			if c < ' ' || c == 0x7f {
				return "", false
			}
			out.WriteByte(c)
			i++
		}
	}
	return out.String(), true
}
