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
	var from server.Place
	c := &cobra.Command{
		Use:   "backup FOLDER --data DIR",
		Short: "Copy a server's data, while it runs or not",
		Long: "The folder must not exist, or be empty. It gets the database as it is at one moment and every payload that it speaks of, hashed on the way, and appears only when it is\n" +
			"complete and on disk. It is a data folder itself, with the database in it whatever the server's is: what can be read in it is what a server could serve. It is made where the\n" +
			"server's data is, not by way of a running server.",
		Args: args(1),
		RunE: func(c *cobra.Command, given []string) error { return copyData(c, from, server.Place{Dir: given[0]}) },
	}
	placeFlags(c, &from, "the server's data folder")
	return c
}

func newRestoreCommand() *cobra.Command {
	var to server.Place
	c := &cobra.Command{
		Use:   "restore BACKUP --data DIR",
		Short: "Make a data folder of a backup",
		Long: "The data folder must not exist, or be empty, and so must the database be where one is named. Database and payloads are checked on the way, and the folder appears only when\n" +
			"all is complete and on disk. A server moves from SQLite to PostgreSQL, or back, by way of a backup. It is done where the server's data is to be.",
		Args: args(1),
		RunE: func(c *cobra.Command, given []string) error { return copyData(c, server.Place{Dir: given[0]}, to) },
	}
	placeFlags(c, &to, "the new data folder")
	return c
}

func placeFlags(c *cobra.Command, p *server.Place, what string) {
	c.Flags().StringVar(&p.Dir, "data", "", what)
	databaseFlag(c.Flags(), &p.Database)
	payloadFlags(c.Flags(), &p.Payloads)
}

func copyData(c *cobra.Command, from, to server.Place) error {
	if from.Dir == "" || to.Dir == "" {
		return fault.New(fault.Usage, "name the data folder with --data DIR")
	}
	out, err := server.Copy(c.Context(), from, to, os.Stderr)
	if err != nil {
		return err
	}
	return show(c, out, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: the database and %d payloads, %s\n", out.Folder, out.Payloads, progress.Size(out.Bytes))
		return err
	})
}
