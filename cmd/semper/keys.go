package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/builder/keys"
	"github.com/semper-os/semper/fault"
)

func newKeysCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "keys",
		Short: "Make the keys that sign an image and its updates",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newKeysNewCommand())
	return c
}

func newKeysNewCommand() *cobra.Command {
	var out, name string
	c := &cobra.Command{
		Use:   "new --out DIR",
		Short: "Make a new set of keys in a new folder",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if out == "" {
				return fault.New(fault.Usage, "%s needs --out DIR, the folder to make", c.CommandPath())
			}
			made, err := keys.New(c.Context(), out, keys.Options{Name: name, Now: time.Now(), Rand: rand.Reader})
			if err != nil {
				return err
			}
			if asJSON, _ := c.Flags().GetBool("json"); asJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(map[string]any{"dir": out, "files": made})
			}
			w := tabwriter.NewWriter(c.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, f := range made {
				guard := ""
				if f.Secret {
					guard = "SECRET"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\n", f.Path, guard, f.About)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			_, err = fmt.Fprint(c.OutOrStdout(), `
Guard the SECRET files: whoever has payload-1.key or payload-2.key can update your machines, whoever has secure-boot.key can boot
anything on them. Keep a copy offline: machines take updates from nobody else, so without a payload key they can never be updated again.
`)
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "the folder to make; it must not exist or be empty")
	c.Flags().StringVar(&name, "name", "Semper OS", "what the certificates are called")
	return c
}
