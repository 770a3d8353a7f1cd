package omaha

import (
	"strings"

	"github.com/semper-os/semper/fault"
)

const maxVersion = 64

// CheckVersion reports why s is no version that has a place in an order. A version has 1 to 64 characters, begins with a digit, and holds
// letters, digits and . ~ ^ - + only; "1.2.0", "1.2.0~rc1" and Flatcar's "9999.9.9+nightly-20240101" are versions. The order of two is
// bootentry.Compare's, as the boot loader and the agent have it: a server that saw it otherwise would offer what machines refuse.
// The error has the kind fault.Input.
func CheckVersion(s string) error {
	const allowed = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.~^-+"
	if s == "" || len(s) > maxVersion || s[0] < '0' || s[0] > '9' || strings.Trim(s, allowed) != "" {
		return fault.New(fault.Input, "%q is not a version such as 1.2.0", clip(s, maxVersion))
	}
	return nil
}

// clip shortens foreign text, at a character's border.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
