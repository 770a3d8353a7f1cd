package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/progress"
)

func newBackupCommand() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:   "backup FOLDER --data DIR",
		Short: "Copy a server's data, while it runs or not",
		Long: "The folder must not exist, or be empty. It gets the database as it is at one moment and every payload that it speaks of, hashed on the way, and appears only when it is\n" +
			"complete and on disk. It is a data folder itself: what can be read in it is what a server could serve.",
		Args: args(1),
		RunE: func(c *cobra.Command, given []string) error {
			if data == "" {
				return fault.New(fault.Usage, "name the server's data folder with --data DIR")
			}
			return copyData(c, data, given[0])
		},
	}
	c.Flags().StringVar(&data, "data", "", "the server's data folder")
	return c
}

func newRestoreCommand() *cobra.Command {
	var data string
	c := &cobra.Command{
		Use:   "restore BACKUP --data DIR",
		Short: "Make a data folder of a backup",
		Long:  "The data folder must not exist, or be empty. Database and payloads are checked on the way, and it appears only when it is complete and on disk.",
		Args:  args(1),
		RunE: func(c *cobra.Command, given []string) error {
			if data == "" {
				return fault.New(fault.Usage, "name the new data folder with --data DIR")
			}
			return copyData(c, given[0], data)
		},
	}
	c.Flags().StringVar(&data, "data", "", "the new data folder")
	return c
}

func copyData(c *cobra.Command, from, to string) error {
	out, err := server.Copy(c.Context(), from, to, os.Stderr)
	if err != nil {
		return err
	}
	return show(c, out, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: the database and %d payloads, %s\n", out.Folder, out.Payloads, progress.Size(out.Bytes))
		return err
	})
}
