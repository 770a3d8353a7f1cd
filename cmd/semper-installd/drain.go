package main

import (
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/drain"
	"github.com/semper-os/semper/updater/durable"
)

// drainCommand is the other service that this program is: outside of the sandbox, for hooks that do anything.
func drainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "drain",
		Short: "Call the drain hooks for the installer, on the socket that systemd passes in",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			listeners, err := activation.Listeners()
			if err != nil || len(listeners) != 1 || listeners[0] == nil {
				return fault.New(fault.Usage, "want exactly one socket from systemd, got %d (%v)", len(listeners), err)
			}
			state, err := durable.MakeDir(drain.StatePath, 0o700)
			if err != nil {
				return err
			}
			defer func() { _ = state.Close() }()
			if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
				slog.Warn("notify systemd", "error", err)
			}
			return drain.Serve(c.Context(), listeners[0], drain.Options{
				Root: "/", State: state, Allowed: []uint32{0}, Idle: idle, Now: time.Now, Log: slog.Default(),
			})
		},
	}
}
