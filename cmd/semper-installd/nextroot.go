package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/updater/install"
)

// nextRootCommand is the last service of a soft-reboot.
func nextRootCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "next-root",
		Short: "Verify and mount what the soft-reboot that is under way leads to",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			trust, err := install.LoadTrust("/")
			if err != nil {
				return err
			}
			err = initramfs.PrepareNextRoot(trust.Verity, func(format string, args ...any) { slog.Info(fmt.Sprintf(format, args...)) })
			if err != nil {
				return fmt.Errorf("no soft-reboot, so a full reboot follows: %w", err)
			}
			return nil
		},
	}
}
