package gpt

import (
	"encoding/hex"
	"fmt"

	"github.com/semper-os/semper/fault"
)

// GUID is a GUID or UUID, its bytes in the order of its text form. On disk the first three fields are little-endian; only
// this package sees that form.
type GUID [16]byte

// ParseGUID reads the usual form of 36 characters, in either case.
func ParseGUID(s string) (GUID, error) {
	var g GUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return GUID{}, fault.New(fault.Input, "GUID %q: want 8-4-4-4-12 hexadecimal digits", s)
	}
	digits := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(g[:], []byte(digits)); err != nil {
		return GUID{}, fault.New(fault.Input, "GUID %q: want 8-4-4-4-12 hexadecimal digits", s)
	}
	return g, nil
}

// mustGUID is ParseGUID for the constants of this package.
func mustGUID(s string) GUID {
	g, err := ParseGUID(s)
	if err != nil {
		panic(err)
	}
	return g
}

// String returns the usual form of 36 lower-case characters, as in /dev/disk/by-partuuid.
func (g GUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", g[0:4], g[4:6], g[6:8], g[8:10], g[10:16])
}

// IsZero reports whether g is all zero, which as a partition type means an unused entry.
func (g GUID) IsZero() bool { return g == GUID{} }

// MarshalText makes a GUID a string in JSON.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText is the reverse of MarshalText.
func (g *GUID) UnmarshalText(text []byte) error {
	v, err := ParseGUID(string(text))
	if err != nil {
		return err
	}
	*g = v
	return nil
}

// swapped exchanges the text and the disk form; it is its own reverse.
func (g GUID) swapped() GUID {
	return GUID{g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]}
}
