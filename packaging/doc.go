// Package packaging holds what goes into the update server's Debian package beside the program: its systemd unit, its settings, its maintainer scripts. scripts/deb puts
// it together.
package packaging
