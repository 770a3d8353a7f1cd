package agent

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

// applicationID is Semper's Omaha application, as 16 bytes.
var applicationID = [16]byte{0x5e, 0x3e, 0x2f, 0x0a, 0x9d, 0x1b, 0x4c, 0x58, 0x8f, 0x53, 0x7d, 0x1f, 0x0c, 0x6b, 0x7a, 0x11}

// MachineID derives the id by which the update server knows a machine, 32 hexadecimal digits, from the content of /etc/machine-id. machine-id(5) asks
// programs not to give that one to the network, since everything on the machine uses it. This is systemd's way to derive another one that stays the same
// (sd_id128_get_machine_app_specific): HMAC-SHA256 of the application's id with the machine id as the key, cut to 128 bits and made a version 4 UUID.
// On a machine, this prints the same:
//
//	systemd-id128 machine-id --app-specific=5e3e2f0a-9d1b-4c58-8f53-7d1f0c6b7a11
func MachineID(etcMachineID string) (string, error) {
	text := strings.TrimSpace(etcMachineID)
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != 16 {
		return "", fault.New(fault.Input, "/etc/machine-id: %.40q is not 32 hexadecimal digits", text)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(applicationID[:])
	id := mac.Sum(nil)[:16]
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return hex.EncodeToString(id), nil
}

// maxPlatform is how many characters the server is told of what the firmware says.
const maxPlatform = 80

// Platform names the machine's vendor and product from the contents of sys_vendor and product_name in /sys/class/dmi/id: their printable ASCII, with single
// blanks and the vendor named once, at most 80 characters. The firmware says there what it likes; what it says nothing in is empty.
func Platform(vendor, product string) string {
	vendor, product = plain(vendor), plain(product)
	text := product
	if !strings.HasPrefix(strings.ToLower(product), strings.ToLower(vendor)) {
		text = plain(vendor + " " + product)
	}
	return strings.TrimSpace(text[:min(len(text), maxPlatform)])
}

func plain(s string) string {
	printable := strings.Map(func(r rune) rune {
		switch {
		case r > ' ' && r <= '~':
			return r
		case r == ' ', r == '\t', r == '\n':
			return ' '
		default:
			return -1
		}
	}, s)
	return strings.Join(strings.Fields(printable), " ")
}

// SystemClock is the real time.
type SystemClock struct{}

// Now implements Clock.
func (SystemClock) Now() time.Time { return time.Now() }

// Sleep implements Clock.
func (SystemClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
