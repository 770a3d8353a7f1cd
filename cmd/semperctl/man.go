package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/semper-os/semper/fault"
)

// manCommand writes the manual pages. It is for whoever builds an image, and not in the list of verbs.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write the manual pages into a folder",
		Hidden: true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fault.New(fault.Usage, "%s wants a folder", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fault.Wrap(fault.IO, err)
			}
			root := c.Root()
			root.DisableAutoGenTag = true
			epoch := time.Unix(0, 0).UTC() // pages are the same whenever they are written
			if err := doc.GenManTree(root, &doc.GenManHeader{Title: "SEMPERCTL", Section: "8", Source: "Semper", Manual: "Semper", Date: &epoch}, args[0]); err != nil {
				return fault.New(fault.IO, "manual pages: %w", err)
			}
			return nil
		},
	}
}
