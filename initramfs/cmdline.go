package initramfs

import (
	"strings"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/initramfs/modules"
	"github.com/semper-os/semper/partitions/verity"
)

const maxCmdline = 64 << 10

// Cmdline is what the kernel's command line says to semper-init. All that it does not know belongs to the kernel or to systemd.
type Cmdline struct {
	RootHash verity.RootHash
	Debug    bool              // semper.debug: print every step
	Params   map[string]string // of modules, by name: "nvme_core.io_timeout=30" gives "io_timeout=30" for nvme_core
}

// ParseCmdline reads /proc/cmdline. Exactly one root hash must be there: two that differ are refused, because one of them is not the signed one.
// Errors are of kind Input.
func ParseCmdline(s string) (Cmdline, error) {
	if len(s) > maxCmdline {
		return Cmdline{}, fault.New(fault.Input, "kernel command line: %d bytes, at most %d are allowed", len(s), maxCmdline)
	}
	c := Cmdline{Params: map[string]string{}}
	var hash string
	for _, word := range words(s) {
		if word == "--" {
			break // the rest is for init
		}
		key, value, _ := strings.Cut(word, "=")
		switch module, param, ok := strings.Cut(key, "."); {
		case key == "roothash":
			if hash != "" && hash != value {
				return Cmdline{}, fault.New(fault.Input, "kernel command line: two different values of roothash=")
			}
			h, err := verity.ParseRootHash(value)
			if err != nil {
				return Cmdline{}, fault.New(fault.Input, "kernel command line: %w", err)
			}
			hash, c.RootHash = value, h
		case key == "semper.debug":
			c.Debug = true
		case ok && module != "" && param != "":
			name := modules.Name(module)
			c.Params[name] = strings.TrimPrefix(c.Params[name]+" "+word[len(module)+1:], " ")
		}
	}
	if hash == "" {
		return Cmdline{}, fault.New(fault.Input, "kernel command line: no roothash=")
	}
	return c, nil
}

// words splits a command line as the kernel does: at white space outside double quotes, which are taken away where they enclose a whole word or a value.
func words(s string) []string {
	var out []string
	var word strings.Builder
	quoted, any := false, false
	for _, c := range []byte(s) {
		switch {
		case c == '"':
			quoted, any = !quoted, true
		case !quoted && (c == ' ' || c == '\t' || c == '\n'):
			if any {
				out = append(out, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteByte(c)
			any = true
		}
	}
	if any {
		out = append(out, word.String())
	}
	return out
}
