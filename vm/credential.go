package vm

import (
	"encoding/base64"
	"net/url"
	"strings"

	"github.com/semper-os/semper/fault"
)

// Credential is a systemd credential for the guest: a named secret or setting, read by PID 1 from the SMBIOS tables.
type Credential struct {
	Name  string // a file name: letters, digits, dots, dashes and underscores
	Value []byte
}

// An SMBIOS structure's strings share 64 KiB; ask for less, since the credentials share them too.
const maxCredentials = 32 << 10

// ParseCredential reads "NAME=VALUE" as given on a command line.
func ParseCredential(s string) (Credential, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok {
		return Credential{}, fault.New(fault.Usage, "credential %q is not NAME=VALUE", s)
	}
	c := Credential{Name: name, Value: []byte(value)}
	return c, c.check()
}

func (c Credential) check() error {
	if c.Name == "" || c.Name == "." || c.Name == ".." || len(c.Name) > 255 {
		return fault.New(fault.Usage, "credential name %q is not a file name of 1 to 255 characters", c.Name)
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@"
	if i := strings.IndexFunc(c.Name, func(r rune) bool { return !strings.ContainsRune(letters, r) }); i >= 0 {
		return fault.New(fault.Usage, "credential name %q holds the character %q", c.Name, []rune(c.Name[i:])[0])
	}
	return nil
}

// oemString returns the credential's SMBIOS string. Plain text stays readable; anything else goes as base64, since a
// string of SMBIOS ends at a NUL and is meant to be printable.
func (c Credential) oemString() string {
	for _, b := range c.Value {
		if b < 0x20 || b > 0x7e {
			return "io.systemd.credential.binary:" + c.Name + "=" + base64.StdEncoding.EncodeToString(c.Value)
		}
	}
	return "io.systemd.credential:" + c.Name + "=" + string(c.Value)
}

func smbiosArgs(credentials []Credential) ([]string, error) {
	var args []string
	total := 0
	for _, c := range credentials {
		if err := c.check(); err != nil {
			return nil, err
		}
		s := c.oemString()
		if total += len(s) + 1; total > maxCredentials {
			return nil, fault.New(fault.Input, "the credentials are larger than %d bytes together", maxCredentials)
		}
		args = append(args, "-smbios", "type=11,value="+escape(s))
	}
	return args, nil
}

// GuestURL returns the URL under which the guest reaches what the host calls raw: the host's own loopback is 10.0.2.2 in the guest.
// Changed tells whether it had to be rewritten.
func GuestURL(raw string) (guest string, changed bool, err error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return "", false, fault.New(fault.Usage, "server %q is not an http or https URL", raw)
	}
	switch u.Hostname() {
	case "localhost", "127.0.0.1", "::1":
	default:
		return raw, false, nil
	}
	host := "10.0.2.2"
	if p := u.Port(); p != "" {
		host += ":" + p
	}
	u.Host = host
	return u.String(), true, nil
}

// escape protects commas in a value of QEMU's option syntax.
func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
