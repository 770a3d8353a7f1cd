package install

import (
	"sync"

	"github.com/semper-os/semper/updater/wire"
)

// marker remembers what Options.Marker was told last.
type marker struct {
	mu   sync.Mutex
	told bool
	last string // version; "": none waits
}

// mark tells whether an update waits for a reboot, if that is news. A process that was just started does not know what the one before it told.
func (c *Core) mark(p *wire.Pending) {
	if c.o.Marker == nil {
		return
	}
	version := ""
	if p != nil {
		version = p.Version
	}
	c.marker.mu.Lock()
	defer c.marker.mu.Unlock()
	if c.marker.told && c.marker.last == version {
		return
	}
	c.marker.told, c.marker.last = true, version
	c.o.Marker(p != nil, version)
}
