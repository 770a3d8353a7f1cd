package client

import (
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
)

const maxToken = 1024 // bytes

// ReadToken reads a token from a file that nobody else can read.
func ReadToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.New(fault.Input, "token: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fault.New(fault.IO, "token: %w", err)
	}
	if mode := info.Mode(); !mode.IsRegular() || mode.Perm()&0o077 != 0 {
		return "", fault.New(fault.Input, "%s holds a token that others can read (mode %04o): run 'chmod 600 %s', and make a new token if somebody may have", path, mode.Perm(), path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return "", fault.New(fault.IO, "token: %w", err)
	}
	token := strings.TrimSpace(string(data))
	if token == "" || len(data) > maxToken || strings.IndexFunc(token, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsGraphic(r) || r == ' ' }) >= 0 {
		return "", fault.New(fault.Input, "%s does not hold a token", path)
	}
	return token, nil
}

// TokenID is the id of a token that is given whole, and else the text itself: addresses are in logs, and a secret does not belong into one.
func TokenID(text string) string {
	rest, whole := strings.CutPrefix(text, api.TokenPrefix)
	if !whole {
		return text
	}
	id, _, _ := strings.Cut(rest, "_")
	return id
}
