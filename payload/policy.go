package payload

import "github.com/semper-os/semper/partitions/bootentry"

// Policy is what a running machine accepts: its own product, nothing older than itself.
type Policy struct {
	Running Image // what runs now; its MinVersion is not used
	// Downgrade is the one older version that is accepted nevertheless, because somebody who may say so asked for it; "": none. Its epoch must be the
	// running one.
	Downgrade string
}

// Check refuses a payload that is for another product or architecture, not newer than what runs, of an older epoch, or too far ahead of
// what runs to be installed directly. A higher epoch does not excuse an older version: the boot loader goes by the version alone, so versions
// are compared as it does.
func (p Policy) Check(m *Manifest) error {
	offered := m.Image
	switch {
	case offered.ID != p.Running.ID:
		return refuse(WrongImage, "the payload is for image %q, this machine runs %q", offered.ID, p.Running.ID)
	case offered.Architecture != p.Running.Architecture:
		return refuse(WrongImage, "the payload is for architecture %q, this machine is %q", offered.Architecture, p.Running.Architecture)
	case offered.Epoch < p.Running.Epoch:
		return refuse(OldVersion, "version %s is of epoch %d, this machine is at epoch %d", offered.Version, offered.Epoch, p.Running.Epoch)
	case p.downgrade(offered.Version) && offered.Epoch != p.Running.Epoch:
		return refuse(OldVersion, "version %s is of epoch %d, a downgrade has to keep epoch %d", offered.Version, offered.Epoch, p.Running.Epoch)
	case p.downgrade(offered.Version): // asked for
	case bootentry.Compare(offered.Version, p.Running.Version) <= 0:
		return refuse(OldVersion, "version %s is not newer than %s, which runs here", offered.Version, p.Running.Version)
	}
	if offered.MinVersion != "" && bootentry.Compare(p.Running.Version, offered.MinVersion) < 0 {
		return refuse(TooFar, "version %s can only be installed from %s or newer, this machine runs %s", offered.Version, offered.MinVersion, p.Running.Version)
	}
	return nil
}

// downgrade reports whether version is the older one that was asked for.
func (p Policy) downgrade(version string) bool {
	return p.Downgrade != "" && version == p.Downgrade && bootentry.Compare(version, p.Running.Version) < 0
}

// AcceptAny accepts every signed payload. It is for work on image files, where nothing runs that could be older or newer.
func AcceptAny(*Manifest) error { return nil }
