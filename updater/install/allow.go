package install

import (
	"errors"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

// allowedFor is how long root's word for an older version holds.
const allowedFor = time.Hour

// allowed is root's word that one older version may be installed once, in this boot.
type allowed struct {
	Version string    `json:"version"`
	From    string    `json:"from"` // the version that ran when it was given
	BootID  string    `json:"boot_id"`
	At      time.Time `json:"at"`
}

// Allow implements wire.Handler.
func (h *handler) Allow(version string) error {
	if h.uid != 0 {
		return wire.ErrNotRoot
	}
	return h.c.allow(version)
}

func (c *Core) allow(version string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(layout.CheckVersion(version), bootentry.CheckVersion(version)); err != nil {
		return fault.New(fault.Input, "allow: %w", err)
	}
	running := c.o.Machine.Image.Version
	if bootentry.Compare(version, running) >= 0 {
		return fault.New(fault.Input, "allow: version %s is not older than %s, which runs here", version, running)
	}
	s, err := c.open()
	if err != nil {
		return err
	}
	a := allowed{Version: version, From: running, BootID: c.o.Machine.BootID, At: c.now()}
	if err := durable.WriteJSON(s.State, allowedFile, a); err != nil {
		return err
	}
	c.o.Log.Warn("an older version may be installed once", "version", version, "running", running, "until", a.At.Add(allowedFor))
	return nil
}

// allowedVersion returns what Allow said, while it holds, and removes it once it does not. A record that cannot be read allows nothing.
func (c *Core) allowedVersion(s *Storage) (*wire.Allowed, error) {
	a, err := readRecord[allowed](s.State, allowedFile)
	if err == nil && a == nil {
		return nil, nil
	}
	if err != nil && !fault.Is(err, fault.Input) {
		return nil, err
	}
	if err == nil {
		age := c.now().Sub(a.At)
		if a.BootID == c.o.Machine.BootID && a.From == c.o.Machine.Image.Version && age >= 0 && age < allowedFor {
			return &wire.Allowed{Version: a.Version, Until: a.At.Add(allowedFor)}, nil
		}
	}
	return nil, removeFiles(s.State, allowedFile)
}
